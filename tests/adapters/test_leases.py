"""Leases on a real API server: one holder, no gap that is not safe, and shares for everybody."""

import threading
from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.adapters.clock import BootClock
from rotator.adapters.kubernetes.lease import Lease, LeaseTimes
from rotator.adapters.kubernetes.leases import Leases, shard_of
from rotator.adapters.kubernetes.wire import Api
from tests.adapters.secrets import SECONDS, Lossy, store_client
from tests.fakes import FixedClock
from tests.process.rig import wait_until
from tests.samples import AT
from tests.testbed.kubernetes.cluster import Namespace

TIMES = LeaseTimes(duration=2.0, renew_every=0.2, save_allowance=0.5, timeout=SECONDS)
QUICK = LeaseTimes(duration=1.0, renew_every=0.2, save_allowance=0.1, timeout=SECONDS)


@pytest.fixture
def lossy(namespace: Namespace, tmp_path: Path) -> Generator[Lossy]:
    """Return the way to the API server."""
    with store_client(namespace, tmp_path) as (client, _):
        yield Lossy(client)


class Holder:
    """A replica's view of one Lease, turned by hand, with a clock of its own."""

    def __init__(self, api: Api, namespace: Namespace, identity: str, times: LeaseTimes = TIMES) -> None:
        self.clock = FixedClock(AT)
        self.lease = Lease(api, namespace.name, "rotator", identity, times, self.clock)

    def turn(self) -> int | None:
        """Turn once, reaching for the Lease; return the term."""
        self.lease.turn(reach=True)
        return self.lease.term


def test_of_two_that_reach_for_a_lease_one_gets_it(lossy: Lossy, namespace: Namespace) -> None:
    """C13: the record's version decides, whoever came first."""
    holders = [Holder(lossy, namespace, name) for name in "abcd"]
    barrier = threading.Barrier(len(holders))

    def reach(holder: Holder) -> None:
        barrier.wait()
        holder.turn()

    threads = [threading.Thread(target=reach, args=(holder,)) for holder in holders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(holder.lease.term is not None for holder in holders) <= 1
    for holder in holders:
        holder.turn()
    assert sum(holder.lease.term is not None for holder in holders) == 1
    assert len({holder.lease.seen.holder for holder in holders}) == 1


def test_a_holder_counts_from_before_it_asked_and_on_its_own_clock(lossy: Lossy, namespace: Namespace) -> None:
    """C5: when its time is over it knows, without a word from anybody, and what is too long does not begin."""
    holder = Holder(lossy, namespace, "a")
    assert holder.turn() is not None
    assert holder.lease.lasts(1.4)
    assert not holder.lease.lasts(1.6)
    holder.clock.at += 2.1
    assert holder.lease.term is None
    assert not holder.lease.lasts(0.0)


def test_each_renewal_changes_the_record(lossy: Lossy, namespace: Namespace) -> None:
    """An identical write would leave the version as it is, and a rival's stale one would win."""
    holder = Holder(lossy, namespace, "a")
    versions, term = set(), holder.turn()
    for _ in range(3):
        assert holder.turn() == term
        versions.add(namespace.get("leases", "rotator")["metadata"]["resourceVersion"])
    assert len(versions) == 3


def test_a_dead_holders_lease_is_taken_when_its_record_has_stood_still_for_long_enough(
    lossy: Lossy, namespace: Namespace
) -> None:
    """C24: by the clock of the one who waits; what the record says of instants is not believed."""
    dead, heir = Holder(lossy, namespace, "a"), Holder(lossy, namespace, "b", QUICK)
    assert dead.turn() is not None
    namespace.edit("leases", "rotator", {"spec": {"renewTime": "1999-01-01T00:00:00.000000Z"}})
    assert heir.turn() is None
    wait_until(heir.turn, "the heir has it")
    assert namespace.get("leases", "rotator")["spec"]["holderIdentity"] == "b"
    assert dead.turn() is None
    assert dead.lease.seen.holder == "b"


def test_a_renewal_in_time_keeps_heirs_away(lossy: Lossy, namespace: Namespace) -> None:
    """C6: a holder that is slow but alive is not robbed."""
    holder, heir = Holder(lossy, namespace, "a"), Holder(lossy, namespace, "b")
    assert holder.turn() is not None
    heir.turn()
    since = heir.lease.seen.since
    holder.turn()
    heir.turn()
    assert heir.lease.seen.since > since
    assert heir.lease.term is None


def test_a_lease_that_was_deleted_is_held_until_its_time_is_over(lossy: Lossy, namespace: Namespace) -> None:
    """C1: its holder makes it anew at its next renewal; an heir that saw it held takes it when that does not come."""
    holder, heir = Holder(lossy, namespace, "a"), Holder(lossy, namespace, "b")
    for _ in range(2):
        assert holder.turn() is not None
        assert heir.turn() is None
        namespace.delete("leases", "rotator")
        assert heir.turn() is None
        assert not heir.lease.trouble
    wait_until(lambda: heir.turn() is not None, "the heir has the Lease")
    assert Holder(lossy, namespace, "c").turn() is None


def test_a_lease_that_is_given_up_is_free_at_once(lossy: Lossy, namespace: Namespace) -> None:
    """A clean stop hands over, also when a renewal's reply was lost before."""
    holder, heir = Holder(lossy, namespace, "a"), Holder(lossy, namespace, "b")
    assert holder.turn() is not None
    lossy.fates.append("reply lost")
    holder.turn()
    holder.lease.hand_over()
    assert holder.lease.term is None
    assert heir.turn() is not None


def test_a_lease_whose_taking_was_not_heard_of_is_held_from_the_next_renewal(
    lossy: Lossy, namespace: Namespace
) -> None:
    """Until when a lost reply made it ours nobody knows; a renewal tells."""
    holder = Holder(lossy, namespace, "a")
    lossy.fates.extend(["", "reply lost"])  # the record is made, then taken
    assert holder.turn() is None
    assert namespace.get("leases", "rotator")["spec"]["holderIdentity"] == "a"
    assert holder.turn() is not None


def test_a_term_is_another_after_somebody_else_had_the_lease(lossy: Lossy, namespace: Namespace) -> None:
    """C14: what was in memory before is not the truth any more, and the number tells."""
    first, second = Holder(lossy, namespace, "a"), Holder(lossy, namespace, "b")
    term = first.turn()
    first.lease.hand_over()
    second.turn()
    second.lease.hand_over()
    assert first.turn() not in (None, term)


def test_an_api_server_that_is_away_changes_nothing_before_the_time_is_over(lossy: Lossy, namespace: Namespace) -> None:
    """C2: the lease is good as long as it was promised, and not a moment longer."""
    holder = Holder(lossy, namespace, "a")
    term = holder.turn()
    lossy.fates.extend(["request lost"] * 2)
    holder.clock.at += 1.0
    assert holder.turn() == term
    assert holder.lease.trouble
    holder.clock.at += 1.1
    assert holder.turn() is None


def test_a_stop_does_not_wait_for_an_api_server_that_is_away(lossy: Lossy, namespace: Namespace) -> None:
    """L3: whoever cannot be told finds out when the time is over."""
    holder = Holder(lossy, namespace, "a")
    assert holder.turn() is not None
    lossy.fates.append("request lost")
    assert not holder.lease.hand_over()
    assert holder.lease.term is None


def test_a_holder_with_other_credentials_is_a_stranger_after_a_while(lossy: Lossy, namespace: Namespace) -> None:
    """C22: what its holder does not know, nobody would refresh; while replicas are replaced, that is no news."""
    holder, follower = Holder(lossy, namespace, "a"), Holder(lossy, namespace, "b", QUICK)
    holder.lease.credentials, follower.lease.credentials = "one", "another"

    def met() -> str:
        holder.turn()
        follower.turn()
        return follower.lease.stranger

    assert met() == ""
    wait_until(met, "the stranger is noticed")
    assert follower.lease.stranger == "a"
    assert holder.lease.stranger == ""
    holder.lease.credentials = "another"  # a reload
    assert met() == ""


def test_a_holder_that_wrote_no_digest_is_no_stranger(lossy: Lossy, namespace: Namespace) -> None:
    """H7: an earlier release wrote none; nothing is known of its credentials."""
    times = replace(QUICK, duration=0.0)
    holder, follower = Holder(lossy, namespace, "a"), Holder(lossy, namespace, "b", times)
    assert holder.turn() is not None
    follower.lease.credentials = "another"
    follower.turn()
    assert follower.lease.stranger == ""
    holder.lease.credentials = "one"
    holder.turn()
    follower.turn()
    assert follower.lease.stranger == "a"


# -- all leases of a release -----------------------------------------------------------------------


class Group:
    """Replicas of one release, each with threads of its own."""

    def __init__(self, api: Api, namespace: Namespace, shards: int, stack: ExitStack) -> None:
        self.replicas: dict[str, Leases] = {}
        self._make: Callable[[str], Leases] = lambda name: Leases(
            api, namespace.name, "rotator", shards, name, QUICK, BootClock()
        )
        self._stack = stack

    def join(self, name: str, busy: Callable[[], Collection[str]] = tuple) -> Leases:
        """Let a replica join."""
        leases = self.replicas[name] = self._make(name)
        leases.start(lambda: None, busy, SECONDS)
        self._stack.callback(lambda: self.leave(name))
        return leases

    def leave(self, name: str) -> None:
        """Let a replica stop."""
        if name in self.replicas:
            self.replicas.pop(name).close()

    def shares(self) -> list[int]:
        """Return how many Leases each replica holds."""
        return [sum(lease.held for lease in leases.views()) for leases in self.replicas.values()]


def test_replicas_share_and_take_over(namespace: Namespace, tmp_path: Path) -> None:
    """A newcomer gets its share, and what one gives up goes to the others."""
    with store_client(namespace, tmp_path, 6) as (client, _), ExitStack() as stack:
        group = Group(client, namespace, 6, stack)
        group.join("a")
        wait_until(lambda: group.shares() == [6], "one holds all")
        group.join("b")
        wait_until(lambda: group.shares() == [3, 3], "two hold half each")
        group.join("c")
        wait_until(lambda: group.shares() == [2, 2, 2], "three hold a third each")
        group.leave("b")
        wait_until(lambda: group.shares() == [3, 3], "two hold half each again")


def test_what_is_under_way_is_not_handed_over(namespace: Namespace, tmp_path: Path) -> None:
    """A shard changes hands when none of its credentials is being worked on, and nothing new begins meanwhile."""
    name = next(f"c{number}" for number in range(100) if shard_of(f"c{number}", 2) == 0)
    also = next(f"c{number}" for number in range(100) if shard_of(f"c{number}", 2) == 1)
    busy = [name, also]
    with store_client(namespace, tmp_path, 2) as (client, _), ExitStack() as stack:
        group = Group(client, namespace, 2, stack)
        first = group.join("a", lambda: busy)
        wait_until(lambda: group.shares() == [2], "one holds all")
        group.join("b")
        wait_until(lambda: not all(first.may_spend(one, 0.0) for one in (name, also)), "one is about to go")
        assert group.shares() == [2, 0]
        busy.clear()
        wait_until(lambda: group.shares() == [1, 1], "each holds one")


def test_each_shard_tells_of_its_own_credentials(namespace: Namespace, tmp_path: Path) -> None:
    """A credential more changes the digest of its own Lease, whatever the order in which they are named."""
    with store_client(namespace, tmp_path, 2) as (client, _), ExitStack() as stack:
        leases = Group(client, namespace, 2, stack).join("a")

        def digests() -> list[str]:
            found = (namespace.get("leases", name)["metadata"] for name in ("rotator-0", "rotator-1"))
            return [metadata.get("annotations", {}).get("token-rotator/credentials", "") for metadata in found]

        assert [shard_of(name, 2) for name in ("home", "work", "b")] == [0, 0, 1]
        leases.follow(("home", "b"))
        wait_until(lambda: all(digests()), "both are written")
        first = digests()
        leases.follow(("b", "work", "home"))
        wait_until(lambda: digests()[0] != first[0], "one has changed")
        assert digests()[1] == first[1]
        leases.follow(("b", "home"))
        wait_until(lambda: digests() == first, "all is as before")


def test_shards_are_the_same_everywhere() -> None:
    """A credential's shard depends on nothing but its name, in this release and the next."""
    assert [shard_of(name, 8) for name in ("home", "work", "a", "b")] == [0, 0, 3, 1]
