"""From "the server answered" to "durable", against a bare write, fsync, rename, fsync of the same bytes beside it."""

import contextlib
import os
import statistics
import time
from pathlib import Path
from typing import Final

from benchmarks import stub
from benchmarks.deployment import deployed
from benchmarks.measure import Figure, median_ratio
from rotator.adapters.file_store import FileStore
from rotator.assembly import Assembly
from rotator.config import Config, load
from rotator.core.state import CredentialState
from rotator.credential import Credential
from rotator.ports import Event, Problem

_TARGET: Final = 2.0


class _TimedStore(FileStore):
    """Notes how long ago the stub sent the pair that has just become durable: the answer names the instant."""

    seconds = 0.0

    def save(self, name: str, state: CredentialState) -> Problem | None:
        problem = super().save(name, state)
        sent_at = (state.unjudged or {}).get("sent_at")
        if problem is None and isinstance(sent_at, float):
            self.seconds = time.monotonic() - sent_at
        return problem


class _Deaf:
    def notify(self, event: Event) -> None:
        """Do nothing."""


def run(*, count: int = 500) -> list[Figure]:
    """Refresh `count` credentials one by one, each followed by a bare write of what it wrote."""
    with stub.running(3600) as server, deployed(server, count) as deployment:
        config = load(deployment.config, None, os.environ)
        store = _TimedStore.open(deployment.state)
        if not isinstance(config, Config) or not isinstance(store, _TimedStore):
            raise OSError(f"cannot set up: {config}, {store}")
        assembly = Assembly(store, _Deaf(), os.environ)
        beside = deployment.state.parent / "bare"
        beside.mkdir()
        pairs = []
        with contextlib.closing(assembly):
            for name, plan in assembly.plans(config).items():
                assembly.rotator.step(Credential(name, plan))
                pairs.append(
                    (store.seconds, bare_write(beside, name, (deployment.state / f"{name}.json").read_bytes()))
                )
    ours, bare = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
    return [
        Figure(
            "durable: answer sent to pair durable / bare durable write",
            median_ratio(pairs),
            _TARGET,
            detail=f"{ours:.3f} ms against {bare:.3f} ms; the network and reading the answer are part of ours",
        )
    ]


def bare_write(directory: Path, name: str, payload: bytes) -> float:
    """Return the seconds that it takes to replace a file durably, with nothing but the system calls."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        began = time.monotonic()
        file = os.open("temporary", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=fd)
        os.write(file, payload)
        os.fsync(file)
        os.close(file)
        os.rename("temporary", name, src_dir_fd=fd, dst_dir_fd=fd)
        os.fsync(fd)
        return time.monotonic() - began
    finally:
        os.close(fd)
