"""A served app, for tests that talk to it over real sockets."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection

from starlette.types import ASGIApp

from rotator.adapters.serve import Server, listen
from tests.process.rig import PATIENCE


class Site:
    """A served app and its address."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.server, self.loop, self.port = server, loop, port

    def get(self, path: str, timeout: float = PATIENCE, **headers: str) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers.get("content-type", ""), response.read()

    def connect(self, sent: bytes = b"") -> socket.socket:
        """Open a connection by hand and send some bytes."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        client.sendall(sent)
        return client

    def stop(self) -> float:
        """Stop the server; return how long that took in seconds."""
        started = time.monotonic()
        asyncio.run_coroutine_threadsafe(self.server.stop(), self.loop).result(PATIENCE)
        return time.monotonic() - started


@contextlib.contextmanager
def served(app: ASGIApp, **limits: float) -> Iterator[Site]:
    """Serve an app from a loop in another thread until the end of the block."""
    listener = listen("127.0.0.1", 0)
    assert isinstance(listener, socket.socket), listener
    port = listener.getsockname()[1]
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Server:
        server = Server(app, listener, **limits)  # type: ignore[arg-type]
        await server.start()
        return server

    site = Site(asyncio.run_coroutine_threadsafe(start(), loop).result(PATIENCE), loop, port)
    try:
        yield site
    finally:
        site.stop()
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
