"""What a kubelet makes of a Pod, as far as rotator can notice: volumes, containers in their order, probes, the end.

Each pod has a network and a host name of its own, each container its own view of the files: the volumes at their
places, all else read-only if the manifest says so. Containers are processes of this machine, under the user of the
tests, and what they mount must lie below /etc or /run. A Service is a name that leads to wherever the test says.
"""

import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.process.rig import PATIENCE, ROOT, wait_until
from tests.secrets_scan import assert_no_secrets
from tests.testbed.kubernetes.cluster import Account, Namespace
from tests.testbed.kubernetes.network import in_network
from tests.testbed.kubernetes.proxy import Proxy

IMAGE: Final = "rotator:0.1.0"
ROTATOR: Final = (sys.executable, "-B", "-m", "rotator.cli")
_IDLE: Final = ("sleep", "infinity")
_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_API_PORT: Final = 6443
_ENV: Final = dict(re.findall(r"(\w+_DIRECTORY)=(\S+)", (ROOT / "Dockerfile").read_text()))
# `sleep` stands in for the pod's pause container: it holds what the containers share.
_PAUSE: Final = 'ip link set lo up; hostname "$1"; echo ready; exec sleep infinity'
_CONTAINER: Final = """
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/.etc/upper /run/.etc/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/.etc/upper,workdir=/run/.etc/work /etc
"""
Resolve = Mapping[str, Callable[[], socket.socket]]
"""Services: `name:port`, and a way to connect to what is behind it."""


class Container:
    """One container: its process, and what it sees."""

    def __init__(self, spec: Mapping[str, Any], pod: "Pod") -> None:
        self.spec = spec
        self.name = str(spec["name"])
        self._pod = pod
        self._log = pod.directory / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Return what it wrote."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """Return its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process, unless it was, with the files in place; it need not be ready at once."""
        if self._process is not None:
            return
        script = [_CONTAINER]
        for name, address in self._pod.hosts:
            script.append(f"echo {address} {name} >>/etc/hosts")
        for source, target, read_only in self._mounts():
            assert target.startswith(("/etc/", "/run/", "/var/run/")), target
            script.append(f"mkdir -p {target}; mount --bind {source} {target}")
            script += [f"mount -o remount,bind,ro {target}"] * read_only
        set_up = self._pod.directory / f"{self.name}.set-up"
        script.append(f"touch {set_up}")
        script += ["mount -o remount,bind,ro /"] * self.spec["securityContext"]["readOnlyRootFilesystem"]
        script.append(f"cd /; exec {shlex.join(self._command())}")
        entered = ("nsenter", f"--target={self._pod.pause.pid}", "--net", "--uts", "--")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                (*entered, "unshare", "--mount", "sh", "-ec", "\n".join(script)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(),
            )  # fmt: skip
        wait_until(set_up.exists, f"{self.name} is set up")

    def run(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `kubectl exec` does; `rotator` is the image's."""
        program = ROTATOR if command[0] == "rotator" else command[:1]
        return subprocess.run(
            ("nsenter", f"--target={self.pid}", "--net", "--uts", "--mount", "--", *program, *command[1:]),
            input=given, capture_output=True, text=True, env=self._environment(), timeout=PATIENCE * 2, check=False,
        )  # fmt: skip

    def probe(self, kind: str) -> bool:
        """Carry out one of its probes, once."""
        assert self._process is not None
        assert self._process.poll() is None, self.log
        probe = self.spec[kind]
        if "exec" in probe:
            return self.run(*probe["exec"]["command"]).returncode == 0
        port = next(port["containerPort"] for port in self.spec["ports"] if port["name"] == probe["httpGet"]["port"])
        try:
            return self._pod.get(port, probe["httpGet"]["path"]) == http.HTTPStatus.OK
        except OSError:
            return False

    def wait_for(self, kind: str) -> None:
        """Wait until a probe of it succeeds."""
        wait_until(lambda: self.probe(kind), f"{kind} of {self.name}")

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; return the exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> int:
        """End it as a kubelet does: SIGTERM, and SIGKILL when the pod's grace is over. Return the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(self._pod.spec["terminationGracePeriodSeconds"])

    def kill(self) -> None:
        """SIGKILL it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._process.wait()

    def _command(self) -> Sequence[str]:
        if self.spec["image"] == IMAGE and "command" not in self.spec:
            return (*ROTATOR, *self.spec["args"])
        return (*self.spec.get("command", _IDLE), *self.spec.get("args", ()))

    def _environment(self) -> dict[str, str]:
        set_here = {one["name"]: one["value"] for one in self.spec.get("env", ())}
        kubernetes = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(_API_PORT)}
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **_ENV, **kubernetes, **set_here}

    def _mounts(self) -> list[tuple[Path, str, bool]]:
        named = [
            (self._pod.volume(one["name"]), str(one["mountPath"]), bool(one.get("readOnly")))
            for one in self.spec.get("volumeMounts", ())
        ]
        automatic = (self._pod.account_volume(), _MOUNT, True)
        return [*named, automatic] if self._pod.spec.get("automountServiceAccountToken", True) else named


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
            if "emptyDir" not in volume:
                sources = volume.get("projected", {}).get("sources") or [volume]
                _fill(place, {name: text for source in sources for name, text in self._files(source).items()})
        return place

    def account_volume(self) -> Path:
        """Return what is mounted into every container unless a manifest says no."""
        place = self.directory / "automatic"
        if not place.exists():
            self.account.mount(place)
        return place

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


def _fill(place: Path, files: Mapping[str, str]) -> None:
    """Write files as a kubelet does: links through `..data`."""
    version = place / "..1"
    version.mkdir()
    (place / "..data").symlink_to(version.name)
    for name, text in files.items():
        (version / name).write_text(text)
        (place / name).symlink_to(f"..data/{name}")


class Kubelet:
    """Runs pods of one namespace until the end of its block; no log may hold a secret or a traceback."""

    def __init__(self, namespace: Namespace, directory: Path, services: Resolve) -> None:
        """Take the names that pods can resolve."""
        self._namespace = namespace
        self._directory = directory
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
        made = namespace.cluster.good("POST", namespace.path("pods"), body)
        directory = self._directory / made["metadata"]["name"]
        directory.mkdir(parents=True)
        pod = Pod(made, namespace, directory)
        self.pods.append(pod)
        self._stack.callback(pod.kill)
        address = urlsplit(namespace.cluster.url)
        api = (address.hostname, address.port)
        self._join(pod, _API_PORT, lambda: socket.create_connection(api, timeout=1.0))
        for name, connect in self._services.items():
            service, port = name.split(":")
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
