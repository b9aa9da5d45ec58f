"""What tests run as if it were in a pod: a service account's mount, and what publishes with it."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rotator.adapters.kubernetes.client import KubernetesClient
from rotator.adapters.kubernetes.lookout import POLL_SECONDS, Lookout
from rotator.adapters.kubernetes.secret_sink import SecretSettings, SecretSink
from rotator.adapters.kubernetes.wire import JSON, Reply
from rotator.ports import Clock
from tests.fakes import FixedClock
from tests.testbed.kubernetes.cluster import Account, Cluster, Rule


def on_secrets(*verbs: str, name: str = "web") -> Rule:
    """Return a rule for one named Secret."""
    return {"apiGroups": [""], "resources": ["secrets"], "verbs": list(verbs), "resourceNames": [name]}


def in_pod(cluster: Cluster) -> dict[str, str]:
    """Return what a pod finds in its environment."""
    address = urlsplit(cluster.url)
    return {"KUBERNETES_SERVICE_HOST": address.hostname or "", "KUBERNETES_SERVICE_PORT": str(address.port)}


class CountingClient(KubernetesClient):
    """The client, and a count of what it asked: pairs of method and path's end."""

    def __init__(self, environ: Mapping[str, str], mount: Path) -> None:
        super().__init__(environ, mount)
        self.asked: list[tuple[str, str]] = []

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
        """Count, and ask."""
        self.asked.append((method, path.rpartition("/")[2]))
        return super().call(method, path, body, content_type=content_type, query=query, timeout=timeout)

    def watch(self, path: str, query: Mapping[str, str], *, timeout: float) -> Any:
        """Count, and watch."""
        self.asked.append(("WATCH", path.rpartition("/")[2]))
        return super().watch(path, query, timeout=timeout)


class Pod:
    """One process's worth of Secret outputs."""

    def __init__(
        self, account: Account, directory: Path, clock: Clock | None = None, poll_seconds: float = POLL_SECONDS
    ) -> None:
        """Mount the account's token, and make a client of it."""
        self.account = account
        self.mount = account.mount(directory / "mount")
        self.client = CountingClient(in_pod(account.namespace.cluster), self.mount)
        self.clock = clock or FixedClock()
        self.notices: list[tuple[str, str]] = []
        self.lookout = Lookout(self.client, lambda event, text: self.notices.append((event, text)), poll_seconds)

    def sink(self, secret: str = "web", credential: str = "shop", title: str = "", **settings: Any) -> SecretSink:
        """Return an output; `settings` as in `SecretSettings`."""
        made = SecretSettings(secret, **{"namespace": None, "data": (("token", "raw"),), **settings})
        return SecretSink(title or f"secret/{secret}", credential, made, self.client, self.lookout, self.clock)

    def asked(self) -> list[tuple[str, str]]:
        """Return what was asked since the last call of this, the watches apart."""
        asked, self.client.asked = [one for one in self.client.asked if one[0] != "WATCH"], []
        return asked

    def close(self) -> None:
        """End as a process does."""
        self.lookout.stop()
        self.client.close()
        self.lookout.join()


OpenPod = Callable[..., Pod]


@contextmanager
def pods(directory: Path) -> Generator[OpenPod]:
    """Return a way to make pods, which end when this does."""
    opened: list[Pod] = []

    def make(account: Account, clock: Clock | None = None, poll_seconds: float = POLL_SECONDS) -> Pod:
        place = directory / f"pod-{len(opened)}"
        place.mkdir()
        opened.append(Pod(account, place, clock, poll_seconds))
        return opened[-1]

    try:
        yield make
    finally:
        for pod in opened:
            pod.close()
