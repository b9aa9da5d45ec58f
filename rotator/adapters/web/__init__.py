"""The HTTP pages: metrics, probes and status for machines, and the status page for people. No secrets, no changes.

The endpoints are plain functions: Starlette runs those in threads, so a large fleet never blocks the loop.
"""

import functools
import ipaddress
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rotator.core.standing import CredentialView
from rotator.ports import Desk

if TYPE_CHECKING:
    from rotator.adapters.web.page import StatusPage

_CHUNK: Final = 200
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Scraped(Protocol):
    """What `/metrics` shows."""

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return body and content type for this Accept header. Called from a thread."""


def make_app(
    desk: Desk,
    metrics: Scraped,
    *,
    status_page: bool = True,
    own_names_only: bool = False,
    wall: Callable[[], float] = time.time,
) -> ASGIApp:
    """Return the ASGI app that shows `desk` and `metrics`.

    `own_names_only`: answer only requests that call us by `localhost` or an IP address. Right on a loopback address,
    where a web site whose name suddenly means 127.0.0.1 (DNS rebinding) could otherwise read along in a browser.
    """

    def show_metrics(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    def livez(_: Request) -> Response:
        pulse = desk.pulse()
        return _probe(pulse.live, {"live": pulse.live, "sweep_age_seconds": round(pulse.sweep_age_seconds, 3)})

    def readyz(_: Request) -> Response:
        found = desk.readiness()
        return _probe(found.ready, {"ready": found.ready, "credentials": found.credentials, "reasons": found.reasons})

    def status(_: Request) -> Response:
        return StreamingResponse(_status(desk.views()), media_type="application/json")

    pages = (("/metrics", show_metrics), ("/livez", livez), ("/readyz", readyz), ("/status", status))
    routes = [Route(path, endpoint) for path, endpoint in pages]
    if status_page:
        page = _page_for_people(desk, wall)
        routes += [Route(path, page) for path in ("/", "/credentials/{name}", "/static/{file}")]
    return _Guard(Starlette(routes=routes), own_names_only=own_names_only)


def _page_for_people(desk: Desk, wall: Callable[[], float]) -> Callable[[Request], Awaitable[Response]]:
    @functools.cache
    def page() -> "StatusPage":
        from rotator.adapters.web.page import StatusPage  # noqa: PLC0415 - who never opens it pays nothing for it

        return StatusPage(desk, wall)

    async def show(request: Request) -> Response:
        return await page().answer(request)

    return show


class _Guard:
    """Sets the headers that every answer has, and refuses requests that call us by somebody else's name."""

    def __init__(self, app: ASGIApp, *, own_names_only: bool) -> None:
        self._app = app
        self._own_names_only = own_names_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        host = Headers(scope=scope).get("host", "")
        if self._own_names_only and not is_own_name(host):
            text = "rotator listens on a loopback address and answers there to localhost and IP addresses only\n"
            await PlainTextResponse(text, HTTPStatus.MISDIRECTED_REQUEST)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine reaches a listener's address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_own_name(host: str) -> bool:
    """Tell whether a Host header holds no name that somebody else's DNS could answer for."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name.lower().rstrip(".") in ("", "localhost"):  # no name at all: HTTP/1.0, and no browser
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _probe(good: bool, body: dict[str, object]) -> Response:  # noqa: FBT001 - what a probe is about
    return JSONResponse(body, HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE)


def _status(views: Iterator[CredentialView]) -> Iterator[str]:
    """Write piece by piece: 100,000 credentials are never in memory at once."""
    yield '{"credentials": ['
    separator = ""
    while part := list(itertools.islice(views, _CHUNK)):
        yield separator + ",\n".join(json.dumps(asdict(view)) for view in part)
        separator = ",\n"
    yield "]}\n"
