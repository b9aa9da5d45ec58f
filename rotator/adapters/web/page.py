"""The status page for people: one list, one page for each credential, three files. It only shows, and knows no secret.

Pages are made one after another in a thread, so that a crowd of viewers costs no more than one of them, and sweep and
probes go on meanwhile. Jinja2 escapes everything: what a hostile server writes into an error stays text.
"""

import asyncio
import functools
import hashlib
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from rotator import VERSION
from rotator.adapters.web.show import clock_time, iso, shown, utc
from rotator.adapters.web.survey import PAGE_SIZE, SORTS, Level, Question, survey
from rotator.core.standing import span
from rotator.ports import Desk

if TYPE_CHECKING:
    import jinja2

_HERE: Final = Path(__file__).parent
_STATIC: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_PAGE_DIGITS: Final = 6
_LONGEST_TEXT: Final = 200
_REFRESH_SECONDS: Final = 5
_LOOKED_AT_PER_SECOND: Final = 1000
_WITHOUT_SCRIPT_SECONDS: Final = 30


class StatusPage:
    """Makes the pages. What they need (Jinja2, the files) is loaded when somebody first asks."""

    def __init__(self, desk: Desk, wall: Callable[[], float]) -> None:
        """Show what `desk` knows; `wall` tells the time its instants are compared with."""
        self._desk = desk
        self._wall = wall
        self._turn = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """Answer a request for the list, for the credential `name` or for the static `file`, as its path says."""
        if "file" in request.path_params:
            return self._static(request, request.path_params["file"])
        async with self._turn:
            if await request.is_disconnected():
                return Response(status_code=HTTPStatus.NO_CONTENT)  # nobody waits for it any more
            if "name" in request.path_params:
                made = run_in_threadpool(self._one, request.path_params["name"], request.query_params)
            else:
                made = run_in_threadpool(self._list, request.query_params)
            body, status = await made
        return Response(body, status, headers=_HEADERS, media_type="text/html")

    def _static(self, request: Request, file: str) -> Response:
        if file not in _STATIC:
            return Response("not found\n", HTTPStatus.NOT_FOUND, media_type="text/plain")
        body, tag = _file(file)
        asked_for = request.query_params.get("v") == tag
        headers = {"ETag": f'"{tag}"', "Cache-Control": _FOR_EVER if asked_for else "no-cache"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(body, headers=headers, media_type=_STATIC[file])

    def _list(self, query: Mapping[str, str]) -> tuple[str, int]:
        question = asked(query)
        now = self._wall()
        found = survey(self._desk.views(), question, now)
        views = (self._desk.find(name) for name in found.names)
        return self._written(
            "list.html", query, found.total, now, root="", question=question, found=found, page_size=PAGE_SIZE,
            rows=[shown(view, now) for view in views if view is not None], link=functools.partial(_link, query),
        ), HTTPStatus.OK  # fmt: skip

    def _one(self, name: str, query: Mapping[str, str]) -> tuple[str, int]:
        view = self._desk.find(name)
        now = self._wall()
        one = None if view is None else shown(view, now, most_outputs=1000)
        status = HTTPStatus.OK if one else HTTPStatus.NOT_FOUND
        return self._written("credential.html", query, 1, now, root="../", name=name, one=one), status

    def _written(self, template: str, query: Mapping[str, str], credentials: int, now: float, **told: Any) -> str:
        live = query.get("live") != "off"
        seconds = refresh_seconds(credentials) if live else 0
        return _templates().get_template(template).render(
            told, now=now, counts=self._desk.counts(), live=live, seconds=seconds, host=socket.gethostname(),
            seconds_without_script=max(seconds, _WITHOUT_SCRIPT_SECONDS), version=VERSION, levels=list(Level),
        )  # fmt: skip


def asked(query: Mapping[str, str]) -> Question:
    """Read what the address asks for; nonsense counts as not said."""
    level, sort, page = query.get("show", ""), query.get("sort", ""), query.get("page", "")
    return Question(
        text=query.get("q", "")[:_LONGEST_TEXT].strip(),
        level=Level(level) if level in list(Level) else None,
        sort=sort if sort in SORTS else "urgency",
        page=max(1, int(page)) if page.isascii() and page.isdecimal() and len(page) <= _PAGE_DIGITS else 1,
    )


def refresh_seconds(credentials: int) -> int:
    """Return how often a page refreshes itself: a viewer of a large fleet costs no more than one of a small one."""
    return max(_REFRESH_SECONDS, credentials // _LOOKED_AT_PER_SECOND)


def _link(query: Mapping[str, str], **changes: str) -> str:
    """Return the address of this list with some things changed. Another question starts at its first page."""
    kept = {key: query[key] for key in ("q", "show", "sort", "live") if query.get(key)}
    pairs = {key: value for key, value in (kept | changes).items() if value}
    return f"?{urlencode(pairs)}" if pairs else "./"


@functools.cache
def _file(name: str) -> tuple[bytes, str]:
    body = (_HERE / name).read_bytes()
    return body, hashlib.sha256(body).hexdigest()[:12]


@functools.cache
def _templates() -> "jinja2.Environment":
    import jinja2  # noqa: PLC0415 - a daemon whose page nobody opens pays nothing for it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, auto_reload=False,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"span": span, "utc": utc, "iso": iso, "clock_time": clock_time}
    environment.globals["static"] = lambda name: f"static/{name}?v={_file(name)[1]}"
    return environment
