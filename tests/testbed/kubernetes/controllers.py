"""What turns Deployments into Pods, as far as a walk can notice, and tells the API server how they are.

A rollout takes one pod more than wanted, and goes on when that is ready. `kubectl` asks the API server and knows no
difference, but for `exec`, which a shim carries out here.
"""

import json
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.process.rig import ROOT
from tests.testbed.kubernetes.cluster import Namespace
from tests.testbed.kubernetes.kubelet import Kubelet, Pod

_LOOK_EVERY: Final = 0.2
_MERGE: Final = "application/merge-patch+json"
_SHIM: Final = """#!{python} -B
import os, sys
if sys.argv[1:2] == ["exec"]:
    sys.path.insert(0, {root!r})
    from tests.testbed.kubernetes.container import execute
    execute({pods!r}, sys.argv[2:])
os.execv({kubectl!r}, ["kubectl", *sys.argv[1:]])
"""


class _Run:
    """A pod and how far it is."""

    def __init__(self, pod: Pod, owner: str, revision: str) -> None:
        self.pod = pod
        self.owner = owner
        self.revision = revision
        self.failure: Exception | AssertionError | None = None
        self._thread = threading.Thread(target=self._start, daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether it has started, its probes included."""
        return not self._thread.is_alive() and self.failure is None

    def _start(self) -> None:
        try:
            self.pod.start()
            for container in self.pod.mains:
                for kind in ("startupProbe", "readinessProbe"):
                    if kind in container.spec:
                        container.wait_for(kind)
        except (Exception, AssertionError) as error:  # noqa: BLE001 - told where the walk is judged
            self.failure = error

    def status(self) -> dict[str, Any]:
        """Return the Pod's status."""
        codes = [container.exit_code for container in self.pod.mains]
        ready = {"type": "Ready", "status": str(self.is_ready and None in codes)}
        phases = {True: "Running", False: "Failed" if any(codes) else "Succeeded"}
        phase = phases[None in codes] if self.is_ready else "Pending"
        return {"phase": phase, "conditions": [ready]}


class Controllers:
    """Looks after one namespace, which need not be there yet."""

    def __init__(self, namespace: Namespace, kubelet: Kubelet) -> None:
        self._namespace = namespace
        self._kubelet = kubelet
        self._runs: dict[str, _Run] = {}
        self._told: dict[str, Any] = {}
        self._ending = threading.Event()
        self._failure: Exception | AssertionError | None = None

    @contextmanager
    def running(self) -> Generator[None]:
        """Look after it until the end of the block; fail if that was not possible."""
        thread = threading.Thread(target=self._keep, name="controllers")
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            thread.join()
            for failure in (self._failure, *(run.failure for run in self._runs.values())):
                if failure is not None:
                    raise failure

    def _keep(self) -> None:
        while not self._ending.wait(_LOOK_EVERY):
            try:
                for deployment in self._list("apis/apps/v1", "deployments"):
                    self._deployment(deployment)
                for pod in self._list("api/v1", "pods"):
                    if pod["metadata"]["name"] not in self._runs:
                        self._runs[pod["metadata"]["name"]] = _Run(self._kubelet.take(pod), "", "")
                for run in self._runs.values():
                    self._tell(self._namespace.path("pods", run.pod.name), run.status())
            except (Exception, AssertionError) as error:  # noqa: BLE001 - as above
                self._failure = error
                return

    def _list(self, group: str, resource: str) -> list[dict[str, Any]]:
        path = f"/{group}/namespaces/{self._namespace.name}/{resource}"
        return list(self._namespace.cluster.good("GET", path)["items"])

    def _deployment(self, deployment: dict[str, Any]) -> None:
        name, wanted = deployment["metadata"]["name"], deployment["spec"]["replicas"]
        revision = json.dumps(deployment["spec"]["template"], sort_keys=True)
        mine = [run for run in self._runs.values() if run.owner == name]
        new = [run for run in mine if run.revision == revision]
        old = [run for run in mine if run.revision != revision]
        surplus = [*old, *new[wanted:]]
        if len(new) < wanted and len(mine) <= wanted:
            pod = self._kubelet.pod(deployment)
            self._runs[pod.name] = _Run(pod, name, revision)
        elif surplus and all(run.is_ready for run in new):
            ended = surplus[0].pod
            assert set(ended.stop()) == {0}
            del self._runs[ended.name]
            self._namespace.cluster.good("DELETE", self._namespace.path("pods", ended.name), {"gracePeriodSeconds": 0})
        ready = sum(run.is_ready for run in mine)
        status = {
            "observedGeneration": deployment["metadata"]["generation"], "replicas": len(mine),
            "updatedReplicas": len(new), "readyReplicas": ready, "availableReplicas": ready,
        }  # fmt: skip
        self._tell(f"/apis/apps/v1/namespaces/{self._namespace.name}/deployments/{name}", status)

    def _tell(self, path: str, status: dict[str, Any]) -> None:
        if self._told.get(path) != status:
            code, answer = self._namespace.cluster.ask(
                "PATCH", f"{path}/status", {"status": status}, content_type=_MERGE
            )
            assert code in (200, 404), answer  # it may be deleted meanwhile
            self._told[path] = status


def shim(directory: Path, kubelet: Kubelet, kubectl: Path) -> Path:
    """Write a `kubectl` that knows the pods which run here; return its directory, for the PATH."""
    directory.mkdir()
    program = directory / "kubectl"
    program.write_text(
        _SHIM.format(python=sys.executable, root=str(ROOT), pods=str(kubelet.directory), kubectl=str(kubectl))
    )
    program.chmod(0o755)
    return directory
