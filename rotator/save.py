"""Saving: memory moves with the store, or a step ahead of it and says so."""

import time
from dataclasses import replace
from typing import Final

from rotator.core.model import Reason
from rotator.core.state import CredentialState
from rotator.credential import Credential
from rotator.ports import Clock, Notice, Observer, Problem, SaveFinished, Store

SAVE_RETRY: Final = 0.9
"""Seconds between two tries to save what could not be saved (invariant 4): a little less than the second between two
sweeps, so that each sweep tries."""


class Saver:
    """Writes states. Memory is the truth while the process lives (invariant 4)."""

    def __init__(self, store: Store, clock: Clock, observer: Observer) -> None:
        """Take the ports."""
        self._store = store
        self._clock = clock
        self._observer = observer

    def save(
        self, credential: Credential, state: CredentialState, *, reserving: bool = False, holds_new_pair: bool = False
    ) -> bool:
        """Make a state durable and, unless it is only a reservation that failed, the one in memory. Lock held."""
        stamped = replace(state, saved_at=self._clock.now())
        started = time.monotonic()
        bug: Exception | None = None
        try:
            problem = self._store.save(credential.name, stamped)
        except Exception as error:  # noqa: BLE001 - memory must not lose what the server has handed out
            bug = error
            problem = Problem(
                Reason.SAVE_FAILED, f"the store failed by a bug: {type(error).__name__}; please report it"
            )
        seconds = time.monotonic() - started
        bug = None if problem == credential.save_problem else bug  # once, not each second
        credential.save_problem = problem
        kept = problem is None or problem.kept
        if kept:
            credential.durable_generation = stamped.generation
        if problem is None or not reserving:
            credential.state = stamped
            credential.unsaved = problem is not None
        at_stake = not kept and (holds_new_pair or credential.durable_generation < stamped.generation)
        if bug is not None and problem is not None:
            self._observer.notify(Notice("bug", problem.text, credential.name, "critical", {"exception": bug}))
        self._tell(SaveFinished(credential.name, problem, seconds, at_stake))
        return problem is None

    def _tell(self, finished: SaveFinished) -> None:
        self._observer.notify(finished)

    def has_lost(self, credential: Credential) -> bool:
        """Tell whether the stored state was removed behind our back: it counts as unsaved from now on."""
        if credential.unsaved or credential.state is None or not self._store.vanished(credential.name):
            return False
        with credential.lock:
            if not self._store.vanished(credential.name):
                return False  # just saved again
            credential.unsaved, credential.durable_generation = True, 0
        text = "the stored state was removed; what memory holds is saved again"
        self._observer.notify(Notice("state_removed", text, credential.name, "warning"))
        return True

    def save_unsaved(self, credential: Credential) -> bool:
        """Try once more to save what only memory holds; True if nothing is left unsaved."""
        self.has_lost(credential)
        with credential.lock:
            if credential.unsaved and credential.state is not None:
                self.save(credential, credential.state)
            return not credential.unsaved
