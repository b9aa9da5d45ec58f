"""Connections that break for real: the client sees what TCP does, not what HTTP says.

ASGI knows no way to end a connection, so the protocol puts its transport into the scope.
"""

import asyncio
import socket
import struct
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

TRANSPORT: Final = "rotator.sandbox.transport"
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)


class BreakableProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol; the scope's extensions hold the transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wrap the application of this connection."""
        super().connection_made(transport)
        inner: Any = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {**scope.get("extensions", {}), TRANSPORT: transport}
            await inner(scope, receive, send)

        self.app = app


class NoAnswer(Response):
    """Ends the connection without a byte of answer; with a reset (RST) if so wanted, else in order (FIN)."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- ASGI
        """Close the socket and wait until it is closed."""
        transport = scope["extensions"][TRANSPORT]
        if self._reset:  # a socket that lingers for 0 s is closed with RST
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()
        await _gone(receive)


class HalfAnswer(Response):
    """Sends the headers and half of the body, then ends the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, close, and wait until the connection is closed."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body[: len(self.body) // 2])
        await send({"type": "http.response.body", "body": half, "more_body": True})
        scope["extensions"][TRANSPORT].close()
        await _gone(receive)


async def _gone(receive: Receive) -> None:
    """Wait for the end of the connection: uvicorn takes an earlier return for a mistake."""
    message: Message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
