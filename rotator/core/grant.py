"""The wire: which form asks for a token, and what any answer whatsoever means.

`classify` is total: every status and body has a meaning, and the meanings are few. It looks at no field of
a granted answer but the two tokens, because the pair is saved before anything else is judged
(invariant 2); `judge` reads the rest afterwards and never fails either.
"""

import base64
import binascii
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, urljoin

from rotator.core.model import (
    DAY,
    Answer,
    Grant,
    Granted,
    Oddity,
    Reason,
    Refused,
    RotationPolicy,
    TokenRequest,
    TokenSet,
    Unavailable,
)

Headers = Mapping[str, str]
"""Header names in lower case; values of repeated headers joined by a comma and a blank."""

_REFUSALS: Final = {
    # RFC 6749 section 5.2.
    "invalid_grant": Reason.INVALID_GRANT,
    "invalid_client": Reason.INVALID_CLIENT,
    "unauthorized_client": Reason.UNAUTHORIZED_CLIENT,  # Keycloak says this for a wrong secret
    "invalid_request": Reason.INVALID_REQUEST,
    "invalid_scope": Reason.INVALID_SCOPE,
    "unsupported_grant_type": Reason.UNSUPPORTED_GRANT_TYPE,
    # Vendors' own.
    "invalid_token": Reason.OTHER_REFUSAL,
    "bad_verification_code": Reason.OTHER_REFUSAL,  # GitHub, with status 200
    "bad_refresh_token": Reason.INVALID_GRANT,  # GitHub
    "incorrect_client_credentials": Reason.INVALID_CLIENT,  # GitHub
    "access_denied": Reason.OTHER_REFUSAL,
}
_PASSING: Final = {
    # RFC 6749 section 4.1.2.1 names these two for the authorization endpoint; token endpoints use them too.
    "temporarily_unavailable": Reason.UNAVAILABLE,
    "server_error": Reason.HTTP_5XX,
    "slow_down": Reason.RATE_LIMITED,
}
_REUSE_WORDS: Final = re.compile(
    r"(already|previously) (been )?(used|claimed|redeemed|exchanged)|claimed by|re-?used?\b", re.IGNORECASE
)
_VAGUE: Final = (None, Reason.INVALID_REQUEST, Reason.OTHER_REFUSAL)
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_OPAQUE: Final = re.compile(r"[\w.~+/=-]{24,}")
_BARE_CODE: Final = re.compile(r"[a-z]+(_[a-z]+)+")
_JSON: Final = json.JSONDecoder(
    # An absurd number must not cost the pair that came with it: int() refuses 5,000 digits.
    parse_int=lambda digits: float(digits) if len(digits) > 18 else int(digits)  # noqa: PLR2004
)
_LONGEST_LIFE: Final = 100 * 365 * DAY  # beyond it no calendar goes; as in the configuration
_ROUNDING: Final = 5.0  # seconds by which two spellings of one lifetime differ
_JUST_MADE: Final = 120.0  # seconds: two clocks of one server may differ
_TEXT_LIMIT: Final = 200
_MIN_SECRET: Final = 4
_CHARSET_LATIN: Final = "latin-1"


def refresh_request(
    grant: Grant, tokens: TokenSet | None, scope: str, extra: tuple[tuple[str, str], ...]
) -> TokenRequest:
    """Build the renewal form of RFC 6749 section 6, or that of section 4.4 for client credentials."""
    if grant is Grant.CLIENT_CREDENTIALS:
        fields: list[tuple[str, str]] = [("grant_type", "client_credentials")]
    else:
        refresh_token = (tokens.refresh_token if tokens else None) or ""
        fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)]
    if scope:
        fields.append(("scope", scope))
    return TokenRequest((*fields, *extra))


def password_request(username: str, password: str, scope: str, extra: tuple[tuple[str, str], ...]) -> TokenRequest:
    """Build the login form of RFC 6749 section 4.3; its two secrets are used once and kept nowhere."""
    fields = [("grant_type", "password"), ("username", username), ("password", password)]
    if scope:
        fields.append(("scope", scope))
    return TokenRequest((*fields, *extra))


def classify(status: int, headers: Headers, body: bytes, wall_now: float, token_url: str = "") -> Answer:
    """Say what an HTTP answer means.

    `wall_now` (instant) serves a Retry-After that is a date, `token_url` a redirect to a place that is named
    from there.
    """
    fields, form_encoded = _fields(body)
    success = 200 <= status < 300  # noqa: PLR2004 - status classes read best as numbers
    if success and fields is not None and (granted := _granted(fields, headers, form_encoded=form_encoded)):
        return granted
    code = _error_code(fields, body, status)
    retry_after = _retry_after(headers, wall_now)
    text = _description(fields, body)
    if success:
        return _classify_success(fields, code, status, text)
    if 300 <= status < 400:  # noqa: PLR2004
        target = _target(headers, token_url)
        what = f"to {target}; set token_url to {target}" if target else "and named no other place; check token_url"
        text = f"token endpoint answered {status} {what}"
        return Unavailable(Reason.REDIRECT, delivered=False, status=status, text=text)
    if status == 429:  # noqa: PLR2004
        return Unavailable(Reason.RATE_LIMITED, delivered=False, retry_after=retry_after, status=status, text=text)
    if status in (408, 425):
        return Unavailable(Reason.UNAVAILABLE, delivered=False, retry_after=retry_after, status=status, text=text)
    if status == 503 and retry_after is not None:  # noqa: PLR2004
        # A date to come back is a plain statement that nothing was done (RFC 9110 section 15.6.4).
        return Unavailable(Reason.UNAVAILABLE, delivered=False, retry_after=retry_after, status=status, text=text)
    if 400 <= status < 500:  # noqa: PLR2004
        return _classify_refusal(code, status, retry_after, text)
    # 5xx, and numbers nobody defined: a proxy may have lost a good answer behind them (case E13).
    return Unavailable(Reason.HTTP_5XX, delivered=True, retry_after=retry_after, status=status, text=text)


def _granted(fields: Mapping[str, object], headers: Headers, *, form_encoded: bool) -> Granted | None:
    access, refresh = _text(fields.get("access_token")), _text(fields.get("refresh_token"))
    if not access and (not refresh or fields.get("error")):
        return None
    raw = {key: value for key, value in fields.items() if key not in ("access_token", "refresh_token")}
    return Granted(access, refresh or None, raw, form_encoded, _date(headers.get("date", "")))


def _classify_success(fields: Mapping[str, object] | None, code: str, status: int, text: str) -> Answer:
    if fields is not None:
        if code:  # GitHub refuses with status 200 (case A29)
            return _classify_refusal(code, status, None, text)
        names = ", ".join(fields) or "none"
        text = f"no access_token in it, only these fields: {names}"
    return Unavailable(Reason.UNREADABLE_ANSWER, delivered=True, status=status, text=text)


def _classify_refusal(code: str, status: int, retry_after: float | None, text: str) -> Answer:
    if code in _PASSING:
        reason = _PASSING[code]
        delivered = reason is Reason.HTTP_5XX
        return Unavailable(reason, delivered, retry_after=retry_after, status=status, text=text)
    reason_or_none = _REFUSALS.get(code)
    # dex says invalid_request, Supabase has codes of its own; both are said of other things, too (case C19).
    of_the_token = reason_or_none is Reason.INVALID_GRANT or (reason_or_none in _VAGUE and "token" in text.lower())
    if of_the_token and _REUSE_WORDS.search(text.replace("_", " ")):
        return Refused(Reason.TOKEN_REUSE, status, text)
    if reason_or_none is not None:
        return Refused(reason_or_none, status, text)
    if status == 403:  # noqa: PLR2004 - firewalls and gateways answer it now and then (case E12)
        return Unavailable(Reason.FORBIDDEN, delivered=False, retry_after=retry_after, status=status, text=text)
    if status in (404, 405, 410):
        return Refused(Reason.OTHER_REFUSAL, status, f"{text or 'nothing is served there'}; check token_url".strip())
    return Refused(Reason.OTHER_REFUSAL, status, text)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _decode(body: bytes) -> str:
    try:
        # A BOM before JSON: cases A44, A45. Not "utf-8-sig": Python reads that codec from a file at its first use, and
        # nothing that can fail stands between an answer and its save.
        return body.decode().removeprefix("\ufeff").strip()
    except UnicodeDecodeError:
        return body.decode(_CHARSET_LATIN).strip()


def _fields(body: bytes) -> tuple[Mapping[str, object] | None, bool]:
    """Read a JSON object or a form, whatever the content type says (cases A39, A40)."""
    text = _decode(body)
    try:
        document = _JSON.decode(text)
        if _SURROGATE.search(text):  # half a character: no encoder takes it, so a token with it could not be saved
            document = json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        return document, False
    if "=" in text and not text.startswith(("<", "{", "[")):
        pairs = dict(parse_qsl(text))
        if "access_token" in pairs or "error" in pairs:
            return pairs, True
    return None, False


def _error_code(fields: Mapping[str, object] | None, body: bytes, status: int) -> str:
    if fields is not None:
        error = fields.get("error")
        if isinstance(error, dict):  # some gateways nest it: {"error": {"code": "invalid_grant"}}
            error = error.get("code") or error.get("type")
        return _text(error).lower()
    text = _decode(body[:256]).strip("\"' .").lower()
    if status >= 400 and (text in _REFUSALS or text in _PASSING):  # noqa: PLR2004 - Apereo CAS (case A34)
        return text
    first = _BARE_CODE.match(text)
    return first.group() if status >= 400 and first and first.group() in _REFUSALS else ""  # noqa: PLR2004


def _description(fields: Mapping[str, object] | None, body: bytes) -> str:
    if fields is not None:
        error = fields.get("error")
        within, names = (error, ("code", "type")) if isinstance(error, dict) else (fields, ("error", "error_code"))
        code = next(filter(None, (_text(within.get(name)) for name in names)), "")
        words = (_text(within.get(name)) for name in ("error_description", "message", "msg", "description"))
        return ": ".join(part for part in (code, next(filter(None, words), "")) if part)
    text = _decode(body[:1024])
    if text.startswith("<"):
        return "an HTML page"
    # Half an answer may hold fresh tokens that no list of live secrets knows yet (case J5).
    return f"{len(body)} unreadable bytes" if "_token" in text else _OPAQUE.sub("***", text)


def _target(headers: Headers, token_url: str) -> str:
    """Return where a redirect points, whole (RFC 9110 section 10.2.2) but for its query; empty if nowhere."""
    location = headers.get("location", "").split("?", 1)[0].strip()
    try:
        return urljoin(token_url, location) if location else ""
    except ValueError:
        return ""


def _retry_after(headers: Headers, wall_now: float) -> float | None:
    """Read Retry-After (RFC 9110 section 10.2.3): seconds or a date; past and negative are 0, garbage is None.

    Of several values the longest counts. A date is measured against the answer's own Date header if there is
    one, so that the two clocks need not agree.
    """
    value = headers.get("retry-after")
    if value is None:
        return None
    whole = _date(value)
    if whole is not None:
        reference = _date(headers.get("date", ""))
        return max(0.0, whole - (wall_now if reference is None else reference))
    seconds = [float(part) for part in value.split(",") if re.fullmatch(r"\s*-?\d{1,12}(\.\d*)?\s*", part)]
    return max(0.0, *seconds, 0.0) if seconds else None


@functools.lru_cache(16)  # a fleet gets many answers in a second
def _date(value: str) -> float | None:
    try:
        date = parsedate_to_datetime(value)
        # A zone of "-0000" or none at all means UTC (RFC 9110 section 5.6.7), never this machine's zone.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Make a server's words fit to show: live secrets replaced, one line, at most 200 characters (case J5)."""
    for secret in sorted(secrets, key=len, reverse=True):  # one may be part of another
        if len(secret) >= _MIN_SECRET:
            for spelling in (secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]):
                text = text.replace(spelling, "***")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"


@dataclass(frozen=True, slots=True)
class Judged:
    """A token set whose every field has been read, and what had to be tolerated on the way."""

    tokens: TokenSet
    oddities: tuple[Oddity, ...]


def judge(
    tokens: TokenSet, raw: Mapping[str, object], policy: RotationPolicy, asked_scope: str,
    served_at: float | None = None, *, repeated: bool = False,
) -> Judged:  # fmt: skip
    """Read the fields of a saved answer: lifetimes, scope, type, id token. Total: nothing raises.

    `tokens` is the set as saved, whose instants assume the default lifetime; `raw` is what came with it at the instant
    `served_at` of the server's clock. `repeated`: its access token was handed out before, and ends as it did then.
    """
    oddities: list[Oddity] = []
    lifetime = _lifetime(raw.get("expires_in"), policy, oddities)
    unstated = Oddity.EXPIRES_IN_MISSING in oddities or Oddity.EXPIRES_IN_ODD in oddities
    jwt_lifetime = _jwt_lifetime(tokens.access_token, tokens.obtained_at, served_at)
    if jwt_lifetime is not None and jwt_lifetime < lifetime:
        if lifetime - jwt_lifetime > _ROUNDING:
            oddities.append(Oddity.JWT_EXPIRES_EARLIER)
        lifetime = jwt_lifetime
    left = tokens.expires_at - tokens.obtained_at
    # Handed out beyond an end that was only assumed: then it lives longer than that.
    if repeated and (jwt_lifetime is not None or (unstated and left > 0)):
        lifetime = min(lifetime, max(0.0, left))
    scope = _scope(raw.get("scope"), tokens.scope, oddities)
    if is_another_scope(scope, asked_scope):
        oddities.append(Oddity.SCOPE_CHANGED)
    token_type = _text(raw.get("token_type")) or "Bearer"
    if token_type.lower() == "bearer":  # RFC 6749 section 7.1: the type's name has no case
        token_type = "Bearer"
    id_token = raw.get("id_token")
    if id_token is not None and not isinstance(id_token, str):
        oddities.append(Oddity.ID_TOKEN_ODD)
    refresh_lifetime = _refresh_lifetime(raw)
    return Judged(
        replace(
            tokens,
            expires_at=tokens.obtained_at + lifetime,
            scope=scope,
            token_type=token_type,
            id_token=_text(id_token) or tokens.id_token,
            refresh_expires_at=(
                tokens.refresh_expires_at if refresh_lifetime is None else tokens.obtained_at + refresh_lifetime
            ),
        ),
        tuple(oddities),
    )


def is_another_scope(granted: str, asked: str) -> bool:
    """Tell whether a scope is not the one asked for, whatever its order; where either is not known it is not said."""
    return bool(granted and asked) and set(granted.split()) != set(asked.split())


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return float(min(max(value, -(2**53)), 2**53))
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d{1,32}(\.\d*)?([eE][-+]?\d{1,3})?\s*", value):
        value = float(value)
    return value if isinstance(value, float) and math.isfinite(value) else None


def _lifetime(value: object, policy: RotationPolicy, oddities: list[Oddity]) -> float:
    """Read `expires_in` (RFC 6749 section 5.1, seconds) in every spelling that was seen."""
    number = _number(value)
    if number is None:
        oddities.append(Oddity.EXPIRES_IN_MISSING if value is None else Oddity.EXPIRES_IN_ODD)
        return policy.assumed_lifetime
    if isinstance(value, str):
        oddities.append(Oddity.EXPIRES_IN_TEXT)
    if number > policy.max_lifetime:
        oddities.append(Oddity.EXPIRES_IN_CLAMPED)
        return policy.max_lifetime
    return float(max(0, math.floor(number)))


def _jwt_lifetime(access_token: str, obtained_at: float, served_at: float | None) -> float | None:
    """Read the lifetime a JWT has left (RFC 7519 section 4.1.4).

    It is counted by the server's clock if possible, so that ours need not be right: from `iat`, or from `served_at` if
    the server has handed out a token that it made long before (case L10).
    """
    parts = access_token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    if not isinstance(payload, dict):
        return None
    end, start = _number(payload.get("exp")), _number(payload.get("iat"))
    if end is None:
        return None
    if served_at is not None and served_at < end and (start is None or served_at - start > _JUST_MADE):
        start = served_at
    return max(0.0, end - (obtained_at if start is None else start))


def _refresh_lifetime(raw: Mapping[str, object]) -> float | None:
    """Read the refresh token's lifetime: no standard field; Keycloak, GitHub and others name it themselves."""
    for key in ("refresh_expires_in", "refresh_token_expires_in"):
        number = _number(raw.get(key))
        if number is not None and number > 0:  # Keycloak: 0 means no end, or no refresh token at all
            return min(math.floor(number), _LONGEST_LIFE)  # 2^63 - 1 from servers whose tokens have no end
    return None


def _scope(value: object, before: str, oddities: list[Oddity]) -> str:
    """Read `scope`: a string (RFC 6749 section 3.3), or an array (CE-API, Netatmo); absent means unchanged."""
    if value is None:
        return before
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, list):
        words = [word for word in value if isinstance(word, str)]
        if len(words) != len(value):
            oddities.append(Oddity.SCOPE_SHAPE)
        return " ".join(words)
    oddities.append(Oddity.SCOPE_SHAPE)
    return before
