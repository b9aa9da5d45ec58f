"""The paths below `/sandbox/`: turn switches, write the script, read the books, while it runs."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rotator.sandbox import odd
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.switches import Switches

_MAX_ISSUE: Final = 100_000

INDEX: Final = {
    "paths": {
        "POST /v2/token": "password and refresh_token grants",
        "POST /v1/token": "client_credentials grant",
        "GET /v2/me": "protected resource",
        "GET /sandbox/books": "what was seen so far",
        "GET /sandbox/switches": "the switches now",
        "PATCH /sandbox/switches": 'turn switches: {"rotation": false}',
        "GET /sandbox/script": "steps that are still to come",
        "POST /sandbox/script": 'fate of the next token requests: ["ok", "after:drop", "503"]',
        "POST /sandbox/issue": 'token answers without a password: {"count": 3, "user": "…"}',
        "POST /sandbox/revoke": 'revoke every grant, or those of {"user": "…"}',
    },
    "switches": {each.name: each.metadata["meaning"] for each in fields(Switches)},
    "faults": [*odd.FAULTS, *odd.REFUSAL_ODDITIES],
    "connection_faults": odd.CONNECTION_FAULTS,
    "fault_prefix": {odd.AFTER: "the fault strikes after the rotation was committed"},
    "odd": list(odd.ODDITIES),
}


def control_routes(sandbox: Sandbox) -> list[Route]:
    """Make the routes below `/sandbox/` for `sandbox`."""
    table: list[tuple[str, str, Callable[[Sandbox, Any], Any]]] = [
        ("GET", "/sandbox/", lambda _sandbox, _body: INDEX),
        ("GET", "/sandbox/books", lambda sandbox, _body: sandbox.books.as_json()),
        ("GET", "/sandbox/switches", lambda sandbox, _body: asdict(sandbox.switches)),
        ("PATCH", "/sandbox/switches", lambda sandbox, body: asdict(sandbox.change(**_object(body)))),
        ("GET", "/sandbox/script", lambda sandbox, _body: sandbox.script_left),
        ("POST", "/sandbox/script", _write_script),
        ("POST", "/sandbox/issue", _issue),
        ("POST", "/sandbox/revoke", lambda sandbox, body: {"revoked": sandbox.revoke(_user(_object(body)))}),
    ]
    return [Route(path, _json_endpoint(sandbox, answer), methods=[method]) for method, path, answer in table]


def _json_endpoint(sandbox: Sandbox, answer: Callable[[Sandbox, Any], Any]) -> Callable[[Request], Any]:
    """Take JSON (nothing counts as an empty object), give JSON; tell wrong input with status 400."""

    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(answer(sandbox, json.loads(await request.body() or b"{}")))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)

    return endpoint


def _write_script(sandbox: Sandbox, body: Any) -> list[str]:
    if not isinstance(body, list) or not all(isinstance(step, str) for step in body):
        raise ValueError("the body must be a JSON list of steps")
    sandbox.script(body)
    return sandbox.script_left


def _issue(sandbox: Sandbox, body: Any) -> list[dict[str, Any]]:
    asked = _object(body)
    count = asked.get("count", 1)
    if type(count) is not int or not 0 < count <= _MAX_ISSUE:
        raise ValueError(f"'count' must be 1 to {_MAX_ISSUE}")
    return [sandbox.issue(_user(asked)) for _ in range(count)]


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004 -- the caller's input, not a type mistake
    return body


def _user(asked: dict[str, Any]) -> str | None:
    user = asked.get("user")
    if user is not None and not isinstance(user, str):
        raise ValueError("'user' must be a string")
    return user
