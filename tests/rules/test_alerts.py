"""Each alert along a time line: it fires in time, for the right credential, and ends; and routine wakes nobody."""

from pathlib import Path

import pytest

from deploy.prometheus.written import ALERTS
from tests.needs import needs
from tests.rules.leads import PAGE, row
from tests.rules.play import ROOT, Firing, play
from tests.rules.scripts import EACH, ROUTINE, SCRIPTS, Script

_MODES = {EACH: "each", 0: "fleet"}


def _cases(scripts: tuple[Script, ...]) -> list[object]:
    return [
        pytest.param(script, threshold, id=f"{script.alert}: {script.fault} ({_MODES[threshold]})")
        for script in scripts
        for threshold in script.thresholds
    ]


@pytest.mark.parametrize(("script", "threshold"), _cases(SCRIPTS))
def test_an_alert_fires_in_time_and_ends_with_the_fault(script: Script, threshold: int, tmp_path: Path) -> None:
    """M5: the alert comes soon after the fault and well before what it warns of; nothing unrelated fires."""
    needs("promtool")
    station = script.station(threshold)
    firings = play(station, tmp_path, script.alert)
    mine = [firing for firing in firings if firing.alert == script.alert]
    assert mine, {firing.alert for firing in firings}
    assert station.fault_at is not None
    assert 0 <= mine[0].at - station.fault_at <= script.within
    if script.ahead is not None:
        assert station.ends_at is not None
        assert station.ends_at - mine[0].at >= script.ahead
    if station.cured_at is not None:
        last = max(firing.at for firing in mine)
        assert last <= station.cured_at + script.lingers + 2 * station.scrape_interval
    assert {firing.alert for firing in firings} - {script.alert, *script.others} == set()
    _speaks(mine[0])
    if threshold == script.thresholds[0]:
        assert row(script, station, mine[0]) in (ROOT / PAGE).read_text("utf-8"), "run python -m tests.rules.leads"


def _speaks(firing: Firing) -> None:
    """An alert of one credential names it; nothing in its texts is left open."""
    texts = firing.annotations
    assert texts["runbook_url"].endswith(f"/docs/runbooks/{firing.alert}.md")
    assert "<no value>" not in "".join(texts.values())
    assert "error" not in texts["summary"] or firing.alert == "RotatorBug"
    assert firing.labels["scope"] != "credential" or texts["summary"].startswith("household-1: ")


@pytest.mark.parametrize(("script", "threshold"), _cases(ROUTINE))
def test_routine_raises_no_alert(script: Script, threshold: int, tmp_path: Path) -> None:
    """M1: what passes before half of the margin is gone, and what heals by itself, wakes nobody."""
    needs("promtool")
    assert [(firing.alert, firing.at) for firing in play(script.station(threshold), tmp_path)] == []


def test_each_alert_has_a_time_line() -> None:
    """No alert is without a script, for single credentials and for a fleet where it has rules for both."""
    played = {(script.alert, threshold) for script in SCRIPTS for threshold in script.thresholds}
    assert {alert.name for alert in ALERTS} == {name for name, _ in played}
    both = {alert.name for alert in ALERTS if {rule.scope for rule in alert.rules} >= {"credential", "fleet"}}
    assert {(name, threshold) for name in both for threshold in _MODES} - played == set()
