"""The control socket: what `rotator status`, `login` and their like ask of a running daemon.

HTTP and JSON over a unix socket of mode 0660; whoever may open the socket may do everything. Every
answer comes within a second (case E11): work that may take longer gets a ticket (202), and the
caller asks for the ticket again until it is done. The work goes on whether or not anybody asks. A
failure is `{"error": reason, "text": line}`. Nothing of a request or an answer is logged.
"""

import asyncio
import itertools
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rotator.core.model import Reason
from rotator.core.standing import CredentialView
from rotator.ports import Desk, Problem

SOCKET_MODE: Final = 0o660
_BODY_LIMIT: Final = 64 * 1024
_LONGEST_WAIT: Final = 0.8
_MOST_UNDER_WAY: Final = 1000
_TICKET_KEPT: Final = 60.0
_CHUNK: Final = 200
_GUESS_AMONG: Final = 1000

Result = CredentialView | Problem | tuple[str, ...]
_STATUS: Final = {
    Reason.LOGIN_REQUIRED: HTTPStatus.CONFLICT,
    Reason.REAUTHORIZATION_REQUIRED: HTTPStatus.CONFLICT,
    Reason.NOT_OWNER: HTTPStatus.CONFLICT,
    Reason.BAD_INPUT: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.SAVE_FAILED: HTTPStatus.INSUFFICIENT_STORAGE,
}


class BadRequestError(Exception):
    """The request cannot be served as it stands. `text` shows nothing of its body."""

    def __init__(self, status: HTTPStatus, reason: str, text: str) -> None:
        super().__init__(text)
        self.status, self.reason, self.text = status, reason, text


def make_control_app(desk: Desk, version: str) -> Starlette:
    """Return the ASGI app that serves `desk`; it belongs on a unix socket, never on a port."""
    counter = _Counter(desk, version)
    return Starlette(
        routes=[
            Route("/v1/status", counter.status),
            Route("/v1/status/{name:path}", counter.status_of),
            Route("/v1/token/{name:path}", counter.token),
            Route("/v1/ready/{name:path}", counter.ready),
            Route("/v1/health", counter.health),
            Route("/v1/readiness", counter.readiness),
            Route("/v1/version", counter.version),
            Route("/v1/tickets/{ticket}", counter.ticket),
            Route("/v1/rotate/{name:path}", counter.rotate, methods=["POST"]),
            Route("/v1/login/{name:path}", counter.login, methods=["POST"]),
            Route("/v1/adopt/{name:path}", counter.adopt, methods=["POST"]),
            Route("/v1/reload", counter.reload, methods=["POST"]),
        ],
        exception_handlers={BadRequestError: _bad_request, HTTPException: _http_error},
    )


class _Counter:
    """Serves the routes and keeps the tickets."""

    def __init__(self, desk: Desk, version: str) -> None:
        self._desk = desk
        self._version = version
        self._tickets: dict[str, asyncio.Task[Result]] = {}
        self._under_way = 0

    async def status(self, _: Request) -> Response:
        """Show every credential. Sent piece by piece: 100,000 of them hold nobody else up."""
        return StreamingResponse(_array_of(self._desk.views()), media_type="application/json")

    async def status_of(self, request: Request) -> Response:
        return JSONResponse({"credentials": [asdict(self._find(request))]})

    async def token(self, request: Request) -> Response:
        """Hand out the access token and its like; the refresh token never leaves the daemon."""
        shown = self._find(request)
        tokens = self._desk.tokens(shown.name)
        if tokens is None or not tokens.access_token:
            text = f"{shown.name} has no access token yet; see: rotator status {shown.name}"
            raise BadRequestError(HTTPStatus.CONFLICT, shown.reason or Reason.LOGIN_REQUIRED, text)
        return JSONResponse(
            {
                "name": shown.name,
                "access_token": tokens.access_token,
                "id_token": tokens.id_token,
                "token_type": tokens.token_type,
                "scope": tokens.scope,
                "generation": tokens.generation,
                "obtained_at": tokens.expires_at - tokens.lifetime_seconds,
                "expires_at": tokens.expires_at,
            },
            headers={"Cache-Control": "no-store"},
        )

    async def ready(self, request: Request) -> Response:
        lack = self._desk.lack(self._find(request).name)
        return JSONResponse({"ready": not lack, "why": lack})

    async def health(self, _: Request) -> Response:
        return JSONResponse(asdict(self._desk.pulse()))

    async def readiness(self, _: Request) -> Response:
        return JSONResponse(asdict(await asyncio.to_thread(self._desk.readiness)))

    async def version(self, _: Request) -> Response:
        return JSONResponse({"version": self._version, "pid": os.getpid()})

    async def rotate(self, request: Request) -> Response:
        return await self._begin(self._desk.rotate(self._find(request).name), request)

    async def login(self, request: Request) -> Response:
        name = self._find(request).name
        username, password = await _texts(request, "username", "password")
        return await self._begin(self._desk.login(name, username, password), request)

    async def adopt(self, request: Request) -> Response:
        name = self._find(request).name
        (pair,) = await _texts(request, "pair")
        return await self._begin(self._desk.adopt(name, pair), request)

    async def reload(self, request: Request) -> Response:
        return await self._begin(self._desk.reload(), request)

    async def ticket(self, request: Request) -> Response:
        """Wait a little for work that was begun earlier."""
        ticket = request.path_params["ticket"]
        task = self._tickets.get(ticket)
        if task is None:
            text = "no such ticket: the daemon was restarted, or this is long ago; ask anew"
            raise BadRequestError(HTTPStatus.NOT_FOUND, "unknown_ticket", text)
        return await _wait_for(ticket, task, request)

    async def _begin(self, work: Coroutine[Any, Any, Result], request: Request) -> Response:
        if self._under_way >= _MOST_UNDER_WAY:
            work.close()
            text = f"{_MOST_UNDER_WAY} requests are under way; try again in a minute"
            raise BadRequestError(HTTPStatus.SERVICE_UNAVAILABLE, "busy", text)
        ticket, task = secrets.token_hex(8), asyncio.ensure_future(work)
        self._tickets[ticket] = task
        self._under_way += 1
        task.add_done_callback(lambda _: self._is_done(ticket))
        return await _wait_for(ticket, task, request)

    def _is_done(self, ticket: str) -> None:
        self._under_way -= 1
        asyncio.get_running_loop().call_later(_TICKET_KEPT, self._tickets.pop, ticket, None)

    def _find(self, request: Request) -> CredentialView:
        name = request.path_params["name"]
        shown = self._desk.find(name)
        if shown is None:
            names = [one.name for one in itertools.islice(self._desk.views(), _GUESS_AMONG)]
            raise BadRequestError(HTTPStatus.NOT_FOUND, "unknown_credential", unknown_credential(name, names))
        return shown


def unknown_credential(name: str, names: list[str]) -> str:
    """Say that there is no such credential, and which was perhaps meant."""
    import difflib  # noqa: PLC0415 - a daemon whom everybody asks for the right name pays nothing for it

    near = difflib.get_close_matches(name, names, n=1)
    cure = f"did you mean {near[0]}?" if near else "rotator status lists those there are"
    return f"no credential is named {name!r}; {cure}"


async def _wait_for(ticket: str, task: asyncio.Task[Result], request: Request) -> Response:
    try:
        wait = float(request.query_params.get("wait", _LONGEST_WAIT))
    except ValueError:
        wait = _LONGEST_WAIT
    done, _ = await asyncio.wait([task], timeout=max(0.0, min(wait, _LONGEST_WAIT)))
    if not done:
        return JSONResponse({"ticket": ticket}, HTTPStatus.ACCEPTED)
    if task.cancelled():
        raise BadRequestError(HTTPStatus.SERVICE_UNAVAILABLE, "stopping", "the daemon is stopping; see its log")
    result = task.result()
    if isinstance(result, Problem):
        status = _STATUS.get(result.reason, HTTPStatus.BAD_GATEWAY)
        return JSONResponse({"error": result.reason, "text": result.text}, status)
    if isinstance(result, tuple):
        return JSONResponse({"problems": list(result)})
    return JSONResponse({"credentials": [asdict(result)]})


async def _array_of(views: Iterator[CredentialView]) -> AsyncIterator[str]:
    yield '{"credentials": ['
    separator = ""
    for batch in iter(lambda: list(itertools.islice(views, _CHUNK)), []):
        yield separator + ",\n".join(json.dumps(asdict(one)) for one in batch)
        separator = ",\n"
        await asyncio.sleep(0)  # let a refresh go first
    yield "]}\n"


async def _texts(request: Request, *keys: str) -> list[str]:
    """Read a JSON body that is an object with these texts; no error shows what it holds."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_LIMIT:
            text = f"the request is larger than {_BODY_LIMIT // 1024} KiB"
            raise BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", text)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    found: dict[str, object] = document if isinstance(document, dict) else {}
    texts = [str(found[key]) for key in keys if isinstance(found.get(key), str) and found[key]]
    if len(texts) < len(keys):
        text = f"the request must be a JSON object with {' and '.join(keys)}, not empty"
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "bad_request", text)
    return texts


async def _bad_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequestError)  # noqa: S101 - Starlette's type of a handler is wider
    return JSONResponse({"error": error.reason, "text": error.text}, error.status)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    text = f"{error.detail}; are this command and the daemon of the same version?"
    return JSONResponse({"error": "bad_request", "text": text}, error.status_code, error.headers)


def open_control_socket(path: Path, gid: int | None) -> socket.socket | str:
    """Listen at `path`, mode 0660; a str says in one line why that is not possible.

    A socket that a killed daemon left is replaced, that of a living one never.
    """
    if _answers(path):
        return f"cannot listen at {path}: another rotator does; stop it, or set daemon.control_socket"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        listener.bind(str(temporary))
        if gid is not None:
            os.chown(temporary, -1, gid)
        # Nobody can connect before listen(), so nobody meets the socket with another mode.
        temporary.chmod(SOCKET_MODE)
        temporary.rename(path)
        listener.listen(128)
    except OSError as error:
        listener.close()
        temporary.unlink(missing_ok=True)
        cure = (
            "configure a shorter daemon.control_socket"
            if "too long" in str(error)
            else "check its directory and its owner"
        )
        return f"cannot listen at {path}: {error.strerror or error}; {cure}"
    listener.setblocking(False)  # noqa: FBT003 - socket has no keyword for it
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # its queue is full
        except OSError:
            return False
        return True
