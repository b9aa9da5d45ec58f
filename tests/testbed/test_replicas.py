"""Real replicas, a real API server, a strict authorization server: what a release of rotator is for."""

import base64
import json
from collections.abc import Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from rotator.adapters.kubernetes.state_secret import secret_name
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.needs import needs
from tests.process.rig import wait_until
from tests.secrets_scan import PREFIX as PLANTED
from tests.testbed.kubernetes.chaos import run
from tests.testbed.kubernetes.cluster import Namespace
from tests.testbed.kubernetes.release import LEASE, PREFIX, Release, Replica, role

QUICK = """
    lease_duration = "20s"
    timeout = "2s"
"""
PATIENT = 'total_timeout = "10s"\nread_timeout = "10s"'
SHORT = """
    connect_timeout = "3s"
    read_timeout = "3s"
    total_timeout = "3s"
    refresh.replay_window = 0
"""


SOONEST = """
    lease_duration = "4s"
    timeout = "500ms"
"""


@contextmanager
def released(
    namespace: Namespace,
    directory: Path,
    replicas: int,
    *names: str,
    shards: int = 1,
    secret: str = "",
    lifetime: float = 3600.0,
    defaults: str = PATIENT,
    kubernetes: str = QUICK,
) -> Generator[tuple[Release, Sandbox]]:
    """Run replicas of a release, everybody logged in."""
    switches = Switches(client_secret="", token_prefix=PLANTED, access_lifetime=lifetime)
    sandbox = Sandbox(switches=switches, users={"*": "none"})
    with SandboxServer(sandbox) as server:
        release = Release(
            directory, namespace, server.url, names, kubernetes=kubernetes, defaults=defaults, shards=shards,
            metrics='listen = "127.0.0.1:0"', secret=secret,
        )  # fmt: skip
        with release.running(replicas):
            for name in names:
                release.adopt(name, json.dumps(sandbox.issue(name)))
            yield release, sandbox


def test_one_refreshes_the_others_follow_and_take_over(namespace: Namespace, tmp_path: Path) -> None:
    """C22: a follower has the token, refuses to rotate, tells who does; a clean stop hands over at once."""
    with released(namespace, tmp_path, 2, "home") as (release, sandbox):
        owner = release.owner("home")
        follower = next(one for one in release.replicas if one is not owner)
        wait_until(lambda: follower.token("home"), "the follower has the token")
        assert follower.token("home") == owner.token("home")

        # It reads Lease and store apart: the token may come first.
        wait_until(lambda: "refreshes home" in follower.run("rotate", "home").stderr, "it knows whom it follows")
        refused = follower.run("rotate", "home")
        assert refused.returncode == 69
        holder = namespace.get("leases", LEASE)["spec"]["holderIdentity"]
        assert refused.stderr == f"rotator: home: this replica follows: {holder} refreshes home; ask there\n"
        shown = follower.run("status", "home")
        assert shown.returncode == 0
        assert f"next:          follow: {holder} refreshes; this replica keeps its own outputs" in shown.stdout
        assert follower.ask("/v1/readiness")["ready"] is True

        rotated = owner.run("rotate", "home")
        assert rotated.returncode == 0, rotated.stderr
        wait_until(lambda: follower.token("home") == owner.token("home"), "the follower has the new token")

        assert owner.stop() == 0
        assert release.owner("home", patience=10.0) is follower  # long before the lease would be over
        assert follower.run("rotate", "home").returncode == 0
        assert sandbox.books.replays_by_user.total() == 0


def test_a_follower_tells_of_an_owner_that_lacks_its_credential(namespace: Namespace, tmp_path: Path) -> None:
    """C22: what the owner does not know, nobody refreshes; the follower says so until both are told the same."""
    short = 'connect_timeout = "500ms"\nread_timeout = "1s"\ntotal_timeout = "1s"'
    with released(namespace, tmp_path, 2, "home", "work", defaults=short, kubernetes=SOONEST) as (release, _):
        owner = release.owner("home")
        follower = next(one for one in release.replicas if one is not owner)
        config = owner.directory / "rotator.toml"
        whole = config.read_text()
        config.write_text(whole.replace('[credentials."work"]', ""))
        assert owner.run("reload").returncode == 0
        wait_until(lambda: '"event": "replicas_differ"' in follower.log, "the follower tells", 60.0)
        holder = namespace.get("leases", LEASE)["spec"]["holderIdentity"]
        assert f"{holder}, which holds the Lease rotator, has other credentials in its configuration" in follower.log
        config.write_text(whole)
        assert owner.run("reload").returncode == 0
        wait_until(lambda: '"event": "replicas_agree"' in follower.log, "the follower tells", 30.0)


def test_a_rollout_that_renames_the_lease_spends_no_token_twice(namespace: Namespace, tmp_path: Path) -> None:
    """C1: old and new pods each own the credential, under Leases of two names; the stored mark keeps them apart."""
    with released(namespace, tmp_path, 2, "home", shards=2, lifetime=6.0) as (release, sandbox):
        sandbox.change(latency_seconds=2.0)
        for number, pod in enumerate(release.replicas):
            assert pod.stop() == 0
            config = pod.directory / "rotator.toml"
            config.write_text(config.read_text().replace("shards = 2", f'lease = "rotator-{number}"'))
            pod.start()
        wait_until(lambda: all(pod.owns("home") for pod in release.replicas), "both own it")
        asked = sandbox.books.refresh_grants
        wait_until(lambda: sandbox.books.refresh_grants > asked + 2, "tokens are rotated", 60.0)
        assert all(pod.owns("home") for pod in release.replicas)
        assert sandbox.books.replays_by_user.total() == 0


@pytest.mark.parametrize("at_rest", [False, True])
def test_a_deleted_state_is_put_back_by_its_owner(namespace: Namespace, tmp_path: Path, at_rest: bool) -> None:
    """C14: the state is in memory alone then; the watch tells, and the owner writes it again, also from a copy."""
    with released(namespace, tmp_path, 2, "home") as (release, sandbox):
        owner = release.owner("home")
        other = next(one for one in release.replicas if one is not owner)
        wait_until(lambda: other.token("home"), "the follower has a copy")
        if at_rest:
            assert owner.stop() == 0
            owner, other = release.owner("home"), owner
        before = release.stored("home")
        namespace.delete("secrets", secret_name(PREFIX, "home"))
        after = wait_until(lambda: release.stored("home"), "the state is back")
        assert before is not None
        assert after.tokens == before.tokens
        event = '"event": "store_behind"' if at_rest else '"event": "state_removed"'
        wait_until(lambda: event in owner.log, "it is told")
        assert event not in other.log
        assert owner.run("rotate", "home").returncode == 0
        assert sandbox.books.replays_by_user.total() == 0


def test_a_backup_that_is_restored_over_the_state_is_overwritten_by_its_owner(
    namespace: Namespace, tmp_path: Path
) -> None:
    """C15: its refresh token is spent, and the newest one would be in memory alone until the next refresh."""
    state = secret_name(PREFIX, "home")
    with released(namespace, tmp_path, 1, "home") as (release, sandbox):
        owner = release.owner("home")
        backup = namespace.get("secrets", state)
        assert owner.run("rotate", "home").returncode == 0
        namespace.edit("secrets", state, {key: backup[key] for key in ("data",)})
        wait_until(lambda: (stored := release.stored("home")) and stored.generation == 2, "the newer one is back")
        wait_until(lambda: '"event": "store_behind"' in owner.log, "it is told")
        assert owner.run("rotate", "home").returncode == 0
        assert sandbox.books.replays_by_user.total() == 0


def test_an_emptied_state_is_told_with_the_command_that_lets_its_owner_put_it_back(
    namespace: Namespace, tmp_path: Path
) -> None:
    """G9: what may be a person's work is not written over; once that person has deleted it, memory is the truth."""
    state = secret_name(PREFIX, "home")
    with released(namespace, tmp_path, 2, "home") as (release, sandbox):
        owner = release.owner("home")
        before = release.stored("home")
        namespace.edit("secrets", state, {"data": None})
        cure = f"kubectl -n {namespace.name} delete secret {state}"
        shown = wait_until(lambda: cure in (status := owner.run("status", "home").stdout) and status, "it is told")
        assert "its tokens are gone" in shown
        assert '"event": "pair_unsaved"' in owner.log
        assert namespace.secret(state) == {}
        namespace.delete("secrets", state)
        after = wait_until(lambda: release.stored("home"), "the state is back")
        assert before is not None
        assert after.tokens == before.tokens
        wait_until(lambda: cure not in owner.run("status", "home").stdout, "the trouble is over")
        assert owner.run("rotate", "home").returncode == 0
        assert sandbox.books.replays_by_user.total() == 0


def test_a_pair_that_comes_during_a_stop_outlasts_an_api_server_that_is_away(
    namespace: Namespace, tmp_path: Path
) -> None:
    """B24, H10: a node is drained while the control plane restarts; the last save is tried until it is back."""
    with released(namespace, tmp_path, 1, "home") as (release, sandbox):
        owner = release.owner("home")
        sandbox.change(latency_seconds=2.0)
        asked = sandbox.books.refresh_grants
        with ThreadPoolExecutor(2) as pool:
            pool.submit(owner.run, "rotate", "home")
            wait_until(
                lambda: (state := release.stored("home")) and state.refresh_started_at, "the request is under way"
            )
            owner.proxy.cut()
            stopped = pool.submit(owner.stop)
            wait_until(lambda: owner.log.count('"event": "pair_unsaved"') == 3, "four tries have failed")
            assert not stopped.done()
            owner.proxy.open()
            assert stopped.result() == 0
        assert sandbox.books.refresh_grants == asked + 1
        stored = release.stored("home")
        assert stored is not None
        assert stored.generation == 2


def test_the_owner_alone_writes_a_secret(namespace: Namespace, tmp_path: Path) -> None:
    """C22: a Secret is one place for all replicas; a follower that lags never puts an older token there."""

    def published() -> str:
        found = namespace.get("secrets", "home-token")
        return base64.b64decode(found["data"]["token"]).decode() if found else ""

    def outputs(replica: Replica) -> int:
        return len(replica.ask("/v1/status/home")["credentials"][0]["outputs"])

    with released(namespace, tmp_path, 2, "home", secret="home-token") as (release, _):
        owner = release.owner("home")
        follower = next(one for one in release.replicas if one is not owner)
        wait_until(lambda: published() != "" and published() == owner.token("home"), "the Secret is written")
        wait_until(lambda: follower.token("home") == owner.token("home"), "the follower has the token")
        assert (outputs(owner), outputs(follower)) == (2, 1)
        assert follower.ask("/v1/readiness")["ready"] is True

        assert owner.stop() == 0
        assert release.owner("home", patience=10.0) is follower
        before = published()
        assert follower.run("rotate", "home").returncode == 0
        wait_until(lambda: published() == follower.token("home") != before, "its successor writes it")


def test_a_secret_that_others_touch_is_restored_within_a_minute(namespace: Namespace, tmp_path: Path) -> None:
    """H15: deleted, or edited, the Secret is back within 60 s, and the server is asked for nothing."""
    with released(namespace, tmp_path, 1, "home", secret="home-token") as (release, sandbox):
        replica = release.replicas[0]
        wait_until(lambda: replica.token("home"), "the file is written")
        token = {"token": replica.token("home")}
        wait_until(lambda: namespace.secret("home-token") == token, "the Secret is written")
        namespace.delete("secrets", "home-token")
        wait_until(lambda: namespace.secret("home-token") == token, "it is made anew", 60.0)
        namespace.edit("secrets", "home-token", {"stringData": {"token": "forged"}})
        wait_until(lambda: namespace.secret("home-token") == token, "it is as it was", 60.0)
        assert sandbox.books.token_requests == {}


@pytest.mark.parametrize("mishap", ["stopped", "cut off"])
def test_an_owner_that_comes_back_spends_nothing_and_overwrites_nothing(
    namespace: Namespace, tmp_path: Path, mishap: str
) -> None:
    """C5, C14: stopped or cut off after its reservation, an owner comes back when another has refreshed long ago.

    The reply to its reservation is kept back meanwhile, so whatever it does next, it does then.
    """
    with released(namespace, tmp_path, 2, "home", lifetime=36.0, defaults=SHORT) as (release, sandbox):
        owner = release.owner("home")
        other = next(one for one in release.replicas if one is not owner)
        with ThreadPoolExecutor(1) as aside:
            asked = _held_up_after_its_reservation(release, owner, aside)
            granted, refreshed = sandbox.books.refresh_grants, owner.log.count('"event": "refreshed"')
            if mishap == "stopped":
                owner.freeze()
                owner.proxy.open()  # the reply waits for the process to wake up
            wait_until(lambda: other.owns("home"), "the other has taken over", 60.0)
            wait_until(lambda: sandbox.books.refresh_grants > granted, "the other has refreshed", 60.0)
            wait_until(lambda: _is_stored(release, other.token("home")), "and saved")
            owner.proxy.open()
            owner.thaw()
            asked.result()  # a refusal, or what the other brought about
        wait_until(lambda: owner.token("home") == other.token("home") != "", "both have the new token")
        assert owner.log.count('"event": "refreshed"') == refreshed
        assert not sandbox.books.refusals
        assert sandbox.books.replays_by_user.total() == 0
        wait_until(lambda: _generation(release) == 1 + sandbox.books.refresh_grants, "no grant was overwritten")


def _held_up_after_its_reservation(release: Release, owner: Replica, aside: Executor) -> Future[Any]:
    """Let an owner reserve, and keep from it that it has. On a busy machine its lease may be nearly over before."""
    while True:
        owner.proxy.hold()
        asked = aside.submit(owner.ask, "/v1/rotate/home", post=True)
        with suppress(AssertionError):
            wait_until(lambda: _marked(release), "the reservation is made", 5.0)
            return asked
        owner.proxy.open()
        asked.result()
        wait_until(lambda: owner.owns("home") and not _marked(release), "all is as before")


def _marked(release: Release) -> bool:
    state = release.stored("home")
    return state is not None and state.refresh_started_at is not None


def _is_stored(release: Release, token: str) -> bool:
    state = release.stored("home")
    return state is not None and state.tokens is not None and state.tokens.access_token == token


def _generation(release: Release) -> int:
    state = release.stored("home")
    return state.generation if state is not None else 0


def test_the_lease_is_renewed_while_a_request_runs(namespace: Namespace, tmp_path: Path) -> None:
    """C5, C6: a server that takes its time takes the lease from nobody: who has sent the token saves the answer."""
    seen: set[str] = set()

    def renewals() -> int:
        seen.add(namespace.get("leases", LEASE)["spec"]["renewTime"])
        return len(seen) - 1

    with released(namespace, tmp_path, 2, "home") as (release, sandbox):
        owner = release.owner("home")
        sandbox.script(["hang"])
        with ThreadPoolExecutor(1) as aside:
            asked = aside.submit(owner.ask, "/v1/rotate/home", post=True)
            wait_until(lambda: sandbox.script_left == [], "the request is under way")
            wait_until(lambda: renewals() > 1, "the lease is renewed, and again")
            sandbox.change()
            asked.result()
        assert owner.owns("home")
        wait_until(lambda: _generation(release) == 2, "the answer is saved")
        assert sandbox.books.replays_by_user.total() == 0


def test_a_check_tells_exactly_which_rights_are_missing(namespace: Namespace, tmp_path: Path) -> None:
    """H13, H12: the API server is asked about each verb that is used; what is missing is printed as a rule."""
    release = Release(tmp_path, namespace, "http://127.0.0.1:9", ["home", "Work"])
    replica = Replica(release, 0, namespace.cluster.url)
    good = replica.run("check")
    assert "ok    Kubernetes: the API server answers, and every right that is needed is there" in good.stdout
    secrets, leases = role(["home"])
    release.account.grant({**secrets, "verbs": ["get", "list", "watch"]}, leases)
    release.account.wait_for((secrets | {"verbs": ["patch"]},), allowed=False)
    bad = replica.run("check")
    assert bad.returncode == 78
    rule = '- {apiGroups: [""], resources: ["secrets"], resourceNames: '
    for name, verbs in (("home", '"patch", "create"'), ("Work", '"get", "list", "watch", "patch", "create"')):
        whole = f'{rule}["{secret_name(PREFIX, name)}"], verbs: [{verbs}]}}'
        assert f"fail  Kubernetes: add to the Role in namespace {namespace.name}: {whole}\n" in bad.stdout


def test_a_single_run_follows_where_another_holds_the_lease(namespace: Namespace, tmp_path: Path) -> None:
    """C2: an init container gets the token that a running replica refreshes, and asks the server for none."""
    with released(namespace, tmp_path, 2, "home") as (release, sandbox):
        owner = release.owner("home")
        other = next(one for one in release.replicas if one is not owner)
        assert other.stop() == 0
        (other.directory / "out" / "home").unlink(missing_ok=True)  # it may not have come yet
        before = sandbox.books.tokens_issued
        once = other.run("run", "--once")
        assert once.returncode == 0, once.stderr
        assert other.token("home") == owner.token("home")
        assert sandbox.books.tokens_issued == before
        assert release.owner("home") is owner


def test_replicas_share_a_fleet(namespace: Namespace, tmp_path: Path) -> None:
    """C8: with shards, each replica refreshes a part, and every replica has every token."""
    names = [f"c{number}" for number in range(12)]
    with released(namespace, tmp_path, 2, *names, shards=4) as (release, sandbox):
        wait_until(
            lambda: all(sum(one.owns(name) for name in names) > 0 for one in release.replicas), "each owns a part"
        )
        wait_until(lambda: all(one.token(name) for one in release.replicas for name in names), "every output is there")
        for name in names:
            assert sum(one.owns(name) for one in release.replicas) == 1
        assert sandbox.books.replays_by_user.total() == 0


def test_no_mishap_costs_a_token(tmp_path: Path) -> None:
    """C1, C2, C5, C6, C22: a few of the rounds that `python -m tests.testbed.kubernetes.chaos` runs by the hundred."""
    needs("kubernetes", "openssl")
    table = run(tmp_path, rounds=4, seed=7, replicas=2)
    assert table.good, str(table)
    assert table.rotations > 0
