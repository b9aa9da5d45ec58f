"""Who is next: a heap of due times, shared by the worker threads, with a limit for each server.

Cost is O(log n) for each credential that is due and nothing for the others, so 100,000 may wait here. A request that
has been under way for some seconds no longer counts against its server's limit: one account that hangs
does not hold up its neighbours.
"""

import heapq
import itertools
import math
import threading
from collections import deque
from typing import Final

from rotator.credential import Credential

_SLOW_AFTER: Final = 5.0
_TIDY_ABOVE: Final = 64


class Agenda:
    """Thread-safe. A credential is taken by one worker at a time and stays out until it is put back."""

    def __init__(self, per_server: int, total: int) -> None:
        """Limit how many credentials of one server, and in all, are out at once."""
        self._per_server = per_server
        self._total = total
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._heap: list[tuple[float, int, Credential]] = []
        self._order = itertools.count()
        self._parked: dict[str, deque[Credential]] = {}
        self._out: dict[Credential, tuple[str, float]] = {}

    def put(self, credential: Credential, at: float) -> None:
        """Set or change when a credential is due (instant). While it is out, remember it for its return."""
        with self._lock:
            self._push(credential, at)

    def _push(self, credential: Credential, at: float) -> None:
        credential.due_at = at
        if not credential.busy and at < math.inf:
            heapq.heappush(self._heap, (at, next(self._order), credential))
            if len(self._heap) > _TIDY_ABOVE and self._heap[0][2].due_at != self._heap[0][0]:
                self._drop_stale()

    def _drop_stale(self) -> None:
        while self._heap and (self._heap[0][2].due_at != self._heap[0][0] or self._heap[0][2].busy):
            heapq.heappop(self._heap)

    def take(self, now: float) -> Credential | None:
        """Take the credential that has been due longest and whose server has a place free; None if there is none."""
        with self._lock:
            if len(self._out) >= self._total:
                return None
            for server, parked in self._parked.items():
                if parked and self._has_place(server, now):
                    return self._let_out(parked.popleft(), now)
            while self._heap and self._heap[0][0] <= now:
                at, _, credential = heapq.heappop(self._heap)
                if credential.busy or credential.due_at != at:
                    continue  # an older entry of a credential that was put again
                credential.busy = True
                if self._has_place(credential.plan.server, now):
                    return self._let_out(credential, now)
                self._parked.setdefault(credential.plan.server, deque()).append(credential)
            return None

    def _has_place(self, server: str, now: float) -> bool:
        fresh = sum(1 for where, since in self._out.values() if where == server and since > now - _SLOW_AFTER)
        return fresh < self._per_server

    def _let_out(self, credential: Credential, now: float) -> Credential:
        self._out[credential] = (credential.plan.server, now)
        credential.due_at = float("inf")
        return credential

    def put_back(self, credential: Credential, at: float) -> None:
        """Return a credential that was taken; it is due at `at`, or sooner if somebody put it meanwhile."""
        with self._lock:
            self._out.pop(credential, None)
            credential.busy = False
            if not self._out:
                self._idle.notify_all()
            self._push(credential, min(credential.due_at, at))

    def startable(self, now: float) -> int:
        """Return an upper bound for how many workers would find something to do at `now`."""
        with self._lock:
            self._drop_stale()
            # Those parked behind a server that is full are its own workers' to take, when they are done.
            waiting = sum(len(parked) for server, parked in self._parked.items() if self._has_place(server, now))
            if self._heap and self._heap[0][0] <= now:
                waiting += self._total if len(self._heap) > 1 else 1
            return min(waiting, self._total - len(self._out))

    def lag_seconds(self, now: float) -> float:
        """Return how long the longest-waiting credential has been due, in seconds; 0 if none is."""
        with self._lock:
            self._drop_stale()
            return max(0.0, now - self._heap[0][0]) if self._heap else 0.0

    @property
    def under_way(self) -> int:
        """Return how many credentials are out with a worker."""
        with self._lock:
            return len(self._out)

    def names_under_way(self) -> tuple[str, ...]:
        """Return which credentials are out with a worker."""
        with self._lock:
            return tuple(credential.name for credential in self._out)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no credential is out with a worker, `timeout` seconds at most; False if one still is."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._out, timeout)
