"""Connections kept for a moment, and the hard deadline of every request on them.

The HTTP library limits each single read and write. A server that drips one byte a minute passes all
of those, so a request is given a deadline as a whole (case L3): when it is over, a helper thread
shuts the socket down under it. The same thread closes connections that have been idle. It lives
only while it has work.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from rotator.core.model import Unavailable

IDLE_SECONDS: Final = 2.0
"""How long an idle connection is used again: a stale one makes a refresh ambiguous (case F3)."""
FLOOR_SECONDS: Final = 1.0
"""Shortest time between two calls with the same form (case E4)."""
_TICK_SECONDS: Final = 0.5


class Transport(Protocol):
    """The part of an HTTP transport that matters here."""

    def close(self) -> None:
        """Close the connection, if there is one."""


T = TypeVar("T", bound=Transport)


class HeldBack(Exception):  # noqa: N818 - nothing is wrong with the request
    """The form may not leave any more: it was not sent."""

    def __init__(self, why: Unavailable) -> None:
        """Take the answer that stands for the server's."""
        self.why = why


class Line(Generic[T]):
    """A transport with at most one connection, used by one request at a time."""

    __slots__ = ("_socket", "aborted", "deadline", "held_back", "idle_since", "sent", "transport")

    def __init__(self, transport: T) -> None:
        self.transport = transport
        self.deadline = 0.0
        self.idle_since = 0.0
        self.aborted = False
        self.sent = False
        """The request's body has begun to leave: from here on it may be carried out."""
        self.held_back: Callable[[], Unavailable | None] | None = None
        """Asked just before that; a reason stops the request with `HeldBack`."""
        self._socket: socket.socket | None = None

    def trace(self, step: str, facts: Mapping[str, Any]) -> None:
        """Take note of a step of the HTTP library, which calls this at each of them."""
        if step.endswith(".send_request_body.started"):
            # CONNECT to a proxy takes this step too, and carries nothing of ours.
            if facts["request"].method != b"CONNECT":
                if self.held_back is not None and (why := self.held_back()) is not None:
                    raise HeldBack(why)
                self.sent = True
        elif step.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = facts["return_value"].get_extra_info("socket")
            if self.aborted:
                self.abort()

    def abort(self) -> None:
        """End the request from another thread: its next read or write fails at once."""
        self.aborted = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # closed already
                # SSLSocket.shutdown would first turn the socket into one that sends plain text.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Lines(Generic[T]):
    """The lines of all endpoints of a process. Thread-safe. Times are those of time.monotonic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[Line[T]] = set()
        self._idle: dict[Hashable, list[Line[T]]] = {}
        self._turns: dict[Hashable, float] = {}
        self._watched = False

    def turn(self, form: Hashable, stopping: threading.Event) -> bool:
        """Wait out the floor between two calls with one form; False if stopping came first."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._turns.get(form, now - FLOOR_SECONDS) + FLOOR_SECONDS)
            self._turns[form] = at
        return at <= now or not stopping.wait(at - now)

    def take(self, key: Hashable, make: Callable[[], T], deadline: float) -> Line[T]:
        """Return a line to the place that `key` names: the one used last, or a new one."""
        with self._lock:
            idle = self._idle.get(key)
            line = idle.pop() if idle else None
        line = Line(make()) if line is None else line
        line.deadline, line.aborted, line.sent = deadline, False, False
        with self._lock:
            self._busy.add(line)
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="endpoint-deadlines", daemon=True).start()
        return line

    def give_back(self, key: Hashable, line: Line[T], *, usable: bool) -> None:
        """Keep a line for the next request, or close it."""
        with self._lock:
            self._busy.discard(line)
            if usable and not line.aborted:
                line.idle_since = time.monotonic()
                self._idle.setdefault(key, []).append(line)
                return
        line.transport.close()

    def abort(self, now: float = float("inf")) -> None:
        """Cut short every request whose deadline is over at `now`: by default, all."""
        with self._lock:
            overdue = [line for line in self._busy if line.deadline <= now]
        for line in overdue:
            line.abort()

    def close_idle(self, before: float = float("inf")) -> None:
        """Close the lines that have been idle since `before`: by default, all."""
        old: list[Line[T]] = []
        with self._lock:
            for key, lines in list(self._idle.items()):
                old += [line for line in lines if line.idle_since <= before]
                lines[:] = [line for line in lines if line.idle_since > before]
                if not lines:
                    del self._idle[key]
        for line in old:
            line.transport.close()

    def _watch(self) -> None:
        tick = threading.Event()  # not time.sleep: under libfaketime 0.9.10 its absolute sleep is an error
        while not tick.wait(_TICK_SECONDS):
            now = time.monotonic()
            self.abort(now)
            self.close_idle(now - IDLE_SECONDS)
            with self._lock:
                over = [form for form, at in self._turns.items() if at + FLOOR_SECONDS <= now]
                for form in over:
                    del self._turns[form]
                if not (self._busy or self._idle or self._turns):
                    self._watched = False
                    return
