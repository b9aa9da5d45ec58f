"""A daemon as it is deployed: state on disk, outputs in memory, metrics on, the log in a file."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import stub
from benchmarks.measure import cpu_seconds
from rotator.adapters.file_store import document
from rotator.core.model import TokenSet
from rotator.core.state import CredentialState

DISK_VARIABLE: Final = "ROTATOR_BENCH_DISK"
"""The environment variable that names another directory for states than `build`."""
DISK: Final = Path(os.environ.get(DISK_VARIABLE) or Path(__file__).parent.parent / "build")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - in a directory of our own there
_LIFETIME: Final = 9000.0  # seconds
_QUIET_SECONDS: Final = 3
_QUIET_SHARE: Final = 0.1
_CONFIG: Final = """
[daemon]
state_directory = "{state}"
runtime_directory = "{outputs}"
{daemon}

[metrics]
listen = "127.0.0.1:{port}"

[defaults]
token_url = "{url}"
client_id = "bench"
client_secret = "secret-of-bench"
outputs = [{{ path = "{outputs}/{{name}}" }}]
refresh = {{ floor = "1s", jitter = {jitter} }}

"""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Directories and configuration of one daemon."""

    config: Path
    state: Path
    outputs: Path
    log: Path
    metrics_url: str

    def output(self, name: str) -> Path:
        """Return where a credential's access token is published."""
        return self.outputs / name

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the daemon, and stop it with SIGTERM."""
        argv = [sys.executable, "-m", "rotator.cli", "--config", str(self.config), "run"]
        with self.log.open("ab") as log, subprocess.Popen(argv, stderr=log) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)


def names(count: int) -> list[str]:
    """Return so many names for credentials."""
    return [f"account-{number:06}" for number in range(count)]


@contextlib.contextmanager
def deployed(
    server: stub.Stub, count: int, *, valid: bool = False, due_at: float = 0.0, due: int = 0, daemon: str = ""
) -> Iterator[Deployment]:
    """Lay out a daemon with `count` credentials that have logged in once.

    Their access tokens are over, or with `valid` good for long and published; then `due` of them are to be refreshed at
    the instant `due_at`. `daemon`: further lines for that table of the configuration.
    """
    with contextlib.ExitStack() as stack:
        place = _directory(DISK, stack)
        outputs = _directory(_MEMORY if _MEMORY.is_dir() else DISK, stack)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config, state = place / "rotator.toml", place / "state"
        text = _CONFIG.format(
            state=state, outputs=outputs, port=port, url=server.url, daemon=daemon, jitter=0 if due else 0.05
        )
        config.write_text(text + "\n".join(f"[credentials.{name}]" for name in names(count)))
        state.mkdir(0o700)
        now = time.time()
        for number, name in enumerate(names(count)):
            begin = due_at - _LIFETIME / 1.5 if number < due else now if valid else now - 2 * _LIFETIME
            held = tokens(begin)
            (state / f"{name}.json").write_bytes(document.encode(CredentialState(held, last_success_at=begin)))
            if valid:
                (outputs / name).write_text(held.access_token)
                (outputs / name).chmod(0o640)
        yield Deployment(config, state, outputs, place / "log", f"http://127.0.0.1:{port}/metrics")


def _directory(where: Path, stack: contextlib.ExitStack) -> Path:
    where.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="rotator-bench-", dir=where))
    stack.callback(shutil.rmtree, path)
    return path


def tokens(begin: float) -> TokenSet:
    """Return a token set that was issued at the instant `begin`, of the size that the stub's are."""
    access, refresh = os.urandom(stub.ACCESS_BYTES).hex(), os.urandom(stub.REFRESH_BYTES).hex()
    return TokenSet(1, access, refresh, None, "Bearer", "", begin, begin + _LIFETIME, begin, None)


def until(met: Callable[[], bool], seconds: float = 60.0, pause: float = 0.05) -> None:
    """Wait until something is so. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not met():
        if time.monotonic() > end:
            raise TimeoutError("the daemon does not do what it should; its log is in the build directory")
        time.sleep(pause)


def settled(pid: int, output: Path, patience: float = 60.0) -> None:
    """Wait until a daemon has published and has then used next to no CPU for some seconds. Raises TimeoutError."""
    end = time.monotonic() + patience
    until(output.exists, patience)
    before, quiet = cpu_seconds(pid), 0
    while quiet < _QUIET_SECONDS:
        if time.monotonic() > end:
            raise TimeoutError("the daemon does not come to rest")
        time.sleep(1.0)
        now = cpu_seconds(pid)
        quiet = quiet + 1 if now - before < _QUIET_SHARE else 0
        before = now
