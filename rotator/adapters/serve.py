"""The HTTP server for web pages and control socket: uvicorn's protocol on a socket that we bound.

Slow or rude clients hold up nobody else: a request must come, and its answer must be taken, within a time, and
when there are too many connections the one that has waited longest for its request to come gives way. uvicorn's
own `Server` has neither, and would take over the signals and wake up ten times a second.
"""

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from rotator.core.model import Reason
from rotator.ports import Problem

REQUEST_SECONDS: Final = 5.0
"""A request must be there this long after the connection, or the answer before."""
ANSWER_SECONDS: Final = 30.0
"""An answer must be made and taken within this time."""
MOST_CONNECTIONS: Final = 64
_KEEP_ALIVE_SECONDS: Final = 3
_STOP_SECONDS: Final = 0.8
_LAST_TURNS: Final = 5
"""What was aborted, or accepted a moment ago, is closed within so many turns of the loop."""
_CURES: Final = {
    errno.EADDRINUSE: "another program listens there; stop it or choose another port",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address; choose one of its own",
    errno.EACCES: "ports below 1024 need a privilege; choose a higher one",
}


def listen(host: str, port: int) -> socket.socket | Problem:
    """Listen at a TCP address; port 0 picks a free one. A Problem names the address and the cure.

    A port that an ended process used a moment ago is free (case M11), one that is in use is not (case M10).
    """
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        return Problem(Reason.BAD_INPUT, f"cannot listen at {at}: {error.strerror or error}; check the host")
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        cure = _CURES.get(error.errno or 0, "choose another address")
        return Problem(Reason.BAD_INPUT, f"cannot listen at {at}: {error.strerror or error}; {cure}")
    listener.setblocking(False)  # noqa: FBT003 - socket has no keyword for it
    return listener


class Server:
    """Serves one ASGI app on one listening socket, inside the running event loop; installs no signal handlers."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        request_seconds: float = REQUEST_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        """Take over the socket (TCP or unix): it is closed by `stop`."""
        self._listener = listener
        self._limits = _Limits(request_seconds, answer_seconds, most_connections)
        self._state = ServerState()
        self._config = uvicorn.Config(
            app, loop="none", http="h11", ws="none", lifespan="off", interface="asgi3", log_config=None,
            log_level="error",  # a client's broken request is not worth a line
            access_log=False, proxy_headers=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )  # fmt: skip
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Take connections from now on."""
        loop = asyncio.get_running_loop()
        self._config.load()
        self._server = await loop.create_server(
            lambda: _Connection(self._config, self._state, self._limits), sock=self._listener
        )

    async def stop(self) -> None:
        """Take no more connections, let answers under way end, cut off what is left; over within a second."""
        if self._server is None:
            self._listener.close()
            return
        self._server.close()
        self._limits.connections = 0
        for connection in tuple(self._state.connections):
            connection.shutdown()
        # A task ends when its answer is taken: that is all that is waited for.
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=_STOP_SECONDS)
        for connection in tuple(self._state.connections):
            connection.transport.abort()
        for task in tuple(self._state.tasks):
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)


@dataclass(slots=True)
class _Limits:
    """What a server's connections must keep to. `connections` is 0 once it stops."""

    request_seconds: float
    answer_seconds: float
    connections: int


class _Connection(H11Protocol):
    """uvicorn's connection with deadlines and a limit to their number."""

    def __init__(self, config: uvicorn.Config, state: ServerState, limits: _Limits) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self._limits = limits
        self._deadline: asyncio.TimerHandle | None = None
        self._answering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        if not self._limits.connections:
            transport.abort()
        elif len(self.connections) > self._limits.connections:
            surplus = min((one for one in self.connections if isinstance(one, _Connection)), key=_Connection._patience)
            self.connections.discard(surplus)
            surplus.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._answering and self._has_request():
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def _has_request(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn's type says
        return cycle is not None and not cycle.response_complete

    def _watch(self) -> None:
        """Start the time for the next request to come, or for the answer to the one that is there."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._answering = self._has_request()
        seconds = self._limits.answer_seconds if self._answering else self._limits.request_seconds
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _patience(self) -> tuple[bool, float]:
        """Order connections: first those whose request has not come, the one that waits longest before others."""
        return self._answering, self._deadline.when() if self._deadline is not None else 0.0
