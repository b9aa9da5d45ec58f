"""Servers on loopback that misbehave precisely, and certificates to go with them."""

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl

from tests.process.rig import PATIENCE

"""Seconds after which a test that waits has failed."""


@dataclass(frozen=True)
class Received:
    """One request as it came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def form(self) -> list[tuple[str, str]]:
        """Return the fields of the form."""
        return parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=bool(self.body))


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: socket.socket, server: "Server") -> None:
        self.socket = connection
        self.server = server
        self._unread = b""

    def read(self) -> Received | None:
        """Read one whole request and note it; None if the client has closed."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in rest)}
        size = int(headers.get("content-length", "0"))
        while len(self._unread) < size:
            self._unread += self.socket.recv(65536)
        body, self._unread = self._unread[:size], self._unread[size:]
        received = Received(line, headers, body, time.monotonic())
        self.server.requests.append(received)
        self.server.has_request.set()
        return received

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._unread:
            more = self.socket.recv(65536)
            if not more:
                return None
            self._unread += more
        found, self._unread = self._unread.split(end, 1)
        return found

    def send(self, *parts: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(b"".join(parts))

    def answer(self, body: bytes = b"", status: str = "200 OK", *headers: str) -> None:
        """Send a whole answer with its length."""
        lines = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", "")
        self.send("\r\n".join(lines).encode("latin-1"), body)

    def wait_for_close(self) -> None:
        """Wait until the client has closed or the test is over."""
        with contextlib.suppress(OSError):
            while self.socket.recv(65536):
                pass
        self.server.client_closed.set()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


Script = Callable[[Peer], None]


class Server:
    """Runs a script for each connection, each in a thread of its own. All end with the server."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[Received] = []
        self.connections = 0
        self.has_request = threading.Event()
        self.client_closed = threading.Event()
        self.over = threading.Event()
        self._tls = tls
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/v2/token"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                self._open.append(connection)
            with connection:
                if isinstance(connection, ssl.SSLSocket):
                    _shake_hands(connection)
                self.script(Peer(connection, self))


def _shake_hands(connection: ssl.SSLSocket) -> None:
    try:
        connection.do_handshake()
    except OSError:
        while socket.socket.recv(connection, 65536):
            pass  # closing with bytes unread would reset the connection, and the alert would be lost
        raise


def answering(*bodies: bytes, status: str = "200 OK", headers: tuple[str, ...] = ()) -> Script:
    """Return a script that answers request after request, the last body for ever."""
    left = list(bodies) or [b""]

    def script(peer: Peer) -> None:
        while peer.read():
            peer.answer(left.pop(0) if len(left) > 1 else left[0], status, *headers)

    return script


@contextlib.contextmanager
def dead_port() -> Generator[int]:
    """Give a port that refuses connections: bound, so that nobody else gets it, but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class Authority:
    """A certificate authority of our own in a directory, made with the openssl command."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.file = self._path("pem")
        may_sign = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")  # Python 3.13 insists on it
        files = ("-keyout", self._path("key"), "-out", self.file)
        self._openssl("req", "-x509", "-subj", f"/CN={name}", *may_sign, *files)

    def _path(self, suffix: str, name: str = "") -> Path:
        return self.directory / f"{name or self.name}.{suffix}"

    @staticmethod
    def _openssl(*words: str | Path) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")
        subprocess.run(["openssl", *words, *key], check=True, capture_output=True, timeout=PATIENCE)

    def issue(self, name: str, alternative: str = "IP:127.0.0.1") -> tuple[Path, Path]:
        """Issue a certificate; return the paths of certificate and key."""
        certificate, key = self._path("pem", name), self._path("key", name)
        signed_by = ("-CA", self.file, "-CAkey", self._path("key"), "-addext", "basicConstraints=CA:FALSE")
        names = ("-addext", f"subjectAltName={alternative}")
        self._openssl("req", "-x509", "-subj", f"/CN={name}", *signed_by, *names, "-keyout", key, "-out", certificate)
        return certificate, key

    def server_context(self, name: str, alternative: str = "IP:127.0.0.1") -> ssl.SSLContext:
        """Return the TLS context of a server with a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, alternative))
        return context
