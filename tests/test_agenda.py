"""Who is next."""

import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.agenda import Agenda
from rotator.credential import Credential
from tests.line import Line
from tests.process.rig import PATIENCE

PLAN = Line().credential.plan
INFINITY = float("inf")


def credential(name: str, server: str = "server:443") -> Credential:
    """Return a credential of one server."""
    plan = type(PLAN)(**{field: getattr(PLAN, field) for field in PLAN.__slots__ if field != "server"}, server=server)
    return Credential(name, plan)


def agenda_of(*due: float, per_server: int = 10, total: int = 10) -> tuple[Agenda, list[Credential]]:
    """Return an agenda with a credential for each due time."""
    agenda = Agenda(per_server, total)
    credentials = [credential(f"c{number}") for number in range(len(due))]
    for one, at in zip(credentials, due, strict=True):
        agenda.put(one, at)
    return agenda, credentials


def take_all(agenda: Agenda, now: float) -> list[str]:
    """Take whatever can be taken; return the names."""
    return [one.name for one in iter(lambda: agenda.take(now), None)]


def test_the_longest_due_comes_first() -> None:
    """Credentials come in the order of their due times, and only once due."""
    agenda, _ = agenda_of(3, 1, 2, 9)
    assert take_all(agenda, 0.5) == []
    assert take_all(agenda, 5) == ["c1", "c2", "c0"]


def test_a_credential_is_out_only_once() -> None:
    """C9: whoever is taken does not come up again before it is put back, whatever is put meanwhile."""
    agenda, (one,) = agenda_of(1)
    assert agenda.take(1) is one
    agenda.put(one, 0)
    assert agenda.take(100) is None
    assert agenda.under_way == 1
    agenda.put_back(one, 500)
    assert agenda.under_way == 0
    assert agenda.take(100) is one


def test_being_put_while_out_is_remembered() -> None:
    """An earlier time that is put while the credential is out counts when it is back; a later one does not."""
    agenda, (one,) = agenda_of(1)
    agenda.take(1)
    agenda.put(one, 50)
    agenda.put_back(one, 20)
    assert agenda.take(19) is None
    assert agenda.take(20) is one


def test_the_newest_due_time_counts() -> None:
    """Putting a credential again replaces its due time, to earlier or to later."""
    agenda, (one, two) = agenda_of(10, 10)
    agenda.put(one, 5)
    agenda.put(two, 20)
    assert take_all(agenda, 15) == ["c0"]
    assert take_all(agenda, 20) == ["c1"]


def test_a_server_has_so_many_places() -> None:
    """The limit holds for each server by itself, the total for all; whoever waits for a place comes first."""
    agenda = Agenda(per_server=2, total=4)
    for number in range(4):
        agenda.put(credential(f"a{number}", "a:443"), number)
        agenda.put(credential(f"b{number}", "b:443"), number)
    out = [agenda.take(10) for _ in range(5)]
    assert [one.name for one in out if one] == ["a0", "b0", "a1", "b1"]
    assert out[0] is not None
    agenda.put_back(out[0], 100)
    following = agenda.take(10)
    assert following is not None
    assert following.name == "a2"


def test_a_slow_request_gives_up_its_place() -> None:
    """L3: a request that has been out for five seconds no longer holds up its server's other credentials."""
    agenda, _ = agenda_of(1, 1, 1, per_server=1)
    assert take_all(agenda, 1) == ["c0"]
    assert take_all(agenda, 5.9) == []
    assert take_all(agenda, 6.1) == ["c1"]
    assert take_all(agenda, 11.2) == ["c2"]


def test_the_total_counts_slow_ones_too() -> None:
    """Never more credentials are out than there may be workers."""
    agenda, _ = agenda_of(*[1.0] * 5, per_server=1, total=2)
    assert [len(take_all(agenda, now)) for now in (1, 7, 13, 19)] == [1, 1, 0, 0]


def test_startable_and_lag_tell_whether_there_is_work() -> None:
    """L4: an empty agenda wakes nobody; a due one does, and says for how long it has been due."""
    agenda, (one, two) = agenda_of(10, 20)
    assert (agenda.startable(9), agenda.lag_seconds(9)) == (0, 0)
    assert (agenda.startable(10) > 0, agenda.lag_seconds(13)) == (True, 3)
    agenda.put(one, 30)
    agenda.put(two, 30)
    assert (agenda.startable(29), agenda.lag_seconds(29)) == (0, 0)


def test_whoever_waits_for_somebody_to_act_takes_no_room() -> None:
    """A halted credential that is woken a thousand times leaves nothing behind."""
    agenda, (one,) = agenda_of(0)
    for now in range(1000):
        agenda.put(one, now)
        assert agenda.take(now) is one
        agenda.put_back(one, INFINITY)
    assert len(agenda._heap) <= 1


class Counted(float):
    """A float that counts how often it is compared."""

    count = 0

    def __lt__(self, other: Any) -> bool:
        Counted.count += 1
        return float.__lt__(self, other)

    def __eq__(self, other: object) -> bool:
        Counted.count += 1
        return float.__eq__(self, other)

    __hash__ = float.__hash__


def comparisons(waiting: int) -> float:
    """Return the comparisons that one refresh costs among so many that wait."""
    agenda = Agenda(10, 10)
    for number in range(waiting):
        agenda.put(credential(f"c{number}"), Counted(number * 10))
    Counted.count = 0
    for now in range(0, 10_000, 10):
        taken = agenda.take(now)
        assert taken is not None
        agenda.put_back(taken, Counted(1e7 + now))
    return Counted.count / 1000


def test_a_hundred_thousand_that_wait_cost_little() -> None:
    """The cost of a refresh grows with the logarithm of the number of credentials, not with the number."""
    assert comparisons(100_000) < 3 * comparisons(1000)
    assert comparisons(100_000) < 30 * math.log2(100_000)


def test_many_workers_never_share_a_credential() -> None:
    """C9 C10: threads that take and put back at the same time never hold the same credential twice."""
    agenda, _ = agenda_of(*[0.0] * 20, per_server=5, total=8)
    held, guard, turns = set[str](), threading.Lock(), itertools.count()

    def work() -> None:
        while next(turns) < 4000:
            one = agenda.take(1)
            if one is None:
                continue
            with guard:
                assert one.name not in held
                held.add(one.name)
                assert len(held) <= 8
            with guard:
                held.remove(one.name)
            agenda.put_back(one, 0)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work) for _ in range(6)]:
            done.result(PATIENCE)
    assert agenda.under_way == 0


@settings(max_examples=200)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["put", "take", "back", "wait"]), st.integers(0, 4), st.integers(0, 9)),
        max_size=60,
    )
)
def test_nobody_is_ever_lost(moves: list[tuple[str, int, int]]) -> None:
    """Whatever happens, each credential is waiting or out, and in the end everybody comes up once."""
    agenda, credentials = agenda_of(*[0.0] * 5, per_server=2, total=3)
    out: list[Credential] = []
    now = 0.0
    for what, which, number in moves:
        one = credentials[which]
        if what == "put":
            agenda.put(one, now + number)
        elif what == "take":
            taken = agenda.take(now)
            if taken:
                assert taken not in out
                out.append(taken)
        elif what == "back" and out:
            agenda.put_back(out.pop(0), now + number)
        else:
            now += number
    for one in out:
        agenda.put_back(one, now)
    seen = []
    while (taken := agenda.take(now + 1000)) is not None:
        seen.append(taken.name)
        agenda.put_back(taken, INFINITY)
    assert sorted(seen) == sorted(one.name for one in credentials)
