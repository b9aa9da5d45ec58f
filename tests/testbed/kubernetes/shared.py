"""One API server for all workers of a test session: whoever needs it first starts it, whoever leaves last ends it.

Each user holds a shared lock. A process that keeps the server waits for the exclusive one, which it gets when the last
user has gone, in whatever way: the kernel releases a killed worker's lock. Run as a program, this module is the keeper;
it is nobody's child, so that a worker which has done its part need not wait for the others.
"""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.needs import needs
from tests.process.rig import PATIENCE
from tests.testbed.kubernetes.cluster import Cluster, Namespace
from tests.testbed.kubernetes.servers import run_servers

_ROOT: Final = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """Return the session's API server."""
    needs("kubernetes", "openssl")
    base = tmp_path_factory.getbasetemp()
    # Each xdist worker has a directory of its own, side by side.
    with shared_cluster((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kubernetes") as shared:
        yield shared


@pytest.fixture
def namespace(cluster: Cluster) -> Namespace:
    """Return a namespace that nobody else uses."""
    return cluster.namespace()


@contextmanager
def shared_cluster(directory: Path) -> Generator[Cluster]:
    """Share the API server in `directory` with everybody else who asks for it there."""
    directory.mkdir(exist_ok=True)
    with (directory / "users").open("w") as users, (directory / "start").open("w") as start:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits while a keeper who found nobody clears up
        fcntl.flock(start, fcntl.LOCK_EX)
        place = directory / "place"
        if not place.exists():
            _start_keeper(directory, place)
        home, url = place.read_text().splitlines()
        fcntl.flock(start, fcntl.LOCK_UN)
        try:
            yield Cluster(Path(home), url)
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)


def _start_keeper(directory: Path, place: Path) -> None:
    log = directory / "keeper.log"
    with log.open("ab") as output:
        subprocess.run(
            (sys.executable, "-m", __name__, str(directory)),
            cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, check=True,
        )  # fmt: skip
    deadline = time.monotonic() + 4 * PATIENCE
    while not place.exists():
        if "Error" in log.read_text(errors="replace") or time.monotonic() > deadline:
            pytest.fail(f"no API server: {log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.02)


def _keep(directory: Path) -> None:
    home = directory / f"keeper-{os.getpid()}"
    with (directory / "users").open("w") as users, run_servers(home) as servers:
        place = directory / "place"
        place.with_suffix(".new").write_text(f"{home}\n{servers.cluster.url}\n")
        place.with_suffix(".new").replace(place)
        fcntl.flock(users, fcntl.LOCK_EX)
        place.unlink()
        servers.stop()  # before the lock is given up


if __name__ == "__main__" and os.fork() == 0:
    _keep(Path(sys.argv[1]))
