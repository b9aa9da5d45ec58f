"""What one process has to do with one cluster: a client, and a lookout over what it published."""

from collections.abc import Callable, Mapping

from rotator.adapters.kubernetes.client import KubernetesClient
from rotator.adapters.kubernetes.lookout import Lookout
from rotator.adapters.kubernetes.secret_sink import SecretSettings, SecretSink
from rotator.ports import Clock

__all__ = ["Cluster", "SecretSettings"]


class Cluster:
    """Makes outputs that share a client. Nothing is read or sent before the first of them publishes."""

    def __init__(self, environ: Mapping[str, str], clock: Clock, notify: Callable[[str, str], None]) -> None:
        """Take what every output needs; `notify`: an event's name and a line."""
        self.client = KubernetesClient(environ)
        self._clock = clock
        self._lookout = Lookout(self.client, notify)

    def sink(self, name: str, credential: str, settings: SecretSettings) -> SecretSink:
        """Make an output."""
        return SecretSink(name, credential, settings, self.client, self._lookout, self._clock)

    def close(self) -> None:
        """End the watches and close the connections."""
        self._lookout.stop()
        self.client.close()
        self._lookout.join()
