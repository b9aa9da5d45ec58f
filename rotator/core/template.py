"""What stands in an output file: one of the named formats, or a template of the user's own."""

import json
import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from rotator.core.model import TokenSet

FORMATS: Final = ("raw", "header", "env", "json", "id_token")
PLACEHOLDERS: Final = (
    "access_token",
    "id_token",
    "token_type",
    "expires_at",
    "expires_at_iso",
    "scope",
    "generation",
)
_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_YEAR_9999: Final = 253402300799


def check_template(text: str) -> str | None:
    """Return what is wrong with a template, in words for the user, or None."""
    if not text.strip():
        return "the template is empty"
    for part in _PART.finditer(text):
        if part[0] in ("{", "}"):
            return f"a lone {part[0]} in the template: write {part[0] * 2} for the character itself"
        if part[1] is not None and part[1] not in PLACEHOLDERS:
            known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            return f"{part[0]} is unknown in a template: use {known}, and {{{{ for a brace"
    return None


def lack(templates: Collection[str], tokens: TokenSet) -> str:
    """Say what the server did not issue and one of the contents would be empty without; nothing if none would be.

    An output is never emptied (invariant 8).
    """
    if not tokens.access_token:
        return "an access token"
    if all(template in FORMATS and (template != "id_token" or tokens.id_token) for template in templates):
        return ""  # as nearly always
    empty = [template for template in templates if not render(template, tokens, 0, newline=False).strip()]
    if not empty:
        return ""
    return "an id token (scope openid?)" if any("id_token" in template for template in empty) else "a scope"


def render(template: str, tokens: TokenSet, wall_expires_at: float, *, newline: bool) -> bytes:
    """Return an output file's content.

    `template` is one of `FORMATS`, or a text that `check_template` finds nothing wrong with. The
    refresh token is in none of them. `wall_expires_at` (seconds since the epoch) is cut down to
    whole seconds. With `newline` the last line is ended.
    """
    if template == "raw":
        text = tokens.access_token
    elif template == "id_token":
        text = tokens.id_token or ""
    elif template == "header":
        text = f"Authorization: Bearer {tokens.access_token}"  # RFC 6750 section 2.1
    else:
        text = _filled_in(template, tokens, int(wall_expires_at))
    # A lone surrogate, which JSON lets a server send, must not raise here.
    return (text + "\n" * newline).encode(errors="backslashreplace")


def _filled_in(template: str, tokens: TokenSet, expires_at: int) -> str:
    instant = datetime.fromtimestamp(min(max(expires_at, 0), _YEAR_9999), UTC)
    values = {
        "access_token": tokens.access_token,
        "id_token": tokens.id_token or "",
        "token_type": tokens.token_type,
        "expires_at": str(expires_at),
        "expires_at_iso": instant.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "scope": tokens.scope,
        "generation": str(tokens.generation),
    }
    if template == "env":
        names = ("access_token", "token_type", "expires_at")
        return "\n".join(f"{name.upper()}={_quoted(values[name])}" for name in names)
    if template == "json":
        document: dict[str, object] = {
            **values,
            "expires_at": expires_at,
            "generation": tokens.generation,
        }
        if not tokens.id_token:
            del document["id_token"]
        return json.dumps(document)
    return _PART.sub(lambda part: part[0][0] if part[1] is None else values[part[1]], template)


def _quoted(value: str) -> str:
    """Quote for POSIX shells and for systemd's EnvironmentFile=."""
    return "'" + value.replace("'", "'\\''") + "'"
