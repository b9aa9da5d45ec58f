"""The kinds of value a setting may have: each reads what TOML gave and says what is wrong with it.

All raise ValueError with the end of a sentence that starts with the setting's name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, PlainValidator, ValidationInfo, WithJsonSchema

from rotator.config.durations import parse_duration
from rotator.config.source import NAME_MARK, InputError, Source, SourceKind
from rotator.core.template import FORMATS, PLACEHOLDERS, check_template

SOURCE_FORMS: Final = (
    'a text in quotes, { file = "/path" }, { env = "NAME" }, { credential = "name" } '
    'or { command = ["program", "argument"] }'
)
_NO_NAME_HERE: Final = "cannot use {name} here: it works in client_secret, seed, extra, hooks, and where outputs go"
_LIST_SCHEMA: Final = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_SOURCE_SCHEMA: Final[dict[str, Any]] = {
    "$comment": "text",
    "anyOf": [
        {"type": "string"},
        *(
            {
                "type": "object",
                "properties": {kind: {"type": "string"}},
                "required": [kind],
                "additionalProperties": False,
            }
            for kind in ("file", "env", "credential")
        ),
        {
            "type": "object",
            "properties": {"command": _LIST_SCHEMA},
            "required": ["command"],
            "additionalProperties": False,
        },
    ],
}
_DURATION_SCHEMA: Final[dict[str, Any]] = {
    "$comment": "duration",
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$"},
    ],
}


class UnreadableError(ValueError):
    """What is written is right; what it points to cannot be read here and now."""


def to_source(value: object) -> Source:
    """Read one of the five ways to write a text."""
    if isinstance(value, str):
        source = Source(SourceKind.IN_PLACE, value)
        if isinstance(problem := source.read({}), InputError):
            raise ValueError(problem.text.removeprefix(source.describe()).strip())  # noqa: TRY004
        return source
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError(f"must be {SOURCE_FORMS}")
    ((kind, place),) = value.items()
    if kind not in ("file", "env", "credential", "command"):
        raise ValueError(f"must be {SOURCE_FORMS}")
    if kind == "command":
        return Source(SourceKind.COMMAND, _arguments(place))
    if not isinstance(place, str) or not place or "\0" in place:
        raise ValueError(f"{kind} must be a text in quotes")
    if kind == "file" and not place.startswith("/"):
        raise ValueError("file must be an absolute path")
    if kind == "credential" and ("/" in place or place in (".", "..")):
        raise ValueError("credential must be a name without '/', as in LoadCredential= of the unit")
    return Source(SourceKind(kind), place)


def _arguments(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
        raise ValueError('command must be a list of texts: ["/path/of/program", "argument"]; there is no shell')
    return tuple(value)


def _to_document(value: object) -> Source:
    if isinstance(value, str):
        return Source(SourceKind.IN_PLACE, value, document=True)
    source = to_source(value)
    return Source(source.kind, source.value, document=True)


def _to_text(value: object, info: ValidationInfo) -> str:
    """Read the text now: settings that are no secrets are fixed until the next reload."""
    text = _to_pattern(value, info)
    if NAME_MARK in text:
        raise ValueError(_NO_NAME_HERE)
    return text


def _to_pattern(value: object, info: ValidationInfo) -> str:
    source = to_source(value)
    if source.per_name:
        raise ValueError(_NO_NAME_HERE)
    text = source.read((info.context or {}).get("environ", {}))
    if isinstance(text, InputError):
        raise UnreadableError(text.text)
    return text


def _to_path(value: object, info: ValidationInfo) -> Path:
    return Path(_absolute(_to_text(value, info)))


def _to_path_pattern(value: object, info: ValidationInfo) -> str:
    return _absolute(_to_pattern(value, info))


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("must be an absolute path: start it with /")
    return text


def _to_mode(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
        raise ValueError('must be a text of octal digits such as "0640"')
    mode = int(value, 8)
    if not mode & 0o400:
        raise ValueError("must let the owner read the file: 0400 or more")
    return mode


def _to_positive(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("must be more than 0; 0 does not mean 'for ever'")
    return seconds


def split_url(text: str) -> SplitResult:
    """Split an http or https URL; ValueError never shows the URL, which may hold a password."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL: write https://host/path") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("is not a URL that can be called: write https://host/path")
    if any(sign.isspace() for sign in text):
        raise ValueError("has a blank in it: write it as %20")
    return parts


def _to_url(value: object, info: ValidationInfo) -> str:
    text = _to_text(value, info)
    if split_url(text).fragment:
        raise ValueError("must not have a #fragment (RFC 6749 section 3.2): cut it off")
    return text


def _to_listen(value: object, info: ValidationInfo) -> str:
    text = _to_text(value, info)
    split_listen(text)
    return text


def split_listen(text: str) -> tuple[str, int]:
    """Split `host:port`, an IPv6 host in brackets."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", text)
    if not match or int(match[3]) > 65535:  # noqa: PLR2004 -- the highest port there is
        raise ValueError('must be host:port, such as "127.0.0.1:9774" or "[::1]:9774"')
    return match[1] or match[2], int(match[3])


def _to_template(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text in quotes")  # noqa: TRY004 -- pydantic takes a ValueError
    if problem := check_template(value):
        raise ValueError(problem)
    if not any(f"{{{word}}}" in value for word in PLACEHOLDERS):
        raise ValueError("has no placeholder: write {access_token} where the token belongs")
    return value


def _to_content(value: object) -> str:
    return value if isinstance(value, str) and value in FORMATS else _to_template(value)


Text = Annotated[str, BeforeValidator(_to_text), WithJsonSchema(_SOURCE_SCHEMA)]
NamePattern = Annotated[str, BeforeValidator(_to_pattern), WithJsonSchema(_SOURCE_SCHEMA)]
Url = Annotated[str, BeforeValidator(_to_url), WithJsonSchema(_SOURCE_SCHEMA)]
Listen = Annotated[str, BeforeValidator(_to_listen), WithJsonSchema(_SOURCE_SCHEMA)]
AbsolutePath = Annotated[Path, BeforeValidator(_to_path), WithJsonSchema(_SOURCE_SCHEMA)]
PathPattern = Annotated[str, BeforeValidator(_to_path_pattern), WithJsonSchema(_SOURCE_SCHEMA)]
Secret = Annotated[Source, PlainValidator(to_source), WithJsonSchema(_SOURCE_SCHEMA)]
Document = Annotated[Source, PlainValidator(_to_document), WithJsonSchema(_SOURCE_SCHEMA)]
Duration = Annotated[float, BeforeValidator(parse_duration), WithJsonSchema(_DURATION_SCHEMA)]
PositiveDuration = Annotated[float, BeforeValidator(_to_positive), WithJsonSchema(_DURATION_SCHEMA)]
Mode = Annotated[int, BeforeValidator(_to_mode), WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$"})]
Template = Annotated[str, BeforeValidator(_to_template), WithJsonSchema({"type": "string"})]
Content = Annotated[str, BeforeValidator(_to_content), WithJsonSchema({"type": "string"})]
