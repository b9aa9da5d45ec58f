"""Replicas that share a store: one refreshes, the others follow, and nothing is presented twice."""

import random
from dataclasses import replace

import pytest

from rotator.core.model import Reason, RotationPolicy
from rotator.core.schedule import SinkRef
from rotator.core.standing import Standing
from rotator.core.state import Trouble
from rotator.ports import Notice, Problem, SaveFinished
from rotator.readiness import is_ready
from tests.line import NAME
from tests.model_server import ModelServer
from tests.replicas import LEASE, Release, Replica
from tests.shared_stores import FencedStore
from tests.world import Crash


def _owner(release: Release) -> Replica:
    return next(one for one in release.alive if one.term(NAME) is not None)


def _other(release: Release) -> Replica:
    return next(one for one in release.alive if one.term(NAME) is None)


def _logged_in(replicas: int = 2) -> Release:
    release = Release(replicas)
    release.login()
    return release


def test_one_refreshes_and_the_others_follow() -> None:
    """C22, C21: in an hour only the owner asks for tokens, and every replica's output is always fresh."""
    release = _logged_in(3)
    owner = _owner(release)
    release.assert_well()
    assert release.disk.state is not None
    assert release.disk.state.generation > 2
    for replica in release.alive:
        assert (replica is owner) == bool(replica.number_of_term)


def test_a_follower_refuses_to_rotate_and_names_the_owner() -> None:
    """C2: no lease, no request; whoever asks is told where to ask."""
    release = _logged_in()
    problem = _other(release).rotator.refusal(_other(release).credential)
    assert problem is not None
    assert problem.reason is Reason.NOT_OWNER
    assert _owner(release).name in problem.text
    assert _owner(release).rotator.refusal(_owner(release).credential) is None


def test_a_new_owner_reads_the_store_before_it_spends_and_only_then() -> None:
    """C14: what a new owner has in memory is not the truth; it is read again when a refresh is due, not before."""
    release = _logged_in()
    follower = _other(release)
    release.alive.remove(_owner(release))
    release.run(LEASE + 2)
    assert follower.term(NAME) is not None
    assert follower.store.loads == 0
    release.assert_well()
    assert follower.store.loads >= 1


def test_a_new_owner_is_ready_once_it_has_written_what_is_required() -> None:
    """H25: who takes over a Secret answers for it from then on; a follower does not."""
    release = Release(2)
    for replica in release.alive:
        plan = replica.credential.plan
        replica.credential.plan = replace(plan, sink_refs=(SinkRef("file", shared=True),), required=("file",))
    release.login()
    release.run(5)
    owner, follower = _owner(release), _other(release)
    assert _is_ready(owner)
    assert _is_ready(follower)
    follower.sink.fail.extend([Problem(Reason.FORBIDDEN, "403")] * 10)
    release.alive.remove(owner)
    release.run(LEASE + 5)
    assert follower.term(NAME) is not None
    assert not _is_ready(follower)
    follower.sink.fail.clear()
    release.run(60)
    assert _is_ready(follower)


def _is_ready(replica: Replica) -> bool:
    credential, follows = replica.credential, replica.rotator.follows(replica.credential)
    return is_ready(credential, replica.release.now, follows=follows)


def test_an_owner_that_wakes_up_before_its_form_leaves_sends_nothing() -> None:
    """C5: frozen between reservation and request for longer than its lease, it spends no token."""
    release = _logged_in()
    owner = _owner(release)
    held_up: list[float] = []

    def freeze() -> None:
        held_up.append(release.now)
        release.run(2 * LEASE)

    owner.before_leaving = freeze
    release.run(500)
    assert held_up
    assert owner.term(NAME) is None
    release.assert_well()


def test_an_answer_that_was_frozen_in_its_reader_is_saved_over_the_successors_doubts() -> None:
    """C3: who took over meanwhile has no newer pair, so the woken one's pair counts."""
    release = _logged_in()
    owner = _owner(release)
    held_up: list[float] = []

    def freeze() -> None:
        held_up.append(release.now)
        release.run(2 * LEASE)

    owner.after_answer = freeze
    release.run(500)
    assert held_up
    release.assert_well()


def test_a_successor_publishes_what_a_former_owner_saved_late() -> None:
    """C3: who has the Lease hears that a newer pair was saved over its doubts, and has it in its outputs at once."""
    release = _logged_in()
    owner, successor = _owner(release), _other(release)
    thawed: list[float] = []

    def freeze() -> None:
        release.run(2 * LEASE)
        thawed.append(release.now)

    owner.after_answer = freeze
    while not thawed:
        release.run(1)
    release.run(2)
    assert successor.term(NAME) is not None
    assert release.disk.state is not None
    assert release.disk.state.tokens is not None
    assert release.disk.state.generation == 2
    assert successor.sink.published[-1].access_token == release.disk.state.tokens.access_token
    assert successor.rotator.shown(successor.credential, release.now).standing is Standing.VALID
    release.assert_well()


def test_a_state_of_a_clock_that_ran_ahead_is_suspected_by_a_new_owner() -> None:
    """Invariant 10: what was saved in the future is refreshed at once, not when that future has come."""
    release = Release(1)
    release.now += 3600
    release.login()
    release.now -= 3600
    release.election.holder = None
    release.replace(release.alive[0])
    release.run(5)
    assert release.disk.state is not None
    assert release.disk.state.generation == 2
    assert "clock_suspect" in [notice.event for notice in release.alive[0].observer.of(Notice)]
    release.assert_well()


@pytest.mark.parametrize(("lifetime", "warnings"), [(57, 1), (63, 0)])
def test_a_token_too_short_lived_for_a_takeover_is_warned_of_once(lifetime: int, warnings: int) -> None:
    """C22: whoever falls due a third before its end is lost with its owner if the Lease outlasts that third."""
    release = Release(2, ModelServer(grace=0.0, lifetime=lifetime))
    release.login()
    release.run(2 * lifetime)
    events = [event for replica in release.alive for event in replica.observer.events]
    assert [isinstance(event, Notice) and event.event == "margin_short" for event in events].count(True) == warnings


def test_a_replica_that_is_fenced_gives_way_to_what_is_stored() -> None:
    """C4: whoever finds that another has written a newer pair takes that one over, and overwrites nothing."""
    release = _logged_in()
    owner = _owner(release)
    assert release.disk.state is not None
    tokens = release.server.login()
    state = release.disk.state
    assert state.tokens is not None
    newer = replace(state, tokens=replace(tokens, generation=7, obtained_at=release.now, expires_at=release.now + 600))
    other = _other(release)
    other.store.load(NAME)
    assert other.store.save(NAME, newer) is None
    assert not owner.rotator._saver.save(owner.credential, owner.credential.state or state)
    assert owner.credential.state is not None
    assert owner.credential.state.generation == 7
    assert owner.observer.of(Notice)[-1].event == "gave_way"
    assert not any(save.problem for save in owner.observer.of(SaveFinished)), "nothing has failed"
    release.assert_well()


@pytest.mark.parametrize("client", ["", "an older client"])
def test_a_new_owner_asks_at_once_what_another_client_was_refused(client: str) -> None:
    """K8: a rollout brings another client secret; what its predecessor was refused is due when the new owner looks."""
    release = _logged_in()
    owner, follower = _owner(release), _other(release)
    assert release.disk.state is not None
    refused = Trouble(1, Reason.INVALID_CLIENT, "", release.now, release.now + 900, 1, asked_as=client)
    owner.store.load(NAME)
    assert owner.store.save(NAME, replace(release.disk.state, trouble=refused)) is None
    release.alive.remove(owner)
    release.run(LEASE + 5)
    assert follower.term(NAME) is not None
    assert release.disk.state.generation == (2 if client else 1)


@pytest.mark.parametrize("lasts", [2, 4])
def test_two_owners_under_different_leases_do_not_ask_at_once(lasts: int) -> None:
    """C1: a rollout renames the Lease, and for a while a credential has two owners; the stored mark parts them."""
    policy = RotationPolicy()  # with a replay window, in which an interrupted refresh is repeated at once
    old = Release(1, policy=policy)
    old.login()
    new = Release(1, server=old.server, disk=old.disk, policy=policy, now=old.now)  # an election of its own
    asked: list[float] = []

    def second(*releases: Release) -> None:
        old.now = new.now = old.now + 1
        for release in releases:
            release.alive[0].turn()

    def ask_slowly(other: Release) -> None:
        asked.append(old.now)
        for _ in range(lasts):
            second(other)

    for turn in range(2000):
        one, other = (old, new) if turn % 2 else (new, old)
        for release, rival in ((old, new), (new, old)):
            release.alive[0].before_leaving = lambda rival=rival: ask_slowly(rival)
        second(one, other)
    assert old.alive[0].term(NAME) is not None
    assert new.alive[0].term(NAME) is not None
    assert len(asked) > 3
    assert old.server.reuses == 0
    old.alive[0].before_leaving = None
    old.assert_well()


def test_an_owner_that_wakes_up_after_its_mark_has_run_out_sends_nothing_though_its_lease_lasts() -> None:
    """C1: an owner under a Lease of another name waits for the mark no longer than for a request, and then asks."""
    policy = RotationPolicy()
    old = Release(1, policy=policy)
    old.login()
    new = Release(1, server=old.server, disk=old.disk, policy=policy, now=old.now)
    owner, woke_up = old.alive[0], []

    def freeze() -> None:
        for _ in range(12):
            old.now = new.now = old.now + 1
            new.alive[0].turn()
        woke_up.append(owner.term(NAME))

    owner.before_leaving = freeze
    for _ in range(700):
        old.now = new.now = old.now + 1
        owner.turn()
    assert woke_up == [owner.number_of_term]
    assert old.server.reuses == 0
    old.assert_well()


def test_a_successor_of_a_killed_owner_waits_for_nothing_but_the_lease() -> None:
    """C12: the Lease outlasts a request, so what its dead holder left under way is no reason to wait any longer."""
    release = Release(2, policy=RotationPolicy(jitter=0.0))
    release.login()
    killed: list[float] = []

    def kill() -> None:
        killed.append(release.now)
        raise Crash

    _owner(release).before_leaving = kill
    while not killed:
        release.run(1)
    release.run(LEASE + 1)
    assert [notice.event for notice in _owner(release).observer.of(Notice)] == ["refresh_interrupted"]


def test_a_save_over_an_older_state_is_told_as_that() -> None:
    """C3: where another replica has written an older state, memory's is saved over it, and one line says so."""
    release = _logged_in()
    owner, other = _owner(release), _other(release)
    older = release.disk.state
    assert older is not None
    release.run(500)
    other.store.load(NAME)
    assert other.store.save(NAME, older) is None
    state = owner.credential.state
    assert state is not None
    owner.observer.events.clear()
    assert owner.rotator._saver.save(owner.credential, state)
    assert [notice.event for notice in owner.observer.of(Notice)] == ["store_behind"]
    assert [save.problem for save in owner.observer.of(SaveFinished)] == [None]
    assert release.disk.state is not None
    assert release.disk.state.generation == state.generation
    release.assert_well()


def test_a_pair_that_came_while_the_store_was_away_is_saved_later() -> None:
    """B24: the pair is in memory, the lease is lost, and it is saved all the same once the store is back."""
    release = _logged_in()
    owner = _owner(release)

    def cut() -> None:
        owner.store.away = True

    owner.after_answer = cut
    release.run(450)
    assert owner.credential.unsaved
    assert owner.term(NAME) is None
    owner.store.away = False
    release.assert_well()


def test_no_request_leaves_while_the_store_is_away() -> None:
    """C2, B6: the reservation fails, so nothing is sent."""
    release = _logged_in()
    for replica in release.alive:
        replica.store.away = True
    before = release.server.count
    release.run(550)
    assert release.server.count == before
    for replica in release.alive:
        replica.store.away = False
    release.assert_well()


def test_a_store_that_was_emptied_is_filled_again_by_a_new_owner() -> None:
    """A state that somebody deleted is not the end while a replica has a copy."""
    release = _logged_in()
    release.run(10)
    generation = release.disk.state.generation if release.disk.state else 0
    release.disk.text, release.disk.version = "", release.disk.version + 1
    release.alive.remove(_owner(release))
    release.assert_well()
    assert release.disk.state is not None
    assert release.disk.state.generation > generation


def test_a_removed_state_is_put_back_by_the_owner_alone() -> None:
    """C2, G8: what memory holds is saved again; a follower leaves it to the owner, even if it once was the owner."""
    release = _logged_in()
    former = _owner(release)
    former.store.away = True
    release.run(2 * LEASE + 400)  # another takes over, and has read the store
    former.store.away = False
    release.run(1)
    owner, kept = _owner(release), release.newest
    assert owner is not former
    release.disk.remove()
    assert not former.rotator.has_lost(former.credential)
    former.turn()
    assert release.disk.state is None
    assert owner.rotator.has_lost(owner.credential)
    owner.turn()
    assert release.newest == kept
    assert not owner.rotator.has_lost(owner.credential)
    assert [one.event for one in owner.observer.of(Notice)].count("state_removed") == 1
    release.assert_well()


def test_an_owner_at_rest_puts_a_removed_state_back_too() -> None:
    """C14: who took over by a copy has read nothing yet; it reads the store then, and saves what it was left."""
    release = _logged_in()
    former = _owner(release)
    release.alive.remove(former)
    release.run(2 * LEASE)
    (owner,), kept = release.alive, release.newest
    assert owner.term(NAME) is not None
    assert owner.store.loads == 0, "it goes by its copy"
    assert not owner.rotator.has_lost(owner.credential)
    release.disk.remove()
    assert owner.rotator.has_lost(owner.credential)
    owner.turn()
    assert release.newest == kept
    assert not owner.rotator.has_lost(owner.credential)
    release.assert_well()


def test_a_newer_state_that_comes_after_a_removal_is_not_overwritten() -> None:
    """C4: between the news of a removal and the save another may have written; the newer token set counts."""
    release = _logged_in()
    owner, older = _owner(release), release.disk.state
    release.disk.remove()
    assert owner.rotator.has_lost(owner.credential)
    rival = FencedStore(release.disk)
    rival.load(NAME)
    assert older is not None
    assert older.tokens is not None
    newer = replace(older, tokens=replace(older.tokens, generation=2, refresh_token="newer"))
    assert rival.save(NAME, newer) is None
    release.run(1)
    assert release.newest == "newer"
    assert owner.credential.state is not None
    assert owner.credential.state.tokens == newer.tokens


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_nothing_is_presented_twice(seed: int) -> None:
    """C1, C12, C13: replicas are killed, frozen and cut off at random moments, and no token is spent twice or lost.

    One thing is left out: a replica that is frozen with an answer in hand until the access token is nearly over. Its
    successor then spends the old token on purpose, as it would after a crash (docs/decisions/0003).
    """
    chance = random.Random(seed)
    release = _logged_in(chance.choice((2, 3)))

    def kill() -> None:
        raise Crash

    for _ in range(12):
        victim = chance.choice(release.alive)
        fate = chance.randrange(6)
        freeze = chance.choice((1, LEASE / 2, LEASE + 1, 3 * LEASE))
        if fate == 0:
            victim.before_leaving = lambda freeze=freeze: release.run(freeze)
        elif fate == 1:
            victim.after_answer = lambda freeze=freeze: release.run(freeze if release.has_life_left(freeze) else 0)
        elif fate == 2:
            victim.before_leaving = kill
        elif fate == 3:
            release.replace(victim)
        elif fate == 4:
            victim.store.away = True
        else:
            victim.busy = True  # stopped between two steps
        release.run(chance.choice((1, 10, 50, 390)))
        for replica in release.alive:
            replica.store.away = False
        victim.busy = False
        release.run(chance.choice((0, 5, 30)))
    release.assert_well()
