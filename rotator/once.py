"""The same line, once: refresh what is due, publish, end. For init containers and timers."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import Final

from rotator.assembly import Assembly
from rotator.core.model import Halt, Reason
from rotator.core.standing import NEED_A_PERSON
from rotator.credential import Credential
from rotator.ports import Notice
from rotator.readiness import is_ready, why_not_ready

_PATIENCE: Final = 60.0
_LONGEST_WAIT: Final = 5.0


class Exit(IntEnum):
    """How a run ended (sysexits)."""

    DONE = 0
    UNSAVED = 74  # EX_IOERR: a token set was lost with the process because it could not be saved
    TEMPORARY = 75  # EX_TEMPFAIL
    DEAD_GRANT = 77  # EX_NOPERM
    NEWER_STATE = 78  # EX_CONFIG: the wrong rotator is installed


_WITHOUT_A_STATE: Final = {Reason.STATE_DAMAGED: Exit.DEAD_GRANT, Reason.STATE_NEWER: Exit.NEWER_STATE}
"""What only a person mends; whatever else keeps a state from being read may pass."""


def run_once(credentials: Sequence[Credential], assembly: Assembly, side_by_side: int) -> Exit:
    """Do what is due for every credential.

    DONE: every credential has a valid token in its outputs, whether or not anything was due. TEMPORARY: try again.
    DEAD_GRANT: somebody must log in. NEWER_STATE: somebody must install the newer rotator again. UNSAVED: a new pair
    could not be saved.
    """
    with ThreadPoolExecutor(side_by_side) as pool:
        results = list(pool.map(lambda credential: _step_patiently(credential, assembly), credentials))
    for credential in credentials:
        assembly.rotator.save_unsaved(credential)
    lost = any(credential.only_in_memory for credential in credentials)
    return Exit.UNSAVED if lost else max(results, default=Exit.DONE)


def _step_patiently(credential: Credential, assembly: Assembly) -> Exit:
    result = _step_until_ready(credential, assembly)
    if result is not Exit.DONE:  # the failure itself may be of an earlier run, whose log is elsewhere
        why = why_not_ready(credential, assembly.fingerprint, assembly.clock.now())
        assembly.observer.notify(Notice("not_ready", why, credential.name, "error"))
    return result


def _step_until_ready(credential: Credential, assembly: Assembly) -> Exit:
    deadline = time.monotonic() + _PATIENCE
    while True:
        outcome = assembly.rotator.step(credential)
        if credential.view(assembly.fingerprint, assembly.clock.now()).standing in NEED_A_PERSON:
            return Exit.DEAD_GRANT
        if (problem := credential.problem) is not None and problem.reason in _WITHOUT_A_STATE:
            return _WITHOUT_A_STATE[problem.reason]
        if is_ready(credential, assembly.clock.now(), follows=assembly.rotator.follows(credential)):
            return Exit.DONE
        wait = 0.0 if isinstance(outcome, Halt) else outcome.until - assembly.clock.now()
        if isinstance(outcome, Halt) or wait > _LONGEST_WAIT or time.monotonic() + wait > deadline:
            return Exit.TEMPORARY
        if assembly.stopping.wait(max(0.05, wait)):
            return Exit.TEMPORARY
