"""What Prometheus would scrape of two pods: the daemon's own page with a Lease, and a follower that waits for it.

The daemon under test keeps its state in files and knows no Lease. So that leader, follower and "no leader" are seen,
its page is relayed with `rotator_owner` added, and a second page stands for a follower, of the same credentials or not.
"""

import contextlib
import http.client
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from rotator import VERSION
from tests.process.rig import PATIENCE

LEADER: Final = "/leader"
FOLLOWER: Final = "/follower"
_FOLLOWER: Final = f"""\
rotator_build_info{{version="{VERSION}",python="3.13.5"}} 1
rotator_config_last_reload_successful 1
rotator_start_timestamp_seconds 1.7e+09
rotator_credentials_listed 1
"""


class Pods:
    """Two pages, whether the first holds the Lease, and whether the second has other credentials."""

    def __init__(self, daemon: tuple[str, int]) -> None:
        pods = self
        self.led = True
        self.differ = False

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    text = pods._page(self.path, daemon)
                except OSError:
                    self.send_error(http.HTTPStatus.BAD_GATEWAY)
                    return
                self.send_response(http.HTTPStatus.OK)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a scrape that took too long is given up
                    self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Page)

    @property
    def address(self) -> str:
        """Where both pages are."""
        return f"127.0.0.1:{self.server.server_port}"

    def _page(self, path: str, daemon: tuple[str, int]) -> str:
        if path == FOLLOWER:
            return f"{_FOLLOWER}rotator_owner 0\nrotator_replicas_differ {self.differ:d}\n"
        connection = http.client.HTTPConnection(*daemon, timeout=PATIENCE)
        try:
            connection.request("GET", "/metrics")
            return f"{connection.getresponse().read().decode()}rotator_owner {self.led:d}\n"
        finally:
            connection.close()


@contextlib.contextmanager
def run_pods(daemon: tuple[str, int]) -> Generator[Pods]:
    """Serve the pages until the end of the block; `daemon`: where its metrics are."""
    pods = Pods(daemon)
    thread = threading.Thread(target=pods.server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield pods
    finally:
        pods.server.shutdown()
        thread.join()
        pods.server.server_close()
