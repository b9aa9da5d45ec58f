"""docs/how-to/grafana.md: its snippets are what Prometheus takes, and all that it names is there."""

import re
import subprocess
import textwrap
from pathlib import Path
from typing import Final

import yaml

from deploy.prometheus.written import ALERTS
from tests.children import ROOT
from tests.needs import needs

PAGE: Final = (ROOT / "docs" / "how-to" / "grafana.md").read_text()
BLOCKS: Final = [textwrap.dedent(block) for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", PAGE, re.MULTILINE)]


def test_prometheus_takes_the_scrape_configurations(tmp_path: Path) -> None:
    """Both of them, for machines and for pods, but that Debian's Prometheus was built without Kubernetes."""
    needs("promtool")
    scrapes = [block for block in BLOCKS if block.lstrip().startswith("scrape_configs:")]
    assert len(scrapes) == 2
    for number, block in enumerate(scrapes):
        config = tmp_path / f"{number}.yml"
        config.write_text(
            re.sub(r"kubernetes_sd_configs:\n +- role: pod", "file_sd_configs: [{files: [pods.json]}]", block)
        )
        run = subprocess.run(["promtool", "check", "config", str(config)], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr


def test_every_file_and_alert_that_it_names_is_there() -> None:
    """Paths of the project exist, and alerts are those of the rules."""
    for path in set(re.findall(r"deploy/[\w/.*-]+[\w*]", PAGE)):
        assert list(ROOT.glob(path)), path
    named = set(re.findall(r"Rotator[A-Z]\w+", PAGE))
    assert named <= {alert.name for alert in ALERTS}
    [inhibiting] = [yaml.safe_load(block) for block in BLOCKS if "inhibit_rules" in block]
    for rule in inhibiting["inhibit_rules"]:
        for matchers in (rule["source_matchers"], rule["target_matchers"]):
            assert {matcher.split('"')[1] for matcher in matchers} <= named
