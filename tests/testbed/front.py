"""A reverse proxy before the token endpoint, which does to an exchange what networks do.

What comes next, one word for each request; without one it is passed on, or answered with a page of HTML and status
502 while the server is away:
- `unasked`: the request is swallowed, nothing is answered.
- `unanswered`: the server is asked; its answer is kept from the client.
- `late`: as without a word, but the answer waits for three seconds.
- `cut`: as `unanswered`, and the connection is closed at once.
"""

import http.client
import http.server
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from tests.process.rig import PATIENCE
from tests.testbed.authorization_server import AuthorizationServer

_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head></html>"


class Front(http.server.ThreadingHTTPServer):
    """The proxy."""

    def __init__(self, server: AuthorizationServer) -> None:
        super().__init__((server.host, 0), _Exchange)
        self.behind = server
        self.fates: list[str] = []
        self.met: list[str] = []
        """What requests have met, each noted once it has come true; the status for those that were answered."""
        self.answers: list[dict[str, Any]] = []
        """What the server answered, whether or not the client was told."""
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """The token endpoint's address."""
        return f"http://{self.behind.host}:{self.server_port}/v2/token"


class _Exchange(http.server.BaseHTTPRequestHandler):
    server: Front

    def do_POST(self) -> None:
        """Let one request meet its fate."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fate = self.server.fates.pop(0) if self.server.fates else ""
        status, kind, answer = (0, "", b"") if fate == "unasked" else self._asked(body)
        self.server.met.append(fate or str(status))
        if fate in ("unasked", "unanswered"):
            self.server.over.wait()
        if fate == "late":
            self.server.over.wait(3)
        if fate in ("", "late"):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def _asked(self, body: bytes) -> tuple[int, str, bytes]:
        behind = self.server.behind
        connection = http.client.HTTPConnection(behind.host, behind.port, timeout=PATIENCE)
        try:
            connection.request("POST", self.path, body, {"Content-Type": self.headers["Content-Type"]})
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            return 502, "text/html", _PAGE
        finally:
            connection.close()
        self.server.answers.append(json.loads(content))
        return answer.status, answer.headers["Content-Type"], content

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Be quiet."""


@contextmanager
def run_front(server: AuthorizationServer) -> Generator[Front]:
    """Run a proxy before a server until the end of the block."""
    with Front(server) as front:
        thread = threading.Thread(target=front.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield front
        finally:
            front.over.set()
            front.shutdown()
            thread.join()
