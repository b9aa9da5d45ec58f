"""A TCP proxy that a test can cut or hold up: the network between one replica and the API server."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_CHUNK: Final = 1 << 16
_TICK: Final = 0.05


class Proxy:
    """Listens on loopback and passes bytes on, until it is cut or swallows them."""

    def __init__(
        self, target: tuple[str, int] | Callable[[], socket.socket], listener: socket.socket | None = None
    ) -> None:
        """Take an address, or a way to connect; and where to listen, if not here."""
        self._connect = target if callable(target) else lambda: socket.create_connection(target, timeout=1.0)
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._servers: set[socket.socket] = set()
        self._kept: list[tuple[socket.socket, bytes]] = []
        self._state = "open"
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """Return where to connect instead of to the target."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def open(self) -> None:
        """Pass everything on again. What was swallowed is lost, so connections of before are broken off."""
        self._state = "mending" if self._state == "hole" else "open"

    def cut(self) -> None:
        """Break all connections off, and take no new ones."""
        self._state = "cut"

    def swallow(self) -> None:
        """Let connections stand and take new ones, but pass nothing on: a cable that was pulled."""
        self._state = "hole"

    def hold(self) -> None:
        """Pass on what the client says, and keep back what it is told, until the proxy is open again."""
        self._state = "held"

    def __enter__(self) -> Self:
        """Start."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._closing = True
        self._thread.join()
        self._drop_all()
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._closing:
            if self._state in ("cut", "mending"):
                self._drop_all()
                self._state = "open" if self._state == "mending" else self._state
            if self._state == "open":
                self._release()
            for key, _ in self._selector.select(_TICK):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                if end is self._listener:
                    self._accept()
                elif end in self._pairs:
                    self._pass_on(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            if self._state == "cut":
                client.close()
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                return
            for one, other in ((client, server), (server, client)):
                one.settimeout(1.0)
                self._pairs[one] = other
                self._selector.register(one, selectors.EVENT_READ)
            self._servers.add(server)

    def _release(self) -> None:
        kept, self._kept = self._kept, []
        for end, data in kept:
            with contextlib.suppress(OSError):  # it has given up
                end.sendall(data)

    def _pass_on(self, end: socket.socket) -> None:
        try:
            data = end.recv(_CHUNK)
            if data and self._state == "held" and end in self._servers:
                self._kept.append((self._pairs[end], data))
            elif data and self._state in ("open", "held"):
                self._pairs[end].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        for one in (end, self._pairs.get(end)):
            if one is not None and self._pairs.pop(one, None) is not None:
                self._selector.unregister(one)
                self._servers.discard(one)
                one.close()

    def _drop_all(self) -> None:
        for end in tuple(self._pairs):
            self._drop(end)
