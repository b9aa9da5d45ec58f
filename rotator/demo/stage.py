"""What the demo plays on: a directory, two authorization servers, a configuration, and the real daemon as a child."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rotator.adapters.control_client import ControlClient
from rotator.demo.consumer import Consumer
from rotator.sandbox.books import Books
from rotator.sandbox.sandbox import DEFAULT_CLIENT_ID, Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches

HOUSEHOLDS: Final = ("household-1", "household-2", "household-3")
_FLAKY: Final = "household-3"
_PASSWORD: Final = "demo-password"
_GRACE_SECONDS: Final = 10.0
_FATES: Final = ("after:drop", "ok", "ok", "502_html", "ok", "ok", "half", "ok", "503", "ok", "ok")
"""What befalls the flaky server's token requests, over and over: each fault is followed by an answer."""
_LONGEST_PATH: Final = 64  # letters of the place for temporary files: a unix socket's path has 107 at most
_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.03
_CLIENT_SECONDS: Final = 1.0

View = Mapping[str, Any]
"""A `CredentialView` as JSON."""


class DemoFailed(Exception):  # noqa: N818 - it ends the demo; most often the machine is at fault
    """The demo cannot go on; its text is one line for people."""


class Stage:
    """Everything that runs. `open_stage` makes it and clears it away."""

    def __init__(self, directory: Path, lifetime: float) -> None:
        switches = Switches(access_lifetime=lifetime, token_prefix="demo-")
        users = {"household-?@example.com": _PASSWORD}
        self.directory: Final = directory
        self.calm: Final = SandboxServer(Sandbox(switches=switches, users=users))
        flaky = switches.changed({"grace_seconds": _GRACE_SECONDS})
        self.flaky: Final = SandboxServer(Sandbox(switches=flaky, users=users))
        self.metrics_port: Final = _free_port()
        self.consumers: dict[str, Consumer] = {}
        self._client: Final = ControlClient(directory / "run" / "rotator.sock", _CLIENT_SECONDS)
        self._views: Sequence[View] = ()

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "rotator.toml"

    @property
    def tokens(self) -> Path:
        """The directory of the token files."""
        return self.directory / "tokens"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.directory / "daemon.log"

    @property
    def books(self) -> tuple[Books, Books]:
        """What the two servers saw."""
        return self.calm.sandbox.books, self.flaky.sandbox.books

    def views(self) -> Sequence[View]:
        """Ask the daemon how each credential stands; while it gives no answer, the last one counts."""
        answer = self._client.get("/v1/status")
        if isinstance(answer, Mapping):
            self._views = answer["credentials"]
        return self._views

    def prepare(self) -> None:
        """Write the configuration and what it names."""
        for name in ("state", "run", "tokens"):
            (self.directory / name).mkdir(mode=0o700)
        secret = self.directory / "client-secret"
        secret.touch(mode=0o600)
        secret.write_text(self.calm.sandbox.switches.client_secret)
        self.flaky.sandbox.script(["ok", *_FATES * 1000])  # the first is the login
        self.config.write_text(_configuration(self))

    def start_consumers(self) -> None:
        """Set a consumer beside each credential."""
        for view in self._views:
            name = str(view["name"])
            url = self.flaky.url if name == _FLAKY else self.calm.url
            self.consumers[name] = Consumer(self.tokens / name, url)
            self.consumers[name].start()

    def stop_consumers(self) -> None:
        """Let the last calls end."""
        for consumer in self.consumers.values():
            consumer.ask_to_stop()
        for consumer in self.consumers.values():
            consumer.join()


@contextlib.contextmanager
def open_stage(lifetime: float, is_over: Callable[[], bool]) -> Iterator[tuple[Stage, Callable[[], None]]]:
    """Set everything up, log in, and wait for the first tokens. At the end nothing is left behind.

    Yields the stage and a check that raises once the daemon is no more. Raises DemoFailed with the reason, also when
    `is_over` turns true before all is there.
    """
    if len(tempfile.gettempdir()) > _LONGEST_PATH:
        raise DemoFailed(f"{tempfile.gettempdir()} is too long a path for a control socket; set TMPDIR=/tmp")
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="rotator-demo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stage = Stage(directory, lifetime)
        stack.enter_context(stage.calm)
        stack.enter_context(stage.flaky)
        stage.prepare()
        daemon = stack.enter_context(_daemon(stage))

        def check() -> None:
            if daemon.poll() is not None:
                raise DemoFailed(f"the daemon ended with status {daemon.returncode}: {_last_line(stage.log)}")

        def wait(what: str, condition: Callable[[], bool]) -> None:
            deadline = time.monotonic() + _START_SECONDS
            while not condition():
                check()
                if is_over():
                    raise DemoFailed("ended before the first tokens were there")
                if time.monotonic() > deadline:
                    raise DemoFailed(f"{what} after {_START_SECONDS:.0f} s: {_last_line(stage.log)}")
                time.sleep(_LOOK_SECONDS)

        wait("the daemon does not answer", lambda: bool(stage.views()))
        _log_in(stage)
        wait("there are no tokens", lambda: all(map(_is_published, stage.views())))
        stage.start_consumers()
        stack.callback(stage.stop_consumers)
        yield stage, check


@contextlib.contextmanager
def _daemon(stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    """Run `rotator run`, in a process group of its own: a Ctrl-C is for the demo, which ends the daemon in turn."""
    with stage.log.open("wb") as log:
        daemon = subprocess.Popen(  # noqa: S603 - our own program
            command(stage, "run"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), process_group=0
        )
    try:
        yield daemon
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _log_in(stage: Stage) -> None:
    """Do as a person would, `rotator login`, for all households side by side."""
    logins = {
        name: subprocess.Popen(  # noqa: S603 - our own program
            command(stage, "login", name, "--username", f"{name}@example.com", "--password-stdin"),
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=_environment(), process_group=0,
        )
        for name in HOUSEHOLDS
    }  # fmt: skip
    said = {name: login.communicate(_PASSWORD.encode() + b"\n")[1].decode() for name, login in logins.items()}
    for name, login in logins.items():
        if login.returncode:
            raise DemoFailed(f"cannot log in {name}: {said[name].strip().removeprefix('rotator: ')}")


def command(stage: Stage, *arguments: str) -> list[str]:
    """Return the argument vector of a command of the very rotator that runs here."""
    return [sys.executable, "-P", "-m", "rotator.cli", "-c", str(stage.config), *arguments]


def _environment() -> dict[str, str]:
    here = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))}


def _is_published(view: View) -> bool:
    return view["standing"] == "valid" and all(output["current"] for output in view["outputs"])


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.removeprefix("rotator: ") for line in reversed(lines) if line.strip()), "it said nothing")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _configuration(stage: Stage) -> str:
    def path(*parts: str) -> str:
        return json.dumps(str(stage.directory.joinpath(*parts)))  # good TOML, whatever the path holds

    return f"""\
[daemon]
state_directory = {path("state")}
runtime_directory = {path("run")}

[metrics]
listen = "127.0.0.1:{stage.metrics_port}"

[log]
format = "text"

[defaults]
token_url = "{stage.calm.url}/v2/token"
client_id = "{DEFAULT_CLIENT_ID}"
client_secret = {{ file = {path("client-secret")} }}
refresh_token_lifetime = "30d"
outputs = [{{ path = {path("tokens", "{name}")} }}]

[credentials.household-1]

[credentials.household-2]
outputs = [
  {{ path = {path("tokens", "{name}")} }},
  {{ path = {path("tokens", "{name}.env")}, format = "env" }},
]

[credentials.{_FLAKY}]
# This server loses answers and fails now and then, so there is more time for another try.
token_url = "{stage.flaky.url}/v2/token"
refresh = {{ ratio = 0.4, backoff_initial = "1s" }}

[credentials.account-api]
token_url = "{stage.calm.url}/v1/token"
grant = "client_credentials"
"""
