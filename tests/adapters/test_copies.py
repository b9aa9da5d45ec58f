"""How followers hear of new states, on a real API server: at once, also after a watch has ended."""

import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rotator.adapters.kubernetes.client import KubernetesClient
from rotator.adapters.kubernetes.copies import Copies
from rotator.adapters.kubernetes.store import SecretStore
from rotator.adapters.kubernetes.wire import GONE, Api
from rotator.core.state import CredentialState
from rotator.ports import Loaded
from tests.adapters.secrets import SECONDS, Lossy, store_client
from tests.process.rig import wait_until
from tests.samples import state_of
from tests.testbed.kubernetes.cluster import Namespace
from tests.testbed.kubernetes.proxy import Proxy
from tests.testbed.kubernetes.release import role


@pytest.fixture
def store(namespace: Namespace, tmp_path: Path) -> Generator[SecretStore]:
    """Return the owner's store."""
    with store_client(namespace, tmp_path) as (client, name):
        yield SecretStore(client, name, "state-", SECONDS)


class Told(SecretStore):
    """A store that remembers what it was told."""

    def __init__(self, api: Api, namespace: str, prefix: str, timeout: float) -> None:
        super().__init__(api, namespace, prefix, timeout)
        self.told: list[tuple[str, str]] = []

    def lost(self, secret: str, version: str) -> None:
        """Take note, as the store does."""
        super().lost(secret, version)
        self.told.append((secret, version))


class Follower:
    """Remembers what came."""

    def __init__(self, namespace: Namespace, path: Path, names: list[str], url: str = "", *, by_name: bool) -> None:
        self.seen: dict[str, int] = {}
        self.order: list[tuple[str, int]] = []
        secrets = [f"state-{name}" for name in names]
        rule = role((), by_name=False)[0] | ({"resourceNames": secrets} if by_name else {})
        account = namespace.account(rule, name="follower")
        config = account.kubeconfig(path).read_text()
        path.write_text(config.replace(namespace.cluster.url, url or namespace.cluster.url))
        self.client = KubernetesClient({"KUBECONFIG": str(path)})
        store = Told(self.client, namespace.name, "state-", SECONDS)
        self.lost = store.told
        self.copies = Copies(self.client, store, self._came)
        self.copies.follow(names, SECONDS)

    def _came(self, name: str, state: CredentialState) -> None:
        self.seen[name] = state.generation
        self.order.append((name, state.generation))

    def close(self) -> None:
        """End the watch."""
        self.copies.close()
        self.client.close()


@pytest.mark.parametrize(("number", "by_name"), [(2, True), (20, False)])
def test_what_is_stored_comes_at_the_start_and_then_as_it_is_written(
    store: SecretStore, namespace: Namespace, tmp_path: Path, number: int, by_name: bool
) -> None:
    """With few credentials the Role names each Secret; with many, one watch is for all."""
    names = [f"c{one}" for one in range(number)]
    assert store.save("c0", state_of(1)) is None
    follower = Follower(namespace, tmp_path / "follower", names, by_name=by_name)
    try:
        assert follower.seen == {"c0": 1}
        assert store.save("c0", state_of(2)) is None
        assert store.save("c1", state_of(1)) is None
        wait_until(lambda: follower.seen == {"c0": 2, "c1": 1}, "the copies come")
        assert not follower.copies.trouble
    finally:
        follower.close()


def test_a_watch_goes_on_where_it_ended(store: SecretStore, namespace: Namespace, tmp_path: Path) -> None:
    """H10: cut off for a while, a follower gets what it missed, in order and once."""
    address = urlsplit(namespace.cluster.url)
    with Proxy((address.hostname or "", address.port or 0)) as proxy:
        assert store.save("c0", state_of(1)) is None
        follower = Follower(namespace, tmp_path / "follower", ["c0"], proxy.url, by_name=True)
        try:
            proxy.cut()
            wait_until(lambda: follower.copies.trouble, "the cut is noticed")
            assert store.save("c0", state_of(2)) is None
            proxy.open()
            wait_until(lambda: follower.seen["c0"] == 2, "the copy comes")
            assert follower.order == [("c0", 1), ("c0", 2)]
            wait_until(lambda: not follower.copies.trouble, "the trouble is over")
        finally:
            follower.close()


def test_credentials_that_are_added_are_followed_and_others_no_longer(
    store: SecretStore, namespace: Namespace, tmp_path: Path
) -> None:
    """A reload changes what is watched."""
    follower = Follower(namespace, tmp_path / "follower", ["c0", "c1"], by_name=True)
    try:
        follower.copies.follow(["c1"], SECONDS)
        assert store.save("c1", state_of(1)) is None
        wait_until(lambda: follower.seen == {"c1": 1}, "the copy comes")
    finally:
        follower.close()


def test_what_is_stored_of_an_added_credential_comes_also_where_one_watch_is_for_all(
    store: SecretStore, namespace: Namespace, tmp_path: Path
) -> None:
    """A reload adds a credential beyond eight: its state came before it was ours, and comes again."""
    names = [f"c{one}" for one in range(10)]
    assert store.save("c9", state_of(1)) is None
    follower = Follower(namespace, tmp_path / "follower", names, by_name=False)
    try:
        assert follower.order == [("c9", 1)]
        follower.copies.follow(names[1:], SECONDS)
        assert follower.order == [("c9", 1)], "nothing was added"
        follower.copies.follow([*names, "c10"], SECONDS)
        wait_until(lambda: follower.order == [("c9", 1)] * 2, "the copy comes again")
        assert store.save("c9", state_of(2)) is None
        wait_until(lambda: follower.seen == {"c9": 2}, "the next one comes")
        assert follower.order == [("c9", 1), ("c9", 1), ("c9", 2)], "of one watch alone"
    finally:
        follower.close()


@pytest.mark.parametrize(("number", "by_name"), [(2, True), (20, False)])
def test_a_deleted_state_is_told_at_once_with_a_later_version(
    store: SecretStore, namespace: Namespace, tmp_path: Path, number: int, by_name: bool
) -> None:
    """C14: the store knows by it that what it wrote is gone, and by the version that what it writes next is not."""
    for name in ("c0", "c1"):
        assert store.save(name, state_of(1)) is None
    follower = Follower(namespace, tmp_path / "follower", [f"c{one}" for one in range(number)], by_name=by_name)
    try:
        namespace.delete("secrets", "state-c0")
        wait_until(lambda: follower.lost, "it is told")
        store.lost(*follower.lost.pop())
        assert [store.vanished(name) for name in ("c0", "c1")] == [True, False]
        assert isinstance(store.load("c0"), Loaded)
        assert store.save("c0", state_of(1)) is None
        assert not store.vanished("c0")
        assert not follower.lost
    finally:
        follower.close()


def test_an_older_state_that_is_put_in_the_place_of_the_stored_one_is_found(
    store: SecretStore, namespace: Namespace
) -> None:
    """C15: a backup that is restored over it; our own writes, of which the news come late, are not taken for one."""
    assert store.save("c0", state_of(1)) is None
    backup = namespace.get("secrets", "state-c0")["data"]
    copies = Copies(store._api, store, lambda *_: None)
    try:
        copies.follow(["c0"], SECONDS)
        for generation in range(2, 8):
            assert store.save("c0", state_of(generation)) is None
            assert not store.vanished("c0")
        namespace.edit("secrets", "state-c0", {"data": backup})
        wait_until(lambda: store.vanished("c0"), "it is found")
    finally:
        copies.close()


class Outdated(Lossy):
    """Says of each watch that its version is too old, once what is missed has happened."""

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.missed = threading.Event()

    def watch(self, path: str, query: Mapping[str, str], *, timeout: float) -> Iterator[Mapping[str, Any]]:
        """Implement `wire.Api`."""
        self.missed.wait(timeout)
        yield {"type": "ERROR", "object": {"code": GONE, "message": "too old"}}


def test_a_deletion_that_no_watch_has_told_is_found_when_all_is_listed_anew(
    namespace: Namespace, tmp_path: Path
) -> None:
    """H10: what happened while nobody watched, and is forgotten by the server, is seen by what is not there."""
    with store_client(namespace, tmp_path) as (client, name):
        store, api = SecretStore(client, name, "state-", SECONDS), Outdated(client)
        assert store.save("c0", state_of(1)) is None
        copies = Copies(api, store, lambda *_: None)
        try:
            copies.follow(["c0", "c1"], SECONDS)
            namespace.delete("secrets", "state-c0")
            api.missed.set()
            wait_until(lambda: store.vanished("c0"), "it is told")
            assert not store.vanished("c1")
        finally:
            copies.close()


def test_a_state_that_cannot_be_read_is_told_and_changes_nothing(
    store: SecretStore, namespace: Namespace, tmp_path: Path
) -> None:
    """G8: a follower goes on with what it has."""
    assert store.save("c0", state_of(1)) is None
    follower = Follower(namespace, tmp_path / "follower", ["c0"], by_name=True)
    try:
        namespace.edit("secrets", "state-c0", {"data": {"state": "eA=="}})
        wait_until(lambda: "state-c0" in follower.copies.trouble, "it is told")
        assert [secret for secret, _ in follower.lost] == ["state-c0"]
        assert follower.seen == {"c0": 1}
    finally:
        follower.close()
