"""The configuration's files, from disk to TOML tables."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rotator.config.settings import ConfigError

Place = tuple[str | int, ...]
"""The way to a key: table names, keys, and positions in lists."""


@dataclass(frozen=True, slots=True)
class File:
    """One configuration file as read."""

    path: Path
    text: str = field(repr=False)
    table: Mapping[str, Any] = field(repr=False)


def depth(table: object, place: Place) -> int:
    """Return how many steps of `place` lead somewhere in the table."""
    here: Any = table
    for step, key in enumerate(place):
        in_list = isinstance(here, list) and isinstance(key, int) and key < len(here)
        if not in_list and not (isinstance(here, Mapping) and key in here):
            return step
        here = here[key]
    return len(place)


def list_files(path: Path, directory: Path | None) -> list[Path] | ConfigError:
    """Return `path`, then the directory's files in name order; `conf.d` beside `path` may be absent.

    Hidden files are left out: editors and Kubernetes mounts keep their own things there.
    """
    beside = path.parent / "conf.d" if directory is None else directory
    try:
        names = sorted(os.listdir(beside))  # noqa: PTH208 -- names are wanted, not paths
    except (FileNotFoundError, NotADirectoryError) as error:
        if directory is None:
            return [path]
        return ConfigError(str(beside), None, "", f"cannot be listed ({error.strerror}): create it")
    except OSError as error:
        return ConfigError(str(beside), None, "", f"cannot be listed ({error.strerror}): correct its permissions")
    return [path, *(beside / name for name in names if re.fullmatch(r"[^.].*\.toml", name))]


def read_file(path: Path) -> File | ConfigError:
    """Read one file. Never raises for what is in it."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        cure = "correct its permissions" if isinstance(error, PermissionError) else "create it"
        return ConfigError(str(path), None, "", f"cannot be read ({error.strerror}): {cure}")
    except UnicodeDecodeError as error:
        text = f"is not UTF-8 text (byte {error.start + 1}): save it as UTF-8"
        return ConfigError(str(path), None, "", text)
    try:
        return File(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        reason = "".join(sign if sign.isprintable() else "?" for sign in str(error))
        place = re.search(r"\(at line (\d+), column \d+\)$", reason)
        line = int(place[1]) if place else None
        return ConfigError(str(path), line, "", f"is not TOML: {reason}")
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets in brackets in …
        return ConfigError(str(path), None, "", "holds a number or a nesting beyond all measure")
