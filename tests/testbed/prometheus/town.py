"""An installation whose credentials each have a sandbox of their own, so that each can have its own trouble.

The lifetimes are short: most access tokens live for eight seconds.
"""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.process.rig import (
    CLIENT_SECRET,
    PASSWORD,
    USERNAME,
    DaemonProcess,
    Rig,
    SandboxProcess,
    own_host,
    wait_until,
)
from tests.samples import state_of

LIFETIME: Final = 8.0
"""Seconds that most access tokens live here."""
DAY: Final = 86_400.0
FIRST: Final = ("home", "outage", "lost", "refused", "revoked", "blocked")
"""Credentials that are well at the beginning."""
LATER: Final = ("aged", "old", "fast", "new", "damaged", "eager")
"""Credentials that are configured later, and are in trouble from then on."""
LAST: Final = ("late",)
"""One whose refresh has been due for an hour when it is configured at last."""
EVERYBODY: Final = (*FIRST, *LATER, *LAST)
_DAYS_LEFT: Final = {"aged": 5.0, "old": 1.0, "fast": 29.0, "eager": 29.0}
"""Of refresh tokens that live for 30 days; the access tokens of these credentials outlive any test."""
_CALLS: Final = 1000
"""Of `eager` within this hour: far too many."""
_POLICY: Final[dict[str, object]] = {
    "jitter": 0.0,
    "floor": "1s",
    "backoff_initial": "500ms",
    "confirm_after": "500ms",
    "replay_window": "3s",
    "refused_retry": "2s",
}


class Town:
    """One installation, its sandboxes by credential, and a small disk for its state."""

    def __init__(self, rig: Rig, servers: dict[str, SandboxServer]) -> None:
        self.rig = rig
        self.servers = servers
        for name in servers:
            self._put_state(name)
        self.configure(FIRST)
        self._keeper = self._mount()

    def configure(self, names: Iterable[str], *, is_fused: bool = True, is_broken: bool = False) -> None:
        """Write the configuration of some credentials; a broken one names a key that there is not."""
        own = {
            "blocked": f'outputs = [{{ path = "{self.rig.directory}/out/blocked/token" }}]',
            "home": 'refresh = { rotation = "required" }',
        }
        if not is_fused:
            own["eager"] = f"refresh = {{ max_calls_per_hour = {2 * _CALLS} }}"
        tables = [
            f'[credentials.{name}]\ntoken_url = "{self.servers[name].url}/v2/token"\n{own.get(name, "")}'
            for name in names
        ]
        policy = ", ".join(f"{key} = {json.dumps(value)}" for key, value in _POLICY.items())
        nonsense = "nonsense = 1" if is_broken else ""
        self.rig.configure(defaults=f"refresh = {{ {policy} }}\n{nonsense}", credentials="\n".join(tables))

    def _put_state(self, name: str) -> None:
        """Leave behind what an earlier daemon has left: all but one have logged in."""
        self.rig.sandbox = SandboxProcess(self.servers[name].url)
        now = time.time()
        if name == "damaged":
            (self.rig.state_directory / "damaged.json").write_text("{")
        elif name in _DAYS_LEFT:
            issued, days = self.rig.sandbox.issue(), _DAYS_LEFT[name]
            state = state_of(
                access_token=issued["access_token"], refresh_token=issued["refresh_token"], id_token=None,
                obtained_at=now, expires_at=now + DAY, refresh_obtained_at=now - (30 - days) * DAY,
                refresh_expires_at=now + days * DAY,
            )  # fmt: skip
            if name == "eager":
                state = replace(state, hour_started_at=now, hour_calls=_CALLS)
            saved_at = now + 3600 if name == "fast" else now
            self.rig.put_state(replace(state, last_attempt_at=now, last_success_at=now, saved_at=saved_at), name)
        elif name != "new":
            self.rig.put_pair(age=3600.0 if name in LAST else 0.0, lifetime=LIFETIME, name=name)

    # -- the disk ----------------------------------------------------------------------------------

    def _mount(self) -> subprocess.Popen[bytes]:
        """Put the state on a small disk that only a keeper and the daemons see, and return the keeper."""
        script = (
            'cp -a "$0" "$1"; mount -t tmpfs -o size=256k,mode=0700 tmpfs "$0"; cp -a "$1"/. "$0"; '
            "touch ready; exec sleep 600"
        )
        states, kept = self.rig.state_directory, self.rig.directory / "kept"
        keeper = subprocess.Popen(["unshare", "--mount", "sh", "-ec", script, states, kept], cwd=self.rig.directory)
        wait_until((self.rig.directory / "ready").exists, "the disk is mounted")
        return keeper

    @property
    def _filler(self) -> Path:
        return Path(f"/proc/{self._keeper.pid}/root{self.rig.state_directory}/filler")

    def fill_disk(self) -> None:
        """Fill the small disk to its last byte."""
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        """Empty the disk again."""
        self._filler.unlink()

    # -- daemon and sandboxes ------------------------------------------------------------------------

    @contextmanager
    def daemon(self) -> Generator[DaemonProcess]:
        """Run the daemon until the end of the block."""
        with self.rig.daemon(prefix=("nsenter", "--mount", f"--target={self._keeper.pid}")) as daemon:
            yield daemon

    def switch(self, name: str, **changes: Any) -> None:
        """Turn switches of one credential's sandbox."""
        self.servers[name].sandbox.change(**changes)

    def block(self) -> None:
        """Let a directory be in the way of an output."""
        self.unblock()
        (self.rig.directory / "out" / "blocked").write_text("in the way")

    def unblock(self) -> None:
        """Make way for the output again."""
        path = self.rig.directory / "out" / "blocked"
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the disk back."""
        self._keeper.kill()
        self._keeper.wait()


@contextmanager
def new_town(directory: Path) -> Generator[Town]:
    """Run the sandboxes until the end of the block; the daemon is for the caller to start."""
    with ExitStack() as stack:
        servers = {}
        for name in EVERYBODY:
            switches = Switches(client_secret=CLIENT_SECRET, access_lifetime=LIFETIME)
            sandbox = Sandbox(switches=switches, users={USERNAME: PASSWORD})
            servers[name] = stack.enter_context(SandboxServer(sandbox, host=own_host()))
        town = Town(Rig(directory, SandboxProcess(servers["home"].url)), servers)
        stack.callback(town.close)
        (directory / "out" / "blocked").mkdir()
        yield town
