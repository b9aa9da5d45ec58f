"""What every `Store` promises, run on each implementation, on the fake, and on a model of the API server."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.adapters.file_store import FileStore
from rotator.adapters.kubernetes.store import SecretStore
from rotator.core.model import Reason
from rotator.core.state import CredentialState
from rotator.ports import Loaded, Problem, Store
from tests.adapters.secrets import SECONDS, store_client
from tests.fakes import MemoryStore
from tests.model_api import ModelApi, Network
from tests.samples import full_state, state_of

Restart = Callable[[], Store]


@pytest.fixture(params=["file", "memory", "kubernetes", "model"])
def restart(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Restart]:
    """Return a function that ends the store's life, if it had one, and starts its next."""
    disk: dict[str, str] = {}
    opened: list[FileStore] = []
    if request.param == "kubernetes":
        with store_client(request.getfixturevalue("namespace"), tmp_path) as (client, namespace):
            yield lambda: SecretStore(client, namespace, "state-", SECONDS)
        return

    if request.param == "model":
        api = ModelApi()
        yield lambda: SecretStore(Network(api), "apps", "state-", SECONDS)
        return

    def start() -> Store:
        if request.param == "memory":
            return MemoryStore(disk)
        if opened:
            opened.pop().close()
        store = FileStore.open(tmp_path / "state")
        assert isinstance(store, FileStore)
        opened.append(store)
        return store

    yield start
    for store in opened:
        store.close()


def test_a_store_begins_empty(restart: Restart) -> None:
    """G8: a name that was never saved loads as absent, and that is no problem."""
    store = restart()
    assert Loaded(None) == store.load("a")
    assert store.names() == ()


def test_what_was_saved_is_loaded_after_a_restart(restart: Restart) -> None:
    """B1: a save that returned None is there in the next life, with every field."""
    store = restart()
    assert store.save("a", full_state()) is None
    # How far outputs are differs between replicas: a store that they share keeps everything else.
    kept = replace(full_state(), deliveries={}) if isinstance(store, SecretStore) else full_state()
    assert Loaded(kept) == store.load("a")
    store = restart()
    assert Loaded(kept) == store.load("a")
    assert store.names() == ("a",)


def test_names_do_not_touch_each_other(restart: Restart) -> None:
    """G11: each credential has a state of its own."""
    store = restart()
    for number, name in enumerate(("a", "b", "a.b-c_9"), 1):
        assert store.save(name, state_of(number)) is None
    assert store.save("b", state_of(9)) is None
    assert Loaded(state_of(1)) == store.load("a")
    assert Loaded(state_of(3)) == store.load("a.b-c_9")
    assert sorted(store.names()) == ["a", "a.b-c_9", "b"]


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize(
    "older", [CredentialState(), state_of(4), state_of(5, expires_at=0.0)], ids=["none", "lower", "no expiry"]
)
def test_an_older_state_never_replaces_a_newer_one(restart: Restart, older: CredentialState, restarted: bool) -> None:
    """C15: a lower generation, or a known expiry set to zero, is refused, also after a restart."""
    store = restart()
    assert store.save("a", state_of(5)) is None
    if restarted:
        store = restart()
    problem = store.save("a", older)
    assert problem is not None
    assert problem.reason is Reason.SAVE_FAILED
    assert Loaded(state_of(5)) == store.load("a")


def test_the_same_generation_is_saved_again(restart: Restart) -> None:
    """B6: the intent mark rewrites the same generation through the same path."""
    store = restart()
    assert store.save("a", state_of(5)) is None
    marked = replace(state_of(5), refresh_started_at=1.0)
    assert store.save("a", marked) is None
    assert Loaded(marked) == restart().load("a")


def test_threads_save_different_names_at_once(restart: Restart) -> None:
    """G12: several threads at work on different credentials do not disturb each other."""
    store = restart()

    def work(name: str) -> list[Problem | None]:
        return [store.save(name, state_of(number)) for number in range(1, 21)]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(work, ("a", "b", "c", "d")):
            assert results == [None] * 20
    for name in ("a", "b", "c", "d"):
        assert Loaded(state_of(20)) == store.load(name)
