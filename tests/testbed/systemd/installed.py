"""rotator as a package installs it on a machine, against a sandbox in this process."""

import json
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rotator.adapters.control_client import ControlClient, ControlProblem
from rotator.sandbox.books import Books
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.process.rig import (
    CLIENT_SECRET,
    NAME,
    PASSWORD,
    ROOT,
    USERNAME,
    SandboxProcess,
    free_address,
    own_host,
    wait_until,
)
from tests.secrets_scan import assert_no_secrets
from tests.testbed.systemd.machine import Machine, new_machine

UNIT: Final = "rotator.service"
UNITS: Final = ROOT / "systemd"
READERS: Final = "rotator-readers"
_POLICY: Final = 'refresh = { jitter = 0.0, backoff_initial = "500ms", confirm_after = "1s", replay_window = "1m" }'


class Installed:
    """A machine with rotator on it, configured; a daemon runs once somebody starts it."""

    def __init__(self, machine: Machine, server: SandboxServer) -> None:
        self.machine = machine
        self.server = server
        self.metrics_address = free_address()
        for unit in UNITS.glob("rotator*.*"):
            shutil.copy(unit, machine.disk / "usr/lib/systemd/system")
        machine.write("/usr/lib/sysusers.d/rotator.conf", (UNITS / "sysusers.d" / "rotator.conf").read_text())
        self.write_secret(CLIENT_SECRET)
        self.configure()
        self.drop_in("credentials", "LoadCredential=client-secret:/etc/rotator/client-secret")

    # -- configuration -----------------------------------------------------------------------------

    def write_secret(self, text: str) -> None:
        """Write the file that the client secret is loaded from: it is root's own."""
        self.machine.write("/etc/rotator/client-secret", text, 0o600)

    def configure(
        self,
        *,
        daemon: str = "",
        metrics: str = "",
        log: str = "",
        defaults: str = "",
        credentials: str = f"[credentials.{NAME}]",
        secret: str = 'credential = "client-secret"',
        outputs: str = f'path = "/run/rotator/{{name}}.token", group = "{READERS}"',
        server: str = "",
        path: str = "/etc/rotator/rotator.toml",
    ) -> None:
        """Write the configuration; the texts are TOML for their tables."""
        host, port = self.metrics_address
        self.machine.write(
            path,
            f"""
            [daemon]
            {daemon}
            [metrics]
            listen = "{host}:{port}"
            {metrics}
            [log]
            {log}
            [defaults]
            token_url = "{server or self.server.url}/v2/token"
            client_id = "sandbox-client"
            client_secret = {{ {secret} }}
            refresh_token_lifetime = "30d"
            outputs = [{{ {outputs} }}]
            {_POLICY}
            {defaults}
            {credentials}
            """,
        )

    def drop_in(self, name: str, *settings: str, unit: str = UNIT, section: str = "Service") -> None:
        """Add settings to a unit; a running machine is told of them by `machine.run("systemctl", "daemon-reload")`."""
        text = "\n".join([f"[{section}]", *settings, ""])
        self.machine.write(f"/etc/systemd/system/{unit}.d/{name}.conf", text)

    # -- the daemon --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon and wait until it is ready."""
        self.machine.run("systemctl", "start", UNIT)

    def login(self, name: str = NAME) -> None:
        """Log in as root does on the machine."""
        self.machine.run("rotator", "login", name, "--username", USERNAME, "--password-stdin", stdin=PASSWORD)

    def main_pid(self) -> int:
        """Return the daemon's process id as the machine counts it; 0 without a daemon."""
        return int(self.machine.show(UNIT, "MainPID")["MainPID"])

    def kill(self, signal: str) -> None:
        """Send the daemon a signal."""
        self.machine.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", UNIT)

    def state(self) -> str:
        """Return how systemd sees the unit, e.g. `active` or `failed`."""
        return self.machine.show(UNIT, "ActiveState")["ActiveState"]

    def says(self) -> str:
        """Return the status line that the daemon has given."""
        return self.machine.show(UNIT, "StatusText")["StatusText"]

    def restarts(self) -> int:
        """Return how often systemd has started the daemon again."""
        return int(self.machine.show(UNIT, "NRestarts")["NRestarts"])

    def client(self, patience: float = 10.0) -> ControlClient:
        """Return a client for the daemon's socket."""
        return ControlClient(self.machine.root / "run/rotator/rotator.sock", patience)

    def shown(self, name: str = NAME) -> dict[str, Any]:
        """Return one credential as `rotator status --json` shows it; nothing while no daemon answers."""
        answer = self.client().get(f"/v1/status/{name}")
        return {} if isinstance(answer, ControlProblem) else answer["credentials"][0]

    def rotate(self, name: str = NAME) -> dict[str, Any]:
        """Have the daemon refresh now and return how the credential stands then."""
        answer = self.client().post(f"/v1/rotate/{name}")
        assert not isinstance(answer, ControlProblem), answer
        return answer["credentials"][0]  # type: ignore[no-any-return]

    def begin_rotation(self) -> None:
        """Have the daemon refresh, and wait until the request is under way."""
        self.client(0.1).post(f"/v1/rotate/{NAME}")
        self.wait_until(lambda: self.shown().get("refreshing"), "a refresh is under way")

    def wait_for_generation(self, generation: int, name: str = NAME) -> None:
        """Wait until tokens of a generation, or a later one, are published and good."""

        def published() -> bool:
            shown = self.shown(name)
            return bool(shown) and shown["generation"] >= generation and self.has_good_token(name)

        self.wait_until(published, f"generation {generation} of {name} is published and accepted")

    # -- what it left ------------------------------------------------------------------------------

    def token_file(self, name: str = NAME) -> Path:
        """Return the path of a credential's output, seen from here."""
        return self.machine.root / f"run/rotator/{name}.token"

    def token_stamp(self) -> tuple[int, int]:
        """Return what changes when the output is written."""
        status = self.token_file().stat()
        return status.st_ino, status.st_mtime_ns

    def has_good_token(self, name: str = NAME) -> bool:
        """Tell whether the sandbox accepts what a consumer reads."""
        try:
            token = self.token_file(name).read_text()
        except FileNotFoundError:
            return False
        return SandboxProcess(self.server.url).accepts(token)

    def stored(self, name: str = NAME) -> dict[str, Any]:
        """Read the stored state, whether or not the machine is up."""
        file = self.machine.disk / f"var/lib/rotator/{name}.json"
        return json.loads(file.read_text())["state"]  # type: ignore[no-any-return]

    @property
    def books(self) -> Books:
        """What the sandbox saw."""
        return self.server.sandbox.books

    def log(self) -> str:
        """Return all that the daemon, its commands and systemd have written to the unit's journal."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self.machine.journal(UNIT))

    def wait_until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition holds; if that takes too long, show the journal."""
        try:
            return wait_until(condition, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None


@contextmanager
def install(directory: Path, *, firewall: bool = False, **switches: Any) -> Generator[Installed]:
    """Run a sandbox and a machine that is up, rotator installed, until the end of the block.

    Nothing secret may then be in the machine's journal.
    """
    turned = Switches(client_secret=CLIENT_SECRET).changed(switches)
    with (
        SandboxServer(Sandbox(switches=turned, users={USERNAME: PASSWORD}), host=own_host()) as server,
        new_machine(directory, firewall=firewall) as machine,
    ):
        installed = Installed(machine, server)
        machine.boot()
        yield installed
        server.sandbox.change()
        assert_no_secrets(json.dumps(machine.journal()))
