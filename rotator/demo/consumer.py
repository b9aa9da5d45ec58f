"""A program that lives off a token file: it reads the file each time and calls the protected resource with it."""

import http.client
import threading
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_PAUSE_SECONDS: Final = 0.2
_TIMEOUT_SECONDS: Final = 5.0


class Consumer(threading.Thread):
    """Calls `url`/v2/me several times a second until it is stopped, and counts how that went.

    It knows nothing of rotator: a file that cannot be read or a call that is not answered counts as failed, as it
    would for a real program.
    """

    def __init__(self, token_file: Path, url: str) -> None:
        super().__init__(name="consumer", daemon=True)
        self.calls = 0
        self.refused = 0
        self.failed = 0
        self._file = token_file
        self._address = urlsplit(url).netloc
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Call until stopped."""
        while not self._stop_asked.wait(_PAUSE_SECONDS):
            try:
                status = self._call(self._file.read_text())
            except (OSError, ValueError, http.client.HTTPException):
                self.failed += 1
                continue
            self.calls += 1
            if status == http.HTTPStatus.UNAUTHORIZED:
                self.refused += 1
            elif status != http.HTTPStatus.OK:
                self.failed += 1

    def _call(self, token: str) -> int:
        connection = http.client.HTTPConnection(self._address, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/v2/me", headers={"Authorization": f"Bearer {token}"})
            response = connection.getresponse()
            response.read()
        finally:
            connection.close()
        return response.status

    def ask_to_stop(self) -> None:
        """Make no further call; `join` waits for the last one."""
        self._stop_asked.set()
