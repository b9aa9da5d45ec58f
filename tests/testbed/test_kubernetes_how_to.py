"""docs/how-to/kubernetes.md, followed to the letter."""

import re
import shutil
import socket
from pathlib import Path
from typing import Final

import pytest

from tests.needs import needs
from tests.process.rig import ROOT
from tests.terminal import converse
from tests.testbed.kubernetes.build import CLIENTS
from tests.testbed.kubernetes.cluster import Cluster, Namespace
from tests.testbed.kubernetes.controllers import Controllers, shim
from tests.testbed.kubernetes.kubelet import Kubelet
from tests.testbed.kubernetes.manifests import kubeconfig, rendered

PAGE: Final = (ROOT / "docs/how-to/kubernetes.md").read_text()


def script() -> str:
    """Return what the page says to type: its indented blocks, in order. A step that fails ends it."""
    text = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, re.MULTILINE)
    lines = [line.removeprefix("    ") for block in blocks for line in block.splitlines()]
    return "\n".join(["set -eo pipefail", *lines, "echo the end"])


def test_the_page_shows_kustomizations_that_can_be_built(tmp_path: Path) -> None:
    """The overlays take the images, the configuration and the names that the page's examples give them."""
    needs("kubectl")
    example, second = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    shutil.copytree(ROOT / "deploy/kubernetes", tmp_path / "rotator/deploy/kubernetes")
    for shape in ("sidecar", "sidecar-shared", "once"):
        place = tmp_path / shape
        place.mkdir()
        (place / "kustomization.yaml").write_text(example.replace("overlays/sidecar", f"overlays/{shape}"))
        (place / "rotator.toml").write_text("# mine")
        made = {one["kind"]: one for one in rendered(place)}
        spec = made["Deployment" if shape == "sidecar-shared" else "Job"]["spec"]["template"]["spec"]
        images = [container["image"] for container in (*spec["initContainers"], *spec["containers"])]
        assert images == ["registry.example/rotator:0.1.0", "registry.example/shop:7"]
        assert made["ConfigMap"]["data"] == {"rotator.toml": "# mine"}

        (place / "kustomization.yaml").write_text((place / "kustomization.yaml").read_text() + second)
        role = next(one for one in rendered(place) if one["kind"] == "Role")
        assert [rule["resourceNames"] for rule in role["rules"]] == [["rotator-state-shop"], ["shop"]]
        assert role["metadata"]["name"] == "shop-rotator"


@pytest.mark.shows_secrets
def test_the_page_leads_from_an_empty_cluster_to_a_pod_that_reads_a_fresh_token(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Nothing but what the page says: the server accepts what a pod finds in its volume.

    And further: a second credential, a rollout, a Secret in another namespace; a removal that leaves what is stored.
    """
    needs("kubectl", "curl", "mount namespace", "network namespace")
    user, password = re.findall(r"one user \(`(\S+)`, password\s`(\S+)`\)", PAGE)[0]
    answers = [
        answer
        for name in ("home", "work")
        for answer in ((f"for {name}:", user), (f"for {name}: {user}\r\nPassword (not shown):", password))
    ]
    clone = tmp_path / "rotator"
    shutil.copytree(ROOT / "deploy/kubernetes", clone / "deploy/kubernetes")
    namespace = Namespace(cluster, "tokens")

    def sandbox() -> socket.socket:
        """Be the Service of that name."""
        return next(pod for pod in kubelet.pods if pod.name.startswith("sandbox-")).connect(8080)

    kubelet = Kubelet(namespace, tmp_path / "pods", {"sandbox:8080": sandbox})
    with kubelet.running(), Controllers(namespace, kubelet).running():
        path = shim(tmp_path / "bin", kubelet, CLIENTS.directory() / "kubectl")
        environment = {
            "KUBECONFIG": str(kubeconfig(cluster, tmp_path / "kubeconfig")),
            "PATH": f"{path}:/usr/bin:/bin",
            "TERM": "dumb",
        }
        typed = ["bash", "-c", f"cd {clone}\n{script()}"]
        code, shown = converse(environment, typed, *answers, patience=200)
        assert (code, shown.splitlines()[-1]) == (0, "the end"), shown
        for name in ("home", "work"):
            assert f"{name}: logged in, generation 1" in shown
        consumer = next(pod for pod in kubelet.pods if pod.name == "consumer")
        assert '{"status":"good"}' in consumer["consumer"].log
        left = {
            one["metadata"]["name"].partition("-")[0] for one in cluster.good("GET", namespace.path("pods"))["items"]
        }
        assert left == {"consumer", "sandbox"}
        assert namespace.get("roles", "rotator") is None
        assert namespace.get("secrets", "rotator-state-home") is not None
