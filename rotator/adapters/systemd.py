"""What systemd hears of the daemon, and what it hands over: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

Each message is one datagram. Nothing here blocks the event loop or raises: whoever started us may be busy or gone.
"""

import math
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

_STEP_SECONDS: Final = 60.0
"""What each step of a start, or a reload, may take: a very large fleet's files on a slow disk."""
_LONGEST_SWEEP: Final = 1.0
_STATUS_SECONDS: Final = 60.0
"""A line that only says the same more exactly is not worth waking anybody sooner."""


class Systemd:
    """Speaks to whoever started the daemon and left NOTIFY_SOCKET; without one it does nothing.

    Belongs to the event loop. What cannot be delivered now, because the other side's queue is full, goes along with
    the next sweep's message.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take the variables out of the environment, so that no hook or command inherits them (case I1: once)."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self.problem: str | None = None
        """Why it cannot be spoken to: one line; it may still be None before the first message."""
        self._socket: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        elif address:
            self.problem = "NOTIFY_SOCKET is neither a path nor an abstract address, so systemd hears nothing"
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = math.inf
        if self.listens and microseconds.isdecimal() and pid in ("", str(os.getpid())):
            self._watchdog = int(microseconds) / 1e6 or math.inf
        self._ping_at = math.inf if self._watchdog == math.inf else -math.inf
        self._told_at = -math.inf
        self._told = ("", False)
        self._line = ""
        self._unsent: dict[str, object] = {}

    def close(self) -> None:
        """Say nothing from now on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def listens(self) -> bool:
        """Tell whether anybody wants to hear."""
        return self._socket is not None

    @property
    def sweep_seconds(self) -> float:
        """Return how often `alive` must be called at least: so often that a late sweep still is in time."""
        return min(_LONGEST_SWEEP, self._watchdog / 4)

    def starting(self, what: str) -> None:
        """Say what the start is at, and that it goes on (case I2)."""
        self._send(STATUS=what, EXTEND_TIMEOUT_USEC=_microseconds(_STEP_SECONDS))

    def ready(self) -> None:
        """Say that the daemon works, after its start or a reload."""
        self._send(READY=1)

    def alive(self) -> None:
        """Feed the watchdog, at half its time or sooner. The sweep alone may call this (case I3)."""
        now = time.monotonic()
        if now >= self._ping_at:
            self._ping_at = now + self._watchdog / 2 - 2 * self.sweep_seconds
            self._send(WATCHDOG=1)
        elif self._unsent:
            self._send()

    def tell(self, standing: str, outlook: str) -> None:
        """Show how things stand and what comes next; if only the latter is another one, once a minute will do."""
        line, now = ", ".join(filter(None, (standing, outlook))), time.monotonic()
        told = standing, bool(outlook)
        if line == self._line or (told == self._told and now - self._told_at < _STATUS_SECONDS):
            return
        self._told, self._line, self._told_at = told, line, now
        self._send(STATUS=line)

    def reloading(self) -> None:
        """Say that the configuration is read anew; `ready` ends it."""
        extend = _microseconds(_STEP_SECONDS)
        self._send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000, EXTEND_TIMEOUT_USEC=extend)

    def stopping(self, what: str, seconds: float) -> None:
        """Say that the end has begun, and how long it may take."""
        self._send(STOPPING=1, STATUS=what, EXTEND_TIMEOUT_USEC=_microseconds(seconds))

    def _send(self, **fields: object) -> None:
        if self._socket is None:
            return
        # Of READY, RELOADING and STOPPING in one message the last counts.
        self._unsent = {key: value for key, value in self._unsent.items() if key not in fields} | fields
        message = "\n".join(f"{key}={value}" for key, value in self._unsent.items())
        try:
            self._socket.sendto(message.encode(), socket.MSG_DONTWAIT, self._address)
        except BlockingIOError:
            return
        except OSError as error:
            self.problem = f"NOTIFY_SOCKET cannot be written to, so systemd hears nothing: {error.strerror or error}"
        self._unsent.clear()


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
