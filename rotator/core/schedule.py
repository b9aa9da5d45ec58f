"""What is due now? One pure question, asked whenever somebody wonders, answered from the state alone.

The order is the design: an unsaved pair is saved before anything else; a token that is there is published before
the next one is fetched; and only then a refresh is considered.
"""

import zlib
from dataclasses import dataclass
from typing import Final

from rotator.core.model import (
    HOUR,
    Action,
    Grant,
    Halt,
    Publish,
    Reason,
    Refresh,
    RotationPolicy,
    Save,
    TokenSet,
    Unavailable,
    Wait,
)
from rotator.core.state import DEAD, CredentialState, Status, Trouble, nearly_over_at

SHORTEST_GAP: Final = 1.0
"""Seconds between any two token calls of one credential, whatever the code path (case E4)."""
_TINY_LIFETIME: Final = 3.0  # no instant strictly inside so short a life can be met: take the floor
_FUSE_SUCCESSES: Final = 4
_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class SinkRef:
    """A configured sink as the schedule sees it. Hooks run after the outputs of their generation."""

    name: str
    is_hook: bool = False
    shared: bool = False
    """All replicas would write the same place: its owner alone does."""


@dataclass(frozen=True, slots=True)
class Due:
    """When the next token request is due (instant, may be infinite), and why."""

    at: float
    why: str


def spread_of(name: str, generation: int) -> float:
    """Return a number in [0, 1) that differs between credentials and generations, the same at every asking."""
    return zlib.crc32(f"{name}:{generation}".encode()) / 2**32


def next_action(
    state: CredentialState,
    policy: RotationPolicy,
    grant: Grant,
    sinks: tuple[SinkRef, ...],
    now: float,
    spread: float,
    *,
    unsaved: bool = False,
) -> Action:
    """Say what is due at instant `now`. `unsaved`: memory is ahead of the store."""
    if unsaved:
        return Save()
    soonest = _NEVER
    for sink in sinks:
        at = publish_due_at(state, sink, sinks, now)
        if at <= now:
            return Publish(sink.name)
        soonest = min(soonest, at)
    due = refresh_due(state, policy, grant, spread, now)
    if due.at <= now:
        return Refresh(due.why)
    if due.at == soonest == _NEVER:
        login = due.why == Reason.LOGIN_REQUIRED
        return Halt(Reason.LOGIN_REQUIRED if login else Reason.REAUTHORIZATION_REQUIRED)
    return Wait(due.at, due.why) if due.at <= soonest else Wait(soonest, "publish")


def publish_due_at(state: CredentialState, sink: SinkRef, sinks: tuple[SinkRef, ...], now: float) -> float:
    """Return when a sink wants the current token set: an instant, 0 for at once, infinity for not at all.

    An expired token is not worth publishing, unless it was born so (`expires_in: 0`, case A11). A hook waits until
    each output has had its turn at this generation, and failing outputs do not hold it up.
    """
    tokens = state.tokens
    if tokens is None or not tokens.access_token:
        return _NEVER
    delivery = state.delivery(sink.name)
    if delivery.generation >= tokens.generation:
        return _NEVER
    if tokens.expires_at <= now and tokens.lifetime_seconds > 0:
        return _NEVER
    if sink.is_hook:
        outputs = [state.delivery(other.name) for other in sinks if not other.is_hook]
        if any(output.generation < tokens.generation and output.failures == 0 for output in outputs):
            return now + SHORTEST_GAP
    return delivery.retry_at


def refresh_due(state: CredentialState, policy: RotationPolicy, grant: Grant, spread: float, now: float) -> Due:
    """Say when the next token request is due: strictly inside the lifetime, whatever the numbers (invariant 9)."""
    tokens = state.tokens
    if grant is Grant.REFRESH_TOKEN and (tokens is None or not tokens.refresh_token):
        return Due(_NEVER, Reason.LOGIN_REQUIRED)
    due = _unfused(state, policy, spread, now)
    cooled_at = state.hour_started_at + HOUR
    if state.hour_calls >= _calls_per_hour(tokens, policy) and due.at < cooled_at:
        return Due(cooled_at, Reason.FUSE_BLOWN)
    return due


def _unfused(state: CredentialState, policy: RotationPolicy, spread: float, now: float) -> Due:
    """Say when the next token request would be due if calls were not counted."""
    tokens, trouble = state.tokens, state.trouble
    earliest = state.last_attempt_at + SHORTEST_GAP
    if trouble is not None:
        at = max(trouble.retry_at, earliest)
        if _is_too_late_to_replay(trouble, policy, max(at, now)):
            return Due(max(at, nearly_over_at(tokens)), "retry")
        why = (
            "probe" if state.status is Status.REAUTHORIZATION_REQUIRED else "replay" if _is_replay(trouble) else "retry"
        )
        return Due(at, why)
    if tokens is not None and tokens.obtained_at < state.last_success_at - SHORTEST_GAP:
        # The last answer held no access token (case A31): asking again soon would only rotate in vain.
        earliest = max(earliest, state.last_success_at + policy.floor)
    if tokens is None or not tokens.access_token:
        return Due(earliest, "first")
    if state.clock_suspect:
        return Due(earliest, "clock_suspect")
    due = _ordinary(state, tokens, policy, spread)
    return Due(max(due.at, earliest), due.why)


def fuse_blown(state: CredentialState, policy: RotationPolicy, now: float) -> bool:
    """Tell whether refreshes came so thick that something is wrong: tokens that do not get fresher (L9, L10)."""
    spent = state.hour_calls >= _calls_per_hour(state.tokens, policy) and now < state.hour_started_at + HOUR
    return spent or _too_thick(state, policy)


def _too_thick(state: CredentialState, policy: RotationPolicy) -> bool:
    if len(state.recent) < _FUSE_SUCCESSES:
        return False
    longest = max(lifetime for _, lifetime in state.recent)
    return state.recent[-1][0] - state.recent[0][0] < longest * min(1.0, 1.5 * policy.lifetime_ratio)


def _is_replay(trouble: Trouble) -> bool:
    return trouble.ambiguous_at is not None and not trouble.replayed


def _is_too_late_to_replay(trouble: Trouble, policy: RotationPolicy, at: float) -> bool:
    """Tell whether a replay at this instant comes after the window: a slow answer, a stop or a full disk came between.

    A plain no to a replay is confirmed all the same: a server that revokes on reuse has done so.
    """
    if not _is_replay(trouble) or trouble.reason in DEAD:
        return False
    return at > (trouble.ambiguous_at or 0.0) + policy.replay_window


def held_back(state: CredentialState, policy: RotationPolicy, now: float) -> Unavailable | None:
    """Say why a replay must not leave any more, after a slow save, name server or handshake; None if it may.

    Once the window is over it waits as if it had never been due: until the access token is nearly over.
    """
    trouble = state.trouble
    if trouble is None or not _is_too_late_to_replay(trouble, policy, now) or now >= nearly_over_at(state.tokens):
        return None
    return Unavailable(trouble.reason, delivered=False, text=trouble.text)


def _calls_per_hour(tokens: TokenSet | None, policy: RotationPolicy) -> float:
    """Return the fuse's rating; lifetimes that honestly need more calls than configured raise it."""
    lifetime = max(tokens.lifetime_seconds if tokens else 0.0, 1.0)
    needed = 3 * HOUR / (lifetime * policy.lifetime_ratio) if lifetime > _TINY_LIFETIME else 0.0
    return max(policy.max_calls_per_hour, needed)


def _ordinary(state: CredentialState, tokens: TokenSet, policy: RotationPolicy, spread: float) -> Due:
    lifetime = tokens.lifetime_seconds
    if lifetime <= _TINY_LIFETIME:
        return Due(tokens.obtained_at + policy.floor, "due")
    if _too_thick(state, policy):
        return Due(nearly_over_at(tokens), Reason.FUSE_BLOWN)
    margin = max(lifetime * (1 - policy.lifetime_ratio), min(policy.min_remaining, lifetime / 3))
    after = max(
        lifetime - margin - lifetime * policy.jitter * spread, min(policy.floor, lifetime * policy.lifetime_ratio)
    )
    if state.repeated:
        # The server hands out the same token until shortly before its end: not before half of the rest, and no
        # faster than the floor, but still inside the lifetime (case L10).
        after = max(after, lifetime / 2, min(policy.floor, lifetime * 5 / 6))
    due = Due(tokens.obtained_at + after, "due")
    refresh_due_at = _refresh_token_due_at(tokens)
    return Due(refresh_due_at, "refresh_token_aging") if refresh_due_at < due.at else due


def _refresh_token_due_at(tokens: TokenSet) -> float:
    """Return when two thirds of the refresh token's life are over (case B31).

    Once per token set: if the last refresh came later than that and did not help, the end is fixed, and asking more
    often would only spend calls.
    """
    if tokens.refresh_expires_at is None:
        return _NEVER
    at = tokens.refresh_obtained_at + (tokens.refresh_expires_at - tokens.refresh_obtained_at) * 2 / 3
    return at if tokens.obtained_at < at else _NEVER
