"""The HTTP pages for machines: metrics, probes, status. No secrets, no changes.

The endpoints are plain functions: Starlette runs those in threads, so a large fleet never blocks the loop.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from http import HTTPStatus
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from rotator.core.standing import CredentialView
from rotator.ports import Desk

_CHUNK: Final = 200
_PAGE: Final = (
    "<!doctype html><meta charset=utf-8><title>rotator</title><p>rotator: "
    + " ".join(f'<a href="{path}">{path}</a>' for path in ("metrics", "livez", "readyz", "status"))
    + "</p>\n"
)


class Scraped(Protocol):
    """What `/metrics` shows."""

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return body and content type for this Accept header. Called from a thread."""


def make_app(desk: Desk, metrics: Scraped) -> ASGIApp:
    """Return the ASGI app that shows `desk` and `metrics`."""

    def show_metrics(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    def livez(_: Request) -> Response:
        health = desk.health()
        return _probe(health.live, {"live": health.live, "sweep_age_seconds": round(health.sweep_age_seconds, 3)})

    def readyz(_: Request) -> Response:
        health = desk.health()
        return _probe(
            health.ready, {"ready": health.ready, "credentials": health.credentials, "reasons": health.reasons}
        )

    def status(_: Request) -> Response:
        return StreamingResponse(_status(desk.views()), media_type="application/json")

    def index(_: Request) -> Response:
        return HTMLResponse(_PAGE)

    routes = (("/", index), ("/metrics", show_metrics), ("/livez", livez), ("/readyz", readyz), ("/status", status))
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in routes])


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
