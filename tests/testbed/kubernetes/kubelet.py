"""What a kubelet makes of a Pod, as far as rotator can notice: volumes, containers in their order, probes, the end.

Each pod has a network and a host name of its own, each container its own view of the files: the volumes at their
places, all else read-only if the manifest says so. Containers are processes of this machine under the user and groups
that the manifest names, and what they mount must lie below /etc or /run. A Service is a name that leads to wherever the
test says.
"""

import http.client
import os
import socket
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.process.rig import PATIENCE, wait_until
from tests.secrets_scan import assert_no_secrets
from tests.testbed.kubernetes.cluster import Account, Namespace
from tests.testbed.kubernetes.container import API_PORT, Container
from tests.testbed.kubernetes.network import in_network
from tests.testbed.kubernetes.proxy import Proxy

# `sleep` stands in for the pod's pause container: it holds what the containers share.
_PAUSE: Final = 'ip link set lo up; hostname "$1"; echo ready; exec sleep infinity'
Resolve = Mapping[str, Callable[[], socket.socket]]
"""Services: `name:port`, and a way to connect to what is behind it."""


class Pod:
    """A pod of the cluster, whose containers run here."""

    def __init__(self, made: Mapping[str, Any], namespace: Namespace, directory: Path) -> None:
        self.name = str(made["metadata"]["name"])
        self.spec = made["spec"]
        self.directory = directory
        self.hosts: list[tuple[str, str]] = []
        self._namespace = namespace
        self.pause = subprocess.Popen(
            ("unshare", "--net", "--uts", "sh", "-ec", _PAUSE, "pause", self.name),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.pause.stdout is not None
        with self.pause.stdout as told:
            assert told.readline() == b"ready\n"
        self.inits = [Container(one, self) for one in self.spec.get("initContainers", ())]
        self.mains = [Container(one, self) for one in self.spec["containers"]]

    def __getitem__(self, name: str) -> Container:
        """Return a container."""
        return next(one for one in (*self.inits, *self.mains) if one.name == name)

    def start(self) -> None:
        """Start the containers in the order of Kubernetes: each init container's end, or its startup probe, first."""
        for container in self.inits:
            container.start()
            if container.spec.get("restartPolicy") == "Always":
                container.wait_for("startupProbe")
            else:
                assert container.wait(PATIENCE * 3) == 0, container.log
        for container in self.mains:
            container.start()

    def stop(self) -> list[int]:
        """End the main containers, then the sidecars, last first; return the exit codes."""
        sidecars = [one for one in reversed(self.inits) if one.spec.get("restartPolicy") == "Always"]
        return [container.stop() for container in (*self.mains, *sidecars)]

    def kill(self) -> None:
        """Kill whatever runs."""
        for container in (*self.inits, *self.mains):
            container.kill()
        self.pause.kill()
        self.pause.wait()

    def get(self, port: int, path: str) -> int:
        """Ask it by HTTP; return the status. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.sock = self.connect(port)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()

    def connect(self, port: int) -> socket.socket:
        """Connect to a port of it; raises OSError."""
        return in_network(self.pause.pid, lambda: socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))

    def listen(self, port: int) -> socket.socket:
        """Listen on a port in its network."""
        return in_network(self.pause.pid, lambda: socket.create_server(("127.0.0.1", port)))

    def volume(self, name: str) -> Path:
        """Return the directory of a volume; it is made when it is first mounted."""
        place = self.directory / name
        volume = next(one for one in self.spec["volumes"] if one["name"] == name)
        if not place.exists():
            place.mkdir()
            if "emptyDir" in volume:
                place.chmod(0o2777)
            else:
                source = volume.get("projected") or volume.get("secret") or volume["configMap"]
                sources = source.get("sources") or [volume]
                files = {name: text for one in sources for name, text in self._files(one).items()}
                _fill(place, files, source["defaultMode"])
            self._give_to_group(place)
        return place

    def account_volume(self) -> Path:
        """Return what is mounted into every container unless a manifest says no."""
        place = self.directory / "automatic"
        if not place.exists():
            self.account.mount(place)
            self._give_to_group(place)
        return place

    def _give_to_group(self, place: Path) -> None:
        """Let the pod's group read what is in a volume."""
        for path in (place, *place.rglob("*")):
            if not path.is_symlink():
                os.chown(path, 0, self.spec["securityContext"].get("fsGroup", 0))

    @property
    def account(self) -> Account:
        """Return its service account."""
        name = self.spec["serviceAccountName"]
        return Account(self._namespace, name, self._namespace.get("serviceaccounts", name)["metadata"]["uid"])

    def _files(self, source: Mapping[str, Any]) -> dict[str, str]:
        if "serviceAccountToken" in source:
            return {source["serviceAccountToken"]["path"]: self.account.token()}
        if "downwardAPI" in source:
            (item,) = source["downwardAPI"]["items"]
            assert item["fieldRef"]["fieldPath"] == "metadata.namespace"
            return {item["path"]: self._namespace.name}
        if "secret" in source:
            wanted = source["secret"]
            name = wanted.get("name") or wanted["secretName"]
            data = wait_until(lambda: self._namespace.secret(name), f"Secret {name} is there")
        elif source["configMap"]["name"] == "kube-root-ca.crt":  # a controller makes it
            wanted = source["configMap"]
            data = {"ca.crt": self._namespace.cluster.ca_file.read_text()}
        else:
            wanted = source["configMap"]
            data = self._namespace.get("configmaps", wanted["name"])["data"]
        items = wanted.get("items") or [{"key": key, "path": key} for key in data]
        return {item["path"]: data[item["key"]] for item in items}


def _fill(place: Path, files: Mapping[str, str], mode: int) -> None:
    """Write files as a kubelet does: links through `..data`."""
    version = place / "..1"
    version.mkdir()
    (place / "..data").symlink_to(version.name)
    for name, text in files.items():
        (version / name).write_text(text)
        (version / name).chmod(mode)
        (place / name).symlink_to(f"..data/{name}")


class Kubelet:
    """Runs pods of one namespace until the end of its block; no log may hold a secret or a traceback."""

    def __init__(self, namespace: Namespace, directory: Path, services: Resolve) -> None:
        """Take the names that pods can resolve."""
        self._namespace = namespace
        self.directory = directory
        self._services = services
        self._stack = ExitStack()
        self.pods: list[Pod] = []

    def pod(self, workload: Mapping[str, Any]) -> Pod:
        """Make a Pod of a workload's template, as a controller does; the API server may refuse it. Nothing runs yet."""
        namespace, template = self._namespace, workload["spec"]["template"]
        body = {
            "metadata": {**template.get("metadata", {}), "generateName": f"{workload['metadata']['name']}-"},
            "spec": template["spec"],
        }
        return self.take(namespace.cluster.good("POST", namespace.path("pods"), body))

    def take(self, made: Mapping[str, Any]) -> Pod:
        """Take over a Pod that somebody made. Nothing runs yet."""
        directory = self.directory / made["metadata"]["name"]
        directory.mkdir(parents=True)
        pod = Pod(made, self._namespace, directory)
        self.pods.append(pod)
        self._stack.callback(pod.kill)
        address = urlsplit(self._namespace.cluster.url)
        api = (address.hostname, address.port)
        self._join(pod, API_PORT, lambda: socket.create_connection(api, timeout=1.0))
        for name, connect in self._services.items():
            service, port = name.split(":")
            if not pod.name.startswith(f"{service}-"):  # it is behind that
                pod.hosts.append((service, "127.0.0.1"))
                self._join(pod, int(port), connect)
        return pod

    def _join(self, pod: Pod, port: int, connect: Callable[[], socket.socket]) -> None:
        self._stack.enter_context(Proxy(connect, pod.listen(port)))

    @contextmanager
    def running(self) -> Generator["Kubelet"]:
        """Kill what still runs at the end of the block."""
        with self._stack:
            yield self
        for pod in self.pods:
            for log in pod.directory.glob("*.log"):
                assert "Traceback" not in log.read_text(), log.read_text()
                assert_no_secrets(log)
