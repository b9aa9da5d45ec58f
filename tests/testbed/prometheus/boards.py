"""A dashboard's JSON as Grafana would ask for it: variables filled in, each query put to a real Prometheus."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.testbed.prometheus.server import SCRAPE_SECONDS, Prometheus, Series

DASHBOARDS: Final = Path(__file__).parents[3] / "deploy" / "grafana" / "dashboards"
ALL: Final = "$__all"
_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")


def _escaped(value: str) -> str:
    """Escape a value within a regular expression within a PromQL string, as Grafana does."""
    return re.sub(r"[\\^$*+?.()|{}\[\]]", r"\\\\\g<0>", value)


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of one panel: what Prometheus was asked, and what it said."""

    panel: str
    """Its title."""
    key: str
    """The number of the panel and the letter of the query, as `3/A`."""
    expr: str
    is_instant: bool
    answer: list[Series]


class Board:
    """One dashboard with its variables set."""

    def __init__(self, name: str, prometheus: Prometheus, chosen: Mapping[str, str], start: float, end: float) -> None:
        """Show the time from `start` to `end`. `chosen`: variables by name; the others show all that there is."""
        self.document: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
        self._prometheus = prometheus
        self.start, self.end, self.step = start, end, SCRAPE_SECONDS
        window = f"{4 * SCRAPE_SECONDS:g}s"  # as Grafana does it: at least four scrapes
        self.values = {
            "__rate_interval": window,
            "__interval": f"{self.step:g}s",
            "__range": f"{end - start:.0f}s",
            "datasource": "prometheus",
        }
        self.options: dict[str, list[str]] = {}
        for variable in self.document["templating"]["list"]:
            if variable["type"] == "query":
                self._choose(variable, chosen.get(variable["name"], ALL))

    def _choose(self, variable: dict[str, Any], wanted: str) -> None:
        """Ask for the options of a variable, and choose."""
        name, ask = variable["name"], variable["query"]["query"]
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", ask)
        assert found, ask
        selector, label = self.filled(found[1]), found[2]
        options = self._prometheus.ask(f"label/{label}/values", **{"match[]": selector}, start=self.start, end=self.end)
        self.options[name] = options
        if wanted != ALL:
            self.values[name] = wanted
        elif variable["includeAll"]:
            self.values[name] = variable.get("allValue") or "|".join(map(_escaped, options))
        else:
            self.values[name] = options[0] if options else ""

    def filled(self, expr: str) -> str:
        """Fill in the variables; one that is not known is an error."""
        return _VARIABLE.sub(lambda found: self.values[found[1] or found[2]], expr)

    def panels(self) -> Iterator[dict[str, Any]]:
        """Return every panel that shows something."""
        for panel in self.document["panels"]:
            if panel["type"] == "row":
                yield from panel["panels"]
            else:
                yield panel

    def asked(self) -> Iterator[Asked]:
        """Put every query of every panel to Prometheus."""
        for panel in self.panels():
            for target in panel["targets"]:
                yield self._ask(
                    panel["title"], f"{panel['id']}/{target['refId']}", target["expr"], is_instant=target["instant"]
                )

    def annotations(self) -> Iterator[Asked]:
        """Put every query of the annotations to Prometheus."""
        for annotation in self.document["annotations"]["list"]:
            yield self._ask(annotation["name"], "", annotation["expr"], is_instant=False)

    def _ask(self, title: str, key: str, expr: str, *, is_instant: bool) -> Asked:
        filled = self.filled(expr)
        if is_instant:
            answer = self._prometheus.instant(filled, self.end)
        else:
            answer = self._prometheus.course(filled, self.start, self.end, self.step)
        return Asked(title, key, filled, is_instant, answer)
