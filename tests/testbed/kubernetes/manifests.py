"""The manifests: rendered, and applied as their users do it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.process.rig import PATIENCE, ROOT
from tests.testbed.kubernetes.build import CLIENTS
from tests.testbed.kubernetes.cluster import Account, Cluster, Namespace

DIRECTORY: Final = ROOT / "deploy/kubernetes"
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
Manifest = dict[str, Any]


def kubectl(*arguments: str, given: str = "", kubeconfig: Path = Path("/dev/null")) -> str:
    """Run kubectl, which must succeed; return what it prints."""
    done = subprocess.run(
        (CLIENTS.directory() / "kubectl", *arguments),
        input=given, capture_output=True, text=True, timeout=PATIENCE * 2, check=False,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(directory: Path) -> list[Manifest]:
    """Return the objects that a kustomization makes."""
    return list(yaml.safe_load_all(kubectl("kustomize", str(directory))))


def customised(directory: Path, what: str, config: str) -> Path:
    """Write a kustomization as a user does: one of ours, the own `rotator.toml`."""
    (directory / "rotator.toml").write_text(config)
    document = {
        "resources": [os.path.relpath(DIRECTORY / what, directory)],
        "configMapGenerator": [{"name": "rotator-config", "behavior": "replace", "files": ["rotator.toml"]}],
    }
    (directory / "kustomization.yaml").write_text(json.dumps(document))
    return directory


class Applied:
    """A namespace with Pod Security `restricted` in force, to which manifests are applied by its administrator."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self._kubeconfig = kubeconfig(namespace.cluster, directory / "admin.kubeconfig", namespace.name)
        namespace.cluster.good(
            "PATCH", f"/api/v1/namespaces/{namespace.name}", {"metadata": {"labels": RESTRICTED}},
            content_type="application/merge-patch+json",
        )  # fmt: skip

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """Run kubectl in the namespace, which must succeed; return what it prints."""
        return kubectl(*arguments, given=given, kubeconfig=self._kubeconfig)

    def apply(self, directory: Path) -> dict[tuple[str, str], Manifest]:
        """Apply a kustomization; return what it made, by kind and name, once its Roles are in force."""
        self.kubectl("apply", "--validate=strict", "-k", str(directory))
        made = {(one["kind"], one["metadata"]["name"]): one for one in rendered(directory)}
        for (kind, name), role in made.items():
            if kind == "Role":
                Account(self.namespace, name, "").wait_for(tuple(role["rules"]))
        return made


def kubeconfig(cluster: Cluster, path: Path, namespace: str = "default") -> Path:
    """Write a kubeconfig for the cluster's administrator (JSON is YAML)."""
    pki = cluster.ca_file.parent
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": cluster.url, "certificate-authority": str(cluster.ca_file)}}],
        "users": [
            {
                "name": "admin",
                "user": {"client-certificate": str(pki / "admin.crt"), "client-key": str(pki / "admin.key")},
            }
        ],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "admin", "namespace": namespace}}],
        "current-context": "it",
    }
    path.write_text(json.dumps(config))
    return path
