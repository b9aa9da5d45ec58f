"""Writes manual pages: the few requests of roff's man macros that ours need.

Text given as Markdown may hold code in backticks and bold in asterisks; both become bold.
"""

import re
import textwrap
from typing import Final

from rotator import DATED, VERSION

_WIDTH: Final = 79  # mandoc's lint wants no longer source lines
_MARKED: Final = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


def page(name: str, section: int, about: str, *parts: str) -> str:
    """Return a whole page: title, NAME section, and the other sections' parts.

    Nothing is hyphenated or spread to the right margin: names of keys and commands stay whole.
    """
    title = f'.TH "{name.upper()}" "{section}" "{DATED}" "rotator {VERSION}" "rotator"\n.nh\n.ad l\n'
    text = "".join([title, heading("NAME"), f"{_line(name)} \\- {_escaped(about)}\n", *parts])
    return re.sub(r"^(\.S[HS] .*\n)\.PP\n", r"\1", text, flags=re.MULTILINE)  # a heading begins a paragraph itself


def heading(title: str) -> str:
    """Return the head of a section."""
    return f".SH {_escaped(title)}\n"


def subheading(title: str) -> str:
    """Return the head of a part of a section."""
    return f".SS {_escaped(title)}\n"


def paragraphs(markdown: str) -> str:
    """Return paragraphs, which blank lines part in the source."""
    return "".join(f".PP\n{_filled(part)}" for part in re.split(r"\n\s*\n", markdown.strip()))


def verbatim(text: str) -> str:
    """Return a text whose lines stay as they are, indented."""
    lines = "".join(f"{_line(line)}\n" for line in text.splitlines())
    return f".PP\n.RS 4\n.nf\n{lines}.fi\n.RE\n"


def item(tag: str, markdown: str) -> str:
    """Return an entry of a list: the tag, and indented below it what it means."""
    return f".TP\n{_marked(tag)}\n{_filled(markdown)}"


def _filled(markdown: str) -> str:
    words = textwrap.wrap(_marked(markdown), _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{_guarded(line)}\n" for line in words)


def _marked(markdown: str) -> str:
    """Turn inline Markdown into font changes."""
    parts, end = [], 0
    for match in _MARKED.finditer(markdown):
        parts += [_escaped(markdown[end : match.start()]), rf"\fB{_escaped(match[1] or match[2])}\fR"]
        end = match.end()
    return "".join([*parts, _escaped(markdown[end:])])


def _line(text: str) -> str:
    return _guarded(_escaped(text))


def _guarded(line: str) -> str:
    """Keep a line that begins with a control character from being taken for a request."""
    return rf"\&{line}" if line.startswith((".", "'")) else line


def _escaped(text: str) -> str:
    r"""Say a text in ASCII. Every hyphen is `\-`, so that what is copied from the screen works in a shell."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in text)
