"""Lives of a credential in the pure core: any policy, any event, any history, and a plain server."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from rotator.core import state as transitions
from rotator.core.model import (
    DAY,
    Answer,
    Grant,
    Granted,
    Reason,
    Refresh,
    Refused,
    RotationPolicy,
    Unavailable,
    Wait,
)
from rotator.core.schedule import next_action, spread_of
from rotator.core.state import CredentialState
from tests.samples import AT
from tests.secrets_scan import planted

GRANT = Grant.REFRESH_TOKEN


def granted(number: int, expires_in: object = 3600, **fields: object) -> Granted:
    """Return an answer with a new pair; `expires_in` None leaves the field out."""
    raw = dict(fields) if expires_in is None else {"expires_in": expires_in, **fields}
    return Granted(planted(f"access-{number}"), planted(f"refresh-{number}"), raw)


def begun(state: CredentialState, now: float) -> CredentialState:
    """Return the state with its intent mark, as it is on disk while a request is under way."""
    return saved_at(transitions.begin_refresh(state, now), now)


def saved_at(state: CredentialState, now: float) -> CredentialState:
    """Return the state as the line saves it."""
    return replace(state, saved_at=now)


def answered(
    state: CredentialState, answer: Answer, policy: RotationPolicy, now: float, *, started_at: float | None = None
) -> CredentialState:
    """Send a refresh and take in its answer at instant `now`, as the line does."""
    marked = begun(state, now if started_at is None else started_at)
    if isinstance(answer, Granted):
        raw = transitions.received(marked, answer, policy, now)
        return saved_at(transitions.judged(raw, policy, GRANT, "", on_schedule=True)[0], now)
    if isinstance(answer, Refused):
        return saved_at(transitions.after_refused(marked, answer, policy, now), now)
    spread = spread_of("pair", state.generation)
    return saved_at(transitions.after_unavailable(marked, answer, policy, GRANT, now, spread), now)


@dataclass(frozen=True, slots=True)
class Call:
    """One token request of a simulated life: when, why, and the state that came of it."""

    at: float
    why: str
    state: CredentialState


def live(
    state: CredentialState,
    policy: RotationPolicy,
    server: Callable[[int, float, CredentialState], Answer],
    *,
    start: float = AT,
    until: float = float("inf"),
) -> Iterator[Call]:
    """Obey `next_action` from `start` to `until`, asking `server(number, now, state)` for each answer."""
    now, number = start, 0
    while now < until:
        match next_action(state, policy, GRANT, (), now, spread_of("pair", state.generation)):
            case Refresh(why):
                state = answered(state, server(number, now, state), policy, now)
                number += 1
                yield Call(now, why, state)
            case Wait(later, _):
                assert later > now
                now = later
            case _:
                return


def busiest_hour(instants: list[float]) -> int:
    """Return the largest number of instants in any hour."""
    most, first = 0, 0
    for last, instant in enumerate(instants):
        while instants[first] <= instant - 3600:
            first += 1
        most = max(most, last - first + 1)
    return most


def policies() -> st.SearchStrategy[RotationPolicy]:
    """Any policy, far beyond what the configuration would let through."""
    seconds = st.floats(0, 10 * DAY)
    return st.builds(
        RotationPolicy,
        lifetime_ratio=st.floats(0.01, 0.99),
        min_remaining=seconds,
        jitter=st.floats(0, 1),
        assumed_lifetime=st.floats(1, DAY),
        max_lifetime=st.floats(1, 10 * DAY),
        refresh_token_lifetime=st.none() | st.floats(1, 100 * DAY),
        refresh_token_slides=st.booleans(),
        floor=seconds,
        backoff_initial=st.floats(0.1, 3600),
        backoff_max=st.floats(0.1, DAY),
        refused_retry=st.floats(1, DAY),
        replay_window=st.floats(0, 600),
        confirm_after=st.floats(0, 600),
        probe_interval=st.just(0.0) | st.floats(1, DAY),
        suspect_after=st.integers(1, 10),
        max_calls_per_hour=st.integers(1, 1000),
        rotation_required=st.booleans(),
        keep_generations=st.integers(1, 5),
    )


_UNDELIVERED = (Reason.DNS, Reason.CONNECT, Reason.TLS, Reason.RATE_LIMITED, Reason.FORBIDDEN, Reason.BAD_INPUT)
_AMBIGUOUS = (Reason.READ_TIMEOUT, Reason.CONNECTION_LOST, Reason.HTTP_5XX, Reason.UNREADABLE_ANSWER)
_REFUSALS = (
    Reason.INVALID_GRANT, Reason.TOKEN_REUSE, Reason.INVALID_CLIENT, Reason.INVALID_REQUEST, Reason.OTHER_REFUSAL
)  # fmt: skip


def failures() -> st.SearchStrategy[Answer]:
    """Any answer that is not a token."""
    retry_after = st.none() | st.floats(0, 1e7)
    return st.one_of(
        st.builds(Refused, st.sampled_from(_REFUSALS), st.just(400), st.just("no")),
        st.builds(Unavailable, st.sampled_from(_UNDELIVERED), st.just(False), retry_after),
        st.builds(Unavailable, st.sampled_from(_AMBIGUOUS), st.just(True), retry_after),
    )


def answers() -> st.SearchStrategy[Answer]:
    """Any answer at all. Numbers below 20 make a server repeat itself now and then."""
    expires_in = st.none() | st.integers(-5, 2 * 86400) | st.sampled_from(["60", True, [], 1e300, "soon"])
    tokens = st.builds(granted, st.integers(0, 20), expires_in)
    unrotated = st.builds(lambda one: replace(one, refresh_token=None), tokens)
    bare = st.builds(lambda one: replace(one, access_token=""), tokens)
    return st.one_of(tokens, tokens, unrotated, bare, failures())


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to a credential `after` so many seconds."""

    after: float
    what: str
    answer: Answer | None = None


def events() -> st.SearchStrategy[Event]:
    """Anything that may happen."""
    after = st.floats(0, 7200) | st.sampled_from([0.0, 0.5, 5.0, 60.0])
    return st.one_of(
        st.builds(Event, after, st.just("answer"), answers()),
        st.builds(Event, after, st.just("answer"), failures()),
        st.builds(Event, after, st.sampled_from(["login", "interrupted", "input", "delivered", "undelivered", "back"])),
    )


def happened(state: CredentialState, event: Event, policy: RotationPolicy, now: float, number: int) -> CredentialState:
    """Return what comes of an event at instant `now`. `number` makes the tokens of a login new."""
    keep = policy.keep_generations
    match event.what:
        case "answer":
            assert event.answer is not None
            return answered(state, event.answer, policy, now)
        case "login":
            tokens = transitions.from_refresh_token(planted(f"login-{number}"), policy, now)
            return saved_at(transitions.adopted(state, tokens, None, now, keep), now)
        case "interrupted":
            return transitions.opened(begun(state, now - event.after), policy, now, spread_of("pair", 0))
        case "input":
            return transitions.retry_now(state, now)
        case "back":  # a restart with the clock a day behind
            return saved_at(transitions.opened(saved_at(state, now + 86400), policy, now, 0.5), now)
        case _:
            if state.tokens is None:
                return state
            reason = Reason.NO_SPACE if event.what == "undelivered" else None
            return transitions.after_publish(state, "file", state.tokens, reason, "", now)


def lives() -> st.SearchStrategy[tuple[RotationPolicy, list[Event]]]:
    """Any policy with any history."""
    return st.tuples(policies(), st.lists(events(), max_size=12))


def replay(policy: RotationPolicy, history: list[Event]) -> Iterator[tuple[CredentialState, CredentialState, float]]:
    """Walk through a history: yield each state, what became of it, and when."""
    state, now = CredentialState(), AT
    for number, event in enumerate(history):
        now += event.after
        after = happened(state, event, policy, now, number)
        yield state, after, now
        state = after
