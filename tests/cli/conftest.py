"""A configured rotator in a directory of its own, against a sandbox; commands run as processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from rotator.adapters.control_client import ControlClient
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.process.rig import PATIENCE, own_host
from tests.secrets_scan import assert_no_secrets, planted

ROOT: Final = Path(__file__).parents[2]
USERNAME: Final = planted("me@example.com")
PASSWORD: Final = planted("pässword-1")


@dataclass
class Run:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard error."""
        return self.err.splitlines()


@dataclass
class Place:
    """One installation: configuration, state, outputs, socket."""

    directory: Path
    server: SandboxServer
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "rotator.toml"

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.directory / "run" / "rotator.sock"

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.directory / "state"

    @property
    def output(self) -> Path:
        """The output of the credential `home`."""
        return self.directory / "out" / "home"

    def configure(self, extra: str = "", *, daemon: str = "", metrics: str = "enabled = false") -> None:
        """Write a configuration with one credential, `home`, and whatever a test adds."""
        self.config.write_text(
            f"""
            [daemon]
            state_directory = "{self.state}"
            runtime_directory = "{self.socket.parent}"
            {daemon}
            [metrics]
            {metrics}
            [defaults]
            token_url = "{self.server.url}/v2/token"
            client_id = "sandbox-client"
            client_secret = {{ file = "{self.directory}/secret" }}
            refresh_token_lifetime = "30d"
            [credentials.home]
            outputs = [{{ path = "{self.directory}/out/{{name}}" }}]
            {extra}
            """
        )

    def command(self, *arguments: str) -> list[str]:
        """Return the argument vector of a command."""
        return [sys.executable, "-B", "-m", "rotator.cli", "-c", str(self.config), *arguments]

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a command."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ROTATOR", "RUNTIME", "STATE"))}
        return kept | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"} | self.environment

    def __call__(self, *arguments: str, stdin: str = "", shows_token: bool = False) -> Run:
        """Run a command to its end. Nothing secret is in what it prints, unless it is meant to print a token."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr
        self.assert_clean(done.stderr)
        if not shows_token:
            self.assert_clean(done.stdout)
        return Run(done.returncode, done.stdout, done.stderr)

    def login(self) -> Run:
        """Log `home` in."""
        return self("login", "home", "--username", USERNAME, "--password-stdin", stdin=PASSWORD + "\n")

    def tokens(self) -> set[str]:
        """Return every token in the state directory."""
        states = [json.loads(path.read_text())["state"] for path in self.state.glob("*.json")]
        return {
            token
            for state in states
            for holder in (state.get("tokens", {}), *state.get("earlier", []))
            for key in ("access_token", "refresh_token", "id_token")
            if (token := holder.get(key))
        }

    def assert_clean(self, text: str) -> None:
        """Fail if a planted secret or a live token stands in a text."""
        assert_no_secrets(text)
        assert [token for token in self.tokens() if token in text] == []

    @contextmanager
    def daemon(self, ended: int = 0) -> Iterator[subprocess.Popen[str]]:
        """Run the daemon until the end of the block; it must then end as expected, having told no secret."""
        log = self.directory / "log"
        with log.open("w") as stderr:
            process = subprocess.Popen(self.command("run"), stderr=stderr, text=True, env=self.environ)
            try:
                client = ControlClient(self.socket, PATIENCE)
                wait_for(lambda: process.poll() is not None or isinstance(client.get("/v1/version"), dict))
                assert process.poll() is None, log.read_text()
                yield process
                process.terminate()
                assert process.wait(PATIENCE) == ended, log.read_text()
            finally:
                process.kill()
                process.wait()
        self.assert_clean(log.read_text())


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail when it takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    """A sandbox whose client secret, user and password are planted."""
    switches = Switches(client_secret=planted("client-secret"))
    with SandboxServer(Sandbox(switches=switches, users={USERNAME: PASSWORD}), host=own_host()) as running:
        yield running


@pytest.fixture
def rotator(tmp_path: Path, server: SandboxServer) -> Place:
    """Rotator, configured, with nobody logged in and no daemon running."""
    for name in ("state", "run", "out"):
        (tmp_path / name).mkdir(mode=0o700)
    secret = tmp_path / "secret"
    secret.write_text(planted("client-secret"))
    secret.chmod(0o600)
    place = Place(tmp_path, server)
    place.configure()
    return place
