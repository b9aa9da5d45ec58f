"""The store in Kubernetes as its tests use it: with the shipped rights, and with a network that loses things."""

from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rotator.adapters.kubernetes.client import KubernetesClient
from rotator.adapters.kubernetes.wire import JSON, Api, Reply
from rotator.core.model import Reason
from tests.testbed.kubernetes.cluster import Namespace
from tests.testbed.kubernetes.release import role

SECONDS: Final = 20.0
_LOST: Final = Reply(0, {}, "no answer in time", Reason.READ_TIMEOUT)


@contextmanager
def store_client(namespace: Namespace, directory: Path, shards: int = 1) -> Generator[tuple[KubernetesClient, str]]:
    """Return a client with the rights of a replica, and the namespace."""
    account = namespace.account(*role((), shards, by_name=False))
    path = account.kubeconfig(directory / "kubeconfig")
    with closing(KubernetesClient({"KUBECONFIG": str(path)})) as client:
        yield client, namespace.name


class Lossy:
    """Passes requests on, but for the fates of the next writes.

    `reply lost`: it is carried out, and nobody hears of it. `request lost`: it never arrives. `late`: it is carried out
    when `land` is called. `odd`: it is carried out, and the answer tells nothing of the object.
    """

    def __init__(self, api: Api) -> None:
        self.fates: deque[str] = deque()
        self.calls: list[str] = []
        self._api = api
        self._late: list[tuple[str, str, Mapping[str, Any] | None, str, Mapping[str, str] | None]] = []

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
        timeout: float,
    ) -> Reply:
        """Implement `wire.Api`."""
        self.calls.append(method)
        fate = self.fates.popleft() if self.fates and method == "PATCH" else ""
        if fate == "late":
            self._late.append((method, path, body, content_type, query))
        if fate in ("late", "request lost"):
            return _LOST
        reply = self._api.call(method, path, body, content_type=content_type, query=query, timeout=timeout)
        if fate == "odd":
            return replace(reply, body={**reply.body, "metadata": None})
        return _LOST if fate == "reply lost" else reply

    def land(self) -> None:
        """Carry out what was held up."""
        for method, path, body, content_type, query in self._late:
            self._api.call(method, path, body, content_type=content_type, query=query, timeout=SECONDS)
        self._late.clear()

    def watch(self, path: str, query: Mapping[str, str], *, timeout: float) -> Iterator[Mapping[str, Any]]:
        """Implement `wire.Api`."""
        return self._api.watch(path, query, timeout=timeout)

    def namespace(self) -> str:
        """Implement `wire.Api`."""
        return self._api.namespace()
