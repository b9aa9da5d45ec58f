"""What each event makes of a credential's state."""

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.core.model import DAY, HOUR, Answer, Grant, Granted, Reason, Refused, RotationPolicy, Unavailable
from rotator.core.record import from_record, to_record
from rotator.core.schedule import refresh_due, spread_of
from rotator.core.standing import Standing, standing_of
from rotator.core.state import (
    CredentialState,
    Status,
    Trouble,
    adopted,
    after_publish,
    after_unavailable,
    begin_refresh,
    from_refresh_token,
    judged,
    nearly_over_at,
    opened,
    retry_now,
    with_sinks,
    withdrawn,
)
from tests.lives import GRANT, Event, answered, begun, granted, live, lives, replay
from tests.samples import AT, full_state, state_of, token_set
from tests.secrets_scan import planted

POLICY = RotationPolicy(jitter=0.0)
DEAD = Refused(Reason.INVALID_GRANT, 400, "token expired")
REUSED = Refused(Reason.TOKEN_REUSE, 400, "already used")
LOST = Unavailable(Reason.CONNECTION_LOST, delivered=True)
TIMEOUT = Unavailable(Reason.READ_TIMEOUT, delivered=True)
NO_CONNECTION = Unavailable(Reason.CONNECT, delivered=False)
BUSY = Unavailable(Reason.RATE_LIMITED, delivered=False)
NEARLY_OVER = 3600 - 120


def trouble_of(state: CredentialState) -> Trouble:
    """Return a state's trouble, which must be there."""
    assert state.trouble is not None
    return state.trouble


def after(state: CredentialState, *steps: tuple[float, Answer]) -> CredentialState:
    """Take in answers at instants given in seconds after `AT`."""
    for at, answer in steps:
        state = answered(state, answer, POLICY, AT + at)
    return state


def due(state: CredentialState, policy: RotationPolicy = POLICY) -> float:
    """Return when the next token request is due, in seconds after `AT`."""
    return refresh_due(state, policy, GRANT, 0.0, AT).at - AT


def holds(state: CredentialState) -> set[str]:
    """Return every refresh token that a state knows."""
    newest = {state.tokens.refresh_token} if state.tokens and state.tokens.refresh_token else set()
    return newest | {one.refresh_token for one in state.earlier}


# -- a grant that is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("refused", [DEAD, REUSED])
def test_the_first_no_is_not_believed(refused: Refused) -> None:
    """B17 C20: one `invalid_grant` makes a suspect that is asked again in seconds; the second one is believed."""
    once = after(state_of(), (2400, refused))
    assert (once.status, due(once)) == (Status.SUSPECT, 2405)
    twice = after(once, (2405, refused))
    assert twice.status is Status.REAUTHORIZATION_REQUIRED
    assert standing_of(twice, GRANT) is Standing.REAUTHORIZATION_REQUIRED
    assert holds(twice) == {planted("refresh-1")}


def test_a_reuse_is_told_until_the_login() -> None:
    """C19 C20: a server that names the reuse once and then says `invalid_grant` only: the cause is not forgotten."""
    state = after(state_of(), (0, REUSED), (5, DEAD), (4000, DEAD))
    assert trouble_of(state).reason is Reason.TOKEN_REUSE
    assert trouble_of(after(state_of(), (0, DEAD), (5, DEAD))).reason is Reason.INVALID_GRANT


def test_a_success_between_two_noes_ends_the_suspicion() -> None:
    """B17: a suspect that is granted a token is trusted again, so the next no is a first one."""
    state = after(state_of(), (0, DEAD), (5, granted(2)), (2400, DEAD))
    assert state.status is Status.SUSPECT


def test_no_before_the_first_token_is_not_terminal_either() -> None:
    """B17: right after a start from a seed, a failure is no reason to ask for a login."""
    seeded = adopted(CredentialState(), from_refresh_token(planted("seed"), POLICY, AT), "f", AT, 3)
    assert after(seeded, (0, DEAD)).status is Status.SUSPECT
    assert after(seeded, (0, NO_CONNECTION)).status is Status.OK


def test_an_unavailable_server_does_not_confirm_a_no() -> None:
    """B17 E13: an empty 502 between two refusals proves nothing; a grant is dead after two noes in a row."""
    state = after(state_of(), (0, DEAD), (5, BUSY))
    assert state.status is Status.SUSPECT
    assert after(state, (10, DEAD)).status is Status.SUSPECT
    assert after(state, (10, DEAD), (15, DEAD)).status is Status.REAUTHORIZATION_REQUIRED


@pytest.mark.parametrize("between", [LOST, BUSY, NO_CONNECTION])
def test_a_dead_grant_stays_dead_through_an_outage(between: Unavailable) -> None:
    """B18: an outage during a probe neither revives a dead grant for a moment nor makes probes come faster."""
    dead = after(state_of(), (0, DEAD), (5, DEAD), (4000, between))
    assert dead.status is Status.REAUTHORIZATION_REQUIRED
    assert due(dead) >= 4000 + HOUR
    again = after(dead, (8000, DEAD))
    assert again.status is Status.REAUTHORIZATION_REQUIRED
    assert due(again) == 8000 + HOUR


def test_a_probe_heals_what_the_server_heals() -> None:
    """B18: a disabled user who is enabled again gets a token at the next probe, and every doubt ends."""
    healed = after(state_of(), (0, DEAD), (5, DEAD), (3605, granted(2)))
    assert (healed.status, healed.trouble) == (Status.OK, None)


def test_a_login_heals() -> None:
    """B10 C20: after a login nothing of the refusals is left but the earlier refresh token."""
    dead = after(state_of(), (0, DEAD), (5, DEAD))
    healed = adopted(dead, token_set(refresh_token=planted("login")), None, AT + 10, 3)
    assert (healed.status, healed.trouble, healed.generation) == (Status.OK, None, 2)
    assert [one.refresh_token for one in healed.earlier] == [planted("refresh-1")]


@pytest.mark.parametrize("reason", [Reason.INVALID_REQUEST, Reason.OTHER_REFUSAL])
def test_other_refusals_in_a_row_make_a_suspect(reason: Reason) -> None:
    """A32: a server that says `invalid_request` or plain 401 for a dead token is not hammered and not believed."""
    calls = list(itertools.islice(live(state_of(), POLICY, lambda *_: Refused(reason, 401)), 20))
    assert [call.state.status for call in calls[:4]] == [Status.OK, Status.OK, Status.SUSPECT, Status.SUSPECT]
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(calls)]
    assert gaps == pytest.approx([60, 120, 240, 480] + [900] * 15)


def test_a_firewall_now_and_then_is_no_refusal() -> None:
    """E12: 403 is passing twice, suspect the third time, and a success forgets it."""
    forbidden = Unavailable(Reason.FORBIDDEN, delivered=False)
    twice = after(state_of(), (0, forbidden), (9, forbidden))
    assert twice.status is Status.OK
    assert after(twice, (30, forbidden)).status is Status.SUSPECT
    assert after(twice, (30, granted(2)), (60, forbidden)).status is Status.OK


def test_a_corrected_secret_ends_the_wait() -> None:
    """E1 E2: `invalid_client` waits a quarter of an hour and shows why; a changed input ends the wait at once."""
    state = after(state_of(), (2400, Refused(Reason.INVALID_CLIENT, 401, "bad secret")))
    assert (standing_of(state, GRANT), trouble_of(state).text) == (Standing.REFUSED, "bad secret")
    assert due(state) == 2400 + 900
    assert due(retry_now(state, AT + 2500)) == 2500
    assert retry_now(state_of(), AT) == state_of()


# -- requests of unknown fate ----------------------------------------------------------------------


def test_a_lost_answer_is_replayed_once_at_once() -> None:
    """B9 B12: when the connection is lost with the request out, the same token is sent again within seconds."""
    state = after(state_of(), (2400, LOST))
    assert standing_of(state, GRANT) is Standing.AMBIGUOUS
    assert refresh_due(state, POLICY, GRANT, 0.0, AT).why == "replay"
    assert 2401 <= due(state) <= 2410


@pytest.mark.parametrize(("lost_after", "at"), [(8.9, 9.9), (9.1, NEARLY_OVER - 2400), (60, NEARLY_OVER - 2400)])
def test_a_slow_answer_is_not_asked_for_again_after_the_window(lost_after: float, at: float) -> None:
    """B9 B13: the window counts from the request, so a read timeout beyond it risks no access token that is good."""
    state = answered(state_of(), TIMEOUT, POLICY, AT + 2400 + lost_after, started_at=AT + 2400)
    assert due(state) == pytest.approx(2400 + at)
    assert standing_of(state, GRANT) is Standing.AMBIGUOUS


@pytest.mark.parametrize("asked", [NEARLY_OVER + 1.0, 3600.0, 7200.0])
def test_a_slow_answer_is_asked_for_again_at_once_when_nothing_good_is_left(asked: float) -> None:
    """B9: with the access token nearly over or gone, the same token is sent again a second after the read timeout."""
    state = answered(state_of(), TIMEOUT, POLICY, AT + asked + 60, started_at=AT + asked)
    assert due(state) == pytest.approx(asked + 61)


@pytest.mark.parametrize("late", [11.0, 600.0])
def test_a_replay_that_missed_its_window_is_not_made_good(late: float) -> None:
    """B13: a stop or a full disk between a lost answer and its replay: after the window the token is kept back."""
    state = after(state_of(), (2400, LOST))
    assert refresh_due(state, POLICY, GRANT, 0.0, AT + 2400 + late).at == pytest.approx(AT + NEARLY_OVER)


def test_after_the_replay_nothing_good_is_put_at_risk() -> None:
    """B13: once the replay is lost too, the next try waits until the access token is nearly over."""
    state = after(state_of(), (2400, LOST), (2401, LOST))
    assert due(state) == pytest.approx(NEARLY_OVER)
    assert standing_of(state, GRANT) is Standing.AMBIGUOUS


@pytest.mark.parametrize("second", [NO_CONNECTION, BUSY, Refused(Reason.INVALID_CLIENT, 401), DEAD])
def test_a_replay_that_did_not_arrive_changes_nothing_of_the_risk(second: Answer) -> None:
    """B13: whatever becomes of the replay, a try after the window waits until the access token is nearly over."""
    state = after(state_of(), (2400, LOST), (2401, second))
    while due(state) <= 2410:
        state = after(state, (due(state), second))
    if state.status is Status.OK:
        assert due(state) >= NEARLY_OVER - 1
    assert trouble_of(state).ambiguous_at == AT + 2400


def test_a_changed_input_does_not_make_a_risk_worth_taking() -> None:
    """B13 K8: a changed secret file does not send a token of unknown fate again while the access token is good."""
    state = after(state_of(), (2400, LOST), (2401, LOST))
    assert due(retry_now(state, AT + 2500)) == pytest.approx(NEARLY_OVER)


def test_an_unclear_refresh_is_never_refused_for_good() -> None:
    """B8 B13: near expiry and after it a token of unknown fate is tried once for each step of the back-off."""
    calls = list(itertools.islice(live(state_of(), POLICY, lambda *_: LOST), 30))
    assert [round(call.at - AT) for call in calls[:3]] == [2400, 2401, NEARLY_OVER]
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(calls[2:])]
    assert max(gaps) <= 900
    assert max(gaps[10:]) > 600


def test_without_a_replay_window_nothing_is_replayed() -> None:
    """B13: `replay_window` 0 means that an unclear refresh waits until the access token is nearly over."""
    policy = replace(POLICY, replay_window=0)
    assert due(answered(state_of(), LOST, policy, AT + 2400), policy) == pytest.approx(NEARLY_OVER)


def test_client_credentials_have_nothing_to_lose() -> None:
    """B13: a request that spends no refresh token is simply repeated, by back-off."""
    marked = begin_refresh(state_of(refresh_token=None), AT)
    state = after_unavailable(marked, LOST, POLICY, Grant.CLIENT_CREDENTIALS, AT, 0.0)
    assert trouble_of(state).ambiguous_at is None
    assert trouble_of(state).retry_at <= AT + 5


def test_a_no_after_a_lost_answer_deletes_nothing() -> None:
    """B10: `invalid_grant` to the replay of a lost answer makes a suspect and keeps every generation."""
    state = after(state_of(), (0, granted(2)), (2400, LOST), (2401, DEAD))
    assert state.status is Status.SUSPECT
    assert holds(state) == {planted("refresh-1"), planted("refresh-2")}


@pytest.mark.parametrize("noes", [1, 2])
def test_a_no_after_a_lost_answer_tells_of_the_answer(noes: int) -> None:
    """B1: suspect or beyond, the text says that an answer was lost, and a no without such a past does not."""
    lost = after(state_of(), (2400, LOST), *[(2401, DEAD)] * noes)
    assert "token expired; the answer to an earlier refresh was lost" in trouble_of(lost).text
    assert trouble_of(after(state_of(), (2400, DEAD))).text == "token expired"


# -- starting anew ---------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0.0, 1.0, 9.9])
def test_a_restart_in_the_middle_replays_at_once(late: float) -> None:
    """B1 B8: a state with its mark still set is an unclear refresh: a probe within the window, not a refusal."""
    state = opened(begun(state_of(), AT + 2400), POLICY, AT + 2400 + late, 0.0)
    assert trouble_of(state).reason is Reason.INTERRUPTED
    assert due(state) <= max(2400 + late, 2401)


def test_a_late_restart_in_the_middle_takes_no_risk() -> None:
    """B13: an interrupted refresh that is older than the window waits until the access token is nearly over."""
    state = opened(begun(state_of(), AT + 2400), POLICY, AT + 2411, 0.0)
    assert due(state) == pytest.approx(NEARLY_OVER)
    expired = opened(begun(state_of(), AT + 2400), POLICY, AT + 7200, 0.0)
    assert due(expired) <= 7200


def test_restarts_do_not_put_off_what_is_urgent() -> None:
    """B13, C22: the back-off counts from the interrupted request, so owner after owner may die, and none waits anew."""
    began_at = 3590.0
    marked = begun(state_of(), AT + began_at)
    restarts = [opened(marked, POLICY, AT + began_at + later, 0.0) for later in (11, 12, 60)]
    assert [due(state) for state in restarts] == pytest.approx([due(restarts[0])] * len(restarts))
    assert due(restarts[0]) <= began_at + POLICY.backoff_initial


def test_restarts_in_a_row_do_not_add_up_to_calls() -> None:
    """B18 E1: a daemon that dies in each refresh replays within the window only; what was refused stays refused."""
    state = after(state_of(), (0, Refused(Reason.INVALID_CLIENT, 401)))
    calls, now = list[float](), AT + 900
    while now < AT + NEARLY_OVER - 60:
        if due(state) <= now - AT:
            state = begun(state, now)
            calls.append(now)
        state = opened(from_record(json.loads(json.dumps(to_record(state)))), POLICY, now + 1, 0.0)
        now += 1
    assert len(calls) > 1
    assert calls[-1] - calls[0] <= POLICY.replay_window


@settings(max_examples=300)
@given(life=lives(), off=st.floats(0, 3 * DAY))
def test_a_restart_forgets_neither_backoff_nor_refusal(life: tuple[RotationPolicy, list[Event]], off: float) -> None:
    """B18 E1 L7: opened from its record after any history and any time off, a credential stands where it stood."""
    policy, history = life
    for _, state, now in replay(policy, history):
        spread = spread_of("pair", state.generation)
        again = opened(from_record(json.loads(json.dumps(to_record(state)))), policy, now + off, spread)
        assert again == state
        assert refresh_due(again, policy, GRANT, spread, now) == refresh_due(state, policy, GRANT, spread, now)

        cut_off = opened(begun(state, now), policy, now + off, spread)
        assert cut_off.status == state.status
        assert cut_off.refresh_started_at is None
        assert trouble_of(cut_off).failures == (state.trouble.failures if state.trouble else 0) + 1
        assert holds(cut_off) == holds(state)


def test_a_clock_that_ran_ahead_leaves_no_end_in_the_future() -> None:
    """D9 M5: a refresh while the clock was a year ahead: put right, the refresh token's life is that of its answer."""
    ahead = AT + 365 * DAY
    state = answered(state_of(), granted(2, refresh_expires_in=30 * DAY), POLICY, ahead)
    state = opened(state, POLICY, AT + 4000, 0.0)
    assert state.tokens is not None
    assert state.tokens.refresh_expires_at == AT + 4000 + 30 * DAY
    for later in (4001, 8000):
        state = after(state, (later, granted(later, refresh_expires_in=30 * DAY)))
    assert (state.refresh_life_began_at, state.refresh_life_ends_at) == (AT + 8000, AT + 8000 + 30 * DAY)


def test_a_clock_that_ran_ahead_does_not_move_a_fixed_end() -> None:
    """D9 M5: an end that was fixed at the login is older than the clock's fault, and stays."""
    policy = replace(POLICY, refresh_token_lifetime=90 * DAY, refresh_token_slides=False)
    state = adopted(CredentialState(), from_refresh_token(planted("seed"), policy, AT), None, AT, 3)
    state = answered(state, granted(2), policy, AT + 365 * DAY)
    state = opened(state, policy, AT + DAY, 0.0)
    assert state.tokens is not None
    assert state.tokens.refresh_expires_at == AT + 90 * DAY
    assert state.refresh_life_began_at == AT


def test_a_clock_that_fell_back_voids_waits() -> None:
    """D9: with the clock behind the last save, no wait, no fuse and no lifetime from the future is kept."""
    before = replace(full_state(), refresh_started_at=None, saved_at=AT)
    now = AT - DAY
    state = opened(before, POLICY, now, 0.0)
    assert state.clock_suspect
    assert trouble_of(state).retry_at == now
    assert state.recent == ()
    assert state.tokens is not None
    assert state.tokens.obtained_at <= now
    assert state.tokens.expires_at <= now + 3600
    assert state.last_success_at <= now
    assert all(delivery.retry_at <= now for delivery in state.deliveries.values())
    assert state.status is before.status


def test_a_clock_a_little_behind_is_nothing_special() -> None:
    """D9: some seconds between two boots' clocks are no reason to refresh at once."""
    before = replace(state_of(), saved_at=AT + 4)
    assert opened(before, POLICY, AT, 0.0) == before


# -- the two lifetimes -----------------------------------------------------------------------------


def test_a_sliding_refresh_token_starts_anew_with_each_rotation() -> None:
    """B30 B31: the refresh token's end is kept as an instant and moves with every rotation."""
    policy = replace(POLICY, refresh_token_lifetime=30 * DAY)
    state = answered(state_of(refresh_expires_at=AT + 30 * DAY), granted(2), policy, AT + DAY)
    assert state.tokens is not None
    assert state.tokens.refresh_expires_at == AT + 31 * DAY


def test_a_fixed_end_does_not_move() -> None:
    """B30: with a lifetime counted from the login, a rotation leaves the end where it was; a login moves it."""
    policy = replace(POLICY, refresh_token_lifetime=30 * DAY, refresh_token_slides=False)
    seeded = adopted(CredentialState(), from_refresh_token(planted("seed"), policy, AT), None, AT, 3)
    state = answered(seeded, granted(2), policy, AT + DAY)
    assert state.tokens is not None
    assert state.tokens.refresh_expires_at == AT + 30 * DAY
    state = adopted(state, from_refresh_token(planted("login"), policy, AT + 2 * DAY), None, AT, 3)
    assert state.tokens is not None
    assert state.tokens.refresh_expires_at == AT + 32 * DAY


@pytest.mark.parametrize("before", [None, 30 * DAY, 400 * DAY])
@pytest.mark.parametrize("slid", [True, False])
def test_a_fixed_end_that_is_set_later_counts_from_the_login(before: float | None, *, slid: bool) -> None:
    """B30: the lifetime is set or corrected on day 60: the end is what it would have been had it always been so."""
    first = replace(POLICY, refresh_token_lifetime=before, refresh_token_slides=slid)
    state = adopted(CredentialState(), from_refresh_token(planted("seed"), first, AT), None, AT, 3)
    state = answered(state, granted(2), first, AT + 60 * DAY)
    policy = replace(POLICY, refresh_token_lifetime=90 * DAY, refresh_token_slides=False)
    reopened, _ = judged(state, policy, GRANT, "", on_schedule=False)
    for now in (reopened, answered(state, granted(3), policy, AT + 60 * DAY + 3600)):
        assert now.tokens is not None
        assert now.tokens.refresh_expires_at == AT + 90 * DAY
        assert (now.refresh_life_began_at, now.refresh_life_ends_at) == (AT, AT + 90 * DAY)


def test_an_end_that_the_server_names_is_not_counted_from_the_login() -> None:
    """B30: the configured lifetime is for answers that name none."""
    policy = replace(POLICY, refresh_token_lifetime=90 * DAY, refresh_token_slides=False)
    seeded = adopted(CredentialState(), from_refresh_token(planted("seed"), policy, AT), None, AT, 3)
    state = answered(seeded, granted(2, refresh_expires_in=DAY), policy, AT + 3600)
    assert state.tokens is not None
    assert state.tokens.refresh_expires_at == AT + 3600 + DAY


def test_an_end_that_refreshes_do_not_move_began_with_the_login() -> None:
    """B30: Keycloak's session maximum comes as a lifetime that shrinks: its warning counts from the login."""
    state = answered(CredentialState(), granted(1, refresh_expires_in=36000), POLICY, AT)
    for hour in (1, 2, 3):
        left = 36000 - hour * 3600 - hour % 2  # one second short, as Keycloak's may be
        state = answered(state, granted(hour + 1, refresh_expires_in=left), POLICY, AT + hour * 3600)
        assert (state.refresh_life_began_at, state.refresh_life_ends_at) == (AT, AT + 36000)


def test_the_life_of_a_sliding_refresh_token_begins_with_each_refresh() -> None:
    """B30: an end that moves is that of a new life, whether the server or the configuration says so."""
    for policy, fields in ((POLICY, {"refresh_expires_in": 86400}), (replace(POLICY, refresh_token_lifetime=DAY), {})):
        state = answered(CredentialState(), granted(1, **fields), policy, AT)
        state = answered(state, granted(2, **fields), policy, AT + 2400)
        assert (state.refresh_life_began_at, state.refresh_life_ends_at) == (AT + 2400, AT + 2400 + DAY)


def test_nearly_over_is_inside_the_lifetime() -> None:
    """B13: a token counts as nearly over two minutes before its end, or in the last sixth of a short life."""
    assert nearly_over_at(token_set()) == AT + NEARLY_OVER
    assert nearly_over_at(token_set(expires_at=AT + 60)) == AT + 50
    assert nearly_over_at(None) == 0


# -- counting and delivering -----------------------------------------------------------------------


def test_calls_are_counted_by_the_hour() -> None:
    """E20: requests within one hour add up, and the next hour starts from one."""
    state = begin_refresh(begin_refresh(CredentialState(), AT), AT + 3599)
    assert (state.hour_calls, state.hour_started_at) == (2, AT)
    state = begin_refresh(state, AT + 3600)
    assert (state.hour_calls, state.hour_started_at) == (1, AT + 3600)


def test_what_never_reached_a_server_is_not_counted() -> None:
    """E20 E21: an hour without a network uses up nothing of what the fuse allows."""
    state = after(state_of(), *((number, NO_CONNECTION) for number in range(1000)))
    assert state.hour_calls == 0


def test_deliveries_back_off_one_by_one() -> None:
    """E9: a failing output waits twice as long each time, a minute at most; the others and the tokens are untouched."""
    state = before = state_of()
    waits = []
    for _ in range(9):
        state = after_publish(state, "a", token_set(), Reason.NO_SPACE, "full", AT)
        waits.append(state.delivery("a").retry_at - AT)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert state.delivery("b").failures == 0
    assert (state.tokens, state.trouble) == (before.tokens, None)
    good = after_publish(state, "a", token_set(), None, "", AT + 9)
    assert (good.delivery("a").failures, good.delivery("a").generation) == (0, 1)


def test_a_tampered_output_is_due_again() -> None:
    """An output that somebody deleted counts as never delivered; removed outputs are forgotten."""
    state = after_publish(state_of(), "a", token_set(), None, "", AT)
    state = after_publish(state, "b", token_set(), None, "", AT)
    assert withdrawn(state, "a").delivery("a").generation == 0
    assert with_sinks(state, ("b",)).deliveries.keys() == {"b"}
    assert with_sinks(state, ("a", "b")) is state


def test_a_delivery_waits_as_long_as_it_is_told_to() -> None:
    """H26: a failure that only a person can mend, or that names a time, is tried again that late."""
    state = after_publish(state_of(), "a", token_set(), Reason.FORBIDDEN, "no", AT, 300)
    assert state.delivery("a").retry_at == AT + 300
    state = after_publish(state_of(), "a", token_set(), Reason.RATE_LIMITED, "no", AT, 1e9)
    assert state.delivery("a").retry_at == AT + 900


# -- in general ------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(life=lives())
def test_no_transition_loses_a_refresh_token(life: tuple[RotationPolicy, list[Event]]) -> None:
    """A22 B10 C3 C4: after any event in any history the refresh token is what it was, or kept beside a new one."""
    policy, history = life
    for before, state, _ in replay(policy, history):
        newest = before.tokens.refresh_token if before.tokens else None
        assert newest is None or newest in holds(state)
        kept = [one.refresh_token for one in before.earlier][: policy.keep_generations - 1]
        assert set(kept) <= holds(state)
        assert len(state.earlier) <= policy.keep_generations


@settings(max_examples=300)
@given(life=lives())
def test_the_generation_never_goes_down(life: tuple[RotationPolicy, list[Event]]) -> None:
    """C15: every event leaves the generation as it was, and one that brings tokens raises it by one."""
    policy, history = life
    for (before, state, _), event in zip(replay(policy, history), history, strict=True):
        fresh = isinstance(event.answer, Granted) or event.what == "login"
        assert state.generation == before.generation + fresh
        assert state.tokens is None or before.tokens is None or fresh or state.tokens.expires_at > 0


@settings(max_examples=300)
@given(life=lives())
def test_what_was_refused_shows(life: tuple[RotationPolicy, list[Event]]) -> None:
    """E2: after any failure the reason, the count and the next try can be seen at once; C20: a reuse stays one."""
    policy, history = life
    for (_, state, now), event in zip(replay(policy, history), history, strict=True):
        if isinstance(event.answer, Refused | Unavailable):
            trouble = trouble_of(state)
            kept = event.answer.reason is Reason.INVALID_GRANT and trouble.reason is Reason.TOKEN_REUSE
            assert kept or trouble.reason is event.answer.reason
            assert trouble.failures >= 1
            assert trouble.since_at <= now <= trouble.retry_at
