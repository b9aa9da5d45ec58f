"""A Secret output against a real API server: what it writes, what it leaves alone, and how it tells what is wrong."""

import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rotator.adapters.kubernetes.lookout import Lookout
from rotator.adapters.kubernetes.secret_sink import SecretSink
from rotator.adapters.kubernetes.wire import MANAGER
from rotator.core.model import Reason, TokenSet
from rotator.ports import Problem
from tests.fakes import FixedClock
from tests.needs import needs
from tests.samples import AT, token_set
from tests.secrets_scan import planted
from tests.testbed.kubernetes.cluster import Account, Namespace
from tests.testbed.kubernetes.pod import OpenPod, Pod, on_secrets, pods
from tests.testbed.kubernetes.servers import run_servers

USUAL = ("get", "patch", "watch")


@pytest.fixture
def open_pod(tmp_path: Path) -> Generator[OpenPod]:
    """Return a way to make pods."""
    with pods(tmp_path) as make:
        yield make


@pytest.fixture
def account(namespace: Namespace) -> Account:
    """Return an account that may do what rotator needs for the Secret `web`, its making included."""
    return namespace.account(on_secrets(*USUAL, "create"))


@pytest.fixture
def pod(account: Account, open_pod: OpenPod) -> Pod:
    """Return a pod of that account."""
    return open_pod(account)


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_changed(sink: SecretSink) -> bool:
    return not sink.intact()


def problem_of(outcome: Problem | None) -> Problem:
    """Return the problem that there must be."""
    assert outcome is not None
    assert "\n" not in outcome.text
    return outcome


# -- what is written -----------------------------------------------------------------------------------


def test_a_secret_is_made_and_then_costs_one_request_a_token(namespace: Namespace, pod: Pod) -> None:
    """The first publication looks and writes; each further token is one PATCH, and nothing else."""
    sink = pod.sink(
        data=(("header", "header"), ("url", "https://x/?t={access_token}")),
        labels=(("app", "shop"),),
        type="shop/token",
    )
    assert sink.publish(token_set(1)) is None
    assert pod.asked() == [("GET", "web"), ("PATCH", "web")]
    for generation in (2, 3, 4):
        assert sink.publish(token_set(generation)) is None
    assert pod.asked() == [("PATCH", "web")] * 3
    found = namespace.get("secrets", "web")
    assert found["type"] == "shop/token"
    assert found["metadata"]["labels"] == {"app": "shop", "token-rotator/managed": "true"}
    assert found["metadata"]["annotations"] == {
        "token-rotator/credential": "shop",
        "token-rotator/generation": "4",
        "token-rotator/expires-at": "2023-11-14T23:13:20Z",
    }
    token = planted("access-4")
    assert namespace.secret("web") == {"header": f"Authorization: Bearer {token}", "url": f"https://x/?t={token}"}


def test_the_expiry_is_the_wall_clock_s(namespace: Namespace, account: Account, open_pod: OpenPod) -> None:
    """Invariant 10: the annotation shows the expiry as others' clocks will see it."""
    assert open_pod(account, FixedClock(offset=60)).sink().publish(token_set(1)) is None
    annotations = namespace.get("secrets", "web")["metadata"]["annotations"]
    assert annotations["token-rotator/expires-at"] == "2023-11-14T23:14:20Z"


def test_what_is_right_already_is_not_written(namespace: Namespace, account: Account, open_pod: OpenPod) -> None:
    """H14: after a restart the Secret is looked at, and not written as long as it holds the token."""
    assert open_pod(account).sink().publish(token_set(1)) is None
    before = namespace.get("secrets", "web")
    again = open_pod(account)
    assert again.sink().publish(token_set(1)) is None
    assert again.asked() == [("GET", "web")]
    assert namespace.get("secrets", "web") == before


def test_other_keys_labels_and_managers_are_left_alone(namespace: Namespace, pod: Pod) -> None:
    """H5, H9: only our own fields are applied; nothing that others put there is lost, and no race can lose it."""
    sink = pod.sink()
    assert sink.publish(token_set(1)) is None
    theirs = {"metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "2"}}, "stringData": {"other": "3"}}
    namespace.edit("secrets", "web", theirs)
    assert sink.publish(token_set(2)) is None
    found = namespace.get("secrets", "web")
    assert namespace.secret("web") == {"token": planted("access-2"), "other": "3"}
    assert (found["metadata"]["labels"]["theirs"], found["metadata"]["annotations"]["theirs"]) == ("1", "2")
    owners = {entry["manager"]: entry["fieldsV1"]["f:data"].keys() for entry in found["metadata"]["managedFields"]}
    assert owners == {MANAGER: {".", "f:token"} & owners[MANAGER], "somebody": {"f:other"}}


def test_an_earlier_release_s_secret_is_taken_on(namespace: Namespace, pod: Pod) -> None:
    """H7: the field manager is the same for ever, so a changed value is no conflict, and a key we dropped is gone."""
    assert MANAGER == "rotator"
    earlier = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "web", "annotations": {"token-rotator/credential": "shop"}},
        "stringData": {"token": "old", "dropped": "x"},
    }
    namespace.cluster.good(
        "PATCH",
        namespace.path("secrets", "web"),
        {**earlier, "data": {"token": "b2xk", "dropped": "eA=="}, "stringData": {}},
        content_type="application/apply-patch+yaml",
        fieldManager="rotator",
    )
    assert pod.sink().publish(token_set(1)) is None
    assert namespace.secret("web") == {"token": planted("access-1")}


def test_a_token_that_is_missing_is_not_written(namespace: Namespace, pod: Pod) -> None:
    """Invariant 8: an empty token is never written."""
    assert problem_of(pod.sink().publish(token_set(1, access_token=""))).reason is Reason.BAD_INPUT
    for template in ("id_token", "{id_token}"):
        problem = problem_of(pod.sink(data=(("token", "raw"), ("id", template))).publish(token_set(1)))
        assert problem.reason is Reason.BAD_INPUT
        assert "id token" in problem.text
    assert pod.asked() == []
    assert namespace.secret("web") is None


# -- whose Secret it is --------------------------------------------------------------------------------


def test_a_secret_of_somebody_else_s_is_refused_unless_adopted(namespace: Namespace, pod: Pod) -> None:
    """A Secret that rotator did not make is left alone; with `adopt` it is taken over, other keys untouched."""
    namespace.make_secret("web", {"token": "theirs", "other": "x"})
    before = namespace.get("secrets", "web")
    problem = problem_of(pod.sink().publish(token_set(1)))
    assert (problem.reason, problem.retry_after) == (Reason.NOT_OURS, 300)
    assert "was not made by rotator: set adopt = true" in problem.text
    assert namespace.get("secrets", "web") == before
    assert pod.sink(adopt=True).publish(token_set(1)) is None
    assert namespace.secret("web") == {"token": planted("access-1"), "other": "x"}
    assert pod.sink().publish(token_set(2)) is None  # ours now


def test_another_credential_s_secret_is_refused(namespace: Namespace, pod: Pod) -> None:
    """Two credentials never write one Secret: the second is told whose it is, whatever keys it has.

    With one field manager, to apply the second's keys is to give up the first's: the server deletes them.
    """
    assert pod.sink().publish(token_set(1)) is None
    other: dict[str, Any] = {"credential": "other", "data": (("other", "raw"),)}
    problem = problem_of(pod.sink(**other).publish(token_set(7)))
    assert problem.reason is Reason.NOT_OURS
    assert "belongs to credential shop" in problem.text
    assert namespace.secret("web") == {"token": planted("access-1")}
    assert pod.sink(**other, adopt=True).publish(token_set(7)) is None  # by somebody who means it
    assert namespace.secret("web") == {"other": planted("access-7")}


@pytest.mark.parametrize("adopt", [False, True])
def test_a_state_is_never_published_over(namespace: Namespace, pod: Pod, adopt: bool) -> None:
    """A Secret that holds a refresh token is left alone, also if it is this credential's, and adopted."""
    metadata = {"annotations": {"token-rotator/credential": "shop"}}
    namespace.make_secret("web", {"state": "{}"}, type="token-rotator/state", metadata=metadata)
    problem = problem_of(pod.sink(adopt=adopt).publish(token_set(1)))
    assert (problem.reason, problem.retry_after) == (Reason.NOT_OURS, 300)
    assert "holds a state, which no reader may see" in problem.text
    assert namespace.secret("web") == {"state": "{}"}


def test_a_secret_made_anew_by_somebody_else_is_not_written_to(
    namespace: Namespace, account: Account, pod: Pod
) -> None:
    """The request names the very Secret it is about, so one that took its place unseen is looked at first."""
    account.grant(on_secrets("get", "patch", "create"))  # no watch that would tell
    sink = pod.sink()
    assert sink.publish(token_set(1)) is None
    namespace.delete("secrets", "web")
    assert sink.publish(token_set(2)) is None
    assert namespace.secret("web") == {"token": planted("access-2")}
    namespace.delete("secrets", "web")
    namespace.make_secret("web", {"token": "theirs"})
    assert problem_of(sink.publish(token_set(3))).reason is Reason.NOT_OURS
    assert namespace.secret("web") == {"token": "theirs"}


# -- replicas ------------------------------------------------------------------------------------------


def later(generation: int) -> TokenSet:
    """Return a token set that is over later than those of lower generations."""
    return replace(token_set(generation), expires_at=AT + 1000 * generation)


def test_a_leader_that_was_stopped_before_its_write_does_not_put_an_old_token_back(
    namespace: Namespace, account: Account, open_pod: OpenPod
) -> None:
    """C15: what another replica wrote meanwhile is newer, and stays, whether or not a watch has told of it."""
    account.grant(on_secrets("get", "patch", "create"))
    stopped, successor = open_pod(account), open_pod(account)
    sink, other = stopped.sink(), successor.sink()
    assert sink.publish(later(4)) is None
    for generation in (5, 6):
        assert other.publish(later(generation)) is None
    stopped.asked()
    problem = problem_of(sink.publish(later(5)))
    assert (problem.reason, problem.retry_after) == (Reason.FENCED, None)
    assert "/web holds generation 6 of another replica, newer than ours: it stays until" in problem.text
    assert namespace.secret("web") == {"token": planted("access-6")}
    assert stopped.asked() == [("PATCH", "web"), ("GET", "web")]
    assert sink.publish(later(6)) is None
    assert sink.publish(later(7)) is None
    assert namespace.secret("web") == {"token": planted("access-7")}


def test_a_new_owner_with_an_old_copy_leaves_a_newer_token(
    namespace: Namespace, account: Account, open_pod: OpenPod
) -> None:
    """C15: a replica that takes over before the newest state has come to it publishes nothing older."""
    assert open_pod(account).sink().publish(later(7)) is None
    late = open_pod(account).sink()
    assert problem_of(late.publish(later(6))).reason is Reason.FENCED
    assert namespace.secret("web") == {"token": planted("access-7")}
    assert late.publish(later(7)) is None


def test_after_a_lost_state_a_login_publishes_though_its_generation_is_lower(
    namespace: Namespace, account: Account, open_pod: OpenPod
) -> None:
    """A login that begins to count anew brings a token that is over later, and that one counts."""
    assert open_pod(account).sink().publish(later(7)) is None
    login = replace(token_set(1), expires_at=AT + 8000)
    assert open_pod(account).sink().publish(login) is None
    assert namespace.secret("web") == {"token": planted("access-1")}


def test_edits_of_other_keys_cost_no_request(namespace: Namespace, pod: Pod) -> None:
    """H9: a Secret that others write other keys to still costs one PATCH a token: the watch tells its version."""
    sink = pod.sink()
    assert sink.publish(token_set(1)) is None
    wait_until(lambda: pod.client.asked[-1][0] == "WATCH")
    namespace.edit("secrets", "web", {"stringData": {"other": "x"}})
    version = namespace.get("secrets", "web")["metadata"]["resourceVersion"]
    wait_until(lambda: sink._version == version)
    pod.asked()
    assert sink.publish(token_set(2)) is None
    assert pod.asked() == [("PATCH", "web")]


# -- rights and refusals -------------------------------------------------------------------------------


def test_a_pre_made_secret_needs_no_right_to_create(namespace: Namespace, open_pod: OpenPod) -> None:
    """H11: get and patch on one named Secret are enough where the Secret is there, e.g. from a chart."""
    account = namespace.account(on_secrets("get", "patch"))
    namespace.make_secret("web", {}, metadata={"annotations": {"token-rotator/credential": "shop"}})
    sink = open_pod(account).sink()
    for generation in (1, 2):
        assert sink.publish(token_set(generation)) is None
    assert namespace.secret("web") == {"token": planted("access-2")}


def test_a_missing_right_is_a_state_with_the_rule_and_heals(namespace: Namespace, account: Account, pod: Pod) -> None:
    """H12, H26: a 403 says which rule is missing and is tried slowly; once the rule is there, the next try works."""
    sink = pod.sink()
    for granted, missing in (((), "get"), (("get",), "patch"), (("get", "patch"), "create")):
        account.grant(on_secrets(*granted, "list"))
        account.wait_for((on_secrets(missing),), allowed=False)
        problem = problem_of(sink.publish(token_set(1)))
        assert (problem.reason, problem.retry_after) == (Reason.FORBIDDEN, 300)
        assert f'resources: ["secrets"], resourceNames: ["web"], verbs: ["{missing}"]' in problem.text
    account.grant(on_secrets(*USUAL, "create"))
    assert sink.publish(token_set(1)) is None
    assert namespace.secret("web") == {"token": planted("access-1")}


def test_what_the_server_will_not_hold_is_a_state(namespace: Namespace, pod: Pod) -> None:
    """A Secret that is immutable, of another type or too large: refused, said so, tried slowly."""
    problem = problem_of(pod.sink().publish(token_set(1, access_token=planted("x" * 1_100_000))))
    assert (problem.reason, problem.retry_after) == (Reason.TOO_LARGE, 300)
    annotations = {"token-rotator/credential": "shop"}
    namespace.make_secret("web", {"token": "old"}, immutable=True, metadata={"annotations": annotations})
    problem = problem_of(pod.sink().publish(token_set(1)))
    assert (problem.reason, problem.retry_after) == (Reason.IMMUTABLE, 300)
    assert "delete the Secret, and it is made anew" in problem.text
    namespace.delete("secrets", "web")
    sink = pod.sink()
    assert sink.publish(token_set(1)) is None
    assert problem_of(pod.sink(type="shop/other").publish(token_set(2))).reason is Reason.IMMUTABLE


def test_a_token_in_the_server_s_words_is_hidden(namespace: Namespace, pod: Pod) -> None:
    """Invariant 11: an error that repeats what was sent is shown without the token."""
    secret = "e4f5a6b7c8d9" * 3
    sink = pod.sink(labels=(("app", secret + " "),))
    problem = problem_of(sink.publish(token_set(1, access_token=secret)))
    assert problem.reason is Reason.REJECTED
    assert "***" in problem.text
    assert secret not in problem.text


def test_an_outage_is_a_state_and_passes(tmp_path: Path, open_pod: OpenPod) -> None:
    """H10: while the API server is away or etcd frozen, publishing fails with a reason; once it is back it works."""
    needs("kubernetes", "openssl")
    with run_servers(tmp_path / "own", "--request-timeout=2s") as servers:
        namespace = servers.cluster.namespace()
        sink = open_pod(namespace.account(on_secrets(*USUAL, "create"))).sink()
        assert sink.publish(token_set(1)) is None
        servers.freeze_etcd()
        assert problem_of(sink.publish(token_set(2))).reason is Reason.HTTP_5XX
        servers.thaw_etcd()
        servers.stop_apiserver()
        problem = problem_of(sink.publish(token_set(2)))
        assert (problem.reason, problem.retry_after) == (Reason.CONNECT, None)
        servers.start_apiserver()
        assert sink.publish(token_set(2)) is None
        assert namespace.secret("web") == {"token": planted("access-2")}
        # The watch has come back, too, and tells of what happens now.
        namespace.delete("secrets", "web")
        wait_until(lambda: not sink.intact())


# -- restoring -----------------------------------------------------------------------------------------


def test_a_deleted_or_edited_secret_is_noticed_and_restored(namespace: Namespace, pod: Pod) -> None:
    """H15: what others do to the Secret is told by a watch, at once and without a request; then it is as it was."""
    sink = pod.sink(labels=(("app", "shop"),))
    assert sink.publish(token_set(1)) is None
    wait_until(lambda: pod.client.asked[-1][0] == "WATCH")
    pod.asked()
    assert sink.intact()
    namespace.edit("secrets", "web", {"stringData": {"token": "forged"}})
    wait_until(lambda: not sink.intact())
    assert pod.asked() == []
    assert sink.publish(token_set(1)) is None
    assert (namespace.secret("web"), sink.intact()) == ({"token": planted("access-1")}, True)
    namespace.delete("secrets", "web")
    wait_until(lambda: not sink.intact())
    assert sink.publish(token_set(1)) is None
    assert (namespace.secret("web"), sink.intact()) == ({"token": planted("access-1")}, True)


def test_what_is_none_of_our_business_calls_for_nothing(namespace: Namespace, pod: Pod) -> None:
    """H14: edits of other keys, and our own writes, leave the output intact."""
    sink = pod.sink()
    assert sink.publish(token_set(1)) is None
    namespace.edit("secrets", "web", {"stringData": {"other": "x"}})
    for generation in (2, 3):
        assert sink.publish(token_set(generation)) is None
    namespace.edit("secrets", "web", {"stringData": {"token": "forged"}})
    wait_until(lambda: not sink.intact())  # all that came before has been seen by now
    assert sink.publish(token_set(3)) is None
    assert [event for event, _ in pod.notices] == []


def test_a_fight_is_given_up_and_told(namespace: Namespace, account: Account, open_pod: OpenPod) -> None:
    """H14: overwritten three times within an hour, the Secret is left; new tokens are still written; time heals."""
    clock = FixedClock()
    pod = open_pod(account, clock)
    sink = pod.sink()
    tokens = token_set(1)
    assert sink.publish(tokens) is None

    def fight() -> Problem | None:
        namespace.edit("secrets", "web", {"stringData": {"token": "theirs"}}, manager="rival")
        wait_until(lambda: not sink.intact())
        clock.at += 60
        return sink.publish(tokens)

    assert fight() is None
    assert fight() is None
    problem = problem_of(fight())
    assert (problem.reason, problem.retry_after) == (Reason.CONTESTED, None)
    assert "overwritten 3 times within an hour by somebody else (rival)" in problem.text
    pod.asked()
    assert sink.publish(tokens) == problem
    assert pod.asked() == []
    assert namespace.secret("web") == {"token": "theirs"}
    tokens = replace(token_set(2), expires_at=AT + 7200)
    assert sink.publish(tokens) is None
    assert namespace.secret("web") == {"token": planted("access-2")}
    assert problem_of(fight()).reason is Reason.CONTESTED
    clock.at += 3601
    assert sink.publish(tokens) is None
    assert namespace.secret("web") == {"token": planted("access-2")}


# -- looking out ---------------------------------------------------------------------------------------


def test_without_the_right_to_watch_the_secret_is_looked_at(
    namespace: Namespace, account: Account, open_pod: OpenPod
) -> None:
    """H13, H15: a Role of an earlier release, without the verb, is told once, with the rule; changes are noticed."""
    account.grant(on_secrets("get", "patch", "create"))
    account.wait_for((on_secrets("watch"),), allowed=False)
    pod = open_pod(account, poll_seconds=0.2)
    sink = pod.sink()
    assert sink.publish(token_set(1)) is None
    wait_until(lambda: pod.notices)
    namespace.delete("secrets", "web")
    wait_until(lambda: not sink.intact())
    ((event, text),) = pod.notices
    assert event == "watch_forbidden"
    assert '- {apiGroups: [""], resources: ["secrets"], resourceNames: ["web"], verbs: ["watch"]}' in text


def test_many_secrets_share_one_watch(namespace: Namespace, open_pod: OpenPod) -> None:
    """Nine Secrets and more cost one watch of their label, and an idle minute costs no request."""
    everything = {"apiGroups": [""], "resources": ["secrets"], "verbs": [*USUAL, "create"]}
    pod = open_pod(namespace.account(everything))
    sinks = {f"web-{number}": pod.sink(f"web-{number}") for number in range(30)}
    for sink in sinks.values():
        assert sink.publish(token_set(1)) is None
    wait_until(lambda: [what for what, _ in pod.client.asked].count("WATCH") == 9)
    for name in ("web-3", "web-29"):
        namespace.delete("secrets", name)
        wait_until(partial(_is_changed, sinks[name]))
    namespace.edit("secrets", "web-20", {"metadata": {"labels": {"token-rotator/managed": None}}})
    wait_until(lambda: not sinks["web-20"].intact())
    intact = [name for name, sink in sinks.items() if sink.intact()]
    assert len(intact) == 27


def test_a_secret_deleted_before_the_watch_began_is_noticed(namespace: Namespace, pod: Pod) -> None:
    """H15: a watch that begins tells what there is; what is not there by then was deleted."""
    sink = pod.sink()
    pod.lookout.stop()
    assert sink.publish(token_set(1)) is None
    namespace.delete("secrets", "web")
    late = Lookout(pod.client, lambda _event, _text: None)
    late.follow(namespace.name, "web", sink)
    wait_until(lambda: not sink.intact())
    late.stop()


def test_a_forgotten_output_is_watched_no_longer(namespace: Namespace, pod: Pod) -> None:
    """An output that a reload took away is not kept alive by its watch, and its successor is told instead."""
    assert pod.sink().publish(token_set(1)) is None  # nobody holds on to it
    sink = pod.sink()
    assert sink.publish(token_set(1)) is None
    namespace.delete("secrets", "web")
    wait_until(lambda: not sink.intact())
