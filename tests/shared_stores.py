"""Two stores that replicas share: a fence in few lines, and the real one over a model of an API server."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from rotator.adapters.kubernetes import state_secret
from rotator.adapters.kubernetes.store import SecretStore
from rotator.adapters.kubernetes.wire import secret_path
from rotator.core.model import Reason
from rotator.core.record import from_record, to_record
from rotator.core.state import CredentialState
from rotator.ports import Loaded, Problem
from tests.line import NAME
from tests.model_api import ModelApi, Network, Secret

STATE = secret_path("apps", f"state-{NAME}")
WEB = secret_path("apps", "web")
_AWAY = Problem(Reason.SAVE_FAILED, "the API server is away")


@dataclass
class SharedDisk:
    """What is stored, and its version: the fence."""

    version: int = 0
    text: str = ""
    history: list[str] = field(default_factory=list)
    """Everything that was ever stored."""

    @property
    def state(self) -> CredentialState | None:
        """Return what is stored."""
        return from_record(json.loads(self.text)) if self.text else None

    def write(self, state: CredentialState) -> None:
        """Store it."""
        self.text, self.version = json.dumps(to_record(state)), self.version + 1
        self.history.append(self.text)

    def remove(self) -> None:
        """Forget it, as somebody who deletes the Secret."""
        self.text, self.version = "", self.version + 1


class SecretDisk(SharedDisk):
    """What is stored in a Secret of a model of an API server, and what was ever published in another."""

    def __init__(self) -> None:
        super().__init__()
        self.api = ModelApi(changed=self._changed)
        self.published: list[Secret] = []

    def remove(self) -> None:
        """Delete the Secret."""
        self.api.remove(STATE)

    def _changed(self, path: str, secret: Secret | None) -> None:
        if path == WEB and secret is not None:
            self.published.append(secret)
        if path == STATE:
            state = state_secret.read(secret) if secret else None
            self.text, self.version = json.dumps(to_record(state)) if state else "", self.api.version
            if self.text:
                self.history.append(self.text)


class RealStore(SecretStore):
    """The store in Kubernetes, over a network. `away`: nothing gets through."""

    def __init__(self, network: Network) -> None:
        super().__init__(network, "apps", "state-", timeout=1.0)
        self.network = network
        self.loads = 0

    @property
    def away(self) -> bool:
        """Tell whether nothing gets through."""
        return self.network.away

    @away.setter
    def away(self, away: bool) -> None:
        self.network.away = away

    def hear(self, state: CredentialState | None, version: int) -> None:
        """Take what a watch tells, as `rotator.adapters.kubernetes.copies` does."""
        if state is None or self.is_ahead_of(NAME, state):
            self.lost(f"state-{NAME}", str(version))


class FencedStore:
    """A `rotator.ports.SharedStore` of one credential in memory. `away`: nothing gets through."""

    def __init__(self, disk: SharedDisk, touch: Callable[[], None] = lambda: None) -> None:
        self.disk = disk
        self.touch = touch
        """Called before and after everything that goes to the API server."""
        self.seen = -1
        self.away = False
        self.warnings: list[str] = []
        self.save_allowance = 2.0
        self.loads = 0

    def load(self, name: str) -> Loaded | Problem:
        """Return what is stored; it may be saved over from now on."""
        loaded = self.look(name)
        if isinstance(loaded, Loaded):
            self.seen = self.disk.version
        return loaded

    def look(self, name: str) -> Loaded | Problem:
        """Return what is stored."""
        self.loads += 1
        self.touch()
        return _AWAY if self.away else Loaded(self.disk.state)

    def save(self, name: str, state: CredentialState) -> Problem | None:
        """Save, unless another has since the last load."""
        self.touch()
        if self.away:
            return _AWAY
        if self.seen != self.disk.version:
            return Problem(Reason.FENCED, "another replica has written")
        self.disk.write(state)
        self.seen = self.disk.version
        self.touch()
        return None

    def hear(self, state: CredentialState | None, version: int) -> None:
        """Take what a watch tells: it is known."""

    def names(self) -> tuple[str, ...]:
        """Return the one name."""
        return (NAME,)

    def vanished(self, name: str) -> bool:
        """Tell whether what was stored has been removed since it was last loaded or saved."""
        return not self.disk.text and self.disk.version > max(self.seen, 0)

    def fingerprint_key(self) -> bytes:
        """Return a key."""
        return b"key"

    def close(self) -> None:
        """Do nothing."""
