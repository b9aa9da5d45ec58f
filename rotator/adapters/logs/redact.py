"""Takes secrets out of texts, by what stands around them or how they look.

Our own texts hold none. This is the second lock on the door, for what libraries write and exceptions quote, so it
would rather take a harmless word too many. It knows no live secret: a hundred thousand of them would have to be
looked for in each line.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

REDACTED: Final = "[redacted]"

_NAMES: Final = (
    r"(?:access_?token|refresh_?token|id_?token|client_?secret|(?:client_)?assertion|device_?code|code_?verifier"
    r"|pass_?word|passwd|passphrase|user_?name|api_?key|private_?key|token|secret)"
)
_HEADERS: Final = r"(?:(?:proxy-)?authorization|(?:set-)?cookie|x-api-key)"
_QUOTE: Final = r"\\*[\"']"
# A quoted value ends at its quote, which may be escaped in a text that was itself quoted before.
_QUOTED: Final = r"(?:(?P<q>[\"'])(?:\\.|(?!(?P=q)).)*(?P=q)?|(?P<r>\\+[\"'])(?:(?!(?P=r)).)*(?P=r)?)"
_BARE: Final = r"[^\s\"'&,;<>()\[\]{}\\]+"
_PATTERNS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), replacement)
    for pattern, replacement in (
        # "password": "x"; 'password': b'x'; (b'authorization', b'Basic x'); password='x'
        (
            rf"(?<![a-z0-9])((?:{_NAMES}|{_HEADERS})(?:{_QUOTE})?\s*[:=,]\s*b?){_QUOTED}",
            rf"\1{REDACTED}",
        ),
        # Authorization: Bearer x, to the end of the line
        (rf"(\b{_HEADERS}\s*[:=]\s*+)(?!\[redacted)[^\r\n]+", rf"\1{REDACTED}"),
        # password=x&; "password": 17
        (rf"(?<![a-z0-9])({_NAMES}(?:{_QUOTE}\s*[:=]|=)\s*)(?!{_QUOTE}|\[redacted){_BARE}", rf"\1{REDACTED}"),
        # access_token: 2YotnFZFEjr1zCsicMWpAA; but not client_secret: cannot read
        (rf"(?<![a-z0-9])({_NAMES}:\s*)(?=(?-i:[a-z]*[0-9A-Z]))[\w.~+/-]{{12,}}=*", rf"\1{REDACTED}"),
        # The scheme tells, wherever it stands; but not Basic authentication
        (
            r"\b(Bearer|Basic|N2G-LAN-USER)(\s+)(?=(?-i:[a-z]*[A-Z0-9_~+/=-]))[\w.~+/-]{6,}=*(?![^\s\"',;)\]}])",
            rf"\1\2{REDACTED}",
        ),
        # https://user:password@host
        (r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"']+@", rf"\1{REDACTED}@"),
        # A JWT, whole or cut
        (r"\beyJ[\w-]{8,}(?:\.[\w-]*)*", REDACTED),
    )
)
# What every one of the patterns needs: nearly all texts have none of it and are looked at once, not seven times.
_SUSPICIOUS: Final = re.compile(
    rf"(?:{_NAMES}|{_HEADERS})(?:{_QUOTE})?\s*[:=,]|(?:Bearer|Basic|N2G-LAN-USER)\s|://|eyJ", re.IGNORECASE
)
# And what is needed for that: most texts are one word, a name, which this finds out in a tenth of the time.
_MORE_THAN_A_NAME: Final = re.compile(r"[\s:=,]|[eE][yY][jJ]")
_SECRET_KEY: Final = re.compile(rf"(?:.*[_\-.])?(?:{_NAMES}|{_HEADERS})", re.IGNORECASE)


def redact(text: str) -> str:
    """Return the text with everything that may be a secret replaced."""
    if not _MORE_THAN_A_NAME.search(text) or not _SUSPICIOUS.search(text):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_fields(fields: Mapping[Any, object]) -> dict[str, object]:
    """Return fields as JSON can show them, redacted; one whose name is a secret's shows nothing."""
    shown = {}
    for key, value in fields.items():
        name, is_secret = _judge_key(str(key))
        shown[name] = REDACTED if is_secret else _redact_value(value)
    return shown


@functools.lru_cache(256)
def _judge_key(key: str) -> tuple[str, bool]:
    """Return the key as it may be shown, and whether its value may not; the same few come with every line."""
    return redact(key), _SECRET_KEY.fullmatch(key) is not None


def _redact_value(value: object) -> object:
    if isinstance(value, str):  # as nearly always
        return redact(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return redact_fields(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value(each) for each in value]
    return redact(str(value))
