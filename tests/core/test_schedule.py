"""What is due, and when."""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.core.model import (
    DAY,
    HOUR,
    Answer,
    Grant,
    Halt,
    Publish,
    Reason,
    Refresh,
    Refused,
    RotationPolicy,
    Save,
    Unavailable,
    Wait,
)
from rotator.core.schedule import SinkRef, fuse_blown, next_action, refresh_due, spread_of
from rotator.core.standing import Standing, standing_of
from rotator.core.state import CredentialState, Delivery, Status, Trouble, after_publish, opened
from tests.lives import GRANT, answered, answers, busiest_hour, granted, live, lives, policies, replay
from tests.needs import needs
from tests.samples import AT, state_of, token_set

POLICY = RotationPolicy(jitter=0.0)
FILE, HOOK = SinkRef("file"), SinkRef("hook", is_hook=True)


def due(state: CredentialState, policy: RotationPolicy = POLICY, spread: float = 0.0) -> float:
    """Return when the next token request is due, in seconds after `AT`."""
    return refresh_due(state, policy, GRANT, spread, AT).at - AT


def action(state: CredentialState, now: float, *sinks: SinkRef, policy: RotationPolicy = POLICY) -> object:
    """Return what is due `now` seconds after `AT`."""
    return next_action(state, policy, GRANT, sinks, AT + now, 0.0)


# -- inside the lifetime ---------------------------------------------------------------------------


def test_a_refresh_is_due_after_two_thirds_of_the_lifetime() -> None:
    """By default an hour's token is renewed after 40 minutes, and up to 5 % of the hour earlier by jitter."""
    assert due(state_of()) == pytest.approx(2400)
    assert due(state_of(), RotationPolicy(), spread=0.99) == pytest.approx(2400 - 0.99 * 180)


def test_a_wide_margin_does_not_spin() -> None:
    """L11: a margin above the lifetime counts as a third of it."""
    policy = replace(POLICY, min_remaining=90)
    assert due(state_of(expires_at=AT + 60), policy) == pytest.approx(40)
    assert due(state_of(expires_at=AT + 600), policy) == pytest.approx(400)
    assert due(state_of(expires_at=AT + 240), replace(policy, lifetime_ratio=0.9)) == pytest.approx(160)


@given(
    policy=policies(),
    lifetime=st.floats(3.001, 10 * DAY),
    spread=st.floats(0, 1, exclude_max=True),
    repeated=st.booleans(),
    recent=st.lists(st.tuples(st.floats(AT - DAY, AT), st.floats(0, DAY)), max_size=4),
    refresh_lifetime=st.none() | st.floats(1, 100 * DAY),
)
def test_a_refresh_is_due_strictly_inside_the_lifetime(
    policy: RotationPolicy,
    lifetime: float,
    spread: float,
    repeated: bool,
    recent: list[tuple[float, float]],
    refresh_lifetime: float | None,
) -> None:
    """L11: whatever the policy, the jitter, the fuse and the server's habits, a new token is renewed while it lives."""
    end = None if refresh_lifetime is None else AT + refresh_lifetime
    state = CredentialState(
        tokens=token_set(expires_at=AT + lifetime, refresh_expires_at=end),
        last_attempt_at=AT,
        last_success_at=AT,
        repeated=repeated,
        recent=tuple(sorted(recent)),
        hour_started_at=AT,
    )
    assert 0 < due(state, policy, spread) < lifetime


@pytest.mark.parametrize("expires_in", [0, -1, 1, 3, "0", 2.9])
def test_a_token_born_expired_waits_for_the_floor(expires_in: object) -> None:
    """A11 A13: a lifetime of nothing, or below it, means the next refresh after the floor: not at once, not never."""
    state = answered(state_of(), granted(2, expires_in), POLICY, AT)
    assert due(state) == pytest.approx(POLICY.floor)
    assert action(state, 0, FILE) == Publish("file")


def test_an_answer_without_a_lifetime_is_used_for_the_default_one() -> None:
    """A7: ten answers without `expires_in` cost at most one refresh for each default lifetime."""
    calls = list(itertools.islice(live(state_of(), POLICY, lambda n, *_: granted(n + 2, None)), 10))
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(calls)]
    assert min(gaps) >= POLICY.assumed_lifetime * POLICY.lifetime_ratio * 0.99


@pytest.mark.parametrize("around", [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)])
def test_summer_time_causes_no_refresh(
    around: datetime, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """D5: the days on which the clocks of Amsterdam change see as many refreshes as any other."""
    needs("tzdata")

    def refreshes(start: float) -> list[float]:
        tokens = token_set(obtained_at=start, expires_at=start + HOUR, refresh_obtained_at=start)
        server = itertools.count(2)
        life = live(CredentialState(tokens=tokens), RotationPolicy(), lambda *_: granted(next(server)), start=start,
                    until=start + 2 * DAY)  # fmt: skip
        return [call.at - start for call in life]

    monkeypatch.setenv("TZ", "Europe/Amsterdam")
    request.addfinalizer(time.tzset)  # runs before the variable is put back ...
    time.tzset()
    start = around.timestamp() - DAY
    offsets = {datetime.fromtimestamp(at, ZoneInfo("Europe/Amsterdam")).dst() for at in (start, start + 2 * DAY)}
    assert len(offsets) == 2
    changed, ordinary = refreshes(start), refreshes(start - 10 * DAY)
    monkeypatch.undo()  # ... so that it is put back here, and now
    assert changed == pytest.approx(ordinary)


# -- never spinning --------------------------------------------------------------------------------


def rating(policy: RotationPolicy, shortest: float) -> float:
    """Return the most calls an hour that honest tokens of so many seconds can need, or the policy allows."""
    honest = 3 * HOUR / (shortest * policy.lifetime_ratio) if shortest > 3 else 0
    return min(max(policy.max_calls_per_hour, honest), HOUR)


HABITS: dict[str, Callable[[int], Answer]] = {
    # L10: the same token until its end, with what is left of it.
    "shrinking": lambda n: granted(n // 50, 300 - (n % 50) * 6),
    "seconds": lambda n: granted(n, 4),
    "nothing": lambda n: granted(n, 0),
    "no access token": lambda n: replace(granted(n), access_token=""),
    "dead": lambda _: Refused(Reason.INVALID_GRANT, 400),
    "misled": lambda _: Refused(Reason.OTHER_REFUSAL, 401),
    "forbidden": lambda _: Unavailable(Reason.FORBIDDEN, delivered=False),
    "limited": lambda _: Unavailable(Reason.RATE_LIMITED, delivered=False, retry_after=0),
    "broken": lambda _: Unavailable(Reason.HTTP_5XX, delivered=True),
    "unreachable": lambda _: Unavailable(Reason.DNS, delivered=False),
}


@pytest.mark.parametrize(
    ("habit", "most"),
    [
        ("shrinking", 120), ("seconds", 4050), ("nothing", 120), ("no access token", 120), ("dead", 3),
        ("misled", 10), ("forbidden", 12), ("limited", 12), ("broken", 12), ("unreachable", 961),
    ],
)  # fmt: skip
def test_ten_thousand_answers_never_make_it_spin(habit: str, most: int) -> None:
    """A31 B18 E6 E20 L9 L10 L11: over 10,000 answers of a bad server no hour sees more calls than it should."""
    server = HABITS[habit]
    calls = list(itertools.islice(live(state_of(), RotationPolicy(), lambda n, *_: server(n + 2)), 10_000))
    steady = [call.at for call in calls][100:]
    assert len(calls) == 10_000
    assert busiest_hour(steady) <= most
    assert min(later - earlier for earlier, later in itertools.pairwise(steady)) >= 1


@settings(max_examples=60)
@given(
    policy=policies(), lifetimes=st.lists(st.integers(0, 2 * 86400), min_size=1, max_size=4), seed=st.integers(1, 50)
)
def test_no_policy_spins(policy: RotationPolicy, lifetimes: list[int], seed: int) -> None:
    """E4 E20 L9 L11: no policy and no lifetimes lead to more calls in an hour than the fuse is rated for."""
    calls = list(
        itertools.islice(live(state_of(), policy, lambda n, *_: granted(n // seed, lifetimes[n % len(lifetimes)])), 300)
    )
    shortest = min(min(lifetime, policy.max_lifetime) for lifetime in lifetimes)
    # An hour on the clock of the fuse starts when it likes, so any hour may see two of its halves.
    assert busiest_hour([call.at for call in calls]) <= 2 * rating(policy, shortest) + 1


@settings(max_examples=60)
@given(policy=policies(), script=st.lists(answers(), min_size=1, max_size=5))
def test_no_server_makes_it_spin(policy: RotationPolicy, script: list[Answer]) -> None:
    """E1 E4 E20: whatever a server answers again and again, there is a second between two calls."""
    calls = list(itertools.islice(live(state_of(), policy, lambda n, *_: script[n % len(script)]), 200))
    assert all(later.at - earlier.at >= 0.999 for earlier, later in itertools.pairwise(calls))


def test_the_fuse_stops_eager_refreshing_until_expiry_is_near() -> None:
    """L9 L10: after four successes within one lifetime the next refresh waits for the last two minutes."""
    state = replace(state_of(), recent=tuple((AT - 300 + 100 * n, 3600.0) for n in range(4)))
    assert fuse_blown(state, POLICY, AT)
    assert refresh_due(state, POLICY, GRANT, 0.0, AT).why == Reason.FUSE_BLOWN
    assert due(state) == pytest.approx(3600 - 120)


def test_ordinary_refreshing_does_not_blow_the_fuse() -> None:
    """L9: refreshing as configured is no reason for an alert, at the ends of every setting."""
    for ratio, jitter, lifetime in itertools.product((0.1, 0.667, 0.95), (0.0, 0.05), (60, 3600)):
        policy = RotationPolicy(lifetime_ratio=ratio, jitter=jitter)
        life = live(state_of(expires_at=AT + lifetime), policy, lambda n, *_: granted(n + 2, lifetime))  # noqa: B023
        assert not any(fuse_blown(call.state, policy, call.at) for call in itertools.islice(life, 200)), (
            ratio,
            jitter,
            lifetime,
        )


def test_a_token_handed_out_twice_is_left_alone_for_half_of_what_is_left() -> None:
    """L10: a server that repeats itself is asked again after half of the remaining life at the earliest."""
    policy = replace(POLICY, lifetime_ratio=0.2)
    state = answered(state_of(), replace(granted(1, 240), refresh_token="other"), policy, AT)
    assert state.repeated
    assert due(state, policy) == pytest.approx(120)
    state = answered(state_of(), replace(granted(1, 40), refresh_token="other"), policy, AT)
    assert due(state, policy) == pytest.approx(30)


def test_the_fuse_counts_all_calls_of_an_hour() -> None:
    """E20: once the calls of an hour are used up, even a due retry waits for the next hour."""
    spent = replace(
        state_of(), hour_started_at=AT, hour_calls=120, last_attempt_at=AT + 1700,
        trouble=Trouble(5, Reason.DNS, "", AT, AT + 1705),
    )  # fmt: skip
    assert due(spent) == HOUR
    assert fuse_blown(spent, POLICY, AT + HOUR - 1)


def test_the_fuse_is_whole_again_when_its_hour_has_passed() -> None:
    """E20: nobody is told of a blown fuse any longer than it holds calls back, even before the next call."""
    spent = replace(state_of(), hour_started_at=AT, hour_calls=120)
    assert [fuse_blown(spent, POLICY, AT + after) for after in (HOUR - 1, HOUR)] == [True, False]


def test_a_blown_fuse_that_has_cooled_asks_for_nothing() -> None:
    """E20: when the hour of a blown fuse is over, a fresh token is left alone at least until its ordinary time."""
    state = replace(state_of(obtained_at=AT + 3500, expires_at=AT + 7100), hour_started_at=AT, hour_calls=120)
    assert 3500 + 2400 <= due(state) < 7100


def test_one_second_lies_between_two_calls() -> None:
    """E4: not even a credential without any access token is asked for twice in a second."""
    state = replace(state_of(access_token=""), last_attempt_at=AT)
    assert due(state) == 1


# -- retries and refusals --------------------------------------------------------------------------


def test_a_wrong_client_secret_is_tried_every_quarter_of_an_hour() -> None:
    """E1: `invalid_client` is never retried faster than every 15 minutes, 100 times over."""
    calls = list(itertools.islice(live(state_of(), POLICY, lambda *_: Refused(Reason.INVALID_CLIENT, 401)), 100))
    assert min(later.at - earlier.at for earlier, later in itertools.pairwise(calls)) >= 900


def test_a_dead_grant_is_probed_slowly_or_never() -> None:
    """B18: once reauthorization is required, one call an hour is made, or none at all if the probe is off."""
    dead = Refused(Reason.INVALID_GRANT, 400)
    calls = list(itertools.islice(live(state_of(), POLICY, lambda *_: dead), 10))
    assert calls[1].state.status is Status.REAUTHORIZATION_REQUIRED
    assert all(later.at - earlier.at >= HOUR for earlier, later in itertools.pairwise(calls[1:]))
    assert {call.why for call in calls[2:]} == {"probe"}

    silent = list(live(state_of(), replace(POLICY, probe_interval=0), lambda *_: dead))
    assert len(silent) == 2
    assert action(silent[-1].state, 1e9, policy=replace(POLICY, probe_interval=0)) == Halt(
        Reason.REAUTHORIZATION_REQUIRED
    )


def test_a_network_that_comes_up_late_is_noticed_within_five_seconds() -> None:
    """E21: without a valid token a name that does not resolve is tried every 5 s, for as long as it takes."""
    no_dns = Unavailable(Reason.DNS, delivered=False)
    expired = state_of(obtained_at=AT - 7200, expires_at=AT - 3600)
    calls = list(itertools.islice(live(expired, POLICY, lambda *_: no_dns), 200))
    assert calls[0].at == AT
    assert max(later.at - earlier.at for earlier, later in itertools.pairwise(calls)) <= 5


def test_no_retry_sleeps_through_an_expiry() -> None:
    """E14: Retry-After of a day waits for half of the token's remaining life, and a quarter of an hour at most."""
    day = Unavailable(Reason.RATE_LIMITED, delivered=False, retry_after=DAY)
    calls = list(itertools.islice(live(state_of(), POLICY, lambda *_: day), 60))
    for earlier, later in itertools.pairwise(calls):
        left = AT + 3600 - earlier.at
        assert later.at - earlier.at <= (max(left / 2, 5) if left > 0 else 900) + 1e-6
    assert sum(call.at < AT + 3600 for call in calls) > 5


# -- the refresh token's own life ------------------------------------------------------------------


def test_an_aging_refresh_token_is_used_early() -> None:
    """B31: with a third of the refresh token's life left a refresh is due although the access token is good."""
    state = state_of(expires_at=AT + 10 * DAY, refresh_expires_at=AT + 3 * DAY)
    assert refresh_due(state, POLICY, GRANT, 0.0, AT).why == "refresh_token_aging"
    assert due(state) == pytest.approx(2 * DAY)


def test_a_refresh_token_with_a_fixed_end_is_not_asked_for_over_and_over() -> None:
    """B30 B31: an end that does not move costs few calls, even in its last hour."""
    policy = RotationPolicy(refresh_token_lifetime=DAY, refresh_token_slides=False)
    start = state_of(refresh_expires_at=AT + DAY)
    calls = [call.at for call in live(start, policy, lambda n, *_: granted(n + 2), until=AT + 2 * DAY)]
    assert busiest_hour(calls) <= 12


# -- the order of things ---------------------------------------------------------------------------


def test_an_unsaved_pair_comes_first() -> None:
    """B24: what only memory holds is saved before anything is published or asked for."""
    late = state_of(obtained_at=AT - 7200, expires_at=AT + 10)
    assert next_action(late, POLICY, GRANT, (FILE,), AT, 0.0, unsaved=True) == Save()


def test_a_token_is_published_before_the_next_one_is_fetched() -> None:
    """A good token goes out first, even when a refresh is due as well."""
    late = state_of(obtained_at=AT - 3000, expires_at=AT + 600)
    assert action(late, 0, FILE) == Publish("file")
    done = after_publish(late, "file", token_set(), None, "", AT)
    assert action(done, 0, FILE) == Refresh("due")


def test_a_failing_output_never_causes_a_token_call() -> None:
    """E9: an output that fails for a day is tried again and again; the refreshes stay where they were."""
    state, now, publishes, refreshes = state_of(), AT, 0, 0
    while now < AT + DAY - 1:
        match next_action(state, POLICY, GRANT, (FILE,), now, 0.0):
            case Publish():
                assert state.tokens is not None
                state = after_publish(state, "file", state.tokens, Reason.NO_SPACE, "full", now)
                publishes += 1
            case Refresh():
                state = answered(state, granted(state.generation + 1), POLICY, now)
                refreshes += 1
            case Wait(until, _):
                now = until
    assert refreshes == 35  # every 40 minutes
    assert 1000 < publishes < 2000


def test_hooks_run_after_the_outputs() -> None:
    """A hook waits until every output has had its turn, and a failing output does not hold it up."""
    state = state_of()
    assert action(state, 0, HOOK, FILE) == Publish("file")
    assert state.tokens is not None
    failed = after_publish(state, "file", state.tokens, Reason.NO_SPACE, "", AT)
    assert action(failed, 0, HOOK, FILE) == Publish("hook")
    good = after_publish(state, "file", state.tokens, None, "", AT)
    assert action(good, 0, HOOK, FILE) == Publish("hook")


def test_an_expired_token_is_not_published() -> None:
    """A31: neither an expired token nor an empty one goes out."""
    assert isinstance(action(state_of(expires_at=AT - 1, obtained_at=AT - 9), 0, FILE), Refresh)
    assert isinstance(action(state_of(access_token=""), 0, FILE), Refresh)


def test_nothing_to_do_without_a_first_pair() -> None:
    """Without tokens, or without a refresh token, there is nothing to do but wait for a login."""
    assert action(CredentialState(), 0, FILE) == Halt(Reason.LOGIN_REQUIRED)
    delivered = replace(state_of(refresh_token=None), deliveries={"file": Delivery(1, AT)})
    assert action(delivered, 1e9, FILE) == Halt(Reason.LOGIN_REQUIRED)
    assert standing_of(delivered, Grant.REFRESH_TOKEN) is Standing.LOGIN_REQUIRED
    assert standing_of(delivered, Grant.CLIENT_CREDENTIALS) is Standing.VALID


def test_client_credentials_need_no_first_pair() -> None:
    """A credential that renews by client credentials gets its first token by itself."""
    state = CredentialState()
    assert next_action(state, POLICY, Grant.CLIENT_CREDENTIALS, (FILE,), AT, 0.0) == Refresh("first")


# -- starting --------------------------------------------------------------------------------------


def test_overdue_is_judged_from_the_saved_state() -> None:
    """L7: a machine that slept or was off past the due time refreshes as soon as the state is read."""
    for late in (2401, 3600, 30 * DAY):
        state = opened(replace(state_of(), saved_at=AT), POLICY, AT + late, 0.0)
        assert isinstance(action(state, late), Refresh)


def test_a_clock_behind_the_saved_instant_is_not_trusted() -> None:
    """D9: with the clock behind the last save a refresh is due at once, whatever the lifetimes say."""
    state = opened(replace(state_of(), saved_at=AT, last_attempt_at=AT), POLICY, AT - 14 * DAY, 0.0)
    assert state.clock_suspect
    assert action(state, -14 * DAY) == Refresh("clock_suspect")


@pytest.mark.parametrize("reason", [Reason.HTTP_5XX, Reason.CONNECTION_LOST, Reason.DNS, Reason.RATE_LIMITED])
def test_a_suspect_clock_delays_no_retry(reason: Reason) -> None:
    """D9: instants from the other side of the clock's fall do not make a retry wait for years."""
    failed = Unavailable(reason, delivered=reason in (Reason.HTTP_5XX, Reason.CONNECTION_LOST))
    before = state_of(obtained_at=AT, expires_at=AT + HOUR)
    state = opened(replace(before, saved_at=AT), POLICY, AT - 3650 * DAY, 0.0)
    start = AT - 3650 * DAY
    calls = list(itertools.islice(live(state, POLICY, lambda *_: failed, start=start), 20))
    assert len(calls) == 20
    assert max(later.at - earlier.at for earlier, later in itertools.pairwise(calls)) <= HOUR


# -- in general ------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(life=lives(), wait=st.floats(0, 3 * DAY), spread=st.floats(0, 1, exclude_max=True))
def test_there_is_always_an_answer(life: tuple[RotationPolicy, list[object]], wait: float, spread: float) -> None:
    """E6: after any history, at any time, what is due is one clear action and every wait ends in the future."""
    policy, history = life
    state, now = CredentialState(), AT
    for _, state, now in replay(policy, history):  # type: ignore[arg-type] # noqa: B007
        pass
    what = next_action(state, policy, GRANT, (FILE, HOOK), now + wait, spread)
    if isinstance(what, Wait):
        assert now + wait < what.until < math.inf
    else:
        assert isinstance(what, Refresh | Publish | Halt)


def test_the_spread_differs_between_credentials_and_generations() -> None:
    """C13: a thousand credentials are spread evenly over the jitter, each anew with every generation."""
    shares = sorted(spread_of(f"user-{number}", 1) for number in range(1000))
    assert shares[0] >= 0
    assert shares[-1] < 1
    assert max(later - earlier for earlier, later in itertools.pairwise(shares)) < 0.02
    assert len({spread_of("user", generation) for generation in range(100)}) == 100
