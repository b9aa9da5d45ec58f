"""The real thing in a directory of its own: a sandbox and a daemon, each a process, and the means to watch both.

with run_sandbox(tmp_path, grace_seconds=10) as sandbox:
    rig = Rig(tmp_path, sandbox)
    rig.configure()
    rig.login()
    with rig.daemon() as daemon:
        daemon.wait_until(lambda: daemon.shown()["generation"] == 2, "a refresh")
"""

import http.client
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rotator.adapters.control_client import ControlClient, ControlProblem
from rotator.adapters.file_store import FileStore
from rotator.core.state import CredentialState
from rotator.ports import Loaded
from tests.samples import state_of
from tests.secrets_scan import assert_no_secrets, planted

ROOT: Final = Path(__file__).parents[2]
NAME: Final = "home"
"""The credential, unless a test configures more."""
USERNAME: Final = planted("me@example.com")
PASSWORD: Final = planted("password-1")
CLIENT_SECRET: Final = planted("client-secret")
PATIENCE: Final = 60.0
"""Seconds that anything may take, on a slow machine that is busy: a limit for what hangs, never an expectation."""
_OWN_NAMES: Final = ("ROTATOR", "RUNTIME_", "STATE_", "CREDENTIALS_", "NOTIFY_", "WATCHDOG_")
_numbers: Final = itertools.count(1)


def wait_until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until a condition holds and return what it returned; fail with `what` if that takes too long."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.01)
    return found


def answered_within(seconds: float, ask: Callable[[], Any]) -> Any:
    """Ask until an answer comes within so many seconds, and return it: the machine itself may pause, but not always."""
    answers: list[Any] = []

    def is_quick() -> bool:
        started = time.monotonic()
        answers[:] = [ask()]
        return time.monotonic() - started < seconds

    wait_until(is_quick, f"an answer within {seconds:g} s")
    return answers[0]


# -- sandbox ---------------------------------------------------------------------------------------


class SandboxProcess:
    """A sandbox that runs elsewhere, spoken to over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Make one request; return status and JSON."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def books(self) -> dict[str, Any]:
        """Return the sandbox's books."""
        return self._good("GET", "/sandbox/books")  # type: ignore[no-any-return]

    def switch(self, **changes: object) -> None:
        """Turn switches; hanging requests are let go."""
        self._good("PATCH", "/sandbox/switches", changes)

    def script(self, *steps: str) -> None:
        """Write the fate of the next token requests."""
        self._good("POST", "/sandbox/script", list(steps))

    def issue(self) -> dict[str, Any]:
        """Have a fresh pair issued, without a password."""
        return self._good("POST", "/sandbox/issue", {"user": USERNAME})[0]  # type: ignore[no-any-return]

    def revoke(self) -> None:
        """Revoke every grant."""
        self._good("POST", "/sandbox/revoke", {})

    def accepts(self, token: str) -> bool:
        """Call the protected resource."""
        return self.ask("GET", "/v2/me", Authorization=f"Bearer {token}")[0] == http.HTTPStatus.OK

    def _good(self, method: str, path: str, body: object = None) -> Any:
        status, answer = self.ask(method, path, body)
        assert status == http.HTTPStatus.OK, answer
        return answer


@contextmanager
def run_sandbox(directory: Path, **switches: object) -> Generator[SandboxProcess]:
    """Run a sandbox with switches until the end of the block; it may serve many rigs, one after the other."""
    command = [sys.executable, "-B", "-m", "rotator.sandbox", "--user", USERNAME, "--password", PASSWORD]
    for name, value in ({"client_secret": CLIENT_SECRET} | switches).items():
        flag = name.replace("_", "-")
        command += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}={value}"]
    with (
        (directory / "sandbox.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (directory / "sandbox.log").read_text()
            yield SandboxProcess(json.loads(line)["url"])
        finally:
            process.terminate()


# -- daemon ----------------------------------------------------------------------------------------


class DaemonProcess:
    """`rotator run`, under way or over."""

    def __init__(self, rig: "Rig", process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        """The daemon, or the prefix command that it runs under."""
        self._rig = rig
        self._log = log
        self._client = ControlClient(rig.socket, PATIENCE)

    @property
    def log(self) -> str:
        """Standard error so far."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """The daemon's own process id, also under a prefix command, as it logs it at the start."""
        started = re.search(r'"event": "started".*"pid": (\d+)', self.log)
        return int(started[1]) if started else self.process.pid

    @property
    def is_up(self) -> bool:
        """Whether the control socket answers."""
        return not isinstance(self._client.get("/v1/version"), ControlProblem)

    def get(self, path: str) -> dict[str, Any]:
        """Ask the control socket, e.g. for `/v1/health`."""
        return self._good(self._client.get(path))

    def post(self, path: str) -> dict[str, Any]:
        """Have the control socket do something, e.g. `/v1/rotate/home` or `/v1/reload`."""
        return self._good(self._client.post(path))

    def shown(self, name: str = NAME) -> dict[str, Any]:
        """Return one credential as `rotator status --json` shows it."""
        return self.get(f"/v1/status/{name}")["credentials"][0]  # type: ignore[no-any-return]

    def sample(self, name: str, **labels: str) -> float:
        """Return one sample of /metrics; -1 if it is not there."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.page("/metrics").splitlines():
            series, _, value = line.rpartition(" ")
            found, _, rest = series.partition("{")
            if found == name and wanted <= set(rest.rstrip("}").split(",")):
                return float(value)
        return -1.0

    def page(self, path: str) -> str:
        """Return the body of `/metrics`, `/status`, `/livez` or `/readyz`."""
        connection = http.client.HTTPConnection(*self._rig.metrics_address, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def wait_until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        """Wait as the function does; a daemon that ends meanwhile, or takes too long, shows its log."""
        try:
            return wait_until(lambda: self.process.poll() is not None or condition(), what, patience)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def kill(self) -> None:
        """SIGKILL the daemon and wait until it is gone."""
        if self.process.poll() is None:
            os.kill(self.pid, 9)
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM the daemon and return its exit status."""
        if self.process.poll() is None:
            os.kill(self.pid, 15)
        return self.process.wait(PATIENCE)

    def _good(self, answer: Any) -> dict[str, Any]:
        assert not isinstance(answer, ControlProblem), f"{answer}\n{self.log}"
        return answer  # type: ignore[no-any-return]


class Rig:
    """One installation: configuration, state, output and sockets below one directory."""

    def __init__(self, directory: Path, sandbox: SandboxProcess) -> None:
        self.directory = directory
        self.sandbox = sandbox
        self.state_directory = directory / "state"
        self.socket = directory / "run" / "rotator.sock"
        self.config = directory / "rotator.toml"
        self.metrics_address = free_address()
        self._starts = itertools.count(1)
        for name in ("state", "run", "out"):
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        secret = directory / "client-secret"
        secret.write_text(CLIENT_SECRET)
        secret.chmod(0o600)

    def output(self, name: str = NAME) -> Path:
        """Return the path of a credential's output."""
        return self.directory / "out" / name

    def token(self, name: str = NAME) -> str:
        """Return what a consumer reads; empty if there is no output."""
        path = self.output(name)
        return path.read_text() if path.exists() else ""

    def has_good_token(self, name: str = NAME) -> bool:
        """Tell whether the sandbox accepts what a consumer reads."""
        token = self.token(name)
        return token != "" and self.sandbox.accepts(token)

    def configure(self, *, daemon: str = "", defaults: str = "", credentials: str = f"[credentials.{NAME}]") -> None:
        """Write the configuration; the texts are TOML for their tables."""
        host, port = self.metrics_address
        self.config.write_text(
            f"""
            [daemon]
            state_directory = "{self.state_directory}"
            runtime_directory = "{self.socket.parent}"
            {daemon}
            [metrics]
            listen = "{host}:{port}"
            [defaults]
            token_url = "{self.sandbox.url}/v2/token"
            client_id = "sandbox-client"
            client_secret = {{ file = "{self.directory}/client-secret" }}
            refresh_token_lifetime = "30d"
            outputs = [{{ path = "{self.directory}/out/{{name}}" }}]
            {defaults}
            {credentials}
            """
        )

    def command(self, *arguments: str) -> list[str]:
        """Return the argument vector of `rotator …`."""
        return [sys.executable, "-B", "-m", "rotator.cli", "-c", str(self.config), *arguments]

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a command: this process's, less what would configure a rotator."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_OWN_NAMES)}
        return kept | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"} | (more or {})

    def login(self, name: str = NAME) -> None:
        """Log in, through the daemon if one runs."""
        command = self.command("login", name, "--username", USERNAME, "--password-stdin")
        done = subprocess.run(
            command, input=PASSWORD, capture_output=True, text=True, env=self.environment(),
            timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def put_state(self, state: CredentialState, name: str = NAME) -> None:
        """Store a state as a daemon that has ended would have left it."""
        store = FileStore.open(self.state_directory)
        assert isinstance(store, FileStore), store
        try:
            assert store.save(name, state) is None
        finally:
            store.close()

    def put_pair(self, *, age: float, lifetime: float = 3600.0, name: str = NAME) -> CredentialState:
        """Store a pair that the sandbox has issued, as if `age` seconds ago; the output does not hold it yet."""
        issued = self.sandbox.issue()
        now = time.time()
        state = state_of(
            access_token=issued["access_token"],
            refresh_token=issued["refresh_token"],
            id_token=issued["id_token"],
            obtained_at=now - age,
            expires_at=now - age + lifetime,
            refresh_obtained_at=now - age,
            refresh_expires_at=now - age + 30 * 86_400,
        )
        state = replace(state, last_attempt_at=now - age, last_success_at=now - age, saved_at=now - age)
        self.put_state(state, name)
        return state

    def stored(self, name: str = NAME) -> CredentialState | None:
        """Read what is stored; only while no daemon runs."""
        store = FileStore.open(self.state_directory)
        assert isinstance(store, FileStore), store
        try:
            loaded = store.load(name)
        finally:
            store.close()
        assert isinstance(loaded, Loaded), loaded
        return loaded.state

    @contextmanager
    def daemon(
        self, *, prefix: Sequence[str] = (), environment: dict[str, str] | None = None, clean: bool = True
    ) -> Generator[DaemonProcess]:
        """Run the daemon, once it answers, until the end of the block; nothing secret may be in its log.

        With `clean` it must still be up at the end, or have been ended by the test, and it is killed then; use
        `stop` to see how it ends. `prefix`: a command that runs it, e.g. `("strace", "-f")`.
        """
        log = self.directory / f"daemon-{next(self._starts)}.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*prefix, *self.command("run")],
                stdin=subprocess.DEVNULL, stderr=stderr, env=self.environment(environment),
            )  # fmt: skip
        daemon = DaemonProcess(self, process, log)
        try:
            daemon.wait_until(lambda: daemon.is_up, "the daemon answers")
            assert not clean or process.poll() is None, daemon.log
            yield daemon
        finally:
            if process.poll() is None:
                daemon.kill()
        assert "Traceback" not in daemon.log
        assert_no_secrets(log)


def own_host() -> str:
    """Return a loopback address that nobody else uses: a port there stays free while its server is away."""
    return f"127.{1 + os.getpid() % 250}.{os.getpid() // 250 % 250}.{next(_numbers) % 250}"


def free_address() -> tuple[str, int]:
    """Return a loopback address that no other test uses: a host of its own, and a port that is free there."""
    host = own_host()
    with socket.socket() as found:
        found.bind((host, 0))
        return host, found.getsockname()[1]
