"""Has promtool play what a station saw, and reads from its answer which alert fired when.

Nothing is expected of promtool: each alert that fires is then a difference, which it reports in full.
"""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.prometheus.written import ALERTS, RULES
from tests.rules.station import SCRAPE, Station

ROOT: Final = Path(__file__).parents[2]
_REPORT: Final = re.compile(r"alertname: (\w+), time: (\w+), *\n\s+exp:\[\s*\], *\n\s+got:\[(.*?)\n {12}\]", re.DOTALL)
_PAIR: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*")')
_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert at one instant, as it would be sent."""

    alert: str
    at: float
    """Seconds since the beginning."""
    labels: dict[str, str]
    annotations: dict[str, str]


def play(station: Station, directory: Path) -> list[Firing]:
    """Return every alert that fires, at each evaluation at which it does."""
    instants = [f"{int(number * SCRAPE)}s" for number in range(int(station.elapsed / SCRAPE))]
    test = {
        "rule_files": [str(ROOT / RULES)],
        "evaluation_interval": f"{SCRAPE:g}s",
        "tests": [
            {
                "interval": f"{SCRAPE:g}s",
                "input_series": station.input_series(),
                "alert_rule_test": [
                    {"eval_time": instant, "alertname": alert.name, "exp_alerts": []}
                    for instant in instants
                    for alert in ALERTS
                ],
            }
        ],
    }
    path = directory / "test.yaml"
    path.write_text(json.dumps(test))  # JSON is YAML
    run = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    firings = _firings(run.stdout + run.stderr)
    assert bool(firings) == (run.returncode != 0), run.stdout + run.stderr
    return firings


def _firings(report: str) -> list[Firing]:
    return [
        Firing(alert, _seconds(time), _pairs(labels), _pairs(annotations))
        for alert, time, got in _REPORT.findall(report)
        for labels, annotations in re.findall(r"Labels:\{(.*)\}\n\s+Annotations:\{(.*)\},?$", got, re.MULTILINE)
    ]


def _pairs(text: str) -> dict[str, str]:
    return {key: json.loads(value) for key, value in _PAIR.findall(text)}


def _seconds(text: str) -> float:
    return float(sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([dhms])", text)))
