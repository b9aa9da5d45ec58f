"""Everything the token endpoint can say that is not a plain CE-API answer.

Four tables, one vocabulary of names for switches, script, command line and books:

- `GRANT_ODDITIES` change an answer that grants tokens. The grant itself is real.
- `REFUSAL_ODDITIES` change how `invalid_grant` is told. In a script they refuse a request that was good.
- `FAULTS` stand in for whatever the answer would have been.
- `CONNECTION_FAULTS` leave the client without an answer.

A fault normally strikes before anything was done. With `after:` before its name it strikes after the
rotation was committed, so that the client never sees the pair that is now the only good one.
"""

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
HTML: Final = "text/html; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"

_PAGE: Final = b"<html><head><title>Please wait</title></head><body><h1>Please wait</h1></body></html>\n"
_GREETING: Final = b"Exception while refreshing token, please retry"


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer: status, body, and the headers that matter."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """A granted answer on its way out, with what an oddity may need to know."""

    fields: dict[str, Any]
    sent_refresh_token: str
    refresh_lifetime_seconds: float
    login_age_seconds: float


def json_reply(status: int, fields: object, *headers: tuple[str, str]) -> Reply:
    """Tell `fields` as a JSON answer that may not be cached (RFC 6749 section 5.1)."""
    return Reply(status, json.dumps(fields).encode(), JSON, (("Cache-Control", "no-store"), *headers))


def error_reply(status: int, error: str, description: str, *headers: tuple[str, str]) -> Reply:
    """Tell an error as RFC 6749 section 5.2 has it."""
    return json_reply(status, {"error": error, "error_description": description}, *headers)


def _with(**changed: Any) -> Callable[[Grant], Reply]:
    return lambda grant: json_reply(200, grant.fields | changed)


def _without(name: str) -> Callable[[Grant], Reply]:
    return lambda grant: json_reply(200, {key: value for key, value in grant.fields.items() if key != name})


def _lifetime(spell: Callable[[int], Any]) -> Callable[[Grant], Reply]:
    return lambda grant: json_reply(200, grant.fields | {"expires_in": spell(grant.fields["expires_in"])})


def _as(content_type: str, before: bytes = b"", after: bytes = b"") -> Callable[[Grant], Reply]:
    def reply(grant: Grant) -> Reply:
        return Reply(200, before + json.dumps(grant.fields).encode() + after, content_type)

    return reply


def _form_body(grant: Grant) -> Reply:
    fields = {key: value for key, value in grant.fields.items() if key != "scope"}
    return Reply(200, urlencode(fields).encode(), FORM)


def _many_digits(grant: Grant) -> Reply:
    """More digits than Python turns into an int."""
    text = json.dumps(grant.fields | {"expires_in": "DIGITS"}).replace('"DIGITS"', "9" * 5000)
    return Reply(200, text.encode(), JSON)


GRANT_ODDITIES: Final[dict[str, Callable[[Grant], Reply]]] = {
    "expires_in_string": _lifetime(str),
    "expires_in_padded": _lifetime(lambda seconds: f" {seconds} "),
    "expires_in_missing": _without("expires_in"),
    "expires_in_null": _with(expires_in=None),
    "expires_in_list": _lifetime(lambda seconds: [seconds]),
    "expires_in_dict": _lifetime(lambda seconds: {"seconds": seconds}),
    "expires_in_bool": _with(expires_in=True),
    "expires_in_float": _lifetime(lambda seconds: seconds + 0.7),
    "expires_in_zero": _with(expires_in=0),
    "expires_in_negative": _with(expires_in=-60),
    "expires_in_1e13": _with(expires_in="1e13"),
    "expires_in_huge": _with(expires_in=2**53),
    "expires_in_digits": _many_digits,
    "expires_in_nan": _with(expires_in=float("nan")),
    "expires_in_infinity": _with(expires_in=float("inf")),
    "expires_in_text": _with(expires_in="soon"),
    "expires_in_overstated": _lifetime(lambda seconds: 100 * seconds),
    "scope_array": _with(scope=["openid", "energy"]),
    "scope_string": _with(scope="openid energy"),
    "scope_empty": _with(scope=""),
    "scope_null": _with(scope=None),
    "scope_missing": _without("scope"),
    "scope_ints": _with(scope=[1, 2]),
    "refresh_token_absent": _without("refresh_token"),
    "refresh_token_null": _with(refresh_token=None),
    "refresh_token_empty": _with(refresh_token=""),
    "refresh_token_repeated": lambda grant: json_reply(200, grant.fields | {"refresh_token": grant.sent_refresh_token}),
    "refresh_expires_in": lambda grant: json_reply(
        200, grant.fields | {"refresh_expires_in": int(grant.refresh_lifetime_seconds)}
    ),
    "refresh_expires_in_shrinking": lambda grant: json_reply(  # a server with an absolute end of the session
        200,
        grant.fields | {"refresh_expires_in": max(0, int(grant.refresh_lifetime_seconds - grant.login_age_seconds))},
    ),
    "access_token_missing": _without("access_token"),
    "access_token_null": _with(access_token=None),
    "access_token_empty": _with(access_token=""),
    "id_token_missing": _without("id_token"),
    "token_type_lower": _with(token_type="bearer"),
    "token_type_missing": _without("token_type"),
    "error_null": _with(error=None),
    "html_type": _as(HTML),
    "text_type": _as(TEXT),
    "bom": _as(JSON, before=b"\xef\xbb\xbf"),
    "blanks": _as(JSON, before=b"\r\n\t ", after=b" \r\n\r\n"),
    "form_body": _form_body,
}

KEEPS_REFRESH_TOKEN: Final = frozenset({"refresh_token_absent", "refresh_token_null", "refresh_token_empty"})
"""An answer without a new refresh token says that the old one stays good (RFC 6749 section 6): these do not rotate."""

REFUSAL_ODDITIES: Final[dict[str, Callable[[str], Reply]]] = {
    "invalid_grant": lambda _: error_reply(400, "invalid_grant", "The refresh token is not valid."),
    "invalid_grant_text": lambda _: Reply(400, b"invalid_grant", TEXT),
    "invalid_grant_form": lambda _: Reply(400, b"error=invalid_grant&error_description=not+valid", FORM),
    "invalid_grant_401": lambda _: error_reply(401, "invalid_grant", "The refresh token is not valid."),
    "invalid_request": lambda _: error_reply(400, "invalid_request", "The refresh token is not valid."),
    "invalid_token": lambda _: error_reply(401, "invalid_token", "The refresh token is not valid."),
    "already_used": lambda _: error_reply(400, "invalid_request", "Token was already claimed by another client."),
    "echo": lambda sent: error_reply(400, "invalid_grant", f"Refresh token {sent} is not valid."),
    "401_empty": lambda _: Reply(401),
    "502_empty": lambda _: Reply(502),
}
"""Each takes the refresh token that was sent."""


def _redirect(status: int) -> Callable[[str], Reply]:
    return lambda _: Reply(status, _PAGE, HTML, (("Location", "/v3/token"),))


FAULTS: Final[dict[str, Callable[[str], Reply]]] = {
    "500": lambda _: Reply(500, b"Internal Server Error", TEXT),
    "502_html": lambda _: Reply(502, _PAGE, HTML),
    "502_empty": lambda _: Reply(502),
    "503": lambda _: Reply(503, _PAGE, HTML),
    "503_retry_after": lambda wait: Reply(503, _PAGE, HTML, (("Retry-After", wait),)),
    "429": lambda _: json_reply(429, {"message": "Too many requests"}),
    "429_retry_after": lambda wait: json_reply(429, {"message": "Too many requests"}, ("Retry-After", wait)),
    "403": lambda _: json_reply(403, {"message": "Forbidden"}),
    "404": lambda _: Reply(404, _PAGE, HTML),
    "301": _redirect(301),
    "302": _redirect(302),
    "307": _redirect(307),
    "308": _redirect(308),
    "200_error": lambda _: error_reply(200, "bad_refresh_token", "The refresh token is not valid."),
    "200_text": lambda _: Reply(200, _GREETING, TEXT),
    "200_html": lambda _: Reply(200, _PAGE, HTML),
    "200_empty": lambda _: Reply(200),
    "200_list": lambda _: json_reply(200, []),
    "200_cut": lambda _: Reply(200, b'{"access_token": "cut', JSON),
    "invalid_client": lambda _: error_reply(401, "invalid_client", "Client authentication failed."),
    "unauthorized_client": lambda _: error_reply(400, "unauthorized_client", "Not for this client."),
    "unsupported_grant_type": lambda _: error_reply(400, "unsupported_grant_type", "Not here."),
    "invalid_scope": lambda _: error_reply(400, "invalid_scope", "No such scope."),
}
"""Each takes the value for `Retry-After`."""

CONNECTION_FAULTS: Final = {
    "drop": "close the connection without a byte of answer",
    "reset": "the same with a TCP reset",
    "half": "commit, send the headers and half of the body, close",
    "hang": "do not answer until a switch changes or the client leaves",
}

AFTER: Final = "after:"


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one token request: nothing, a fault, or an odd way to answer."""

    fault: str = ""
    committed: bool = False
    oddity: str = ""

    def __str__(self) -> str:
        return f"{AFTER if self.committed else ''}{self.fault or self.oddity or 'ok'}"


def parse_step(name: str) -> Step:
    """Find the step called `name`; "ok" is the plain answer.

    Raises ValueError with the nearest name for an unknown one.
    """
    if name == "ok":
        return Step()
    if name in GRANT_ODDITIES:
        return Step(oddity=name)
    bare = name.removeprefix(AFTER)
    if bare in FAULTS or bare in REFUSAL_ODDITIES or bare in CONNECTION_FAULTS:
        return Step(bare, committed=bare != name or bare == "half")
    raise ValueError(f"unknown fault or odd answer {name!r}{_nearest(bare, [*FAULTS, *CONNECTION_FAULTS, *ODDITIES])}")


ODDITIES: Final = (*GRANT_ODDITIES, *REFUSAL_ODDITIES)


def check_oddity(name: str) -> None:
    """Raise ValueError with the nearest name if `name` is no oddity."""
    if name and name not in ODDITIES:
        raise ValueError(f"unknown odd answer {name!r}{_nearest(name, ODDITIES)}")


def check_fault(name: str) -> None:
    """Raise ValueError with the nearest name if `name` is no fault."""
    if name in GRANT_ODDITIES:
        raise ValueError(f"{name!r} is an odd answer, not a fault: use the switch 'odd'")
    if name:
        parse_step(name)


def _nearest(name: str, names: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
