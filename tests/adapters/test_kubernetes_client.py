"""The Kubernetes client against a real API server: configuration, tokens, and what each answer comes to."""

import base64
import http.server
import json
import socket
import threading
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rotator.adapters.kubernetes.client import KubernetesClient
from rotator.adapters.kubernetes.wire import APPLY, MANAGER, MERGE, Reply, secret_path
from rotator.core.model import Reason
from tests.needs import needs
from tests.testbed.kubernetes.cluster import Account, Cluster, Namespace
from tests.testbed.kubernetes.pod import in_pod, on_secrets
from tests.testbed.kubernetes.servers import run_servers

SECONDS = 20.0


@contextmanager
def pod(account: Account, directory: Path, token: str | None = None) -> Generator[KubernetesClient]:
    """Return a client as a pod of this account would have it."""
    mount = account.mount(directory / "mount", token)
    with closing(KubernetesClient(in_pod(account.namespace.cluster), mount)) as client:
        yield client


def body(namespace: Namespace, **data: str) -> dict[str, Any]:
    """Return a Secret as it is applied."""
    coded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web", "namespace": namespace.name}, "data": coded
    }  # fmt: skip


def get(client: KubernetesClient, namespace: Namespace, name: str = "web") -> Reply:
    """Ask for a Secret."""
    return client.call("GET", secret_path(namespace.name, name), timeout=SECONDS)


def apply(client: KubernetesClient, namespace: Namespace, **data: str) -> Reply:
    """Apply the Secret `web`."""
    query = {"fieldManager": MANAGER, "force": "true"}
    whole = body(namespace, **data)
    path = secret_path(namespace.name, "web")
    return client.call("PATCH", path, whole, content_type=APPLY, query=query, timeout=SECONDS)


# -- configuration -----------------------------------------------------------------------------------


def test_a_pod_and_a_kubeconfig_lead_to_the_same_server(namespace: Namespace, tmp_path: Path) -> None:
    """The service account of a pod works, and so does a kubeconfig, which goes first if it is named."""
    account = namespace.account(on_secrets("get"))
    namespace.make_secret("web", {"token": "a"})
    with pod(account, tmp_path) as client:
        assert client.namespace() == namespace.name
        assert get(client, namespace).status == 200
    config = account.kubeconfig(tmp_path / "config")
    with closing(KubernetesClient({"KUBECONFIG": str(config)}, tmp_path / "mount")) as client:
        assert client.namespace() == namespace.name
        assert get(client, namespace).status == 200


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"current-context": "x", "contexts": [], "clusters": []}'])
def test_a_kubeconfig_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    """K-kind: whatever stands in a kubeconfig, the answer is one line that names the file."""
    (tmp_path / "config").write_text(text)
    with closing(KubernetesClient({"KUBECONFIG": str(tmp_path / "config")})) as client:
        reply = client.call("GET", "/version", timeout=SECONDS)
        assert (reply.status, reply.reason, reply.delivered) == (0, Reason.BAD_INPUT, False)
        assert str(tmp_path / "config") in reply.text
        assert "\n" not in reply.text
        assert [event["type"] for event in client.watch("/x", {}, timeout=SECONDS)] == ["ERROR"]


def test_an_exec_plugin_s_token_is_used_and_its_failure_is_one_line(namespace: Namespace, tmp_path: Path) -> None:
    """A kubeconfig may name a program that prints a token; that the program fails is a state."""
    account = namespace.account(on_secrets("get"))
    config = account.kubeconfig(tmp_path / "config")
    answer = {"kind": "ExecCredential", "status": {"token": account.token()}}
    (tmp_path / "answer").write_text(json.dumps(answer))
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "cat",
        "args": [str(tmp_path / "answer")],
    }
    whole = json.loads(config.read_text())
    whole["users"][0]["user"] = {"exec": plugin}
    config.write_text(json.dumps(whole))
    with closing(KubernetesClient({"KUBECONFIG": str(config)})) as client:
        assert get(client, namespace).status == 404
    (tmp_path / "answer").unlink()
    with closing(KubernetesClient({"KUBECONFIG": str(config)})) as client:
        reply = get(client, namespace)
        assert (reply.status, reply.reason, reply.delivered) == (0, Reason.BAD_INPUT, False)
        assert "cat" in reply.text


def test_no_configuration_at_all_is_one_line(tmp_path: Path) -> None:
    """Outside of a pod and without a kubeconfig, the answer says where was looked."""
    with closing(KubernetesClient({"KUBECONFIG": str(tmp_path / "none")}, tmp_path / "no-mount")) as client:
        reply = client.call("GET", "/version", timeout=SECONDS)
    assert str(tmp_path / "none") in reply.text
    assert client.namespace() == ""


# -- tokens ------------------------------------------------------------------------------------------


def test_a_replaced_token_is_used_before_the_old_one_is_refused(namespace: Namespace, tmp_path: Path) -> None:
    """H1, H2, H3, H18: the token is read anew for each request: the old one, though still good, is not sent again."""
    one = namespace.account(on_secrets("get"))
    other = namespace.account(on_secrets("get", name="other"), name="other")
    namespace.make_secret("web", {"token": "a"})
    with pod(one, tmp_path) as client:
        assert get(client, namespace).status == 200
        other.mount(tmp_path / "mount")  # the account tells which token was sent
        assert get(client, namespace).status == 403


def test_an_expired_token_heals_once_the_file_holds_a_good_one(namespace: Namespace, tmp_path: Path) -> None:
    """H4: a 401 is a state of its own, and the next request after the kubelet has been there works."""
    account = namespace.account(on_secrets("get"))
    namespace.make_secret("web", {"token": "a"})
    with pod(account, tmp_path, account.token(-70)) as client:
        reply = get(client, namespace)
        assert (reply.status, reply.reason, reply.unclear) == (401, Reason.UNAUTHORIZED, False)
        account.mount(tmp_path / "mount")
        assert get(client, namespace).status == 200


def test_a_kubeconfig_and_a_ca_are_read_again_when_refused(namespace: Namespace, tmp_path: Path) -> None:
    """H4: a token in a kubeconfig, and a CA that has been replaced, are read again and the request repeated."""
    account = namespace.account(on_secrets("get"))
    namespace.make_secret("web", {"token": "a"})
    config = account.kubeconfig(tmp_path / "config", account.token(-70))
    with closing(KubernetesClient({"KUBECONFIG": str(config)})) as client:
        assert get(client, namespace).status == 401
        account.kubeconfig(config)
        assert get(client, namespace).status == 200
    mount = account.mount(tmp_path / "mount")
    ca = mount / "ca.crt"
    good = ca.read_bytes()
    ca.write_bytes(namespace.cluster.ca_file.with_name("admin.crt").read_bytes())
    with closing(KubernetesClient(in_pod(namespace.cluster), mount)) as client:
        reply = get(client, namespace)
        assert (reply.status, reply.reason, reply.delivered) == (0, Reason.TLS, False)
        ca.write_bytes(good)
        assert get(client, namespace).status == 200


def test_a_token_file_that_is_gone_is_one_line(namespace: Namespace, tmp_path: Path) -> None:
    """H4: a mount that vanished is a state, not an exception."""
    account = namespace.account(on_secrets("get"))
    with pod(account, tmp_path) as client:
        assert get(client, namespace).status == 404
        (tmp_path / "mount" / "..data").unlink()
        reply = get(client, namespace)
        assert (reply.status, reply.delivered) == (0, False)
        assert "mount" in reply.text


# -- answers -----------------------------------------------------------------------------------------


def test_a_missing_right_is_printed_as_the_rule_to_add(namespace: Namespace, tmp_path: Path) -> None:
    """H11, H12: a 403 comes with the rule that the Role lacks; `create` by name is enough for what rotator sends."""
    account = namespace.account(on_secrets("get"))
    with pod(account, tmp_path) as client:
        reply = apply(client, namespace, token="a")
        assert (reply.status, reply.reason, reply.retry_after) == (403, Reason.FORBIDDEN, 300)
        rule = '- {apiGroups: [""], resources: ["secrets"], resourceNames: ["web"], verbs: ["patch"]}'
        assert rule in reply.text
        account.grant(on_secrets("get", "patch"))
        reply = apply(client, namespace, token="a")
        assert 'verbs: ["create"]' in reply.text
        account.grant(on_secrets("get", "patch", "create"))
        assert apply(client, namespace, token="a").status == 201


def test_another_namespace_is_named_in_the_rule(namespace: Namespace, cluster: Cluster, tmp_path: Path) -> None:
    """H26: a Secret in another namespace is refused, says in whose Role the rule belongs, and is tried slowly."""
    account = namespace.account(on_secrets("get", "patch", "create"))
    elsewhere = cluster.namespace()
    with pod(account, tmp_path) as client:
        reply = apply(client, elsewhere, token="a")
    assert (reply.status, reply.retry_after) == (403, 300)
    assert f"Role in namespace {elsewhere.name}:" in reply.text


def test_what_is_not_there_is_told_apart_from_what_is_forbidden(namespace: Namespace, tmp_path: Path) -> None:
    """404 for a missing Secret is an answer; a namespace that is not there is a state of its own."""
    account = namespace.account(on_secrets("get"))
    with pod(account, tmp_path) as client:
        assert get(client, namespace).reason is Reason.NOT_FOUND
    admin = KubernetesClient({"KUBECONFIG": str(admin_config(namespace.cluster, tmp_path))})
    with closing(admin):
        lost = Namespace(namespace.cluster, "no-such-namespace")
        reply = apply(admin, lost, token="a")
        assert (reply.status, reply.reason) == (404, Reason.NOT_FOUND)
        assert "no-such-namespace" in reply.text


def admin_config(cluster: Cluster, directory: Path) -> Path:
    """Write a kubeconfig with the administrator's client certificate."""
    pki = cluster.ca_file.parent
    config = {
        "clusters": [
            {"name": "c", "cluster": {"server": cluster.url, "certificate-authority": str(pki / "ca.crt")}},
        ],
        "users": [
            {"name": "u", "user": {"client-certificate": str(pki / "admin.crt"), "client-key": str(pki / "admin.key")}},
        ],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = directory / "admin.config"
    path.write_text(json.dumps(config))
    return path


def test_refusals_of_the_content_are_told_apart(namespace: Namespace, tmp_path: Path) -> None:
    """An immutable Secret, one that is too large, a name that is none: each has its own reason, and is tried slowly."""
    account = namespace.account(on_secrets("get", "patch", "create"))
    with pod(account, tmp_path) as client:
        reply = apply(client, namespace, token="x" * 1_100_000)
        assert (reply.status, reply.reason) == (422, Reason.TOO_LARGE)
        reply = apply(client, namespace, token="x" * 3_200_000)
        assert (reply.status, reply.reason) == (413, Reason.TOO_LARGE)
        reply = apply(client, namespace, **{"not/a/key": "x"})
        assert (reply.status, reply.reason) == (422, Reason.REJECTED)
        namespace.make_secret("web", {"token": "a"}, immutable=True)
        reply = apply(client, namespace, token="b")
        assert (reply.status, reply.reason, reply.retry_after) == (422, Reason.IMMUTABLE, 300)


def test_a_stale_version_is_a_conflict(namespace: Namespace, tmp_path: Path) -> None:
    """A write that is conditional on a version that is no longer current is refused as a conflict."""
    account = namespace.account(on_secrets("get", "patch"))
    made = namespace.make_secret("web", {"token": "a"})
    namespace.edit("secrets", "web", {"stringData": {"token": "b"}})
    with pod(account, tmp_path) as client:
        patch = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {}}
        path = secret_path(namespace.name, "web")
        reply = client.call("PATCH", path, patch, content_type=MERGE, timeout=SECONDS)
    assert (reply.status, reply.reason, reply.unclear) == (409, Reason.CONFLICT, False)


# -- outages -----------------------------------------------------------------------------------------


def test_a_server_that_is_away_frozen_or_overloaded_has_a_state_for_each(tmp_path: Path) -> None:
    """H10: refused connections, no answer, 504 from a frozen etcd and 429 are told apart, and all of them pass."""
    needs("kubernetes", "openssl")
    with run_servers(tmp_path / "own", "--max-mutating-requests-inflight=1", "--request-timeout=3s") as servers:
        namespace = servers.cluster.namespace()
        account = namespace.account(on_secrets("get", "patch", "create"))
        with pod(account, tmp_path) as client:
            assert apply(client, namespace, token="a").status == 201
            servers.freeze_etcd()
            busy, slow = _two_at_once(client, namespace)
            assert (busy.status, busy.reason, busy.retry_after) == (429, Reason.RATE_LIMITED, 1)
            assert (slow.status, slow.reason, slow.unclear) == (504, Reason.HTTP_5XX, True)
            assert not busy.unclear
            servers.thaw_etcd()
            servers.freeze_apiserver()
            path = secret_path(namespace.name, "web")
            reply = client.call("GET", path, timeout=0.3)
            assert (reply.status, reply.unclear or not reply.delivered) == (0, True)
            servers.thaw_apiserver()
            servers.stop_apiserver()
            reply = client.call("GET", path, timeout=SECONDS)
            assert (reply.status, reply.reason, reply.delivered) == (0, Reason.CONNECT, False)
            servers.start_apiserver()
            assert client.call("GET", path, timeout=SECONDS).status == 200


def _two_at_once(client: KubernetesClient, namespace: Namespace) -> list[Reply]:
    """Ask a server that has one place, twice at once, until one gets in: its own errands take the place as well."""
    deadline = time.monotonic() + SECONDS
    with ThreadPoolExecutor(2) as both:
        while True:
            replies = [*both.map(lambda text: apply(client, namespace, token=text), ("b", "c"))]
            if any(reply.status != http.HTTPStatus.TOO_MANY_REQUESTS for reply in replies):
                return sorted(replies, key=lambda reply: reply.status)
            assert time.monotonic() < deadline


class _Odd(http.server.BaseHTTPRequestHandler):
    """What a proxy in front of an API server may say."""

    answer = b""

    def do_GET(self) -> None:
        """Answer as told, byte for byte."""
        self.wfile.write(self.answer)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nno healthy upstream", 503, Reason.UNAVAILABLE),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>", 502, Reason.HTTP_5XX),
        (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: soon\r\n\r\n[]", 429, Reason.RATE_LIMITED),
        (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://other/\r\n\r\n", 307, Reason.REDIRECT),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", 0, Reason.UNREADABLE_ANSWER),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", 0, Reason.UNREADABLE_ANSWER),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", 0, Reason.UNREADABLE_ANSWER),
        (b"", 0, Reason.CONNECTION_LOST),
    ],
)
def test_whatever_a_proxy_says_is_a_state(answer: bytes, status: int, reason: Reason, tmp_path: Path) -> None:
    """H10: answers that no API server gives, but what stands before one does, are states too; none is an exception."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Odd", (_Odd,), {"answer": answer})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        config = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "config").write_text(json.dumps(config))
        try:
            with closing(KubernetesClient({"KUBECONFIG": str(tmp_path / "config")})) as client:
                reply = client.call("GET", "/version", timeout=SECONDS)
                events = list(client.watch("/version", {}, timeout=SECONDS))
        finally:
            server.shutdown()
            thread.join()
    assert (reply.status, reply.reason, reply.retry_after) == (status, reason, None)
    assert reply.text
    assert "\n" not in reply.text
    assert events[-1]["type"] == "ERROR"


# -- watches -----------------------------------------------------------------------------------------


def test_a_watch_of_one_secret_needs_no_right_on_others(namespace: Namespace, tmp_path: Path) -> None:
    """A watch by name tells of changes and of the deletion, and ends when the client is closed."""
    account = namespace.account(on_secrets("watch"))
    namespace.make_secret("web", {"token": "a"})
    seen: list[Mapping[str, Any]] = []
    with pod(account, tmp_path) as client:

        def follow() -> None:
            query = {"fieldSelector": "metadata.name=web", "allowWatchBookmarks": "true"}
            events = client.watch(secret_path(namespace.name), query, timeout=SECONDS)
            seen.extend(event for event in events if event["type"] != "BOOKMARK")  # one by one, as they come

        thread = threading.Thread(target=follow)
        thread.start()
        wait_for(lambda: len(seen) == 1)
        namespace.edit("secrets", "web", {"stringData": {"token": "b"}})
        namespace.delete("secrets", "web")
        wait_for(lambda: len(seen) == 3)
        started = time.monotonic()
        client.close()
        thread.join()
        assert time.monotonic() - started < SECONDS / 2
    assert [event["type"] for event in seen[:3]] == ["ADDED", "MODIFIED", "DELETED"]


def test_watches_take_no_connection_from_requests(namespace: Namespace, tmp_path: Path) -> None:
    """However many Secrets of however many namespaces are watched, the next request has its answer."""
    account = namespace.account(on_secrets("watch", "get"))
    namespace.make_secret("web", {"token": "a"})
    query = {"fieldSelector": "metadata.name=web"}
    with pod(account, tmp_path) as client, ExitStack() as watches:
        for _ in range(110):
            events = client.watch(secret_path(namespace.name), query, timeout=SECONDS)
            assert next(events)["type"] == "ADDED"
            watches.callback(events.close)  # type: ignore[attr-defined]  # a generator
        assert client.call("GET", secret_path(namespace.name, "web"), timeout=SECONDS / 2).status == 200


def wait_for(condition: Any) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_watch_that_is_forbidden_says_which_rule_it_lacks(namespace: Namespace, tmp_path: Path) -> None:
    """H13: a watch without the right to it ends at once, with the status and the rule."""
    account = namespace.account(on_secrets("get"))
    with pod(account, tmp_path) as client:
        events = list(
            client.watch(secret_path(namespace.name), {"fieldSelector": "metadata.name=web"}, timeout=SECONDS)
        )
    assert [event["object"]["code"] for event in events] == [403]
    assert 'verbs: ["watch"]' in events[0]["object"]["message"]


def test_a_closed_client_sends_nothing(namespace: Namespace, tmp_path: Path) -> None:
    """After `close` every request is a state that says so."""
    account = namespace.account(on_secrets("get"))
    with pod(account, tmp_path) as client:
        assert get(client, namespace).status == 404
    assert get(client, namespace).delivered is False


def test_the_environment_s_proxy_does_not_see_the_token(
    namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment is meant for others: the API server is spoken to directly."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        account = namespace.account(on_secrets("get"))
        with pod(account, tmp_path) as client:
            assert get(client, namespace).status == 404
