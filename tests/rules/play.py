"""Has promtool play what a station saw, and reads from its answer which alert fired when.

Nothing is expected of promtool: each alert that fires is then a difference, which it reports in full.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.prometheus.written import RULES
from tests.rules.station import Station

ROOT: Final = Path(__file__).parents[2]
_FIRING: Final = 'max by (alertname, severity) (ALERTS{alertstate="firing"})'
_ALERTS: Final = re.compile(r"alertname: (\w+), time: (\w+), *\n\s+exp:\[\s*\], *\n\s+got:\[(.*?)\n {12}\]", re.DOTALL)
_ALERT: Final = re.compile(r"Labels:\{(.*)\}\n\s+Annotations:\{(.*)\},?$", re.MULTILINE)
_SAMPLES: Final = re.compile(r"expr: .*, time: (\w+),\s*\n\s+exp:.*\n\s+got:(.*)")
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


def play(station: Station, directory: Path, alert: str = "") -> list[Firing]:
    """Return every alert that fires, at each evaluation at which it does; one alert, if named, with all its texts."""
    interval = station.scrape_interval
    instants = [station.history + number * interval for number in range(int(station.elapsed / interval))]
    test = {
        "rule_files": [str(ROOT / RULES)],
        "evaluation_interval": f"{interval:g}s",
        "tests": [
            {
                "interval": f"{interval:g}s",
                "input_series": station.input_series(),
                "alert_rule_test": [
                    {"eval_time": f"{at:.0f}s", "alertname": alert, "exp_alerts": []} for at in instants if alert
                ],
                "promql_expr_test": [
                    {"expr": _FIRING, "eval_time": f"{at:.0f}s", "exp_samples": []} for at in instants
                ],
            }
        ],
    }
    path = directory / "test.yaml"
    path.write_text(json.dumps(test))  # JSON is YAML
    run = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    report = run.stdout + run.stderr
    firings = [*_alerts(report, station.history), *_samples(report, station.history)]
    assert bool(firings) == (run.returncode != 0), report
    return firings


def _alerts(report: str, start: float) -> Iterator[Firing]:
    for alert, time, got in _ALERTS.findall(report):
        for labels, texts in _ALERT.findall(got):
            yield Firing(alert, _seconds(time) - start, _pairs(labels), _pairs(texts))


def _samples(report: str, start: float) -> Iterator[Firing]:
    for time, got in _SAMPLES.findall(report):
        for labels in re.findall(r"\{(.*?)\}", got):
            pairs = _pairs(labels)
            yield Firing(pairs["alertname"], _seconds(time) - start, pairs, {})


def _pairs(text: str) -> dict[str, str]:
    return {key: json.loads(value) for key, value in _PAIR.findall(text)}


def _seconds(text: str) -> float:
    return float(sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([dhms])", text)))
