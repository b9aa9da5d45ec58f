"""The line: what happens in which order, and what survives when something does not."""

import linecache
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import pytest

from rotator.core.model import (
    HOUR,
    Answer,
    Fingerprinter,
    Grant,
    Granted,
    Halt,
    Oddity,
    Reason,
    Refused,
    RotationPolicy,
    TokenRequest,
    Unavailable,
    Wait,
)
from rotator.core.standing import Standing
from rotator.core.state import CredentialState, Status, from_refresh_token
from rotator.ports import (
    Event,
    Notice,
    Problem,
    PublishFinished,
    RefreshFinished,
    RefreshStarted,
    SaveFinished,
    StatusChanged,
)
from rotator.rotate import Rotator
from rotator.save import SAVE_RETRY
from tests.fakes import FixedClock, MemoryStore
from tests.line import NAME, Fields, Line, ScriptedEndpoint
from tests.lives import granted
from tests.process.rig import PATIENCE
from tests.samples import AT, state_of, token_set
from tests.secrets_scan import planted

DUE = 2400.0
SEED = planted("seed")
FULL = Problem(Reason.NO_SPACE, "/state is full; make room")
DEAD = Refused(Reason.INVALID_GRANT, 400, "expired")
LOST = Unavailable(Reason.CONNECTION_LOST, delivered=True)
DOWN = Unavailable(Reason.CONNECT, delivered=False)


def delivered(generation: int = 1) -> CredentialState:
    """Return a saved state that was published already."""
    line = Line(state=state_of(generation))
    line.step()
    return line.state


def at_due(*answers: Answer | Callable[[], Answer], **options: Any) -> Line:
    """Return a line whose credential is due now and whose outputs are current."""
    return Line(*answers, state=delivered(), at=AT + DUE, **options)


def status(line: Line) -> Status:
    """Return what is believed of the grant."""
    return line.state.status


def meanwhile(does: Callable[[], object], answer: Answer) -> Callable[[], Answer]:
    """Return an answer during whose request something else happens."""

    def request() -> Answer:
        does()
        return answer

    return request


# -- reserve, request, save, judge, publish ----------------------------------------------------------


def test_the_order_of_a_rotation() -> None:
    """B1 B2 B6 B23 B28: reserve, request, save, judge, publish, in this order and each once."""
    line = Line(state=state_of(), hooks=("hook",))
    line.step()
    line.journal.clear()
    fields = Fields({"expires_in": 1800}, lambda: line.journal.append(("judge", None)))
    line.endpoint.answers.append(Granted(planted("access-2"), planted("refresh-2"), fields))
    outcome = line.step(DUE)

    titles = [title for title, _ in line.journal]
    assert list(dict.fromkeys(titles)) == ["reserve", "request", "save", "judge", "publish"]
    assert [titles.count(title) for title in ("reserve", "request", "save", "publish")] == [1, 1, 1, 2]
    assert line.sent == [planted("refresh-1")]
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))
    assert line.sinks["file"].published[-1].access_token == planted("access-2")
    assert outcome == Wait(AT + DUE + 1200, "due")


def test_the_reservation_is_the_whole_state_with_a_mark() -> None:
    """B6: what is written before a request holds the tokens, the mark and the count, and comes back the same."""
    line = at_due()
    seen: list[CredentialState] = []
    line.endpoint.answers.append(meanwhile(lambda: seen.append(line.durable), granted(2)))
    line.step()
    (reserved,) = seen
    assert reserved.refresh_started_at == AT + DUE
    assert reserved.tokens == delivered().tokens
    assert reserved.hour_calls == 1


def test_without_a_reservation_no_request() -> None:
    """B6: as long as the state cannot be written no token is spent, it is tried each second, and events say why."""
    line = at_due(granted(2))
    line.store.fail_saves.extend([FULL] * 3)
    for _ in range(3):
        outcome = line.step(1)
        assert outcome == Wait(line.clock.at + SAVE_RETRY, Reason.SAVE_FAILED)
    assert line.endpoint.requests == []
    assert [event.problem for event in line.observer.of(SaveFinished)] == [FULL] * 3
    assert not line.observer.of(SaveFinished)[0].holds_new_pair
    line.step(1)
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))


def test_a_pair_that_cannot_be_saved_is_kept_published_and_saved_each_second() -> None:
    """B24 B3: a failed save after the answer loses nothing: memory holds the pair, outputs get it, saving goes on."""
    line = at_due(granted(2))
    line.store.fail_saves.extend([None, FULL, FULL, FULL, FULL])
    assert line.step() == Wait(AT + DUE + SAVE_RETRY, Reason.SAVE_FAILED)
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-1"))
    assert line.sinks["file"].published[-1].access_token == planted("access-2")
    assert line.credential.view(Fingerprinter(b"key"), line.clock.at).unsaved
    assert line.observer.of(SaveFinished)[-1].holds_new_pair

    line.step(1)
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-1"))
    line.step(1)
    line.step(1)
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))
    assert len(line.endpoint.requests) == 1
    assert not line.credential.unsaved


def test_an_unsaved_pair_is_never_spent() -> None:
    """B6 B24: however long the disk stays full, the unsaved pair is not sent, not even when somebody asks."""
    line = at_due(granted(2))
    line.store.fail_saves.extend([None] + [FULL] * 10_000)
    line.step()
    line.rotator.ask(line.credential)
    for _ in range(200):
        line.step(60)
    assert len(line.endpoint.requests) == 1
    assert line.refresh_tokens()[0] == planted("refresh-2")


def test_who_asks_while_nothing_can_be_saved_is_told() -> None:
    """C12 E2: a rotation that somebody asked for while the disk is full ends at once with the reason."""
    line = Line(state=delivered())
    waiter = line.rotator.ask(line.credential)
    line.store.fail_saves.append(FULL)
    line.step(2)
    assert waiter.done()
    assert line.endpoint.requests == []


def test_a_reservation_that_failed_is_not_held_against_a_disk_that_has_room_again() -> None:
    """C12 E2: after a rotation asked for in vain saving is tried on, and told as failing no longer than it is."""
    line = Line(state=delivered())
    line.rotator.ask(line.credential)
    line.store.fail_saves.extend([FULL, FULL])
    for _ in range(2):
        line.step(2)
        assert line.credential.view(Fingerprinter(b"key"), line.clock.at).save_failing
    assert line.step(2) == Wait(AT + DUE, "due")
    assert not line.credential.view(Fingerprinter(b"key"), line.clock.at).save_failing
    assert line.endpoint.requests == []
    assert line.store.saved[-1][1].refresh_started_at is None


def test_a_last_save_is_tried_at_the_end() -> None:
    """B24 B7: `save_unsaved` writes what only memory holds and says whether anything is left."""
    line = at_due(granted(2))
    line.store.fail_saves.extend([None, FULL, FULL, FULL])
    line.step()
    assert not line.rotator.save_unsaved(line.credential)
    assert line.rotator.save_unsaved(line.credential)
    assert line.refresh_tokens()[1] == planted("refresh-2")


# -- faults in our own code ------------------------------------------------------------------------


class Fault(Exception):  # noqa: N818 - it is no error of anybody's
    """Raised by the tests in the middle of a line of code."""


@dataclass
class Faulty:
    """How a step went in which one line of rotator's code failed after the answer."""

    lines: int = 0
    handed_over: int = 0
    """The line before which the pair was handed to the store; 0: it was not."""
    durable: int = 0
    """The line before which the pair was durable."""
    came: bool = False


def run_with_fault(line: Line, fault_at: int) -> Faulty:
    """Step with a fault at the n-th line of rotator's code after the answer."""
    seen = Faulty()
    entered: set[tuple[FrameType, int]] = set()

    def is_release(frame: FrameType) -> bool:
        """Tell whether a lock is released here: tracing could fail that, nothing else can."""
        if not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
            return False
        place = (frame, frame.f_lineno)
        released = place in entered
        (entered.discard if released else entered.add)(place)
        return released

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if "/rotator/" not in frame.f_code.co_filename:
            return None
        if event == "line" and line.endpoint.requests and not is_release(frame):
            seen.lines += 1
            if not seen.handed_over and line.store.offered == 2:
                seen.handed_over = seen.lines
            if not seen.durable and ("save", 2) in line.journal:
                seen.durable = seen.lines
            if seen.lines == fault_at:
                seen.came = True
                raise Fault
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        line.step()
    except Fault:
        pass
    finally:
        sys.settrace(before)
    return seen


def test_a_fault_on_any_line_after_the_answer_loses_nothing() -> None:
    """A8 B28: whichever line fails once the pair is at the store, the same life saves it and the next life goes on.

    In the few lines before that nothing but the mark is on disk; what is saved already is on disk whatever fails.
    """
    clean = run_with_fault(at_due(granted(2, scope=["a"], id_token="x.y.z")), 0)
    assert 0 < clean.handed_over < clean.durable < clean.lines
    for fault_at in range(1, clean.lines + 1):
        line = at_due(granted(2, scope=["a"], id_token="x.y.z"), granted(3), granted(4))
        assert run_with_fault(line, fault_at).came
        assert line.durable.tokens is not None
        safe = line.durable.tokens.refresh_token == planted("refresh-2")
        assert safe or fault_at < clean.durable, f"line {fault_at}"
        assert safe or line.durable.refresh_started_at is not None, f"line {fault_at}"
        next_life = line.again(granted(3))
        if fault_at >= clean.handed_over:
            for _ in range(3):
                line.step(1)
            assert line.sent == [planted("refresh-1")], f"line {fault_at}"
            assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2")), f"line {fault_at}"
            assert line.sinks["file"].published[-1].access_token == planted("access-2")
        next_life.step(1)
        next_life.step(1)
        assert status(next_life) is Status.OK
        assert next_life.state.generation >= 2
        assert next_life.sinks["file"].published


def test_a_store_that_raises_loses_nothing() -> None:
    """A8 B24: a bug in the store is a failed save: told once, memory keeps the pair, outputs get it, saving goes on."""
    line = at_due(granted(2))
    line.store.fail_saves.extend([None, Fault(), Fault()])
    assert line.step() == Wait(AT + DUE + SAVE_RETRY, Reason.SAVE_FAILED)
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-1"))
    assert line.sinks["file"].published[-1].access_token == planted("access-2")
    line.step(1)
    line.step(1)
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))
    assert line.sent == [planted("refresh-1")]
    assert [notice.event for notice in line.observer.of(Notice)] == ["bug"]
    assert [event.problem is None for event in line.observer.of(SaveFinished)][-3:] == [False, False, True]


def test_a_judge_that_fails_does_not_lose_the_pair() -> None:
    """A8: an answer whose fields cannot even be looked at has its pair saved before the fault shows."""

    def burst() -> None:
        raise Fault

    line = at_due(Granted(planted("access-2"), planted("refresh-2"), Fields({"expires_in": 60}, burst)))
    with pytest.raises(Fault):
        line.step()
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))
    line.step()
    assert line.sinks["file"].published[-1].access_token == planted("access-2")


def test_nobody_publishes_a_lifetime_that_is_only_assumed() -> None:
    """Somebody logs in just when an answer's pair is saved and its `expires_in` not read: outputs say the truth."""
    others = list[threading.Thread]()

    def somebody_publishes() -> None:
        others.append(threading.Thread(target=lambda: line.rotator.publisher.publish_due(line.credential)))
        others[-1].start()
        others[-1].join(0.2)

    fields = Fields({"expires_in": 60}, somebody_publishes)
    line = at_due(Granted(planted("access-2"), planted("refresh-2"), fields))
    line.step()
    for thread in others:
        thread.join(PATIENCE)
    assert [tokens.expires_at for tokens in line.sinks["file"].published[1:]] == [AT + DUE + 60]


def test_an_odd_answer_is_told_once() -> None:
    """A1 A4 A19: what had to be tolerated is a warning when it first comes, and none at the refreshes that follow."""
    line = at_due(granted(2, "3600"), granted(3, "3600"), granted(4, None))
    for _ in range(3):
        line.step(DUE)
    told = [(event.event, event.level, event.fields) for event in line.observer.of(Notice)]
    assert told == [
        ("odd_answer", "warning", {"oddity": oddity}) for oddity in (Oddity.EXPIRES_IN_TEXT, Oddity.EXPIRES_IN_MISSING)
    ]


# -- failures of the server ------------------------------------------------------------------------


def test_a_lost_answer_is_replayed_with_the_same_token() -> None:
    """B9 B12: the same refresh token is sent again a second after the connection was lost."""
    line = at_due(LOST, granted(2))
    outcome = line.step()
    assert outcome == Wait(AT + DUE + 1, "replay")
    assert line.observer.of(RefreshFinished)[-1].outcome == "ambiguous"
    line.step(1)
    assert line.sent == [planted("refresh-1")] * 2
    assert line.state.trouble is None


class SlowToConnect(ScriptedEndpoint):
    """An endpoint whose connection takes so many seconds; then it is asked whether the form may leave."""

    clock: FixedClock | None = None
    passes = 0.0

    def request(self, request: TokenRequest, secrets: tuple[str, ...]) -> Answer:
        """Connect, and send the form if it may."""
        if self.clock is not None:
            self.clock.at += self.passes
        held = request.held_back() if request.held_back is not None else None
        return super().request(request, secrets) if held is None else held


@pytest.mark.parametrize(("passes", "in_time"), [(9.0, True), (9.5, False)])
def test_a_replay_that_is_held_up_does_not_leave_after_its_window(passes: float, in_time: bool) -> None:
    """B12 B13: a slow name server or handshake must not carry a replay beyond the grace that the server may have.

    It is not lost: the token is sent again when the access token is nearly over.
    """
    endpoint = SlowToConnect(LOST, granted(2))
    line = at_due(endpoint=endpoint)
    line.step()
    endpoint.clock, endpoint.passes = line.clock, passes
    outcome = line.step(1)
    endpoint.clock = None
    assert len(endpoint.requests) == (2 if in_time else 1)
    if not in_time:
        assert outcome == Wait(AT + 3480, "retry")
        line.step(3480 - DUE - 1 - passes)
        assert len(endpoint.requests) == 2
    assert line.state.trouble is None


def test_a_restart_while_a_request_is_out_replays_it() -> None:
    """B1 B7: a process that dies between request and save tells, and sends the same token within the window."""
    line = at_due(lambda: (_ for _ in ()).throw(Fault))
    with pytest.raises(Fault):
        line.step()
    line = line.again(granted(2), at=AT + DUE + 3)
    line.step()
    assert line.sent == [planted("refresh-1")]
    assert [event.event for event in line.observer.of(Notice)] == ["refresh_interrupted"]
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))


def test_an_outage_withdraws_nothing() -> None:
    """B17 E9: after a look at the start, hours of failures publish and delete nothing: the output keeps its token."""
    line = at_due(*[DOWN] * 2000)
    for _ in range(400):
        line.step(5)
    assert [tokens.generation for tokens in line.sinks["file"].published] == [1]
    assert line.refresh_tokens()[0] == planted("refresh-1")


def test_failures_are_saved_and_survive_a_restart() -> None:
    """E1 E2: a refusal is on disk at once, and the next life of the process waits as long as this one would have."""
    line = at_due(Refused(Reason.INVALID_CLIENT, 401, "bad secret"))
    outcome = line.step()
    assert outcome == Wait(AT + DUE + 900, "retry")
    again = line.again(at=AT + DUE + 10)
    assert again.step() == outcome


def test_suspect_then_reauthorization_required_then_a_login_heals() -> None:
    """B10 B16 C20: two noes in a row ask for a login, everything is kept, and the login ends it at once."""
    line = at_due(DEAD, DEAD)
    line.step()
    assert status(line) is Status.SUSPECT
    line.step(5)
    assert status(line) is Status.REAUTHORIZATION_REQUIRED
    assert line.refresh_tokens() == (planted("refresh-1"), planted("refresh-1"))
    line.rotator.intake.adopt(
        line.credential, token_set(refresh_token=planted("login"), access_token=planted("access-login"))
    )
    line.step()
    changes = [(event.before, event.after) for event in line.observer.of(StatusChanged)]
    assert changes == [("ok", "suspect"), ("suspect", "reauthorization_required"), ("reauthorization_required", "ok")]
    assert line.durable.status is Status.OK
    assert [one.refresh_token for one in line.durable.earlier] == [planted("refresh-1")]
    assert line.sinks["file"].published[-1].access_token == planted("access-login")


def test_a_probe_heals_a_user_who_is_enabled_again() -> None:
    """B18: the hourly probe finds the grant alive again and publishes, with nobody doing anything."""
    line = at_due(DEAD, DEAD, DEAD, granted(2))
    line.step()
    line.step(5)
    assert line.step(1) == Wait(AT + DUE + 5 + HOUR, "probe")
    line.step(HOUR - 1)
    line.step(HOUR)
    assert status(line) is Status.OK
    assert line.sinks["file"].published[-1].access_token == planted("access-2")


def test_a_no_is_checked_against_the_store_before_it_is_believed() -> None:
    """B16 C3 C4: when somebody stored a newer pair while the old one was refused, that pair is adopted and used."""
    line = at_due(granted(9))

    def somebody_logs_in() -> Answer:
        newer = state_of(5, refresh_token=planted("theirs"), expires_at=AT + DUE)
        assert MemoryStore(line.store.disk).save(NAME, newer) is None
        return DEAD

    line.endpoint.answers.appendleft(somebody_logs_in)
    line.step()
    line.step(1)
    assert line.sent == [planted("refresh-1"), planted("theirs")]
    assert status(line) is Status.OK
    assert line.refresh_tokens() == (planted("refresh-9"), planted("refresh-9"))


def test_a_newer_pair_in_the_store_is_adopted_before_a_request() -> None:
    """C3 C14 B16: when the store turns out to be ahead of memory, no old token is sent; the stored pair is used."""
    line = at_due(granted(9))
    line.step(-60)
    assert MemoryStore(line.store.disk).save(NAME, state_of(5, refresh_token=planted("theirs"))) is None
    line.step(60)
    line.step(1)
    assert line.sent == [planted("theirs")]
    assert line.refresh_tokens() == (planted("refresh-9"), planted("refresh-9"))


# -- logins and late answers -----------------------------------------------------------------------


@pytest.mark.parametrize("answer", [granted(2), DEAD, LOST, DOWN])
def test_a_late_answer_changes_nothing(answer: Answer) -> None:
    """B16 C3: what a server says to a request from before a login is late, whatever it says."""
    line = at_due()

    def login_meanwhile() -> Answer:
        line.rotator.intake.adopt(line.credential, token_set(refresh_token=planted("login"), obtained_at=line.clock.at))
        return answer

    line.endpoint.answers.append(login_meanwhile)
    line.step()
    assert line.refresh_tokens() == (planted("login"), planted("login"))
    assert (status(line), line.state.trouble, line.state.refresh_started_at) == (Status.OK, None, None)
    assert [event.outcome for event in line.observer.of(RefreshFinished)] == ["late"]


def test_a_login_does_not_wait_for_a_request_that_hangs() -> None:
    """E11 L3: while a server holds a request, a login is taken over, saved and published."""
    line = at_due()
    under_way, release = threading.Event(), threading.Event()

    def hang() -> Answer:
        under_way.set()
        assert release.wait(PATIENCE)
        return granted(2)

    line.endpoint.answers.append(hang)
    with ThreadPoolExecutor(2) as pool:
        stepping = pool.submit(line.step)
        assert under_way.wait(PATIENCE)
        tokens = token_set(refresh_token=planted("login"), access_token=planted("access-login"))
        pool.submit(line.rotator.intake.adopt, line.credential, tokens).result(PATIENCE)
        pool.submit(line.rotator.publisher.publish_due, line.credential).result(PATIENCE)
        assert not stepping.done()
        assert line.sinks["file"].published[-1].access_token == planted("access-login")
        release.set()
        stepping.result(PATIENCE)
    assert line.refresh_tokens() == (planted("login"), planted("login"))


def test_a_login_before_the_first_step_builds_on_what_is_stored() -> None:
    """C15 C4: a login that comes before the state was read continues its generations and keeps its tokens."""
    line = Line(state=state_of(57))
    assert line.rotator.intake.adopt(line.credential, token_set(refresh_token=planted("login"))) is None
    assert line.durable.generation == 58
    assert [one.refresh_token for one in line.durable.earlier] == [planted("refresh-57")]


def test_a_login_that_cannot_be_saved_says_so() -> None:
    """B24: a login on a full disk is in force, told as unsaved, and saved later."""
    line = Line(state=delivered())
    line.step()
    line.store.fail_saves.append(FULL)
    problem = line.rotator.intake.adopt(line.credential, token_set(refresh_token=planted("login")))
    assert problem is not None
    assert problem.reason is Reason.SAVE_FAILED
    line.step(1)
    assert line.refresh_tokens() == (planted("login"), planted("login"))


# -- asking ----------------------------------------------------------------------------------------


def test_a_hundred_who_ask_share_one_request() -> None:
    """C9 C10 C12: 100 threads that ask at once cause one request and get the same answer."""
    line = Line(granted(2), state=delivered(), at=AT + 60)
    with ThreadPoolExecutor(20) as pool:
        waiters = list(pool.map(lambda _: line.rotator.ask(line.credential), range(100)))
    line.step()
    views = [waiter.result(PATIENCE) for waiter in waiters]
    assert len(line.endpoint.requests) == 1
    assert all(view == views[0] for view in views)
    assert views[0].generation == 2
    assert line.observer.of(RefreshStarted)[0].why == "asked"


def test_who_asks_while_a_request_is_out_gets_its_answer() -> None:
    """C10 C12: whoever asks during a request shares its outcome, and a refusal is an outcome too."""
    line = at_due()
    waiters = []
    line.endpoint.answers.append(meanwhile(lambda: waiters.append(line.rotator.ask(line.credential)), DEAD))
    line.step()
    (waiter,) = waiters
    assert waiter.result(PATIENCE).standing == Standing.SUSPECT
    assert len(line.endpoint.requests) == 1


def test_who_asks_for_a_credential_that_came_back_during_a_save_is_served() -> None:
    """B24 C9: a reload puts back a credential whose pair is just being saved: a rotation asked for then takes place."""
    line = Line(granted(2), state=delivered())
    line.step(60)
    waiters = []

    class Reloader:
        def notify(self, event: Event) -> None:
            if isinstance(event, SaveFinished) and line.credential.leaving:
                line.credential.leaving = False
                waiters.append(line.rotator.ask(line.credential))

    line.rotator = Rotator(line.store, line.clock, Reloader(), Fingerprinter(b"key"), line.stopping)
    line.credential.leaving = line.credential.unsaved = True
    line.step()
    (waiter,) = waiters
    assert not waiter.done()
    line.step()
    assert waiter.result(PATIENCE).generation == 2


def test_asking_twice_in_a_second_waits_a_second() -> None:
    """E4: two rotations that are asked for one after the other are a second apart."""
    line = Line(granted(2), granted(3), state=delivered())
    line.rotator.ask(line.credential)
    line.step(2)
    line.rotator.ask(line.credential)
    assert line.step() == Wait(AT + 3, "asked")
    line.step(1)
    assert len(line.endpoint.requests) == 2


def test_asking_without_a_login_is_answered() -> None:
    """E2: a credential that was never logged in tells so to whoever asks."""
    line = Line()
    waiter = line.rotator.ask(line.credential)
    assert line.step() == Halt(Reason.LOGIN_REQUIRED)
    assert waiter.result(PATIENCE).standing == Standing.LOGIN_REQUIRED


# -- seeds and other inputs ------------------------------------------------------------------------


class Inputs:
    """A seed file and its stamp."""

    def __init__(self, seed: str | Problem = "") -> None:
        self.seed = seed
        self.stamp = 0

    def change(self, seed: str | None = None) -> None:
        """Write the files anew."""
        self.seed = self.seed if seed is None else seed
        self.stamp += 1


def seeded(*answers: Answer, state: CredentialState | None = None, seed: str | Problem = SEED) -> tuple[Line, Inputs]:
    """Return a line with a seed."""
    inputs = Inputs(seed)
    return Line(*answers, state=state, seed=lambda: inputs.seed, stamp=lambda: inputs.stamp), inputs


def test_a_seed_is_the_first_login() -> None:
    """B20: without a state the seed is taken, refreshed at once and published."""
    line, _ = seeded(granted(2))
    line.step()
    assert line.sent == [planted("seed")]
    assert line.sinks["file"].published[-1].access_token == planted("access-2")


def test_a_seed_that_no_stamp_watches_is_taken_too() -> None:
    """B20: a seed from the environment, which has nothing to watch, is read at the start."""
    line = Line(granted(2), seed=lambda: planted("seed"))
    line.step()
    assert line.sent == [planted("seed")]


def test_state_beats_seed() -> None:
    """B20 B21 B4: after the first rotation the seed is never used again, in this life or the next ones."""
    line, inputs = seeded(granted(2), granted(3))
    line.step()
    inputs.change()
    line.step(1)
    again = line.again(granted(3), at=AT + DUE + 1)
    again.step()
    assert line.sent + again.sent == [planted("seed"), planted("refresh-2")]


def test_an_unknown_seed_does_not_beat_a_state() -> None:
    """B20: a seed beside a state that came from elsewhere is ignored, and this is told once in each life."""
    line, _ = seeded(state=delivered())
    line.step()
    line.step(1)
    assert line.state.generation == 1
    assert [event.event for event in line.observer.of(Notice)] == ["seed_ignored"]
    again = line.again()
    again.step()
    again.step(1)
    assert again.state.generation == 1
    (told,) = again.observer.of(Notice)
    assert told.text == "the seed is ignored: it was taken, or ignored, before; change the seed to log in anew"


def test_a_changed_seed_is_a_new_login() -> None:
    """B21 B18: another seed than before is a deliberate login and heals a dead grant at once."""
    line, inputs = seeded(granted(2), DEAD, DEAD, granted(4))
    line.step()
    line.step(2400)
    line.step(5)
    assert status(line) is Status.REAUTHORIZATION_REQUIRED
    inputs.change(planted("new seed").replace(" ", "-"))
    line.step(1)
    assert line.sent[-1] == planted("new-seed")
    assert status(line) is Status.OK


def test_a_login_is_newer_than_a_seed_that_was_there_before() -> None:
    """B20 B21: a seed that was changed before the login, and not looked at until after it, does not replace it."""
    line, inputs = seeded(granted(2))
    line.step()
    inputs.change(planted("dead-seed"))
    line.rotator.intake.adopt(line.credential, token_set(refresh_token=planted("login"), obtained_at=line.clock.at))
    line.step(1)
    assert line.sent == [planted("seed")]
    assert line.state.tokens is not None
    assert line.state.tokens.refresh_token == planted("login")


def test_an_unusable_seed_is_told_and_hurts_nobody() -> None:
    """B20 K1: a seed that cannot be read is named; the state goes on, and a mended seed is taken."""
    line, inputs = seeded(granted(2), seed=Problem(Reason.BAD_INPUT, "/seed: no such file"))
    assert line.step() == Halt(Reason.LOGIN_REQUIRED)
    assert [event.event for event in line.observer.of(Notice)] == ["seed_unusable"]
    inputs.change(planted("seed"))
    line.step(1)
    assert line.sent == [planted("seed")]


def test_a_corrected_secret_file_heals_at_once() -> None:
    """K8 E1: `invalid_client` waits a quarter of an hour, but not longer than until an input changes."""
    inputs = Inputs()
    line = at_due(Refused(Reason.INVALID_CLIENT, 401), granted(2), stamp=lambda: inputs.stamp)
    line.step()
    line.step(30)
    assert len(line.sent) == 1
    assert not line.rotator.intake.inputs_changed(line.credential)
    inputs.change()
    line.endpoint.client = "another client"
    assert line.rotator.intake.inputs_changed(line.credential)
    line.step(1)
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))


@pytest.mark.parametrize("reason", [Reason.INVALID_CLIENT, Reason.UNAUTHORIZED_CLIENT])
def test_a_secret_file_written_anew_changes_nothing(reason: Reason) -> None:
    """E1: a tool that renders the same wrong secret each minute makes nobody ask the server each minute."""
    inputs = Inputs()
    line = at_due(Refused(reason, 401), granted(2), stamp=lambda: inputs.stamp)
    line.step()
    for _ in range(14):
        inputs.change()
        line.step(60)
    assert len(line.sent) == 1
    line.step(61)
    assert len(line.sent) == 2


def test_a_secret_that_is_corrected_while_the_server_answers_is_tried_at_once() -> None:
    """K8 E1: nobody can tell as whom was asked, so the new file counts as another client."""
    inputs = Inputs()
    line = at_due(meanwhile(inputs.change, Refused(Reason.INVALID_CLIENT, 401)), granted(2), stamp=lambda: inputs.stamp)
    line.step()
    line.step(1)
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))


def test_a_refusal_that_stands_for_others_ends_when_theirs_does() -> None:
    """E1: a credential that was not asked about waits for what is left of the others' quarter of an hour."""
    line = at_due(Refused(Reason.INVALID_CLIENT, 401, retry_after=100.0), granted(2))
    line.step()
    line.step(99)
    assert len(line.sent) == 1
    line.step(2)
    assert len(line.sent) == 2


def test_only_a_person_asks_for_a_refused_client() -> None:
    """E1: what is due by itself heeds what the client was told; who asks by hand is let through."""
    line = at_due(Refused(Reason.INVALID_CLIENT, 401), granted(2))
    line.step()
    line.rotator.ask(line.credential)
    line.step(60)
    assert line.endpoint.refused_waits == [900.0, 0.0]


def test_another_client_is_tried_at_once_by_the_next_life() -> None:
    """K8 E1: a start asks again what was refused to another client, and nothing that was refused to the same one."""
    line = at_due(Refused(Reason.INVALID_CLIENT, 401))
    line.step()
    same = line.again()
    same.step(1)
    assert same.sent == []
    other = same.again(granted(2))
    other.endpoint.client = "another client"
    other.step(1)
    assert other.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))
    assert other.durable.trouble is None


# -- outputs ---------------------------------------------------------------------------------------


def test_a_failing_output_holds_up_nobody() -> None:
    """E9: outputs are tried one by one; one that fails neither stops the others nor costs a token call."""
    line = Line(state=state_of(), sinks=("bad", "good"), hooks=("hook",))
    line.sinks["bad"].fail.extend([FULL] * 1000)
    for _ in range(300):
        line.step(1)
    assert [len(sink.published) for sink in line.sinks.values()] == [0, 1, 1]
    assert line.endpoint.requests == []
    assert line.observer.of(PublishFinished)[-1].failures > 5
    line.sinks["bad"].fail.clear()
    line.step(60)
    assert len(line.sinks["bad"].published) == 1


def test_a_sink_that_raises_holds_up_no_refresh() -> None:
    """L3 E9: a bug in a sink is a failed delivery: told once, tried again, and the token is renewed all the same."""
    line = Line(granted(2), state=state_of(), sinks=("bad", "good"), hooks=("hook",))
    for name in ("bad", "hook"):
        line.sinks[name].fail.extend([Fault(), Fault(), Fault()])
    for _ in range(3):
        line.step(1)
    after = line.step(DUE)
    assert isinstance(after, Wait)
    assert after.until > line.clock.at
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))
    line.step(60)
    assert [tokens.generation for tokens in line.sinks["good"].published] == [1, 2]
    assert [line.sinks[name].published[-1].generation for name in ("bad", "hook")] == [2, 2]
    assert [notice.text.split()[0] for notice in line.observer.of(Notice)] == ["bad", "hook"]


def test_hooks_come_after_outputs() -> None:
    """A hook hears of a token once every output has had its turn."""
    line = Line(state=state_of(), sinks=("one", "two"), hooks=("hook",))
    line.sinks["two"].fail.append(FULL)
    line.step()
    assert line.journal == [("publish", "one"), ("publish failed", "two"), ("publish", "hook")]


def hooks_aside(line: Line) -> deque[Callable[[], None]]:
    """Let hooks wait as a daemon's threads would; return those that wait."""
    waiting: deque[Callable[[], None]] = deque()
    line.rotator.publisher.run_hook = lambda _, hook: waiting.append(hook)
    return waiting


def test_a_hook_that_takes_its_time_holds_up_neither_refresh_nor_save() -> None:
    """L3 B24: while a hook runs the step is over, no other hook begins, and what is unsaved is saved each second."""
    line = Line(granted(2), state=state_of(), hooks=("slow", "quick"))
    waiting = hooks_aside(line)
    assert line.step() == Wait(AT + DUE, "due")
    line.store.fail_saves.extend([None, FULL, FULL])
    assert line.step(DUE) == Wait(AT + DUE + SAVE_RETRY, Reason.SAVE_FAILED)
    line.step(1)
    line.step(1)
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))
    assert [tokens.generation for tokens in line.sinks["file"].published] == [1, 2]
    assert len(waiting) == 1
    assert line.sinks["slow"].published == line.sinks["quick"].published == []


def test_a_hook_never_tells_of_a_token_before_the_outputs_have_it() -> None:
    """A hook whose turn comes after a login tells of nothing until the outputs have the new token, then of that."""
    line = Line(state=state_of(), hooks=("hook",))
    waiting = hooks_aside(line)
    line.step()
    line.rotator.intake.adopt(line.credential, token_set())
    waiting.popleft()()
    assert line.sinks["hook"].published == []
    line.step()
    assert [tokens.generation for tokens in line.sinks["file"].published] == [1, 2]
    waiting.popleft()()
    assert [tokens.generation for tokens in line.sinks["hook"].published] == [2]


def test_a_changed_output_is_written_again_without_a_token_call() -> None:
    """E9: an output that somebody edits is restored from memory, and told."""
    line = Line(state=state_of())
    line.step()
    assert not line.rotator.publisher.reconcile(line.credential)
    line.sinks["file"].tampered = True
    assert line.rotator.publisher.reconcile(line.credential)
    line.step(1)
    assert len(line.sinks["file"].published) == 2
    assert line.endpoint.requests == []
    assert line.observer.of(Notice)[-1].event == "output_changed"


def test_a_crash_between_save_and_publish_heals() -> None:
    """B1: tokens that were saved but not published are published by the next life, without a request."""
    line = at_due(granted(2))
    line.sinks["file"].fail.append(FULL)
    line.step()
    again = line.again()
    again.step()
    assert again.sinks["file"].published[-1].access_token == planted("access-2")
    assert again.endpoint.requests == []


# -- starting and stopping -------------------------------------------------------------------------


def test_stopping_sends_no_new_request_but_saves_and_publishes() -> None:
    """B7 B8: once rotator is stopping no request leaves, while what is there is still saved and published."""
    line = Line(state=replace(state_of(expires_at=AT + 60, obtained_at=AT - 3540)))
    line.stopping.set()
    line.step()
    assert line.endpoint.requests == []
    assert len(line.sinks["file"].published) == 1


def test_an_answer_during_the_stop_is_saved() -> None:
    """B7: an answer that arrives while rotator is stopping is saved like any other."""
    line = at_due()
    line.endpoint.answers.append(meanwhile(line.stopping.set, granted(2)))
    line.step()
    assert line.refresh_tokens() == (planted("refresh-2"), planted("refresh-2"))


def test_an_unreadable_state_is_not_an_absent_one() -> None:
    """B18 G10: a state that cannot be read stops the credential, is told once, and is read again later."""
    unreadable = Problem(Reason.STATE_UNREADABLE, "/state/pair.json: permission denied")
    line, _ = seeded(state=delivered())
    line.store.fail_loads.extend([unreadable] * 2)
    assert line.step() == Wait(AT + 30, Reason.STATE_UNREADABLE)
    line.step(30)
    assert line.endpoint.requests == []
    assert line.credential.view(Fingerprinter(b"key"), line.clock.at).standing == Standing.STATE_UNREADABLE
    assert [event.event for event in line.observer.of(Notice)] == ["state_unreadable"]
    line.step(30)
    assert line.state.generation == 1


def test_nobody_logs_in_while_the_state_cannot_be_read() -> None:
    """G8 G10: a login would not know which generation it follows: it is refused, and taken once the state is read."""
    unreadable = Problem(Reason.PERMISSION, "/state/pair.json: permission denied")
    line = Line(state=state_of(5))
    line.store.fail_loads.append(unreadable)
    refused = line.rotator.intake.adopt(line.credential, token_set(refresh_token=planted("login")))
    assert refused == replace(unreadable, text=f"nobody can log in yet: {unreadable.text}")
    assert line.durable == state_of(5)
    assert line.rotator.intake.adopt(line.credential, token_set(refresh_token=planted("login"))) is None
    assert (line.durable.generation, line.refresh_tokens()[1]) == (6, planted("login"))


def test_a_login_heals_a_damaged_state() -> None:
    """G8: where the state is damaged for good, a login begins anew."""
    line = Line()
    line.store.fail_loads.append(Problem(Reason.STATE_DAMAGED, "/state/pair.json is damaged"))
    assert line.rotator.intake.adopt(line.credential, token_set(refresh_token=planted("login"))) is None
    assert (line.durable.generation, line.refresh_tokens()[1]) == (1, planted("login"))


def test_a_clock_behind_is_told_and_refreshed() -> None:
    """D9: a start with the clock behind the last save refreshes at once, says so, and trusts the new answer."""
    line = Line(granted(2), state=replace(state_of(), saved_at=AT + 86400))
    line.step()
    assert line.observer.of(Notice)[0].event == "clock_suspect"
    assert line.sent == [planted("refresh-1")]
    assert not line.state.clock_suspect


def test_client_credentials_refresh_by_themselves() -> None:
    """A credential without refresh tokens is renewed from nothing, again and again."""
    one = Granted(planted("access-1"), None, {"expires_in": 3600})
    two = Granted(planted("access-2"), None, {"expires_in": 3600})
    line = Line(one, two, grant=Grant.CLIENT_CREDENTIALS)
    line.step()
    line.step(2400)
    assert [request["grant_type"] for request in line.endpoint.requests] == ["client_credentials"] * 2
    assert [tokens.access_token for tokens in line.sinks["file"].published] == [
        planted("access-1"),
        planted("access-2"),
    ]


def test_a_bare_refresh_token_is_refreshed_at_once() -> None:
    """A login with nothing but a refresh token leads to an access token in the same step."""
    line = Line(granted(2))
    line.rotator.intake.adopt(line.credential, from_refresh_token(planted("bare"), RotationPolicy(), AT))
    line.step()
    assert line.sent == [planted("bare")]
