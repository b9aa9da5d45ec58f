"""How a credential stands, in one word and in full: what status, metrics and the page show. No secrets.

Exactly one standing holds at a time. It is derived, never stored.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from rotator.core.model import DAY, HOUR, MINUTE, Grant, Reason, RotationPolicy
from rotator.core.schedule import SinkRef, fuse_blown, refresh_due, spread_of
from rotator.core.state import CredentialState, Status


class Standing(StrEnum):
    """The state as one word."""

    VALID = "valid"
    RETRYING = "retrying"
    AMBIGUOUS = "ambiguous"
    REFUSED = "refused"
    SUSPECT = "suspect"
    REAUTHORIZATION_REQUIRED = "reauthorization_required"
    LOGIN_REQUIRED = "login_required"
    STATE_UNREADABLE = "state_unreadable"
    STARTING = "starting"


NEED_A_PERSON = (Standing.REAUTHORIZATION_REQUIRED, Standing.LOGIN_REQUIRED)

_REFUSALS = frozenset(
    {
        Reason.INVALID_CLIENT,
        Reason.UNAUTHORIZED_CLIENT,
        Reason.INVALID_REQUEST,
        Reason.INVALID_SCOPE,
        Reason.UNSUPPORTED_GRANT_TYPE,
        Reason.OTHER_REFUSAL,
        Reason.BAD_INPUT,
        Reason.REDIRECT,
    }
)


def standing_of(state: CredentialState, grant: Grant) -> Standing:
    """Derive the one word from the state."""
    if grant is Grant.REFRESH_TOKEN and (state.tokens is None or not state.tokens.refresh_token):
        return Standing.LOGIN_REQUIRED
    if state.status is Status.REAUTHORIZATION_REQUIRED:
        return Standing.REAUTHORIZATION_REQUIRED
    if state.status is Status.SUSPECT:
        return Standing.SUSPECT
    if state.trouble is not None:
        if state.trouble.ambiguous_at is not None:
            return Standing.AMBIGUOUS
        return Standing.REFUSED if state.trouble.reason in _REFUSALS else Standing.RETRYING
    if state.tokens is None or not state.tokens.access_token:
        return Standing.STARTING
    return Standing.VALID


_INSTANTS = (
    "issued_at",
    "expires_at",
    "refresh_issued_at",
    "refresh_expires_at",
    "refresh_life_began_at",
    "next_at",
    "last_attempt_at",
    "last_success_at",
)


@dataclass(frozen=True, slots=True)
class OutputView:
    """One output or hook as a person wants to see it."""

    name: str
    is_hook: bool
    current: bool
    generation: int
    delivered_at: float | None
    expires_at: float | None
    """When the access token it holds is over."""
    failures: int
    reason: str | None
    text: str


@dataclass(frozen=True, slots=True)
class CredentialView:
    """Everything shown of one credential. Instants are seconds since the epoch; None: unknown or not applicable."""

    name: str
    grant: str
    standing: str
    generation: int
    issued_at: float | None
    expires_at: float | None
    refresh_issued_at: float | None
    refresh_expires_at: float | None
    refresh_life_began_at: float | None
    """Since when the refresh token's end has been known: an end that refreshes do not move began with the login."""
    next_at: float | None
    next_why: str
    last_attempt_at: float | None
    last_success_at: float | None
    failures: int
    reason: str | None
    text: str
    clock_suspect: bool
    fuse_blown: bool
    refreshing: bool
    unsaved: bool
    access_token_fingerprint: str
    refresh_token_fingerprint: str
    outputs: tuple[OutputView, ...]
    save_failing: bool = False
    """The last attempt to save the state failed: no refresh is sent until one succeeds."""
    scope_changed: bool = False
    """The token set was granted another scope than the configuration asks for (case A19)."""
    held_by: str | None = None
    """Which other replica refreshes it (empty: none that is known); None: this process does."""


def view(
    name: str,
    state: CredentialState,
    policy: RotationPolicy,
    grant: Grant,
    sinks: tuple[SinkRef, ...],
    now: float,
    *,
    unsaved: bool,
    fingerprints: tuple[str, str],
) -> CredentialView:
    """Gather what there is to show of one credential."""
    tokens, trouble = state.tokens, state.trouble
    due = refresh_due(state, policy, grant, spread_of(name, state.generation), now)
    has_access = tokens is not None and bool(tokens.access_token)
    return CredentialView(
        name=name,
        grant=grant,
        standing=standing_of(state, grant),
        generation=state.generation,
        issued_at=tokens.obtained_at if tokens and has_access else None,
        expires_at=tokens.expires_at if tokens and has_access else None,
        refresh_issued_at=tokens.refresh_obtained_at if tokens and tokens.refresh_token else None,
        refresh_expires_at=tokens.refresh_expires_at if tokens and tokens.refresh_token else None,
        refresh_life_began_at=_life_began_at(state),
        next_at=None if due.at == float("inf") else due.at,
        next_why=due.why,
        last_attempt_at=state.last_attempt_at or None,
        last_success_at=state.last_success_at or None,
        failures=trouble.failures if trouble else 0,
        reason=trouble.reason if trouble else None,
        text=trouble.text if trouble else "",
        clock_suspect=state.clock_suspect,
        fuse_blown=fuse_blown(state, policy, now),
        refreshing=state.refresh_started_at is not None,
        unsaved=unsaved,
        access_token_fingerprint=fingerprints[0],
        refresh_token_fingerprint=fingerprints[1],
        outputs=tuple(_output(state, sink) for sink in sinks),
    )


def _life_began_at(state: CredentialState) -> float | None:
    tokens = state.tokens
    if tokens is None or not tokens.refresh_token or tokens.refresh_expires_at is None:
        return None
    return state.refresh_life_began_at or tokens.refresh_obtained_at


def _output(state: CredentialState, sink: SinkRef) -> OutputView:
    delivery = state.delivery(sink.name)
    return OutputView(
        name=sink.name,
        is_hook=sink.is_hook,
        current=state.generation > 0 and delivery.generation >= state.generation,
        generation=delivery.generation,
        delivered_at=delivery.at or None,
        expires_at=delivery.expires_at or None,
        failures=delivery.failures,
        reason=delivery.reason,
        text=delivery.text,
    )


def shifted(shown: CredentialView, seconds: float) -> CredentialView:
    """Return the view with every instant moved by `seconds`: from the daemon's timeline to the wall clock's."""
    if not seconds:
        return shown
    outputs = tuple(
        replace(
            output, delivered_at=_moved(output.delivered_at, seconds), expires_at=_moved(output.expires_at, seconds)
        )
        for output in shown.outputs
    )
    instants = {name: _moved(getattr(shown, name), seconds) for name in _INSTANTS}
    return replace(shown, outputs=outputs, **instants)  # type: ignore[arg-type] # all of them are instants


def _moved(instant: float | None, seconds: float) -> float | None:
    return None if instant is None else instant + seconds


def counted(number: int) -> str:
    """Count credentials for people: `1 credential`, `3 credentials`."""
    return f"{number} credential{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """Return a length of time in one unit, rounded down: what is left is never overstated."""
    seconds = max(0.0, seconds)
    for unit, name, up_to in ((1.0, "s", 2 * MINUTE), (MINUTE, "min", 2 * HOUR), (HOUR, "h", 2 * DAY)):
        if seconds < up_to:
            return f"{int(seconds / unit)} {name}"
    return f"{int(seconds / DAY)} days"
