"""The API server of the testbed is what the tests take it for."""

import subprocess
from pathlib import Path

from tests.needs import needs
from tests.testbed.kubernetes.build import CLIENTS
from tests.testbed.kubernetes.cluster import Cluster, Namespace
from tests.testbed.kubernetes.servers import run_servers

NAMED = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "patch"], "resourceNames": ["web"]}


def test_it_is_the_version_that_was_asked_for(cluster: Cluster) -> None:
    """The server says which Kubernetes it is."""
    assert cluster.good("GET", "/version")["gitVersion"] == "v1.37.2"


def test_the_clients_are_as_new_as_the_server() -> None:
    """Both kubectl and helm say which version they are, so that charts which ask for one can tell."""
    needs("kubectl", "helm")
    helm = subprocess.run((CLIENTS.directory() / "helm", "version", "--short"), capture_output=True, check=True)
    kubectl = subprocess.run((CLIENTS.directory() / "kubectl", "version", "--client"), capture_output=True, check=True)
    assert helm.stdout.startswith(b"v3.22.0")
    assert b"Client Version: v1.37." in kubectl.stdout


def test_an_account_may_do_what_its_role_says_and_nothing_else(namespace: Namespace) -> None:
    """A token of the testbed is taken, for the named Secret alone; one that is long over is not."""
    account = namespace.account(NAMED)
    namespace.make_secret("web", {"token": "a"})
    ask = namespace.cluster.ask
    assert ask("GET", namespace.path("secrets", "web"), token=account.token())[0] == 200
    assert ask("GET", namespace.path("secrets", "other"), token=account.token())[0] == 403
    assert ask("GET", namespace.path("secrets", "web"), token=account.token(-70))[0] == 401


def test_a_frozen_etcd_and_a_killed_server_come_back_with_what_they_knew(tmp_path: Path) -> None:
    """A server of one's own can be frozen, killed and started again, and keeps its objects."""
    needs("kubernetes", "openssl")
    with run_servers(tmp_path / "own") as servers:
        namespace = servers.cluster.namespace()
        namespace.make_secret("web", {"token": "a"})
        servers.freeze_etcd()
        servers.thaw_etcd()
        servers.stop_apiserver()
        servers.start_apiserver()
        assert namespace.secret("web") == {"token": "a"}
