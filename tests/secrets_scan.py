"""Planted secrets, and the search for them where no secret may ever appear.

Tests take every token, client secret, password and user name from `planted()`. `conftest.py` then
fails each test whose log or captured output shows one; `assert_no_secrets()` searches files.
"""

import base64
import logging
import re
from pathlib import Path
from typing import Final

PREFIX: Final = "PLANTED-"


def _encoded(skip: int) -> str:
    """Return the base64 of the prefix behind `skip` bytes, less the letters that others share.

    HTTP Basic and the parts of a JWT hide a secret that way.
    """
    letters = base64.b64encode(b"\0" * skip + PREFIX.encode()).decode().rstrip("=")
    first = -(-skip * 4 // 3)
    return letters[first : (skip + len(PREFIX)) * 8 // 6]


_SECRET: Final = re.compile(
    "|".join(rf"\S{{0,8}}{re.escape(form)}\S{{0,40}}" for form in (PREFIX, *map(_encoded, range(3))))
)


def planted(label: str) -> str:
    """Return a secret that the scan recognises, e.g. `planted("refresh-1")`."""
    return PREFIX + label


def secrets_in(text: str) -> list[str]:
    """Return the planted secrets that stand in a text, plain or in base64."""
    return _SECRET.findall(text)


def assert_no_secrets(*places: str | bytes | Path) -> None:
    """Fail if a planted secret stands in a text, a file or any file below a directory."""
    for place in places:
        if isinstance(place, Path):
            files = place.rglob("*") if place.is_dir() else [place]
            for file in filter(Path.is_file, files):
                _assert_clean(file.read_bytes().decode(errors="replace"), str(file))
        else:
            text = place.decode(errors="replace") if isinstance(place, bytes) else place
            _assert_clean(text, "the text")


def secrets_in_records(records: list[logging.LogRecord]) -> list[str]:
    """Return the planted secrets in log records: message, arguments, extra fields and traceback."""
    formatter = logging.Formatter()
    return [found for record in records for found in secrets_in(f"{formatter.format(record)} {vars(record)!r}")]


def _assert_clean(text: str, where: str) -> None:
    found = secrets_in(text)
    if found:
        message = f"{where} shows secrets: {found}"
        raise AssertionError(message)
