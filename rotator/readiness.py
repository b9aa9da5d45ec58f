"""Readiness: every required output holds an unexpired access token, and nothing else counts (invariant 14).

And all of it in one line, for `systemctl status`.
"""

from collections.abc import Collection

from rotator.core.model import MINUTE, Fingerprinter
from rotator.core.schedule import refresh_due
from rotator.core.standing import NEED_A_PERSON, Standing, counted, span, standing_of
from rotator.credential import Credential

_IN_ORDER = (Standing.VALID, Standing.STARTING)


def is_ready(credential: Credential, now: float, *, follows: bool) -> bool:
    """Tell whether each required output holds an access token that is unexpired at `now`.

    `follows`: another replica owns the credential, so this one answers for its own outputs alone.
    """
    state = credential.state
    if state is None or state.tokens is None or not state.tokens.access_token:
        return False
    required = credential.plan.required
    if follows:
        shared = [sink.name for sink in credential.plan.sink_refs if sink.shared]
        required = tuple(name for name in required if name not in shared)
    if not required:
        return state.tokens.expires_at > now
    return all(state.delivery(name).expires_at > now for name in required)


def why_not_ready(credential: Credential, fingerprint: Fingerprinter, now: float) -> str:
    """Say in one line what a credential lacks, and the cure if a person must act."""
    shown = credential.view(fingerprint, now)
    if shown.standing in NEED_A_PERSON:
        why = f"{shown.text}; " if shown.text else ""
        return f"{credential.name}: {shown.standing}: {why}log in: rotator login {credential.name}"
    if shown.standing not in _IN_ORDER:
        return f"{credential.name}: {shown.standing}: {shown.text or shown.reason}"
    stuck = [output for output in shown.outputs if output.failures]
    return f"{credential.name}: {stuck[0].text}" if stuck else f"{credential.name}: no valid token yet"


def in_one_line(credentials: Collection[Credential], now: float) -> tuple[str, str]:
    """Return how they all stand, and which refresh is next: `3 credentials`, `next refresh home in 41 min`.

    The second is empty if none is due ever.
    """
    logins, failing, unsaved = [], [], []
    next_at, next_name = float("inf"), ""
    for credential in credentials:
        standing = _standing(credential)
        if standing in NEED_A_PERSON:
            logins.append(credential.name)
        elif standing not in _IN_ORDER or credential.save_problem is not None:
            failing.append(credential.name)
        if credential.only_in_memory:
            unsaved.append(credential.name)
        state, plan = credential.state, credential.plan
        # Never due later than its refresh: of a large fleet, few need be asked for that.
        sooner = credential.busy or credential.due_at < next_at
        if state is not None and standing not in NEED_A_PERSON and sooner:
            at = refresh_due(state, plan.policy, plan.grant, credential.spread, now).at
            if at < next_at:
                next_at, next_name = at, credential.name
    counts = [counted(len(credentials))]
    counts += _counted(logins, "needs a login", "need a login")
    counts += _counted(failing, "is failing", "are failing")
    counts += _counted(unsaved, "holds tokens that could not be saved", "hold tokens that could not be saved")
    return ", ".join(counts), f"next refresh {next_name} {_when(next_at - now)}" if next_name else ""


def _standing(credential: Credential) -> Standing:
    if credential.problem is not None:
        return Standing.STATE_UNREADABLE
    return Standing.STARTING if credential.state is None else standing_of(credential.state, credential.plan.grant)


def _counted(names: list[str], one: str, many: str) -> list[str]:
    if not names:
        return []
    return [f"1 {one} ({names[0]})" if len(names) == 1 else f"{len(names)} {many} ({names[0]}, …)"]


def _when(seconds: float) -> str:
    """Say when, no finer than to the minute."""
    if seconds < MINUTE:
        return "now" if seconds < 1 else "within a minute"
    return "in 1 min" if seconds < 2 * MINUTE else f"in {span(seconds)}"
