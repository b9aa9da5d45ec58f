"""An authorization server that knows nothing of rotator, as a process of its own."""

import http.client
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from tests.process.rig import CLIENT_SECRET, PATIENCE, ROOT, own_host

CLIENT_ID: Final = "sandbox-client"
"""As the rig's configuration has it."""


class AuthorizationServer:
    """May be stopped, and started again at the same address. Its paths are those that the rig expects."""

    def __init__(self, command: Sequence[str | Path], log: Path, environment: dict[str, str]) -> None:
        """`command` takes a host and a port, 0 for any free one, and prints the port once it listens."""
        self._command = command
        self._log = log
        self._environment = os.environ | environment
        self.host: Final = own_host()
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """The address, without a path."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*self._command, self.host, str(self.port)],
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=self._environment,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        self.port = int(line)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            with self._process as process:
                process.terminate()
            self._process = None

    def post(self, path: str, **form: str) -> tuple[int, bytes]:
        """Post a form as the client; return status and body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            fields = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET} | form
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", path, urlencode(fields), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def introspect(self, token: str) -> dict[str, Any]:
        """Return what the server knows of an access token (RFC 7662)."""
        status, body = self.post("/v2/introspect", token=token)
        assert status == http.HTTPStatus.OK, body
        return json.loads(body)  # type: ignore[no-any-return]

    def revoke(self, token: str) -> None:
        """Revoke a refresh token (RFC 7009)."""
        status, body = self.post("/v2/revoke", token=token, token_type_hint="refresh_token")
        assert status == http.HTTPStatus.OK, body
