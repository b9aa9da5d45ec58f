"""Clients that a server has refused: the other credentials of one need not each find out for themselves (case E1).

A wrong client secret concerns every credential of the client. Thousands that are due at once would send thousands
of requests, and a server that blocks addresses would block ours.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Final

from rotator.core.model import Answer, Granted, Reason, Refused

ENOUGH: Final = 3
"""So many credentials refused in a row stand for all. One alone does not: some servers say `invalid_client` of a
refresh token that belongs to another client, and the others must not suffer for it."""
_OF_THE_CLIENT: Final = frozenset({Reason.INVALID_CLIENT, Reason.UNAUTHORIZED_CLIENT})


@dataclass(slots=True)
class _Row:
    """Refusals of one client since it was last granted anything."""

    last: Refused
    at: float = 0.0
    askers: set[int] = field(default_factory=set)


class Refusals:
    """What servers think of the clients of a process. Thread-safe."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._rows: dict[bytes, _Row] = {}

    def standing(self, identity: str, asker: Hashable, wait: float) -> Refused | None:
        """Return the refusal that stands for this one, too: it is less than `wait` seconds old.

        A client that asks with another secret is another one. When the time is over the next ones to come are
        let through, and the first grant lets all through.
        """
        if not self._rows:
            return None  # as nearly always
        client = _digest(identity)
        with self._lock:
            row = self._rows.get(client)
            if row is None:
                return None
            left = row.at + wait - self._seconds()
            if left <= 0:
                del self._rows[client]
                return None
            if hash(asker) not in row.askers and len(row.askers) < ENOUGH:
                return None
            return replace(row.last, retry_after=left)

    def note(self, identity: str, asker: Hashable, answer: Answer) -> None:
        """Take in how a request ended."""
        if not self._rows and isinstance(answer, Granted):
            return  # as nearly always
        client = _digest(identity)
        with self._lock:
            if isinstance(answer, Granted):
                self._rows.pop(client, None)
            elif isinstance(answer, Refused) and answer.reason in _OF_THE_CLIENT:
                row = self._rows.setdefault(client, _Row(answer))
                row.last, row.at = answer, self._seconds()
                row.askers.add(hash(asker))


def _digest(identity: str) -> bytes:
    """Stand in for what holds a client secret and need not be kept."""
    return hashlib.sha256(identity.encode(errors="surrogatepass")).digest()
