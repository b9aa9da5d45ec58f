"""Status in plain words: two clocks, what comes next, what went wrong (case B32)."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import click

from rotator.cli.exits import ExitCode
from rotator.core.words import (
    NEEDS_A_PERSON,
    View,
    access_clock,
    is_fresh,
    last_error,
    next_step,
    output_line,
    refresh_clock,
)

_COLOURS: Final = {
    "valid": "green",
    "starting": "cyan",
    "retrying": "yellow",
    "ambiguous": "yellow",
    "refused": "yellow",
    "suspect": "yellow",
}


def is_well(view: View, now: float) -> bool:
    """Tell whether there is an unexpired access token and no person is needed."""
    return is_fresh(view, now) and view["standing"] not in NEEDS_A_PERSON


def verdict(views: Iterable[View], now: float) -> ExitCode:
    """Return the exit code of `rotator status`."""
    return ExitCode.OK if all(is_well(view, now) for view in views) else ExitCode.UNAVAILABLE


def block(view: View, now: float) -> Iterator[str]:
    """Yield the lines that show one credential."""
    colour = _COLOURS.get(view["standing"], "red")
    generation = f"generation {view['generation']}" if view["generation"] else "no token yet"
    yield f"{click.style(view['name'], bold=True)}: {click.style(view['standing'], fg=colour)}, {generation}"
    access = f"  access token:  {access_clock(view, now)}"
    yield access if is_fresh(view, now) else click.style(access, fg="red")
    mark = view["refresh_token_fingerprint"]
    yield f"  refresh token: {refresh_clock(view, now)}" + ("" if mark == "-" else f", fingerprint {mark}")
    yield f"  next:          {next_step(view, now)}"
    yield f"  last error:    {last_error(view)}"
    if view["unsaved"]:
        yield click.style("  NOT SAVED:     the newest tokens are in memory only; see the log", fg="red")
    if view["clock_suspect"]:
        yield "  clock:         it was set back; check the time service of this machine"
    for output in view["outputs"]:
        title = "hook:  " if output["is_hook"] else "output:"
        line = f"  {title}        {output_line(output, view['name'], now)}"
        yield click.style(line, fg="red") if output["failures"] else line


def with_iso(document: Any) -> Any:
    """Return a JSON document in which each instant is also written for people: `x_at_iso`."""
    if isinstance(document, Mapping):
        written: dict[str, Any] = {}
        for key, value in document.items():
            written[key] = with_iso(value)
            if key.endswith("_at"):
                written[f"{key}_iso"] = _iso(value)
        return written
    return [with_iso(one) for one in document] if isinstance(document, list | tuple) else document


def _iso(instant: float | None) -> str | None:
    if instant is None:
        return None
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
