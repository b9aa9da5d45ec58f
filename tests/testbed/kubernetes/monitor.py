"""Reads every replica's outputs all the time, as consumers do, and can tell how a token came to be dead."""

import json
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from rotator.sandbox.sandbox import Sandbox
from tests.testbed.kubernetes.release import Release, Replica

_LOOK_EVERY: Final = 0.1


@dataclass(frozen=True)
class Spell:
    """A while in which a replica's file held a dead token, in seconds since 1970; one look longer than was seen."""

    name: str
    replica: int
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """Return how long it lasted at most."""
        return self.ended - self.began + _LOOK_EVERY


class Monitor(threading.Thread):
    """Asks ten times a second whether each token in each file is good; keeps an account of the mishaps too."""

    def __init__(self, release: Release, sandbox: Sandbox) -> None:
        super().__init__(name="monitor", daemon=True)
        self.worst: Spell | None = None
        self.stood_still = 0.0
        self.excused: set[str] = set()
        self._release = release
        self._sandbox = sandbox
        self._dead_since: dict[tuple[int, str], float] = {}
        self._mishaps: list[tuple[float, float, str]] = []
        self._stalls: list[tuple[float, float, str]] = []
        self._ended = threading.Event()

    @property
    def longest(self) -> float:
        """Return the longest time that a file held a dead token, in seconds."""
        return self.worst.seconds if self.worst else 0.0

    def run(self) -> None:
        """Look until `end`."""
        looked_at = time.monotonic()
        while not self._ended.wait(_LOOK_EVERY):
            late, looked_at = time.monotonic() - looked_at - _LOOK_EVERY, time.monotonic()
            self.stood_still = max(self.stood_still, late)
            if late > 1:
                now = time.time()
                self._stalls.append((now - late, now, "the machine stood still"))
            for replica in self._release.replicas:
                for name in self._release.names:
                    self._look(replica, name)

    def _look(self, replica: Replica, name: str) -> None:
        key, token = (replica.number, name), replica.token(name)
        dead = self._sandbox.authorization_server.call_resource(token, self._sandbox.switches) != "good"
        if not dead or name in self.excused:
            self._dead_since.pop(key, None)
            return
        spell = Spell(name, replica.number, self._dead_since.setdefault(key, time.time()), time.time())
        if spell.seconds > self.longest:
            self.worst = spell

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self.join()

    @contextmanager
    def noting(self, what: str) -> Generator[None]:
        """Note what goes wrong within the block, and how long it took."""
        began = time.time()
        try:
            yield
        finally:
            self._mishaps.append((began, time.time(), what))

    def story(self, before: float) -> str:
        """Tell what happened from so many seconds before the worst spell until its end; empty if there was none."""
        if self.worst is None:
            return ""
        spell = self.worst
        first, last = spell.began - before, spell.ended
        lines = [(spell.began, f"{spell.name} of replica {spell.replica} is dead for {spell.seconds:.1f} s")]
        for began, ended, what in (*self._mishaps, *self._stalls):
            if first <= ended and began <= last:
                lines.append((began, f"{what} for {ended - began:.1f} s"))
        for replica in self._release.replicas:
            lines += _events(replica, spell.name, first, last)
        return "\n".join(f"{datetime.fromtimestamp(at, UTC):%T.%f} {what}" for at, what in sorted(lines))


def _events(replica: Replica, name: str, first: float, last: float) -> Iterable[tuple[float, str]]:
    for line in replica.log.splitlines():
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        at = datetime.fromisoformat(event["time"]).timestamp()
        if first <= at <= last and event.get("credential", name) == name:
            yield at, f"replica {replica.number}: {event.get('event', event['logger'])}: {event['message']}"
