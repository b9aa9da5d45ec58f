"""Which keys there are, and in which file and line one stands: for messages alone."""

import re
import typing
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel

from rotator.config.files import File, Place, depth
from rotator.config.schema import Root

_KEY: Final = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_DOTTED: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER_LINE: Final = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_KEY_LINE: Final = re.compile(rf"\s*({_DOTTED})\s*=")
_ONE_KEY: Final = re.compile(r""""([^"]*)"|'([^']*)'|([\w-]+)""")


class Finder:
    """Finds files and lines of keys; looks at a file's lines only once it is asked."""

    def __init__(self, files: Sequence[File]) -> None:
        self._files = files
        self._lines: dict[int, dict[Place, int]] = {}

    def find(self, place: Place) -> tuple[str, int | None]:
        """Return the file and line where `place`, or as much of it as there is, was written last."""
        depths = [depth(file.table, place) for file in self._files]
        if not any(depths):
            return str(self._files[0].path) if self._files else "", None
        number = max(range(len(depths)), key=lambda index: (depths[index], index))
        if number not in self._lines:
            self._lines[number] = _line_index(self._files[number].text)
        lines = self._lines[number]
        around = (place[:length] for length in range(len(place), 0, -1))
        line = next((lines[part] for part in around if part in lines), None)
        return str(self._files[number].path), line


def _line_index(text: str) -> dict[Place, int]:
    """Map keys to lines by a glance at each line: good enough to point at, no second TOML parser."""
    lines: dict[Place, int] = {}
    table: Place = ()
    counts: dict[Place, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER_LINE.match(line):
            table = _split(header[2])
            _note(lines, (), table, number)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
                lines.setdefault(table, number)
        elif key := _KEY_LINE.match(line):
            _note(lines, table, _split(key[1]), number)
    return lines


def _note(lines: dict[Place, int], table: Place, key: Place, number: int) -> None:
    for length in range(1, len(key) + 1):
        lines.setdefault(table + key[:length], number)


def _split(text: str) -> Place:
    return tuple("".join(groups) for groups in _ONE_KEY.findall(text))


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


def unknown_key(place: Place) -> str:
    """Say what is wrong with a key that is not there: misplaced, misspelt or unheard of (K7)."""
    import difflib  # noqa: PLC0415 - a configuration without a mistake pays nothing for it

    key = str(place[-1])
    tables = dict(_tables(Root, ()))
    here = tables.get(_shape(place[:-1]), ())
    homes = [_table_name(shape) for shape, names in tables.items() if key in names]
    if homes:
        return f"is valid, but not here: move it to {' or '.join(homes)}"
    if close := difflib.get_close_matches(key, here, 1):
        return f"is not a known key: did you mean {close[0]}?"
    everywhere = {name: shape for shape, names in tables.items() for name in names}
    if close := difflib.get_close_matches(key, everywhere, 1, 0.8):
        home = _table_name(everywhere[close[0]])
        return f"is not a known key: did you mean {close[0]} in {home}?"
    return f"is not a known key: here there are {', '.join(here)}"


def _shape(place: Place) -> tuple[str, ...]:
    """Reduce a place to the kind of table it is: a credential's are those of `[defaults]`."""
    if len(place) > 1 and place[0] == "credentials":
        place = ("defaults", *place[2:])
    return tuple(key for key in place if isinstance(key, str))


def _table_name(shape: tuple[str, ...]) -> str:
    if not shape:
        return "the top of the file"
    if shape[0] != "defaults":
        return f"[{'.'.join(shape)}]"
    inner = f"{'.'.join(shape[1:])} of " if shape[1:] else ""
    return f"{inner}[credentials.NAME] or [defaults]"


_Tables = list[tuple[tuple[str, ...], tuple[str, ...]]]


def _tables(model: type[BaseModel], place: tuple[str, ...]) -> _Tables:
    found = [(place, tuple(model.model_fields))]
    for name, about in model.model_fields.items():
        child = child_table(about.annotation)
        if child is not None and name != "credentials":
            found += _tables(child, (*place, name))
    return found


def child_table(annotation: object) -> type[BaseModel] | None:
    """Return the model inside an annotation such as `list[OutputTable]`, if there is one."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    children = (child_table(inner) for inner in typing.get_args(annotation))
    return next((child for child in children if child), None)
