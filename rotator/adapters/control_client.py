"""The command line's side of the control socket. Imports little, for a fast `rotator status`."""

import grp
import http.client
import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

NO_DAEMON: Final = "no_daemon"
DENIED: Final = "denied"
NO_ANSWER: Final = "no_answer"
UNDER_WAY: Final = "under_way"
_AT_ONCE: Final = 32
_LONGEST_WAIT: Final = 0.8  # the daemon answers within a second

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ControlProblem:
    """Why there is no good answer: the daemon's own reason, or one of this module's four."""

    reason: str
    text: str
    """One line with the cure."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    number: str


class ControlClient:
    """Talks to the daemon that listens at a unix socket. Failures are returned."""

    def __init__(self, path: Path, timeout: float) -> None:
        """Give the daemon `timeout` seconds for each answer, and as long for work on request."""
        self._path = path
        self._timeout = timeout
        self._wait = f"wait={min(_LONGEST_WAIT, timeout / 2):.3f}"

    def get(self, path: str) -> Document | ControlProblem:
        """Ask for something that is there."""
        answer = self._exchange("GET", path)
        return ControlProblem(NO_ANSWER, self._no_answer()) if isinstance(answer, _Ticket) else answer

    def post(self, path: str, body: Document | None = None) -> Document | ControlProblem:
        """Have something done and wait until it is, at most for the time given."""
        deadline = time.monotonic() + self._timeout
        return self._finish(self._exchange("POST", f"{path}?{self._wait}", body), deadline)

    def post_all(self, paths: Iterable[str]) -> Iterator[tuple[str, Document | ControlProblem]]:
        """Have things done side by side, a few dozen at once; answers come in the order asked."""
        begun: list[tuple[str, Document | ControlProblem | _Ticket, float]] = []
        for path in paths:
            begun.append((path, self._exchange("POST", f"{path}?wait=0"), time.monotonic() + self._timeout))
            if len(begun) == _AT_ONCE:
                first, answer, deadline = begun.pop(0)
                yield first, self._finish(answer, deadline)
        for path, answer, deadline in begun:
            yield path, self._finish(answer, deadline)

    def _finish(self, answer: Document | ControlProblem | _Ticket, deadline: float) -> Document | ControlProblem:
        while isinstance(answer, _Ticket):
            if time.monotonic() >= deadline:
                text = f"still under way after {self._timeout:g} s, and goes on; see rotator status"
                return ControlProblem(UNDER_WAY, text)
            answer = self._exchange("GET", f"/v1/tickets/{answer.number}?{self._wait}")
        return answer

    def _exchange(self, method: str, path: str, body: Document | None = None) -> Document | ControlProblem | _Ticket:
        connection = _UnixConnection(self._path, self._timeout)
        try:
            payload = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"} if payload else {}
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            document = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return self._failed(error)
        finally:
            connection.close()
        if not isinstance(document, dict):
            return ControlProblem(NO_ANSWER, self._no_answer())
        if response.status == HTTPStatus.ACCEPTED:
            return _Ticket(str(document.get("ticket")))
        if response.status == HTTPStatus.OK:
            return document
        return ControlProblem(str(document.get("error")), str(document.get("text")))

    def _failed(self, error: Exception) -> ControlProblem:
        if isinstance(error, PermissionError):
            return ControlProblem(DENIED, self._denied())
        if isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionRefusedError):
            text = f"no daemon listens at {self._path}; start it: rotator run"
            return ControlProblem(NO_DAEMON, text)
        return ControlProblem(NO_ANSWER, self._no_answer())  # its full queue is a BlockingIOError

    def _no_answer(self) -> str:
        return (
            f"the daemon at {self._path} gives no good answer within {self._timeout:g} s; look into its log, restart it"
        )

    def _denied(self) -> str:
        who = f"this user may not use the control socket {self._path}"
        try:
            group = grp.getgrgid(self._path.stat().st_gid).gr_name
        except (OSError, KeyError):  # its directory is closed to us, or the group has no name
            return f"{who}; join the group it belongs to, or become root"
        return f"{who}; join its group (usermod -aG {group} USER) and log in anew"


def path_of(verb: str, name: str) -> str:
    """Return the path for one credential, whatever its name holds."""
    return f"/v1/{verb}/{quote(name, safe='')}"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
