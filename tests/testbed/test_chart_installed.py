"""The chart in a cluster: installed, upgraded, rolled back and removed by helm while rotator works with its rights."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.needs import needs
from tests.process.rig import PATIENCE, ROOT, SandboxProcess, wait_until
from tests.secrets_scan import PREFIX as PLANTED
from tests.secrets_scan import planted
from tests.testbed.kubernetes.build import CLIENTS
from tests.testbed.kubernetes.chart import CHART, Helm, Values
from tests.testbed.kubernetes.cluster import Account, Namespace
from tests.testbed.kubernetes.controllers import Controllers
from tests.testbed.kubernetes.kubelet import Kubelet, Pod
from tests.testbed.kubernetes.manifests import Applied

USER = "user@example.com"


class Installed:
    """A release in a namespace with Pod Security `restricted`, and somebody who runs its pods."""

    def __init__(self, namespace: Namespace, kubelet: Kubelet, server: SandboxServer, helm: Helm) -> None:
        self.namespace = namespace
        self.kubelet = kubelet
        self.sandbox = server.sandbox
        self.accepts = SandboxProcess(server.url).accepts
        self.helm = helm

    def upgrade(self, values: Values) -> str:
        """Install or upgrade the release; return what helm says, once its Role is in force."""
        said = self.helm("upgrade", "--install", "rotator", str(CHART), values=values)
        self.settle()
        return said

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Type commands, helm and kubectl among them."""
        tools = f"{CLIENTS.directory()}:/usr/bin:/bin"
        environment = {"PATH": tools, "KUBECONFIG": str(self.helm.kubeconfig), "HOME": str(self.helm.kubeconfig.parent)}
        return subprocess.run(
            ("sh", "-ec", script), capture_output=True, text=True, env=environment, timeout=PATIENCE * 4, check=False
        )

    def settle(self) -> None:
        """Wait until the Role is in force."""
        rules = self.namespace.get("roles", "rotator")["rules"]
        Account(self.namespace, "rotator", "").wait_for(tuple(rules))

    def start(self, replicas: int) -> list[Pod]:
        """Start pods of the Deployment as it is in the cluster now."""
        path = f"/apis/apps/v1/namespaces/{self.namespace.name}/deployments/rotator"
        deployment = self.namespace.cluster.good("GET", path)
        pods = [self.kubelet.pod(deployment) for _ in range(replicas)]
        for pod in pods:
            pod.start()
        for pod in pods:
            wait_until(lambda one=pod: one["rotator"].probe("startupProbe"), "it lives")  # type: ignore[misc]
        return pods

    def log_in(self, credential: str, pods: list[Pod]) -> None:
        """Log in as the notes of the release say: in the pod that they find."""
        notes = self.helm("get", "notes", "rotator")
        (look,) = (line for line in notes.splitlines() if line.strip().startswith("pod=$("))
        (enter,) = (line for line in notes.splitlines() if "exec -it" in line)
        script = f"{look}\n{enter.replace('kubectl', 'echo')}"

        def refreshing() -> Pod | None:
            shown = self.shell(script).stdout
            return next((pod for pod in pods if f" {pod.name} -- rotator login " in shown), None)

        pod = wait_until(refreshing, "somebody holds the Lease")
        answer = json.dumps(self.sandbox.issue(USER))
        done = pod["rotator"].run("rotator", "login", credential, "--from-stdin", given=answer)
        assert done.returncode == 0, done.stderr

    def published(self, name: str) -> str:
        """Return the token that consumers find."""
        return (self.namespace.secret(name) or {}).get("token", "")

    def stored(self) -> dict[str, str]:
        """Return what would be lost if a Secret of a state were made anew: its identity, for each credential."""
        listed = self.namespace.cluster.good(
            "GET", self.namespace.path("secrets"), labelSelector="token-rotator/store=rotator-state"
        )
        return {
            one["metadata"]["annotations"]["token-rotator/credential"]: one["metadata"]["uid"]
            for one in listed["items"]
            if one["data"]["state"]
        }


@pytest.fixture
def installed(namespace: Namespace, tmp_path: Path) -> Generator[Installed]:
    """A namespace that knows the client secret, and nothing installed yet."""
    needs("helm", "kubectl", "mount namespace", "network namespace")
    secret = planted("client-secret")
    sandbox = Sandbox(switches=Switches(client_secret=secret, token_prefix=PLANTED), users={USER: planted("password")})
    with SandboxServer(sandbox) as server:
        services = {"sandbox:8080": lambda: socket.create_connection((server.host, server.port), timeout=1.0)}
        Applied(namespace, tmp_path)  # an administrator
        helm = Helm(tmp_path, namespace.name, tmp_path / "admin.kubeconfig")
        with Kubelet(namespace, tmp_path / "pods", services).running() as kubelet:
            yield Installed(namespace, kubelet, server, helm)
            namespace_log = [
                pod["rotator"].log for pod in kubelet.pods if pod.spec["containers"][0]["name"] == "rotator"
            ]
            assert not any("forbidden" in log for log in namespace_log)


def ready(pod: Pod) -> bool:
    """Tell whether a pod says that every output of it holds a valid token."""
    return pod["rotator"].run("rotator", "health", "--ready").returncode == 0


def values_for(*credentials: str, **more: Any) -> dict[str, Any]:
    """Return values for these credentials of the sandbox."""
    output = {"kubernetes_secret": {"name": "{name}-token", "data": {"token": "raw"}}}
    defaults = {"token_url": "http://sandbox:8080/v2/token", "client_id": "sandbox-client", "outputs": [output]}
    return {"config": {"defaults": defaults, "credentials": {name: {} for name in credentials}}, **more}


def test_what_is_stored_outlives_upgrade_rollback_and_removal(installed: Installed) -> None:
    """H7, H11: from the first login to the removal no Secret of ours loses its data, and no right is missing."""
    namespace = installed.namespace
    said = installed.upgrade(values_for("home", precreateOutputs=True))
    assert "There is no Secret rotator-client yet" in said
    assert f"kubectl -n {namespace.name} exec -it" in said
    namespace.make_secret("rotator-client", {"client-secret": planted("client-secret")})
    assert installed.published("home-token") == ""
    made = namespace.get("secrets", "home-token")["metadata"]["uid"]

    first = installed.start(2)
    assert not any(ready(pod) for pod in first)
    installed.log_in("home", first)
    token = wait_until(lambda: installed.published("home-token"), "the token is published")
    assert installed.accepts(token)
    for pod in first:
        wait_until(lambda one=pod: ready(one), "its token is there")  # type: ignore[misc]
    before = installed.stored()

    # An upgrade with another credential: the old pods go when the new ones are there.
    installed.upgrade(values_for("home", "work", precreateOutputs=True, terminationGracePeriodSeconds=140))
    assert installed.published("home-token") == token
    second = installed.start(2)
    assert [pod.stop() for pod in first] == [[0], [0]]
    installed.log_in("work", second)
    wait_until(lambda: installed.published("work-token"), "the second credential is published")
    stored = installed.stored()
    assert {"home": before["home"]} == before
    assert stored == {**before, "work": stored["work"]}

    # By force, helm writes the published Secret as the chart has it, empty; rotator sees that.
    installed.helm("upgrade", "rotator", str(CHART), "--force", "--reuse-values")
    wait_until(lambda: any("output_changed" in pod["rotator"].log for pod in second), "it was noticed")
    wait_until(lambda: installed.published("home-token") == token, "the Secret is restored")
    assert installed.stored() == stored

    installed.helm("rollback", "rotator", "1")
    installed.settle()
    third = installed.start(1)
    assert [pod.stop() for pod in second] == [[0], [0]]
    wait_until(lambda: ready(third[0]), "its token is there")
    rotate = ("rotator", "rotate", "home")
    wait_until(lambda: third[0]["rotator"].run(*rotate).returncode == 0, "it refreshes with the rights it has now")
    wait_until(lambda: installed.published("home-token") != token, "the new token is published")
    assert installed.stored() == stored
    assert installed.published("work-token")
    assert [pod.stop() for pod in third] == [[0]]

    said = installed.helm("uninstall", "rotator")
    assert "kept due to the resource policy" in said
    assert installed.stored() == stored
    assert installed.accepts(installed.published("home-token"))
    assert namespace.get("secrets", "home-token")["metadata"]["uid"] == made
    assert namespace.get("roles", "rotator") is None

    # Installed again, it goes on where it ended: nobody has to log in.
    installed.upgrade(values_for("home", precreateOutputs=True))
    (last,) = installed.start(1)
    wait_until(lambda: ready(last), "its token is there")
    assert last.stop() == [0]
    assert installed.sandbox.books.replays_by_user.total() == 0


def test_the_test_of_a_release_says_what_is_wrong(installed: Installed) -> None:
    """H13: `helm test` runs a check with the release's own rights, which passes, or names the missing rule."""
    installed.namespace.make_secret("rotator-client", {"client-secret": planted("client-secret")})
    installed.upgrade(values_for("home"))
    (hook,) = yaml.safe_load_all(installed.helm("get", "hooks", "rotator"))
    workload = {"metadata": {"name": hook["metadata"].pop("name")}, "spec": {"template": hook}}

    def run() -> tuple[int, str]:
        pod = installed.kubelet.pod(workload)
        pod.start()
        return pod["check"].wait(), pod["check"].log

    code, log = run()
    assert code == 0, log
    assert "every right that is needed is there" in log
    assert "add to the Role" not in log
    role = installed.namespace.get("roles", "rotator")
    rules = [rule for rule in role["rules"] if "home-token" not in rule.get("resourceNames", ())]
    installed.namespace.cluster.good("PUT", installed.namespace.path("roles", "rotator"), {**role, "rules": rules})
    lost = next(rule for rule in role["rules"] if rule not in rules)
    Account(installed.namespace, "rotator", "").wait_for((lost,), allowed=False)
    code, log = run()
    assert code == 78
    assert 'resourceNames: ["home-token"]' in " ".join(log.split())


def test_the_page_leads_to_a_release_that_passes_its_own_test(installed: Installed, tmp_path: Path) -> None:
    """The how-to's section on Helm as it stands, `helm test` included, and what it says of a second namespace."""
    page = (ROOT / "docs/how-to/kubernetes.md").read_text()
    (typed,) = re.findall(r"```sh\n(.*?)```", page.partition("## With Helm")[2], re.DOTALL)
    mine = f"shop-{installed.namespace.name}"  # all tests share the cluster
    typed = typed.replace("shop", mine).replace("sandbox-secret", planted("client-secret"))
    typed = typed.replace("registry.example/rotator", "rotator")
    shutil.copytree(CHART, tmp_path / "deploy/helm/rotator")
    with Controllers(installed.namespace, installed.kubelet).running():
        done = installed.shell(f"cd {tmp_path}\n{typed}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Phase:          Succeeded" in done.stdout
        pods = [pod for pod in installed.kubelet.pods if pod.mains[0].name == "rotator"]
        installed.log_in("work", pods)
        shop = Namespace(installed.namespace.cluster, mine)
        wait_until(
            lambda: installed.accepts((shop.secret("work-token") or {}).get("token", "")), "it is published there"
        )
