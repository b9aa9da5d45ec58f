"""A rig whose sandbox runs in this process, so that it can be stopped and started, and whose lifetimes are short."""

import json
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rotator.adapters.control_client import ControlClient
from rotator.sandbox.books import Books
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.process.rig import (
    CLIENT_SECRET,
    NAME,
    PASSWORD,
    PATIENCE,
    USERNAME,
    DaemonProcess,
    Rig,
    SandboxProcess,
    own_host,
    wait_until,
)  # fmt: skip
from tests.secrets_scan import assert_no_secrets

LIFETIME: Final = 4.0
"""Seconds that an access token lives, unless a test says otherwise."""


class Life(Rig):
    """One installation against a sandbox in this process."""

    def __init__(self, directory: Path, server: SandboxServer) -> None:
        super().__init__(directory, SandboxProcess(server.url))
        self.server = server
        self.refresh: dict[str, object] = {
            "jitter": 0.0,
            "backoff_initial": "500ms",
            "confirm_after": "1s",
            "replay_window": "30s",
        }
        """The policy that `configure` writes."""

    @property
    def books(self) -> Books:
        """What the sandbox saw."""
        return self.server.sandbox.books

    def configure(self, *, daemon: str = "", defaults: str = "", credentials: str = f"[credentials.{NAME}]") -> None:
        """Write the configuration, `self.refresh` included."""
        policy = ", ".join(f"{key} = {json.dumps(value)}" for key, value in self.refresh.items())
        super().configure(daemon=daemon, defaults=f"refresh = {{ {policy} }}\n{defaults}", credentials=credentials)

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; it prints neither a traceback nor a secret."""
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False,
            env=self.environment(environment),
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        assert_no_secrets(done.stdout, done.stderr)
        return done

    def write_secret(self, name: str, text: str) -> Path:
        """Replace a file that holds a secret, as an operator does: all at once."""
        path = self.directory / name
        temporary = path.with_suffix(".new")
        temporary.write_text(text)
        temporary.chmod(0o600)
        temporary.rename(path)
        return path

    def on_disk(self, name: str = NAME) -> dict[str, Any]:
        """Read the state that is stored, while a daemon runs."""
        return json.loads((self.state_directory / f"{name}.json").read_text())["state"]  # type: ignore[no-any-return]

    @contextmanager
    def consumer(self, name: str = NAME) -> Generator["Consumer"]:
        """Read the output and use the token, again and again, until the end of the block."""
        consumer = Consumer(self, name)
        thread = threading.Thread(target=consumer.work)
        thread.start()
        try:
            yield consumer
        finally:
            consumer.over.set()
            thread.join()


class Consumer:
    """Uses what it reads at once, ten times a second."""

    def __init__(self, life: Life, name: str) -> None:
        self._life = life
        self._name = name
        self.over = threading.Event()
        self.calls = 0
        self.refused = 0
        """Calls that the protected resource refused: a lapse."""

    def work(self) -> None:
        """Do so until it is over."""
        while not self.over.wait(0.1):
            self.refused += not self._life.has_good_token(self._name)
            self.calls += 1

    def go_on(self, calls: int = 5) -> None:
        """Wait for some more calls."""
        wanted = self.calls + calls
        wait_until(lambda: self.calls >= wanted, f"{calls} calls of a consumer")


def events(daemon: DaemonProcess, *names: str) -> list[dict[str, Any]]:
    """Return the log's lines, those of some events or all."""
    lines = [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]
    return [line for line in lines if not names or line["event"] in names]


def rotate(daemon: DaemonProcess, name: str = NAME) -> dict[str, Any]:
    """Have the daemon refresh now and return how the credential stands then."""
    return daemon.post(f"/v1/rotate/{name}")["credentials"][0]  # type: ignore[no-any-return]


def begin_rotation(life: Life, daemon: DaemonProcess, name: str = NAME) -> None:
    """Have the daemon begin to refresh, and wait until the request has met what the script has for it."""
    ControlClient(life.socket, 0.1).post(f"/v1/rotate/{name}")
    daemon.wait_until(
        lambda: daemon.shown(name)["refreshing"] and not life.server.sandbox.script_left, "a refresh is under way"
    )


def wait_for_generation(daemon: DaemonProcess, generation: int, name: str = NAME) -> None:
    """Wait until a credential's tokens are of a generation, or a later one."""
    daemon.wait_until(lambda: daemon.shown(name)["generation"] >= generation, f"generation {generation} of {name}")


@contextmanager
def new_life(directory: Path, **switches: Any) -> Generator[Life]:
    """Run a sandbox until the end of the block; return an installation that is configured for it."""
    turned = Switches(client_secret=CLIENT_SECRET, access_lifetime=LIFETIME).changed(switches)
    with SandboxServer(Sandbox(switches=turned, users={USERNAME: PASSWORD}), host=own_host()) as server:
        life = Life(directory, server)
        life.configure()
        yield life
