"""CE-API over HTTP: two token endpoints and a protected resource. `control` adds the paths below `/sandbox/`."""

import asyncio
import time
from base64 import b64decode
from collections import Counter
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from rotator.sandbox import odd
from rotator.sandbox.authorization_server import ClientPair, Granted, Refused
from rotator.sandbox.connection import HalfAnswer, NoAnswer
from rotator.sandbox.control import control_routes
from rotator.sandbox.odd import Reply, Step
from rotator.sandbox.sandbox import Sandbox

_LOOK_SECONDS: Final = 0.02

Form = dict[str, str]


def create_app(sandbox: Sandbox) -> Starlette:
    """Make the ASGI application that answers for `sandbox`."""

    async def resource(request: Request) -> Response:
        return _call_resource(sandbox, request)

    app = Starlette(
        routes=[
            Route("/v2/token", TokenEndpoint(sandbox, version=2), methods=["POST"]),
            Route("/v1/token", TokenEndpoint(sandbox, version=1), methods=["POST"]),
            Route("/v2/me", resource, methods=["GET"]),
            *control_routes(sandbox),
        ]
    )
    app.router.redirect_slashes = False  # a redirect is a fault here, and must be asked for
    return app


class TokenEndpoint:
    """An ASGI application for one path: reads the request, lets the step of this request happen, answers."""

    def __init__(self, sandbox: Sandbox, *, version: int) -> None:
        self._sandbox = sandbox
        self._server = sandbox.authorization_server
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one token request, or leave it without an answer."""
        request = Request(scope, receive, send)
        try:
            form = _read_form(request, await request.body())
        except ClientDisconnect:
            return  # it went away before its request was whole: nothing was asked
        sent = "" if isinstance(form, Refused) else form.get("refresh_token", "")
        changes = self._sandbox.changes  # before its fate is known: whoever sees the fate taken may turn a switch
        step = self._sandbox.next_step()
        with self._server.under_way(sent):
            if wait := self._sandbox.switches.latency_seconds:
                await self._delay(wait, changes)
            response = await self._respond(request, form, sent, step, changes)
            await response(scope, receive, send)

    async def _respond(self, request: Request, form: Form | Refused, sent: str, step: Step, changes: int) -> Response:
        if step.fault and not step.committed:
            if step.fault != "hang":
                self._server.count_request(str(step))
                return self._strike(step.fault, sent)
            if not await self._hang(request, changes):
                self._server.count_request(str(step))
                return Response()
            step = Step()  # let go: an ordinary request from here on
        answer = self._ask(request, form, step)
        outcome = "granted" if isinstance(answer, Granted) else answer.error
        self._server.count_request(str(step) if step.fault else outcome)
        if step.fault not in {"", "half", "hang"}:
            return self._strike(step.fault, sent)
        if step.fault == "hang":
            await self._hang(request, changes)
        return _response(self._word(answer, sent, step.oddity), HalfAnswer if step.fault == "half" else Response)

    async def _delay(self, seconds: float, changes: int) -> None:
        """Wait, whether or not the client is still there; a turned switch ends it, and so does the server's stop."""
        end = time.monotonic() + seconds
        left = seconds
        while left > 0 and self._sandbox.changes == changes:
            await asyncio.sleep(min(left, _LOOK_SECONDS))
            left = end - time.monotonic()

    async def _hang(self, request: Request, changes: int) -> bool:
        """Wait until a switch is turned that had not been at `changes`; whether the client is still there."""
        while self._sandbox.changes == changes:
            await asyncio.sleep(_LOOK_SECONDS)
            if await request.is_disconnected():
                return False
        return True

    def _ask(self, request: Request, form: Form | Refused, step: Step) -> Granted | Refused:
        if isinstance(form, Refused):
            return form
        basic = _read_basic(request)
        if isinstance(basic, Refused):
            return basic
        switches = self._sandbox.switches
        if self._version == 1:
            return self._server.client_token(form, basic, switches)
        return self._server.user_token(form, basic, switches, rotate=step.oddity not in odd.KEEPS_REFRESH_TOKEN)

    def _strike(self, fault: str, sent: str) -> Response:
        if fault in odd.CONNECTION_FAULTS:
            return NoAnswer(reset=fault == "reset")
        if fault in odd.FAULTS:
            return _response(odd.FAULTS[fault](self._sandbox.switches.retry_after))
        return _response(odd.REFUSAL_ODDITIES[fault](sent))

    def _word(self, answer: Granted | Refused, sent: str, oddity: str) -> Reply:
        if isinstance(answer, Granted):
            reword = odd.GRANT_ODDITIES.get(oddity)
            grant = odd.Grant(answer.fields, sent, self._sandbox.switches.refresh_lifetime, answer.age)
            return reword(grant) if reword else odd.json_reply(200, answer.fields)
        if answer.error == "invalid_grant" and oddity in odd.REFUSAL_ODDITIES:
            return odd.REFUSAL_ODDITIES[oddity](sent)
        # RFC 6749 section 5.2 wants the challenge only when the header was used; to send it always does no harm
        challenge = (("WWW-Authenticate", "Basic"),) if answer.error == "invalid_client" else ()
        return odd.error_reply(answer.status, answer.error, answer.description, *challenge)


def _response(reply: Reply, kind: type[Response] = Response) -> Response:
    return kind(reply.body, reply.status, dict(reply.headers), media_type=reply.content_type)


def _read_form(request: Request, body: bytes) -> Form | Refused:
    """Read the form fields; one without a value counts as omitted (RFC 6749 section 3.2)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != odd.FORM:
        return Refused("invalid_request", f"The body must be {odd.FORM}.", 415)
    try:
        pairs = parse_qsl(body.decode(), errors="strict")
    except ValueError:
        return Refused("invalid_request", "The body is no UTF-8 form.")
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        return Refused("invalid_request", f"{twice[0]} is there more than once.")
    return dict(pairs)


def _read_basic(request: Request) -> ClientPair | Refused | None:
    """Read client id and secret from the Authorization header, each form-encoded (RFC 6749 section 2.3.1)."""
    scheme, _, word = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        return None
    try:
        client_id, colon, secret = b64decode(word, validate=True).decode().partition(":")
    except ValueError:
        colon = client_id = secret = ""
    if scheme.lower() != "basic" or not colon:
        return Refused("invalid_client", "The Authorization header must be Basic.", 401)
    return unquote_plus(client_id), unquote_plus(secret)


def _call_resource(sandbox: Sandbox, request: Request) -> Response:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bare = scheme.lower() != "bearer" or not token
    verdict = sandbox.authorization_server.call_resource(None if bare else token, sandbox.switches)
    if verdict == "good":
        return JSONResponse({"status": "good"})
    if bare:  # RFC 6750 section 3.1: no error code for a request without a token
        return JSONResponse({"error": "no token"}, 401, {"WWW-Authenticate": "Bearer"})
    challenge = f'Bearer error="invalid_token", error_description="{verdict}"'
    return JSONResponse({"error": "invalid_token", "error_description": verdict}, 401, {"WWW-Authenticate": challenge})
