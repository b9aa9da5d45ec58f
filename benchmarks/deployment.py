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

from benchmarks.stub import Stub
from rotator.adapters.file_store import FileStore
from rotator.core.model import TokenSet
from rotator.core.state import CredentialState
from rotator.ports import Problem

DISK_VARIABLE: Final = "ROTATOR_BENCH_DISK"
"""The environment variable that names another directory for states than `build`."""
_DISK: Final = Path(os.environ.get(DISK_VARIABLE) or Path(__file__).parent.parent / "build")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - in a directory of our own there
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
refresh = {{ floor = "1s" }}

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
def deployed(stub: Stub, count: int, *, lifetime: float | None = None, daemon: str = "") -> Iterator[Deployment]:
    """Lay out a daemon with `count` credentials that have logged in once.

    With `lifetime` (seconds) their access tokens are good for so long and published; without it they are over.
    `daemon`: further lines for that table of the configuration.
    """
    with contextlib.ExitStack() as stack:
        state = _directory(_DISK, stack)
        outputs = _directory(_MEMORY if _MEMORY.is_dir() else _DISK, stack)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = state / "rotator.toml"
        text = _CONFIG.format(state=state / "state", outputs=outputs, port=port, url=stub.url, daemon=daemon)
        config.write_text(text + "\n".join(f"[credentials.{name}]" for name in names(count)))
        _log_in(state / "state", outputs, names(count), lifetime)
        yield Deployment(config, state / "state", outputs, state / "log", f"http://127.0.0.1:{port}/metrics")


def _directory(where: Path, stack: contextlib.ExitStack) -> Path:
    where.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="rotator-bench-", dir=where))
    stack.callback(shutil.rmtree, path)
    return path


def tokens(lifetime: float | None) -> TokenSet:
    """Return a token set as a login gives it, of the size that the stub's are."""
    now = time.time()
    access, refresh = os.urandom(300).hex(), os.urandom(40).hex()
    begin, end = (now - 7200, now - 3600) if lifetime is None else (now, now + lifetime)
    return TokenSet(1, access, refresh, None, "Bearer", "", begin, end, begin, None)


def _log_in(directory: Path, outputs: Path, accounts: list[str], lifetime: float | None) -> None:
    store = FileStore.open(directory)
    if isinstance(store, Problem):
        raise OSError(store.text)
    with contextlib.closing(store):
        for name in accounts:
            held = tokens(lifetime)
            problem = store.save(name, CredentialState(tokens=held, last_success_at=held.obtained_at))
            if problem:
                raise OSError(problem.text)
            if lifetime is not None:
                (outputs / name).write_text(held.access_token)
                (outputs / name).chmod(0o640)


def until(met: Callable[[], bool], seconds: float = 60.0, pause: float = 0.05) -> None:
    """Wait until something is so. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not met():
        if time.monotonic() > end:
            raise TimeoutError("the daemon does not do what it should; its log is in the build directory")
        time.sleep(pause)
