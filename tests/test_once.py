"""`run --once` where replicas share the store: the single run is alone with its credentials."""

import functools
import time
from collections.abc import Callable, Collection
from pathlib import Path

from rotator.adapters.systemd import Systemd
from rotator.assembly import Assembly
from rotator.config import Config, load
from rotator.core.state import CredentialState
from rotator.daemon import Daemon
from rotator.once import Exit
from rotator.ports import LeaseView
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from rotator.share import SharingRotator
from tests.line import RecordingObserver
from tests.secrets_scan import PREFIX
from tests.shared_stores import FencedStore, SharedDisk

_CONFIG = """
    [daemon]
    runtime_directory = "{directory}"
    [credentials.home]
    token_url = "{url}/v2/token"
    client_id = "sandbox-client"
    client_authentication = "none"
    seed = {{ file = "{directory}/seed" }}
    outputs = [{{ path = "{directory}/token" }}]
"""


class Alone:
    """The peers of a replica that owns everything, told while it starts. Implements `rotator.ports.Peers`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.early = 0
        self.kept: set[str] = set()

    def start(
        self,
        names: Collection[str],
        came: Callable[[str, CredentialState], object],
        changed: Callable[[], None],
        busy: Callable[[], Collection[str]],
    ) -> None:
        """Say that ownership has changed; count what is asked before this returns, should anybody be woken by it."""
        changed()
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline and not self.early:
            time.sleep(0.01)
            self.early = self._sandbox.books.refresh_grants
        self.kept = set(busy())

    def term(self, name: str) -> int | None:
        """Own it."""
        return 1

    def may_spend(self, name: str, seconds: float) -> bool:
        """Go on owning it."""
        return True

    def owner(self, name: str) -> str:
        """Return this replica."""
        return "this"

    def follow(self, names: Collection[str]) -> None:
        """Do nothing."""

    def leases(self) -> tuple[LeaseView, ...]:
        """Hold one."""
        return (LeaseView("rotator", held=True),)

    def trouble(self) -> str:
        """Return nothing."""
        return ""

    def close(self) -> None:
        """Do nothing."""


def test_a_single_run_steps_its_credentials_itself(tmp_path: Path) -> None:
    """C5: winning the Lease wakes nobody who would step the same credential beside it and spend its token, too."""
    sandbox = Sandbox(switches=Switches(client_secret="", token_prefix=PREFIX))
    with SandboxServer(sandbox) as server:
        (tmp_path / "seed").write_text(sandbox.issue()["refresh_token"])
        (tmp_path / "seed").chmod(0o600)
        (tmp_path / "rotator.toml").write_text(_CONFIG.format(directory=tmp_path, url=server.url))
        config = load(tmp_path / "rotator.toml", None, {})
        assert isinstance(config, Config), config
        peers = Alone(sandbox)
        make = functools.partial(SharingRotator, ownership=peers, takeover=60.0)
        assembly = Assembly(FencedStore(SharedDisk()), RecordingObserver(), {}, peers=peers, make_rotator=make)
        daemon = Daemon(config, assembly, lambda: config, Systemd({}))
        assert daemon.run_once() is Exit.DONE
    assert peers.early == 0
    assert peers.kept == {"home"}  # no shard is handed over while it runs
    assert sandbox.books.refresh_grants == 1
    assert (tmp_path / "token").read_text()
