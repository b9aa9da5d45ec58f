"""Readiness: every required output holds an unexpired access token, and nothing else counts (invariant 14)."""

from rotator.core.model import Fingerprinter
from rotator.core.standing import NEED_A_PERSON, Standing
from rotator.credential import Credential


def is_ready(credential: Credential, now: float) -> bool:
    """Tell whether each required output holds an access token that is unexpired at `now`."""
    state = credential.state
    if state is None or state.tokens is None or not state.tokens.access_token:
        return False
    required = credential.plan.required
    if not required:
        return state.tokens.expires_at > now
    return all(state.delivery(name).expires_at > now for name in required)


def why_not_ready(credential: Credential, fingerprint: Fingerprinter, now: float) -> str:
    """Say in one line what a credential lacks, and the cure if a person must act."""
    shown = credential.view(fingerprint, now)
    if shown.standing in NEED_A_PERSON:
        why = f"{shown.text}; " if shown.text else ""
        return f"{credential.name}: {shown.standing}: {why}log in: rotator login {credential.name}"
    if shown.standing not in (Standing.VALID, Standing.STARTING):
        return f"{credential.name}: {shown.standing}: {shown.text or shown.reason}"
    stuck = [output for output in shown.outputs if output.failures]
    return f"{credential.name}: {stuck[0].name}: {stuck[0].text}" if stuck else f"{credential.name}: no valid token yet"
