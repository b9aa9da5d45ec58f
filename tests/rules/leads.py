"""The table of lead times, as promtool measures them: `python -m tests.rules.leads` writes the page anew."""

import tempfile
from pathlib import Path
from typing import Final

from rotator.core.model import DAY, HOUR, MINUTE
from tests.rules.play import Firing, play
from tests.rules.scripts import SCRIPTS, Script
from tests.rules.station import Station

PAGE: Final = Path("docs/reference/alerts.md")
_INTRODUCTION: Final = """\
# How early each alert comes

Measured by `python -m tests.rules.leads`: the daemon's own code meets each fault in a time of its own, and `promtool
test rules` plays what a scrape every 30 s would have seen (every 60 s with many credentials, after a day in which all
was well). Access tokens live one hour and fall due after 40 minutes, so 20 are left when a refresh first fails.

*After* counts from the moment at which the fault can first be noticed; *before*, to the end of the access token, or of
the refresh token. What each alert means, and what to do: [runbooks](../runbooks/README.md).

| alert | severity | fault | after | before |
| --- | --- | --- | --- | --- |
"""
_ROUTINE: Final = """
No alert comes from a server that is out of reach for 8 minutes (for one credential, or for a fleet), from a lost answer
where the server has a grace window, a restart or boot of 2 minutes, a server that is busy for 5, a disk or an output
that is full for one, nor with access tokens of 20 seconds that are looked at every 30.
"""


def row(script: Script, station: Station, first: Firing) -> str:
    """Return the line of the table for the first firing of an alert."""
    assert station.fault_at is not None
    before = "" if station.ends_at is None or script.ahead is None else _span(station.ends_at - first.at)
    after = _span(first.at - station.fault_at) if first.at > station.fault_at + station.scrape_interval else "at once"
    severity = first.labels["severity"]
    return f"| [{script.alert}](../runbooks/{script.alert}.md) | {severity} | {script.fault} | {after} | {before} |\n"


def _span(seconds: float) -> str:
    parts = []
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1.0, "s")):
        count, seconds = divmod(round(seconds), unit)
        if count:
            parts.append(f"{count:.0f} {name}")
    return " ".join(parts) or "0 s"


def page() -> str:
    """Play every script and return the page."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for script in SCRIPTS:
            station = script.station(script.thresholds[0])
            firings = play(station, Path(directory), script.alert)
            first = next(firing for firing in firings if firing.alert == script.alert)
            rows.append(row(script, station, first))
    return _INTRODUCTION + "".join(rows) + _ROUTINE


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
