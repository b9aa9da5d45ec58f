"""Debian's Prometheus, as a process of its own: it scrapes, evaluates rules and answers queries."""

import http.client
import json
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from tests.process.rig import PATIENCE, free_address, wait_until

SCRAPE_SECONDS: Final = 0.5
"""Between two scrapes, and between two evaluations of the rules."""

Labels = Mapping[str, str]
Series = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What is scraped, and which labels its series get."""

    address: str
    labels: Labels
    path: str = "/metrics"


class Prometheus:
    """A running server, spoken to over its HTTP API."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def ask(self, path: str, **parameters: str | float) -> Any:
        """Return the data of an answer; a query that does not parse or work is an error."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", f"{answer.get('error')}: {parameters}"
        return answer["data"]

    def instant(self, expr: str, at: float | None = None) -> list[Series]:
        """Return the series of an expression at one instant, by default now."""
        return self.ask("query", query=expr, time=time.time() if at is None else at)["result"]  # type: ignore[no-any-return]

    def course(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Return the series of an expression over a time range."""
        return self.ask("query_range", query=expr, start=start, end=end, step=step)["result"]  # type: ignore[no-any-return]

    def alerts(self) -> list[Labels]:
        """Return the labels of the alerts that fire."""
        return [alert["labels"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule with its health and its last error."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]


@contextmanager
def run_prometheus(directory: Path, targets: Sequence[Target], rules: str) -> Generator[Prometheus]:
    """Scrape and evaluate until the end of the block. `rules`: the text of a rule file."""
    host, port = free_address()
    (directory / "rules.yml").write_text(rules)
    every = f"{1000 * SCRAPE_SECONDS:.0f}ms"
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(directory / "rules.yml")],
        "scrape_configs": [
            {
                "job_name": f"target-{number}",
                "metrics_path": target.path,
                "static_configs": [{"targets": [target.address], "labels": target.labels}],
            }
            for number, target in enumerate(targets)
        ],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [
        "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={host}:{port}",
        "--log.level=warn",
    ]
    log = directory / "prometheus.log"
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            wait_until(lambda: process.poll() is not None or _is_ready(host, port), "Prometheus is ready")
            assert process.poll() is None, log.read_text()
            yield Prometheus(host, port)
        finally:
            process.terminate()


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
