"""The other end of NOTIFY_SOCKET: hears what a daemon tells systemd, and when."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_LONGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Heard:
    """One message."""

    at: float
    """By the monotonic clock."""
    fields: dict[str, str]


class Ear:
    """Listens from a thread, as a kernel's queue may hold no more than ten messages."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.heard: list[Heard] = []

    def listen(self) -> None:
        """Hear until the socket is shut down."""
        while message := self._listener.recv(_LONGEST):
            fields = dict(line.split("=", 1) for line in message.decode().split("\n"))
            self.heard.append(Heard(time.monotonic(), fields))

    def all(self, *keys: str) -> list[str]:
        """Return `KEY=value` for every one of these that was told, in order."""
        wanted = (field for one in tuple(self.heard) for field in one.fields.items() if field[0] in keys)
        return ["=".join(field) for field in wanted]

    @property
    def status(self) -> str:
        """The line for people, as it is now."""
        return next((one.fields["STATUS"] for one in reversed(tuple(self.heard)) if "STATUS" in one.fields), "")

    @property
    def pings(self) -> list[float]:
        """When the watchdog was fed."""
        return [one.at for one in tuple(self.heard) if "WATCHDOG" in one.fields]

    def longest_silence(self) -> float:
        """Return the longest time without a ping, in seconds, from the first ping until now."""
        return max(later - sooner for sooner, later in pairwise([*self.pings, time.monotonic()]))


@contextmanager
def listening(address: str) -> Iterator[Ear]:
    """Hear what is sent to a path, or to an abstract address that begins with `@`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        ear = Ear(listener)
        thread = threading.Thread(target=ear.listen)
        thread.start()
        try:
            yield ear
        finally:
            with contextlib.suppress(OSError):  # a datagram socket without a peer: it says so, and wakes the thread
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()
