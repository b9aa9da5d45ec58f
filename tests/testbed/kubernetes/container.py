"""One container of a pod: a process of this machine that sees the files its manifest mounts."""

import argparse
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rotator import VERSION
from tests.process.rig import PATIENCE, ROOT, wait_until

if TYPE_CHECKING:
    from tests.testbed.kubernetes.kubelet import Pod

IMAGE: Final = f"rotator:{VERSION}"
_BASE: Final = Path(sys.base_prefix)
_PYTHON: Final = "/run/testbed/python"
_SOURCE: Final = "/run/testbed/source"
_PACKAGES: Final = "/run/testbed/packages"
_ROTATOR: Final = (f"{_PYTHON}/{Path(sys.executable).resolve().relative_to(_BASE)}", "-B", "-m", "rotator.cli")
_USER: Final = 10001
"""The image's own user and group."""
API_PORT: Final = 6443
"""Where a pod finds the API server, on its loopback."""
_IDLE: Final = ("sleep", "infinity")
_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_IMAGE_ENV: Final = dict(re.findall(r"(\w+_DIRECTORY)=(\S+)", (ROOT / "Dockerfile").read_text()))
_CONTAINER: Final = """
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p /run/.etc/upper /run/.etc/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/.etc/upper,workdir=/run/.etc/work /etc
"""
_IMAGE_FILES: Final = (
    # This Python, its packages and the source, where no home directory hides them from other users.
    (_BASE, _PYTHON, True),
    (ROOT / "rotator", f"{_SOURCE}/rotator", True),
    (Path(sysconfig.get_path("purelib")), _PACKAGES, True),
)


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
        if self.spec["securityContext"]["readOnlyRootFilesystem"]:
            script += [f"mount -o remount,bind,ro {place}" for place in ("/etc", "/run", "/")]
        script.append(f"cd /; exec {shlex.join((*self._as_user, *self._command()))}")
        entered = ("nsenter", f"--target={self._pod.pause.pid}", "--net", "--uts", "--")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                (*entered, "unshare", "--mount", "sh", "-ec", "\n".join(script)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(),
            )  # fmt: skip
        wait_until(set_up.exists, f"{self.name} is set up")
        set_up.write_text(json.dumps([self._entry, self._environment()]))

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs, or does not run yet."""
        return None if self._process is None else self._process.poll()

    def run(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `kubectl exec` does; `rotator` is the image's."""
        return subprocess.run(
            (*self._entry, *_inside(command)),
            input=given, capture_output=True, text=True, env=self._environment(), timeout=PATIENCE * 2, check=False,
        )  # fmt: skip

    def probe(self, kind: str) -> bool:
        """Carry out one of its probes, once."""
        assert self._process is not None
        assert self._process.poll() is None, self.log
        probe = self.spec[kind]
        if "exec" in probe:
            return self.run(*probe["exec"]["command"]).returncode == 0
        wanted = probe.get("httpGet") or probe["tcpSocket"]
        port = next(port["containerPort"] for port in self.spec["ports"] if port["name"] == wanted["port"])
        try:
            if "tcpSocket" in probe:
                self._pod.connect(port).close()
                return True
            return self._pod.get(port, wanted["path"]) == http.HTTPStatus.OK
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

    @property
    def _entry(self) -> tuple[str, ...]:
        return ("nsenter", f"--target={self.pid}", "--net", "--uts", "--mount", "--", *self._as_user)

    @property
    def _as_user(self) -> tuple[str, ...]:
        """Become the user that manifest or image names, in the pod's group as well, without any capability."""
        asked = {**self._pod.spec["securityContext"], **self.spec["securityContext"]}
        user = asked.get("runAsUser", _USER)
        group = asked.get("runAsGroup", _USER if self.spec["image"] == IMAGE else 0)
        groups = ",".join(map(str, {group, asked.get("fsGroup", group)}))
        who = (f"--reuid={user}", f"--regid={group}", f"--groups={groups}")
        return ("setpriv", *who, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--")

    def _command(self) -> Sequence[str]:
        if self.spec["image"] == IMAGE and "command" not in self.spec:
            return (*_ROTATOR, *self.spec["args"])
        return (*self.spec.get("command", _IDLE), *self.spec.get("args", ()))

    def _environment(self) -> dict[str, str]:
        set_here = {one["name"]: one["value"] for one in self.spec.get("env", ())}
        kubernetes = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(API_PORT)}
        python = {"PYTHONPATH": f"{_SOURCE}:{_PACKAGES}", "LD_LIBRARY_PATH": f"{_PYTHON}/lib"}
        return {"PATH": "/usr/bin:/bin", **python, **_IMAGE_ENV, **kubernetes, **set_here}

    def _mounts(self) -> list[tuple[Path, str, bool]]:
        named = [*_IMAGE_FILES] + [
            (self._pod.volume(one["name"]), str(one["mountPath"]), bool(one.get("readOnly")))
            for one in self.spec.get("volumeMounts", ())
        ]
        if self._pod.spec.get("automountServiceAccountToken", True):
            named.append((self._pod.account_volume(), _MOUNT, True))
        return named


def _inside(command: Sequence[str]) -> tuple[str, ...]:
    """Return what a command is in a container; `rotator` is the image's."""
    return (*(_ROTATOR if command[0] == "rotator" else command[:1]), *command[1:])


def execute(pods: str, arguments: list[str]) -> NoReturn:
    """Be `kubectl exec`, for a pod or a Deployment whose pods run below the directory `pods`."""
    parser = argparse.ArgumentParser("kubectl exec")
    parser.add_argument("-i", action="store_true")
    parser.add_argument("-t", action="store_true")
    parser.add_argument("-c", dest="container", default="")
    parser.add_argument("target")
    middle = arguments.index("--")
    asked, command = parser.parse_args(arguments[:middle]), arguments[middle + 1 :]
    name = asked.target.removeprefix("deploy/")
    found = [
        json.loads(path.read_text())
        for path in sorted(Path(pods).glob(f"{name}*/{asked.container or '*'}.set-up"))
        if name != asked.target or path.parent.name == name
    ]
    entry, environment = next(one for one in found if Path("/proc", one[0][1].removeprefix("--target=")).exists())
    os.execvpe(entry[0], [*entry, *_inside(command)], {**environment, "TERM": "dumb"})  # noqa: S606
