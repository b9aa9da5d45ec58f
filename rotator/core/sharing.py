"""Where several replicas share one store: whose word counts, and what a follower has to do.

One replica owns a credential and refreshes it; the others follow, with copies of its state. What differs between
replicas is how far their own outputs are, so deliveries never travel: each replica keeps its own.
"""

from dataclasses import replace
from typing import Final

from rotator.core.model import Grant, Publish, RotationPolicy, Wait
from rotator.core.schedule import SinkRef, publish_due_at, spread_of
from rotator.core.state import CLOCK_TOLERANCE, CredentialState, judged, nearly_over_at, opened, with_sinks

_LOOK_LEAST: Final = 5.0
_LOOK_MOST: Final = 60.0


def is_newer(one: CredentialState, other: CredentialState) -> bool:
    """Tell whether `one` holds a token set that was issued after that of `other`.

    Two replicas can come to hold different sets of one generation if the lease failed to part them; the set
    issued last is the one that a server still honours.
    """
    return _rank(one) > _rank(other)


def _rank(state: CredentialState) -> tuple[int, float]:
    return state.generation, state.tokens.obtained_at if state.tokens else 0.0


def copied(
    stored: CredentialState, mine: CredentialState | None, policy: RotationPolicy, grant: Grant, scope: str
) -> CredentialState:
    """Return a follower's copy of the owner's state: without its mark, which tells of the owner's request only."""
    copy = replace(stored, refresh_started_at=None, deliveries=mine.deliveries if mine else {})
    return judged(copy, policy, grant, scope, on_schedule=False)[0]


def is_under_way(stored: CredentialState, longest: float, now: float) -> bool:
    """Tell whether another may still be asking: it left its mark so lately that its request need not be over.

    `longest`: seconds that a reservation and its request may take. Leases part two owners only if both look at the
    same one, and not while a release changes its name, or after somebody deleted it. A predecessor under our own Lease
    left its mark longer ago: no request begins under a Lease that would not outlast it. A mark of the future tells of
    a wrong clock and of nothing else.
    """
    at = stored.refresh_started_at
    return at is not None and at - CLOCK_TOLERANCE <= now < at + longest


def taken_up(
    name: str,
    stored: CredentialState,
    mine: CredentialState | None,
    policy: RotationPolicy,
    grant: Grant,
    scope: str,
    sinks: tuple[str, ...],
    now: float,
) -> CredentialState:
    """Return what a new owner goes on with. A mark that is still set: its predecessor's request is of unknown fate."""
    state = opened(stored, policy, now, spread_of(name, stored.generation))
    state = with_sinks(replace(state, deliveries=mine.deliveries if mine else {}), sinks)
    return judged(state, policy, grant, scope, on_schedule=False)[0]


def without_shared(state: CredentialState, sinks: tuple[SinkRef, ...]) -> CredentialState:
    """Forget how far outputs are that the new owner sees to from now on."""
    return with_sinks(state, tuple(sink.name for sink in sinks if not sink.shared))


def follower_action(state: CredentialState, sinks: tuple[SinkRef, ...], now: float) -> Publish | Wait:
    """Say what is due for a follower: its own outputs, nothing else. Its copies come by themselves."""
    own = tuple(sink for sink in sinks if not sink.shared)
    until = look_at(state, now)
    for sink in own:
        at = publish_due_at(state, sink, own, now)
        if at <= now:
            return Publish(sink.name)
        until = min(until, at)
    return Wait(until, "follower")


def look_at(state: CredentialState, now: float) -> float:
    """Return when a follower wonders that no newer copy came, and looks into the store: an instant after `now`."""
    if state.tokens is None:
        return float("inf")
    wondering = now - nearly_over_at(state.tokens)
    return now + min(max(_LOOK_LEAST, wondering / 4), _LOOK_MOST) if wondering >= 0 else now - wondering


def wonders(state: CredentialState, now: float) -> bool:
    """Tell whether the access token of a follower is nearly over: a newer one should have come long ago."""
    return state.tokens is not None and nearly_over_at(state.tokens) <= now
