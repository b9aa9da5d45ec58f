"""Everything that changes a credential's state lives here.

A credential holds a token set of some generation. A refresh is two transitions: `begin_refresh` leaves the
intent mark, one of the `after_*` takes it away. Between the two the request may have been carried out, so
a state that is loaded with its mark still set is an ambiguous failure (invariants 1 and 6).

    status    event                                   becomes
    -------   --------------------------------------  ------------------------------------------
    any       granted                                 ok, generation + 1
    any       login, changed seed                     ok, generation + 1
    ok        invalid_grant                           suspect (asked again after `confirm_after`)
    suspect   invalid_grant                           reauthorization_required (slow probe)
    ok        other refusals, `suspect_after` times   suspect (asked again every `refused_retry`)
    any       unavailable, undelivered                unchanged, back off
    any       unavailable, delivered                  unchanged, one replay, then near expiry only

Nothing here deletes a refresh token: the last few generations are kept (invariant 3). An answer to a request of
an older generation is late and changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from rotator.core.grant import judge
from rotator.core.model import (
    HOUR,
    EarlierToken,
    Grant,
    Granted,
    Oddity,
    Reason,
    Refused,
    RotationPolicy,
    TokenSet,
    Unavailable,
)

CLOCK_TOLERANCE: Final = 5.0
"""Seconds by which a saved instant may lie in the future before the clock is suspect (invariant 10)."""
_RECENT: Final = 4
_NEVER: Final = float("inf")
_UNREACHABLE: Final = frozenset({Reason.DNS, Reason.CONNECT, Reason.TLS, Reason.PROXY, Reason.LOCAL_RESOURCES})
_UNREACHABLE_RETRY: Final = 5.0  # a server that comes back is noticed within this time (case E21)
_REPLAY_WAIT: Final = 1.0
_HURRY: Final = 5.0  # shortest back-off while a valid token runs out
_NEARLY_OVER: Final = 120.0
_RETRY_AFTER_CAP: Final = 900.0
DEAD: Final = (Reason.INVALID_GRANT, Reason.TOKEN_REUSE)
"""Refusals that speak of the refresh token."""
_ANSWER_LOST: Final = "the answer to an earlier refresh was lost, and perhaps a new refresh token with it"
_DELIVERY_BACKOFF_MAX: Final = 60.0
_SAME_END: Final = 5.0  # seconds by which a fixed end may seem to move: lifetimes come rounded, and a second short


class Status(StrEnum):
    """What we believe of the grant."""

    OK = "ok"
    SUSPECT = "suspect"
    REAUTHORIZATION_REQUIRED = "reauthorization_required"


@dataclass(frozen=True, slots=True)
class Trouble:
    """The failures since the last success; absent when there are none."""

    failures: int
    reason: Reason
    text: str
    since_at: float
    retry_at: float
    refusals: int = 0
    """Refusals in a row, of any kind."""
    ambiguous_at: float | None = None
    """When the first request left whose fate is unknown; None if every fate is known."""
    replayed: bool = False
    asked_as: str = ""
    """Fingerprint of where and as whom was asked; empty if that had nothing to do with it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far one sink is."""

    generation: int
    at: float
    failures: int = 0
    retry_at: float = 0.0
    reason: Reason | None = None
    text: str = ""
    expires_at: float = 0.0
    """When the access token that the sink holds is over."""


NEVER_DELIVERED: Final = Delivery(0, 0.0)


@dataclass(frozen=True, slots=True)
class CredentialState:
    """All that is known of one credential; persisted whole, so a restart forgets nothing."""

    tokens: TokenSet | None = None
    earlier: tuple[EarlierToken, ...] = ()
    unjudged: Mapping[str, object] | None = field(default=None, repr=False)
    """Fields of the newest answer as they came, until `judged` has read them."""
    status: Status = Status.OK
    refresh_started_at: float | None = None
    trouble: Trouble | None = None
    last_attempt_at: float = 0.0
    last_success_at: float = 0.0
    recent: tuple[tuple[float, float], ...] = ()
    """(instant, lifetime) of the last refreshes that nobody asked for: the fuse of cases L9 to L11."""
    repeated: bool = False
    """The server answered with the access token we already had (case L10)."""
    logged_in_at: float = 0.0
    """When the last login or seed brought a refresh token; 0 if nobody knows."""
    refresh_life_began_at: float = 0.0
    refresh_life_ends_at: float = 0.0
    """The refresh token's life: a new token that ends when the one before did goes on with its life."""
    hour_started_at: float = 0.0
    hour_calls: int = 0
    deliveries: Mapping[str, Delivery] = field(default_factory=dict)
    seed_fingerprint: str = ""
    saved_at: float = 0.0
    clock_suspect: bool = False

    @property
    def generation(self) -> int:
        """Return the fencing number: 0 before the first token set."""
        return self.tokens.generation if self.tokens else 0

    def delivery(self, sink: str) -> Delivery:
        """Return how far a sink is; a sink never seen is at generation 0."""
        return self.deliveries.get(sink, NEVER_DELIVERED)


def opened(state: CredentialState, policy: RotationPolicy, now: float, spread: float) -> CredentialState:
    """Take up a state that was read from disk at instant `now`.

    A saved instant in the future means that one of the two clocks was wrong: every wait that was
    computed from it is void, and the credential is due at once. A mark that is still set is an ambiguous failure.
    """
    suspect = state.saved_at > now + CLOCK_TOLERANCE
    if suspect:
        deliveries = {name: replace(delivery, retry_at=0.0) for name, delivery in state.deliveries.items()}
        state = replace(
            state, clock_suspect=True, deliveries=deliveries, recent=(), hour_started_at=0.0,
            last_attempt_at=min(state.last_attempt_at, now - HOUR),
            last_success_at=min(state.last_success_at, now), logged_in_at=min(state.logged_in_at, now),
            tokens=state.tokens and _not_later(state.tokens, now),
        )  # fmt: skip
        if state.refresh_life_began_at > now:
            state = replace(state, refresh_life_began_at=0.0, refresh_life_ends_at=0.0)
    if state.refresh_started_at is not None:
        text = "rotator stopped between sending a refresh and saving its answer"
        failed = Unavailable(Reason.INTERRUPTED, delivered=True, text=text)
        started_at = min(state.refresh_started_at, now)
        trouble = _probing(state, _ambiguous(state, failed, policy, started_at, now, spread), policy)
        state = replace(state, trouble=trouble, refresh_started_at=None)
    if suspect and state.trouble:
        state = replace(state, trouble=replace(state.trouble, retry_at=now, replayed=True))
    return state


def _not_later(tokens: TokenSet, now: float) -> TokenSet:
    """Cut off the future from a token set's instants, so that no wait reaches beyond one lifetime."""
    refresh_expires_at = tokens.refresh_expires_at
    if refresh_expires_at is not None and tokens.refresh_obtained_at > now:
        lifetime = refresh_expires_at - tokens.refresh_obtained_at
        if lifetime > 0:  # else it is a fixed end, and older than the clock's fault
            refresh_expires_at = min(refresh_expires_at, now + lifetime)
    return replace(
        tokens,
        obtained_at=min(tokens.obtained_at, now),
        expires_at=min(tokens.expires_at, now + tokens.lifetime_seconds),
        refresh_obtained_at=min(tokens.refresh_obtained_at, now),
        refresh_expires_at=refresh_expires_at,
    )


def adopted(
    state: CredentialState, tokens: TokenSet, seed_fingerprint: str | None, now: float, keep: int
) -> CredentialState:
    """Replace the tokens by those of a login or a seed; every doubt ends, nothing earlier is lost."""
    return replace(
        state,
        tokens=replace(tokens, generation=state.generation + 1),
        earlier=_kept(state, tokens.refresh_token, keep),
        unjudged=None,
        status=Status.OK,
        refresh_started_at=None,
        trouble=None,
        last_success_at=now if tokens.access_token else state.last_success_at,
        recent=(),
        repeated=False,
        logged_in_at=tokens.refresh_obtained_at,
        refresh_life_began_at=tokens.refresh_obtained_at,
        refresh_life_ends_at=tokens.refresh_expires_at or 0.0,
        seed_fingerprint=state.seed_fingerprint if seed_fingerprint is None else seed_fingerprint,
        clock_suspect=False,
    )


def from_answer(
    granted: Granted, policy: RotationPolicy, asked_scope: str, now: float
) -> tuple[TokenSet, tuple[Oddity, ...]]:
    """Make the first token set out of a login's answer."""
    raw = received(CredentialState(), granted, policy, now)
    assert raw.tokens is not None  # noqa: S101 - `received` always sets it
    verdict = judge(raw.tokens, granted.raw, policy, asked_scope, granted.served_at)
    return verdict.tokens, verdict.oddities


def from_refresh_token(refresh_token: str, policy: RotationPolicy, now: float) -> TokenSet:
    """Make a token set out of a bare refresh token: its access token is over from the start."""
    lifetime = policy.refresh_token_lifetime
    return TokenSet(
        0, "", refresh_token, None, "Bearer", "", now, now, now, None if lifetime is None else now + lifetime
    )


def begin_refresh(state: CredentialState, now: float) -> CredentialState:
    """Leave the intent mark: this state must be durable before the request leaves (invariant 1)."""
    fresh_hour = now - state.hour_started_at >= HOUR
    return replace(
        state,
        refresh_started_at=now,
        last_attempt_at=now,
        hour_started_at=now if fresh_hour else state.hour_started_at,
        hour_calls=1 if fresh_hour else state.hour_calls + 1,
    )


def received(state: CredentialState, granted: Granted, policy: RotationPolicy, now: float) -> CredentialState:
    """Take in the raw pair, judging nothing: what must be durable before anything else happens (invariant 2).

    An answer without a refresh token keeps the old one (RFC 6749 section 6); one without an access token
    keeps that. Lifetimes count from when the tokens were asked for: the server issued them later, we cannot know when.
    """
    before = state.tokens
    at = _asked_for_at(state, policy, now)
    refresh = granted.refresh_token or (before.refresh_token if before else None)
    replaced = before is None or refresh != before.refresh_token
    refresh_obtained_at = at if replaced or before is None else before.refresh_obtained_at
    refresh_expires_at = before.refresh_expires_at if before else None
    if policy.refresh_token_lifetime is not None and (
        before is None or refresh_expires_at is None or (replaced and policy.refresh_token_slides)
    ):
        refresh_expires_at = refresh_obtained_at + policy.refresh_token_lifetime
    new_access = granted.access_token or not before
    repeated = before is not None and (granted.access_token or before.access_token) == before.access_token
    tokens = TokenSet(
        generation=state.generation + 1,
        access_token=granted.access_token or (before.access_token if before else ""),
        refresh_token=refresh,
        id_token=before.id_token if before else None,
        token_type=before.token_type if before else "Bearer",
        scope=before.scope if before else "",
        obtained_at=at if new_access or before is None else before.obtained_at,
        expires_at=before.expires_at if before and repeated else at + policy.assumed_lifetime,
        refresh_obtained_at=refresh_obtained_at,
        refresh_expires_at=refresh_expires_at,
    )
    return replace(
        state,
        tokens=tokens,
        earlier=_kept(state, refresh, policy.keep_generations),
        unjudged=granted.raw,
        status=Status.OK,
        refresh_started_at=None,
        trouble=None,
        last_success_at=at,
        repeated=repeated,
        clock_suspect=False,
    )


def _asked_for_at(state: CredentialState, policy: RotationPolicy, now: float) -> float:
    """Return the instant at which the newest tokens were asked for. A replay may have brought those of its original."""
    asked_at = now if state.refresh_started_at is None else min(state.refresh_started_at, now)
    lost_at = state.trouble.ambiguous_at if state.trouble else None
    return asked_at if lost_at is None or asked_at > lost_at + policy.replay_window else min(lost_at, asked_at)


def judged(
    state: CredentialState, policy: RotationPolicy, grant: Grant, asked_scope: str, served_at: float | None = None, *,
    on_schedule: bool,
) -> tuple[CredentialState, tuple[Oddity, ...]]:  # fmt: skip
    """Read the other fields of the newest answer, now that its pair is safe. `on_schedule` counts for the fuse.

    `served_at` is the answer's date; it is not known after a crash between save and judgement.
    """
    state = with_fixed_end(state, policy)
    if state.unjudged is None or state.tokens is None:
        return state, ()
    oddities: tuple[Oddity, ...]
    if state.tokens.obtained_at < state.last_success_at:  # `received` kept the access token: none had come
        verdict_tokens = state.tokens
        oddities = (Oddity.ACCESS_TOKEN_MISSING,)
    else:
        verdict = judge(state.tokens, state.unjudged, policy, asked_scope, served_at, repeated=state.repeated)
        verdict_tokens, oddities = verdict.tokens, verdict.oddities
    same_refresh = state.tokens.refresh_obtained_at < state.last_success_at
    taken_back = any(one.refresh_token == state.tokens.refresh_token for one in state.earlier)  # in a grace window
    if policy.rotation_required and grant is Grant.REFRESH_TOKEN and (same_refresh or taken_back):
        oddities = (*oddities, Oddity.ROTATION_MISSING)
    recent = state.recent
    if on_schedule:
        recent = (*recent, (state.last_success_at, verdict_tokens.lifetime_seconds))[-_RECENT:]
    began_at, ends_at = state.refresh_life_began_at, state.refresh_life_ends_at
    new_end = verdict_tokens.refresh_expires_at or 0.0
    if new_end > ends_at + _SAME_END:
        began_at, ends_at = state.last_success_at, new_end
    state = replace(
        state, tokens=verdict_tokens, unjudged=None, recent=recent,
        refresh_life_began_at=began_at, refresh_life_ends_at=ends_at,
    )  # fmt: skip
    return state, oddities


def with_fixed_end(state: CredentialState, policy: RotationPolicy) -> CredentialState:
    """Count an end that refreshes do not move from the login, whenever the configuration came to say so (case B30)."""
    tokens, lifetime = state.tokens, policy.refresh_token_lifetime
    if tokens is None or tokens.refresh_token is None or lifetime is None or policy.refresh_token_slides:
        return state
    began_at = state.logged_in_at or state.refresh_life_began_at or tokens.refresh_obtained_at
    return replace(
        state,
        tokens=replace(tokens, refresh_expires_at=began_at + lifetime),
        refresh_life_began_at=began_at,
        refresh_life_ends_at=began_at + lifetime,
    )


def after_refused(state: CredentialState, refused: Refused, policy: RotationPolicy, now: float) -> CredentialState:
    """Take a no: it marks, it never deletes (invariants 3 and 7)."""
    before = state.trouble
    refusals = (before.refusals if before else 0) + 1
    dead = refused.reason in DEAD
    status = state.status
    if dead:
        confirmed = status is Status.REAUTHORIZATION_REQUIRED or (
            status is Status.SUSPECT and before is not None and before.reason in DEAD
        )
        status = Status.REAUTHORIZATION_REQUIRED if confirmed else Status.SUSPECT
        wait = (policy.probe_interval or _NEVER) if confirmed else policy.confirm_after
    elif refused.reason in (Reason.INVALID_REQUEST, Reason.OTHER_REFUSAL):
        # Some servers say this for a dead refresh token (case A32).
        if status is Status.OK and refusals >= policy.suspect_after:
            status = Status.SUSPECT
        wait = min(HOUR / 60 * 2.0 ** min(refusals - 1, 10), policy.refused_retry)
    else:
        wait = policy.refused_retry if refused.retry_after is None else refused.retry_after
    lost = dead and before is not None and before.ambiguous_at is not None
    # Once a server has revoked everything for a reuse, it may refuse the same token without saying so again.
    reused = dead and before is not None and before.reason is Reason.TOKEN_REUSE
    trouble = Trouble(
        failures=(before.failures if before else 0) + 1,
        reason=Reason.TOKEN_REUSE if reused else refused.reason,
        text=f"{refused.text}; {_ANSWER_LOST}" if lost else refused.text,
        since_at=before.since_at if before else now,
        retry_at=now + wait,
        refusals=refusals,
        ambiguous_at=before.ambiguous_at if before else None,
        replayed=before.replayed if before else False,
    )
    if not dead:
        trouble = _probing(state, _risking_nothing(state, trouble, policy), policy)
    return replace(state, refresh_started_at=None, status=status, trouble=trouble)


def after_unavailable(
    state: CredentialState, failed: Unavailable, policy: RotationPolicy, grant: Grant, now: float, spread: float
) -> CredentialState:
    """Take a failure without a verdict. `spread` in [0, 1) keeps many credentials from trying at once."""
    before = state.trouble
    if failed.delivered and grant is Grant.REFRESH_TOKEN:
        started_at = now if state.refresh_started_at is None else state.refresh_started_at
        trouble = _probing(state, _ambiguous(state, failed, policy, started_at, now, spread), policy)
        return replace(state, refresh_started_at=None, trouble=trouble)
    failures = (before.failures if before else 0) + 1
    status = state.status
    refusals = before.refusals if before else 0
    if failed.reason is Reason.FORBIDDEN:  # passing for some tries, then suspect (case E12)
        refusals += 1
        if refusals >= policy.suspect_after and status is Status.OK:
            status = Status.SUSPECT
    wait = _backoff(state, failed, policy, failures, now, spread)
    trouble = Trouble(
        failures=failures,
        reason=failed.reason,
        text=failed.text,
        since_at=before.since_at if before else now,
        retry_at=now + wait,
        refusals=refusals,
        ambiguous_at=before.ambiguous_at if before else None,
        replayed=before.replayed if before else False,
    )
    # What never reached the server is no call: an hour without a network must not use up the fuse (case E21).
    calls = max(0, state.hour_calls - 1) if failed.reason in _UNREACHABLE else state.hour_calls
    trouble = _probing(state, _risking_nothing(state, trouble, policy), policy)
    return replace(state, refresh_started_at=None, status=status, trouble=trouble, hour_calls=calls)


def _risking_nothing(state: CredentialState, trouble: Trouble, policy: RotationPolicy) -> Trouble:
    """Keep a token of unknown fate back while the access token is good, whatever became of its replay (invariant 6)."""
    if trouble.ambiguous_at is None or trouble.retry_at <= trouble.ambiguous_at + policy.replay_window:
        return trouble
    return replace(trouble, retry_at=max(trouble.retry_at, nearly_over_at(state.tokens)))


def _probing(state: CredentialState, trouble: Trouble, policy: RotationPolicy) -> Trouble:
    """Probe a dead grant no faster for an outage in between (invariant 7)."""
    if state.status is not Status.REAUTHORIZATION_REQUIRED:
        return trouble
    probe_at = state.last_attempt_at + (policy.probe_interval or _NEVER)
    return replace(trouble, retry_at=max(trouble.retry_at, probe_at))


def _ambiguous(
    state: CredentialState, failed: Unavailable, policy: RotationPolicy, started_at: float, now: float, spread: float
) -> Trouble:
    """Decide when a request of unknown fate is sent again (invariant 6).

    First, once, inside the replay window, where a server with a grace window forgives it; the schedule sees to the
    window. Then only when the access token is nearly over: a server that answers reuse by revoking everything then
    costs nothing that was still good. After that, by back-off.
    """
    before = state.trouble
    failures = (before.failures if before else 0) + 1
    first = before is None or before.ambiguous_at is None
    interrupted = failed.reason is Reason.INTERRUPTED
    origin_at = before.ambiguous_at if before is not None and before.ambiguous_at is not None else started_at
    since = started_at if interrupted else now  # so that one restart after another puts nothing off
    # After each crash within the window: what the first replay risked has been risked already.
    replay = now - origin_at <= policy.replay_window if interrupted else first
    if replay and policy.replay_window > 0:
        replayed, wait = False, 0.0 if interrupted else _REPLAY_WAIT
    else:
        replayed, wait = True, _backoff(state, failed, policy, failures, since, spread, last_chance=True)
    return Trouble(
        failures=failures,
        reason=failed.reason,
        text=failed.text,
        since_at=before.since_at if before else now,
        retry_at=since + wait,
        refusals=before.refusals if before else 0,
        ambiguous_at=origin_at,
        replayed=replayed,
    )


def nearly_over_at(tokens: TokenSet | None) -> float:
    """Return the instant from which so little of an access token is left that a risky try costs nothing."""
    if tokens is None:
        return 0.0
    return tokens.expires_at - min(_NEARLY_OVER, tokens.lifetime_seconds / 6)


def _backoff(
    state: CredentialState, failed: Unavailable, policy: RotationPolicy, failures: int, now: float, spread: float,
    *, last_chance: bool = False,
) -> float:  # fmt: skip
    """Return seconds to wait: exponential, spread, honouring Retry-After, never sleeping through an expiry."""
    remaining = state.tokens.expires_at - now if state.tokens else 0.0
    if last_chance and nearly_over_at(state.tokens) > now:
        return nearly_over_at(state.tokens) - now
    wait = min(policy.backoff_initial * 2.0 ** min(failures - 1, 20), policy.backoff_max) * (0.75 + 0.25 * spread)
    if failed.retry_after is not None:
        wait = max(wait, min(failed.retry_after, _RETRY_AFTER_CAP))
    elif failed.reason in _UNREACHABLE and remaining <= 0:
        wait = min(wait, _UNREACHABLE_RETRY * (0.75 + 0.25 * spread))
    if remaining > 0:
        wait = min(wait, max(remaining / 2, min(_HURRY, policy.backoff_initial)))
    return wait


def retry_now(state: CredentialState, now: float) -> CredentialState:
    """End a back-off because something the failure may depend on has changed: a secret, a CA.

    That tells nothing about a token of unknown fate: it goes on waiting until the access token is nearly over.
    """
    trouble = state.trouble
    if trouble is None:
        return state
    retry_at = now if trouble.ambiguous_at is None else max(now, nearly_over_at(state.tokens))
    return replace(state, trouble=replace(trouble, retry_at=min(trouble.retry_at, retry_at)))


def asked_as(state: CredentialState, fingerprint: str) -> CredentialState:
    """Note as whom was asked in vain, so that a start can tell whether that has changed (case K8)."""
    trouble = state.trouble
    return state if trouble is None else replace(state, trouble=replace(trouble, asked_as=fingerprint))


def after_publish(
    state: CredentialState,
    sink: str,
    tokens: TokenSet,
    reason: Reason | None,
    text: str,
    now: float,
    retry_after: float | None = None,
) -> CredentialState:
    """Note how a delivery went; deliveries back off one by one and never cause a token call (case E9)."""
    before = state.delivery(sink)
    if reason is None:
        delivery = Delivery(tokens.generation, now, expires_at=tokens.expires_at)
    else:
        wait = max(
            min(2.0 ** min(before.failures, 10), _DELIVERY_BACKOFF_MAX), min(retry_after or 0.0, _RETRY_AFTER_CAP)
        )
        delivery = replace(before, failures=before.failures + 1, retry_at=now + wait, reason=reason, text=text)
    return replace(state, deliveries={**state.deliveries, sink: delivery})


def withdrawn(state: CredentialState, sink: str) -> CredentialState:
    """Forget a delivery: the output was deleted or edited and is due again."""
    return replace(state, deliveries={**state.deliveries, sink: NEVER_DELIVERED})


def with_sinks(state: CredentialState, sinks: tuple[str, ...]) -> CredentialState:
    """Keep the deliveries of configured sinks only."""
    kept = {name: delivery for name, delivery in state.deliveries.items() if name in sinks}
    return state if len(kept) == len(state.deliveries) else replace(state, deliveries=kept)


def _kept(state: CredentialState, new_refresh_token: str | None, keep: int) -> tuple[EarlierToken, ...]:
    before = state.tokens
    if before is None or before.refresh_token is None or before.refresh_token == new_refresh_token:
        return state.earlier
    kept = EarlierToken(before.generation, before.refresh_token, before.refresh_obtained_at)
    return (kept, *state.earlier)[:keep]
