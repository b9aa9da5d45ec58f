"""An installation whose requests go to a real authorization server through a front."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rotator.adapters.control_client import ControlClient
from tests.process.rig import NAME, DaemonProcess, Rig, SandboxProcess, wait_until
from tests.testbed.authorization_server import AuthorizationServer
from tests.testbed.front import Front, run_front

POLICY: Final = {
    "jitter": 0.0,
    "backoff_initial": "500ms",
    "confirm_after": "1s",
    "replay_window": "5s",
    "probe_interval": "1h",
}


class Bed(Rig):
    """The installation."""

    def __init__(self, directory: Path, server: AuthorizationServer, front: Front) -> None:
        super().__init__(directory, SandboxProcess(server.url))
        self.server = server
        self.front = front
        self.ask_at(front.url)

    def ask_at(self, url: str, **policy: object) -> None:
        """Configure another address of the token endpoint, and what of the policy differs."""
        refresh = ", ".join(f"{key} = {json.dumps(value)}" for key, value in (POLICY | policy).items())
        table = f'[credentials.{NAME}]\ntoken_url = "{url}"'
        self.configure(defaults=f"refresh = {{ {refresh} }}", credentials=table)

    def refresh_token(self) -> str:
        """Return the refresh token that is stored, while a daemon runs."""
        state = json.loads((self.state_directory / f"{NAME}.json").read_text())["state"]
        return str(state["tokens"]["refresh_token"])

    def write_secret(self, secret: str) -> None:
        """Replace the file with the client secret, all at once."""
        new = self.directory / "client-secret.new"
        new.write_text(secret)
        new.chmod(0o600)
        new.rename(self.directory / "client-secret")


@contextmanager
def bed(directory: Path, server: AuthorizationServer) -> Generator[Bed]:
    """Put a front before a server until the end of the block; the user has logged in."""
    with run_front(server) as front:
        new = Bed(directory, server, front)
        new.login()
        yield new


def wait_for_published(daemon: DaemonProcess, bed: Bed, generation: int) -> None:
    """Wait until tokens of a generation, or a later one, are published and good for a consumer."""

    def published() -> bool:
        shown = daemon.shown()
        return shown["generation"] >= generation and shown["outputs"][0]["current"] and bed.has_good_token()

    daemon.wait_until(published, f"generation {generation} is published and accepted")


def begin_rotation(bed: Bed, fate: str) -> None:
    """Have the daemon refresh, and wait until the request has met a fate."""
    bed.front.fates.append(fate)
    ControlClient(bed.socket, 0.1).post(f"/v1/rotate/{NAME}")
    wait_until(lambda: fate in bed.front.met, f"the request is {fate}")
