"""The rule files are fresh, well-formed, the same everywhere, and ask only for metrics that exist."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from deploy.prometheus.rule import RUNBOOKS, Alert
from deploy.prometheus.written import ALERTS, GROUPS, KUBERNETES, RULES, files
from rotator.adapters.metrics.reference import families
from tests.needs import needs
from tests.process.rig import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", files(), ids=str)
def test_the_files_are_fresh(path: Path) -> None:
    """Rules and the list of runbooks are what the code would write today."""
    assert (ROOT / path).read_text("utf-8") == files()[path], "run python -m deploy.prometheus"


def test_kubernetes_gets_the_same_rules() -> None:
    """The PrometheusRule holds the rule file, line by line."""
    rules, resource = ((ROOT / path).read_text("utf-8") for path in (RULES, KUBERNETES))
    assert textwrap.dedent(resource.partition("spec:\n")[2]) == rules[rules.index("groups:") :]


def test_promtool_finds_nothing_wrong() -> None:
    """Every rule parses, none is there twice, and each alert of the code is a rule of the file."""
    needs("promtool")
    run = subprocess.run(
        ["promtool", "check", "rules", str(ROOT / RULES)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    count = sum(len(getattr(one, "rules", "1")) for group in GROUPS for one in group.rules)
    assert (run.returncode, run.stderr) == (0, "")
    assert f"SUCCESS: {count} rules found" in run.stdout


def test_rules_ask_only_for_metrics_that_exist() -> None:
    """Each metric that a rule names is in the contract, or is recorded by another rule."""
    text = (ROOT / RULES).read_text("utf-8")
    recorded = set(re.findall(r"- record: (\S+)", text))
    bare = re.sub(r"job:[a-z0-9_:]+", "", text)
    assert set(re.findall(r"job:[a-z0-9_:]+", text)) - recorded == set()
    asked = set(re.findall(r"\brotator_[a-z0-9_]+", bare))
    assert asked - {family.name for family in families()} == set()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_says_whose_and_how_bad(alert: Alert) -> None:
    """An alert of one credential names it and when its token ends; each has a severity and is told from the others."""
    rules = alert.rules
    assert len({(rule.scope, rule.severity) for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.severity in ("critical", "warning")
        assert rule.scope != "credential" or "$labels.credential" in rule.summary


def test_runbooks_may_be_read_elsewhere(tmp_path: Path) -> None:
    """One argument puts every link below another address."""
    for directory in (path.parent for path in files()):
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "deploy.prometheus", "https://runbooks.example.org"]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, timeout=PATIENCE, check=True)
    text = (tmp_path / RULES).read_text("utf-8")
    assert RUNBOOKS not in text
    assert text.count('runbook_url: "https://runbooks.example.org/Rotator') == sum(len(alert.rules) for alert in ALERTS)
