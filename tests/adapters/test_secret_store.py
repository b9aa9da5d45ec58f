"""The store in Kubernetes: the fence, lost replies, and Secrets that are not its own."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.adapters.kubernetes import state_secret
from rotator.adapters.kubernetes.store import SecretStore
from rotator.core.model import Reason
from rotator.core.state import CredentialState
from rotator.ports import Loaded, Problem
from tests.adapters.secrets import SECONDS, Lossy, store_client
from tests.samples import AT, full_state, state_of
from tests.testbed.kubernetes.cluster import Namespace


@pytest.fixture
def lossy(namespace: Namespace, tmp_path: Path) -> Generator[Lossy]:
    """Return the way to the API server."""
    with store_client(namespace, tmp_path) as (client, _):
        yield Lossy(client)


@pytest.fixture
def store(lossy: Lossy, namespace: Namespace) -> SecretStore:
    """Return a store that has saved generation 1 of `home`."""
    store = SecretStore(lossy, namespace.name, "state-", SECONDS)
    assert store.save("home", state_of(1)) is None
    lossy.calls.clear()
    return store


@pytest.fixture
def other(lossy: Lossy, namespace: Namespace) -> SecretStore:
    """Return another replica's store."""
    return SecretStore(lossy, namespace.name, "state-", SECONDS)


def marked(generation: int, at: float = AT) -> CredentialState:
    """Return a state as it is reserved."""
    return replace(state_of(generation), refresh_started_at=at)


def refused(problem: Problem | None) -> Reason:
    """Demand a problem, and return why."""
    assert problem is not None
    return problem.reason


def test_a_save_is_one_request(store: SecretStore, lossy: Lossy) -> None:
    """A rotation costs two: the reservation and the pair."""
    assert store.save("home", marked(1)) is None
    assert store.save("home", state_of(2)) is None
    assert lossy.calls == ["PATCH", "PATCH"]


def test_a_save_over_what_another_has_written_is_refused_until_it_is_loaded(
    store: SecretStore, other: SecretStore
) -> None:
    """C14: the version is the fence, and looking does not lift it."""
    assert isinstance(other.load("home"), Loaded)
    assert other.save("home", state_of(2)) is None
    for _ in range(2):
        assert refused(store.save("home", state_of(3))) is Reason.FENCED
        assert store.look("home") == Loaded(state_of(2))
    assert store.load("home") == Loaded(state_of(2))
    assert store.save("home", state_of(3)) is None


def test_a_write_whose_reply_was_lost_is_looked_after(store: SecretStore, lossy: Lossy) -> None:
    """A save that was carried out is a success, whoever heard of it; one that was not is none."""
    lossy.fates.extend(["reply lost", "request lost"])
    assert store.save("home", marked(1)) is None
    assert refused(store.save("home", state_of(2))) is not Reason.FENCED
    assert store.look("home") == Loaded(marked(1))
    assert store.save("home", state_of(2)) is None


def test_an_answer_without_a_version_is_looked_after(store: SecretStore, lossy: Lossy) -> None:
    """A8: a success that does not say which version it is about raises nothing, and the save is still a save."""
    lossy.fates.extend(["odd", "odd"])
    assert store.save("home", marked(1)) is None
    assert store.save("home", state_of(2)) is None
    assert lossy.calls == ["PATCH", "GET"] * 2
    assert store.save("home", state_of(3)) is None
    assert store.look("home") == Loaded(state_of(3))


def test_a_write_of_ours_that_lands_late_is_not_taken_for_another_replicas(store: SecretStore, lossy: Lossy) -> None:
    """A reservation that was given up, and carried out by the server all the same, does not fence us off."""
    lossy.fates.append("late")
    assert refused(store.save("home", marked(1))) is not Reason.FENCED
    lossy.land()
    assert store.save("home", marked(1, AT + 5)) is None
    assert store.look("home") == Loaded(marked(1, AT + 5))


def test_a_write_that_lands_after_its_repetition_changes_nothing(store: SecretStore, lossy: Lossy) -> None:
    """The version that it was made for is gone by then."""
    lossy.fates.append("late")
    assert store.save("home", state_of(2)) is not None
    assert store.save("home", state_of(3)) is None
    lossy.land()
    assert store.look("home") == Loaded(state_of(3))


def test_a_lost_reply_and_another_replicas_write_are_told_apart(
    store: SecretStore, other: SecretStore, lossy: Lossy
) -> None:
    """C4: a request that was lost is no licence to overwrite."""
    assert isinstance(other.load("home"), Loaded)
    assert other.save("home", state_of(2)) is None
    lossy.fates.append("request lost")
    assert refused(store.save("home", state_of(2))) is Reason.FENCED


def test_a_deleted_secret_is_made_again_once_that_is_known(store: SecretStore, namespace: Namespace) -> None:
    """What memory holds is not lost to a deletion, and a deletion is not overlooked."""
    namespace.delete("secrets", "state-home")
    assert refused(store.save("home", state_of(2))) is Reason.FENCED
    assert store.load("home") == Loaded(None)
    assert store.save("home", state_of(2)) is None
    assert store.look("home") == Loaded(state_of(2))


def test_two_that_make_the_secret_at_once_do_not_overwrite_each_other(store: SecretStore, other: SecretStore) -> None:
    """Of two first saves one is fenced."""
    assert store.load("new") == other.load("new") == Loaded(None)
    assert store.save("new", state_of(1)) is None
    assert refused(other.save("new", state_of(1))) is Reason.FENCED


def test_a_secret_of_somebody_elses_is_never_written(store: SecretStore, namespace: Namespace) -> None:
    """G10: what is there and cannot be read is a problem, not an absence."""
    namespace.make_secret("state-web", {"password": "x"})
    loaded = store.load("web")
    assert isinstance(loaded, Problem)
    assert "did not make it" in loaded.text
    assert store.save("web", state_of(1)) is not None
    assert namespace.secret("state-web") == {"password": "x"}


def test_a_damaged_or_newer_state_is_told_and_kept(store: SecretStore, namespace: Namespace) -> None:
    """G8: nothing that cannot be read is overwritten."""
    for text, word, reason in (
        ("eA==", "JSON", Reason.STATE_DAMAGED),
        ("eyJmb3JtYXQiOiA5OX0=", "newer rotator", Reason.STATE_NEWER),
    ):
        namespace.edit("secrets", "state-home", {"data": {"state": text}})
        loaded = store.load("home")
        assert isinstance(loaded, Problem)
        assert loaded.reason is reason
        assert word in loaded.text


@pytest.mark.parametrize("text", [None, "eyJmb3JtYXQiOiAxfQ=="])
def test_a_state_that_lost_its_tokens_is_no_new_one(store: SecretStore, namespace: Namespace, text: str | None) -> None:
    """G9: emptied by hand, a Secret that held tokens is told and kept: as empty, an old seed would be spent."""
    namespace.edit("secrets", "state-home", {"data": {"state": text}})
    loaded = store.load("home")
    assert isinstance(loaded, Problem)
    assert loaded.reason is Reason.STATE_DAMAGED
    assert "its tokens are gone, though it held generation 1; keep a copy if in doubt, then kubectl -n" in loaded.text


def test_a_state_without_tokens_is_one(store: SecretStore) -> None:
    """A credential that nobody has logged in yet may have a state, e.g. of what its seed was."""
    seeded = CredentialState(seed_fingerprint="x")
    assert store.save("new", seeded) is None
    assert store.load("new") == Loaded(seeded)


def test_how_far_outputs_are_is_not_shared(store: SecretStore) -> None:
    """Each replica has outputs of its own."""
    assert store.save("home", full_state()) is None
    loaded = store.load("home")
    assert loaded == Loaded(replace(full_state(), deliveries={}))


@pytest.mark.parametrize("name", ["Home", "a_b", "x.", "-", "a..b", "A" * 101])
def test_every_credential_has_a_secret_of_its_own_whatever_its_name(
    store: SecretStore, name: str, namespace: Namespace
) -> None:
    """Names that Kubernetes does not know are told apart by a hash, and are found again."""
    assert store.save(name, state_of(1)) is None
    assert set(store.names()) == {"home", name}
    assert namespace.get("secrets", state_secret.secret_name("state-", name))["type"] == state_secret.TYPE


def test_a_missing_right_is_told_with_the_rule_that_grants_it(namespace: Namespace, tmp_path: Path) -> None:
    """H12: the text ends with what to add to the Role."""
    with store_client(namespace, tmp_path) as (client, name):
        store = SecretStore(client, "elsewhere", "state-", SECONDS)
        loaded = store.load("home")
    assert isinstance(loaded, Problem)
    assert name != "elsewhere"
    assert loaded.text.endswith(
        'add to the Role in namespace elsewhere: - {apiGroups: [""], resources: ["secrets"], '
        'resourceNames: ["state-home"], verbs: ["get"]}'
    )
