"""A token endpoint that costs little: new random tokens for each POST. `GET` tells how many there were.

Its own process, so that its CPU time falls on nobody else.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

ACCESS_BYTES: Final = 300
"""Of chance in an access token; it is written in hexadecimal."""
REFRESH_BYTES: Final = 40
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"


class _Connection(asyncio.Protocol):
    granted = 0
    expires_in = 3600

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a server's always is
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(_END)
            _, _, length = head.lower().partition(_LENGTH)
            size = int(length.split(b"\r\n", 1)[0] or 0)
            if not end or len(rest) < size:
                return
            self._buffer = rest[size:]
            self._answer(head.startswith(b"POST"))

    def _answer(self, is_post: bool) -> None:  # noqa: FBT001 - private
        body: object = _Connection.granted
        if is_post:
            _Connection.granted += 1
            body = {
                "access_token": os.urandom(ACCESS_BYTES).hex(),
                "refresh_token": os.urandom(REFRESH_BYTES).hex(),
                "token_type": "Bearer",
                "expires_in": _Connection.expires_in,
                "scope": [],
                "sent_at": time.monotonic(),  # that clock is one and the same for all processes
            }
        content = json.dumps(body).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)
        self._transport.write(head + content)


async def _serve(expires_in: int) -> None:
    _Connection.expires_in = expires_in
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass(frozen=True, slots=True)
class Stub:
    """A running stub."""

    url: str

    def granted(self) -> int:
        """Return how many tokens it has handed out."""
        with urllib.request.urlopen(self.url, timeout=10) as answer:  # noqa: S310 - a loopback http URL of ours
            return int(answer.read())


@contextlib.contextmanager
def running(expires_in: int) -> Iterator[Stub]:
    """Run a stub whose access tokens live for so many seconds."""
    argv = [sys.executable, "-m", __name__, str(expires_in)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            yield Stub(f"http://127.0.0.1:{int(process.stdout.readline())}/v2/token")
        finally:
            process.kill()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1])))
