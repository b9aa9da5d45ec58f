"""Which keys there are, and in which file and line one stands: for messages alone, so never in a hurry."""

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from rotator.config.schema import Root

Place = tuple[str | int, ...]

_KEY: Final = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_DOTTED: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER_LINE: Final = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_KEY_LINE: Final = re.compile(rf"\s*({_DOTTED})\s*=")
_ONE_KEY: Final = re.compile(r""""([^"]*)"|'([^']*)'|([\w-]+)""")


@dataclass(slots=True)
class File:
    """One configuration file as read."""

    path: Path
    text: str = field(repr=False)
    table: dict[str, Any] = field(repr=False)
    _lines: dict[Place, int] | None = field(default=None, repr=False)

    def depth(self, place: Place) -> int:
        """Return how many steps of `place` lead somewhere in this file."""
        here: object = self.table
        for step, key in enumerate(place):
            inside = (isinstance(here, Mapping) and key in here) or (
                isinstance(here, list) and isinstance(key, int) and key < len(here)
            )
            if not inside:
                return step
            here = typing.cast("Any", here)[key]
        return len(place)

    def line(self, place: Place) -> int | None:
        """Return the line of the key, else that of the innermost table or list around it."""
        if self._lines is None:
            self._lines = _line_index(self.text)
        for length in range(len(place), 0, -1):
            if place[:length] in self._lines:
                return self._lines[place[:length]]
        return None


def locate(files: Sequence[File], place: Place) -> tuple[str, int | None]:
    """Return the file and line where `place`, or as much of it as there is, was written last."""
    best = max(reversed(files), key=lambda file: file.depth(place), default=None)
    if best is None or not best.depth(place):
        return (str(files[0].path) if files else "", None)
    return str(best.path), best.line(place)


def dotted(place: Place) -> str:
    """Write a place as `credentials.web.outputs[0].path`."""
    text = ""
    for key in place:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            bare = key if re.fullmatch(r"[\w-]+", key, re.ASCII) else f'"{_printable(key)}"'
            text += f".{bare}" if text else bare
    return text


def _printable(key: str) -> str:
    """Keep a message on one line, whatever was pasted."""
    return "".join(sign if sign.isprintable() else "?" for sign in key)[:60]


def _line_index(text: str) -> dict[Place, int]:
    lines: dict[Place, int] = {}
    table: Place = ()
    counts: dict[Place, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER_LINE.match(line):
            table = _split(header[2])
            for length in range(1, len(table) + 1):
                lines.setdefault(table[:length], number)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
                lines.setdefault(table, number)
        elif key := _KEY_LINE.match(line):
            inner = _split(key[1])
            for length in range(1, len(inner) + 1):
                lines.setdefault(table + inner[:length], number)
    return lines


def _split(text: str) -> tuple[str, ...]:
    return tuple("".join(groups) for groups in _ONE_KEY.findall(text))


def unknown_key(place: Place) -> str:
    """Say what is wrong with a key that is not there: misplaced, misspelt or unheard of (case K7)."""
    key = str(place[-1])
    tables = {_shape(where): names for where, names in _tables(Root, ())}
    here = tables.get(_shape(place[:-1]), ())
    homes = [shape for shape, names in tables.items() if key in names]
    if homes:
        return "is valid, but not here: move it to " + " or ".join(_table_name(shape) for shape in homes)
    if close := difflib.get_close_matches(key, here, 1):
        return f"is not a known key: did you mean {close[0]}?"
    everywhere = {name: shape for shape, names in tables.items() for name in names}
    if close := difflib.get_close_matches(key, everywhere, 1, 0.7):
        return f"is not a known key: did you mean {close[0]} in {_table_name(everywhere[close[0]])}?"
    return f"is not a known key: here there are {', '.join(here)}"


def _shape(place: Place) -> tuple[str, ...]:
    """Reduce a place to the kind of table it is: a credential's tables are those of `[defaults]`."""
    if len(place) > 1 and place[0] == "credentials":
        place = ("defaults", *place[2:])
    return tuple(key for key in place if isinstance(key, str))


def _table_name(shape: tuple[str, ...]) -> str:
    if not shape:
        return "the top of the file"
    if shape == ("defaults",):
        return "[credentials.NAME] or [defaults]"
    if shape[0] == "defaults":
        return f"{'.'.join(shape[1:])} of [credentials.NAME] or [defaults]"
    return f"[{'.'.join(shape)}]"


def _tables(model: type[BaseModel], place: tuple[str, ...]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    found = [(place, tuple(model.model_fields))]
    for name, about in model.model_fields.items():
        child = child_table(about.annotation)
        if child is not None and name != "credentials":
            found += _tables(child, (*place, name))
    return found


def child_table(annotation: object) -> type[BaseModel] | None:
    """Return the model inside an annotation such as `list[OutputTable]`, if there is one."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    children = (child_table(inner) for inner in typing.get_args(annotation))
    return next((child for child in children if child), None)
