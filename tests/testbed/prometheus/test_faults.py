"""Alerts and dashboards before a real Prometheus, while a real daemon goes through everything that can befall it."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.needs import needs
from tests.testbed.prometheus.boards import Asked, Board
from tests.testbed.prometheus.play import PODS, RULES, TROUBLE, Stage, hurried, play
from tests.testbed.prometheus.town import LIFETIME

NOT_HERE: Final = {"RotatorBug", "RotatorSweepStalled"}
"""Of faults that cannot be had on purpose, so promtool alone raises them: a daemon that is halted answers no scrape."""
UNWELL: Final = {
    "blocked": "valid",
    "damaged": "state_unreadable",
    "eager": "valid",
    "fast": "retrying",
    "lost": "ambiguous",
    "new": "login_required",
    "outage": "retrying",
    "refused": "refused",
    "revoked": "reauthorization_required",
}
_TROUBLED: Final = {"Last failure", "Why it failed"}
_UNWELL: Final = {"Credentials that are not well"}
_NOW: Final = {
    "overview": {
        "Age of access tokens", "Need somebody", "Access tokens over", "Outputs failing", "Unsaved pairs", "Versions",
    },
    "credential": {
        "State", "Next request in", "Outputs failing", "Last failure", "Generation", "Unsaved", "Outputs and hooks",
    },
}  # fmt: skip
"""Panels that show only what is so now."""
EMPTY: Final[dict[str, dict[tuple[str, str], set[str]]]] = {
    "well": {
        ("overview", ""): {*_UNWELL, "Alerts", "What did not work"},
        ("credential", "home"): {*_TROUBLED, "Alerts"},
    },
    "trouble": {},
    "mended": {("overview", ""): _UNWELL, ("credential", "revoked"): {"Last failure"}},
    "full_disk": {},
    "room_again": {("overview", ""): _UNWELL, ("credential", "home"): {"Last failure"}},
    "bad_configuration": {("overview", ""): _UNWELL, ("credential", "home"): {"Last failure"}},
    "good_configuration": {("overview", ""): _UNWELL, ("credential", "home"): {"Last failure"}},
    "shaky_servers": {("overview", ""): _UNWELL, ("credential", "home"): {"Last failure"}},
    "gone": {("overview", ""): _UNWELL | _NOW["overview"], ("credential", "home"): _NOW["credential"]},
    "back": {("overview", ""): _UNWELL, ("credential", "home"): {"Last failure"}},
}
"""Of each scene, the panels and annotations that have nothing to show; all others must show something."""


def test_alerts_and_dashboards_through_all_faults(tmp_path: Path) -> None:
    """E2, L8: each alert fires about those concerned and no other, and ends; no panel is empty in the state it is for.

    Only `for:` is hurried, a second for each minute. Alerts on pods are told apart from those on the machine.
    """
    needs("prometheus", "mount namespace")
    fired: set[str] = set()

    def look(scene: str, stage: Stage) -> None:
        fired.update(stage.fired)
        assert {rule["lastError"] for rule in stage.prometheus.rules() if rule["health"] != "ok"} == set()
        for chosen in ({"job": "rotator"}, {"job": PODS["job"], "namespace": PODS["namespace"]}):
            for name, credential in (("overview", ""), ("credential", "home"), ("credential", "revoked")):
                if credential == "revoked" and scene not in {"trouble", "mended"}:
                    continue
                if credential == "home" and scene in {"trouble", "mended"}:
                    continue
                board = Board(name, stage.prometheus, chosen | {"credential": credential}, stage.began_at, time.time())
                shown = list(board.asked())
                known = EMPTY[scene].get((name, credential), set())
                if scene == "gone" and chosen["job"] == PODS["job"]:
                    known = known - {"Versions"}  # the follower is there
                assert _empty([*shown, *board.annotations()]) == known, (scene, chosen, name)
                if name == "overview":
                    _judge(scene, shown, pods=chosen["job"] != "rotator")
                    assert set(board.options) == {"job", "namespace", "instance"}
        if scene == "bad_configuration":
            led = [alert for alert in stage.prometheus.alerts() if alert["alertname"] == "RotatorNoLeader"]
            assert [{key: alert[key] for key in PODS} for alert in led] == [dict(PODS)]

    play(tmp_path, hurried(), look)
    expected = set(re.findall(r"- alert: (\w+)", RULES.read_text())) - NOT_HERE
    assert expected - fired == set()


def _empty(asked: list[Asked]) -> set[str]:
    """Return the panels of which no query has an answer with a number in it."""
    found: dict[str, bool] = {}
    for one in asked:
        found[one.panel] = found.get(one.panel, False) or next(_numbers(one), None) is not None
    return {panel for panel, some in found.items() if not some}


def _numbers(asked: Asked) -> Iterator[float]:
    for series in asked.answer:
        for _, value in series.get("values") or [series["value"]]:
            if value not in {"NaN", "+Inf", "-Inf"}:
                yield float(value)


def _judge(scene: str, shown: list[Asked], *, pods: bool) -> None:
    """Compare what the overview says with what was done to the daemon."""
    figure = {one.panel: float(one.answer[0]["value"][1]) for one in shown if one.is_instant and len(one.answer) == 1}
    assert figure.get("Daemons up") == {"gone": 0.5 if pods else 0.0}.get(scene, 1.0)
    if scene == "trouble":
        assert figure["Need somebody"] == 4
        assert figure["Access tokens over"] >= 4
        assert figure["First refresh end"] < 86_400
        assert figure["First access end"] < 0
        assert figure["Outputs failing"] == 1
        assert figure["Refresh success"] < 0.9
        states = [one for one in shown if one.panel in _UNWELL and one.key.endswith("State")]
        assert _labels(states[0], "credential", "state") == UNWELL
        reasons = [one for one in shown if one.panel in _UNWELL and one.key.endswith("Why")]
        assert _labels(reasons[0], "credential", "reason")["revoked"] == "invalid_grant"
        alerts = next(one for one in shown if one.panel == "Alerts")
        assert {series["metric"]["alertname"] for series in alerts.answer} >= TROUBLE.keys()
        by_state = next(one for one in shown if one.panel == "Credentials by state")
        now = Counter({series["metric"]["state"]: int(series["values"][-1][1]) for series in by_state.answer})
        assert now["valid"] + sum(now[state] for state in set(UNWELL.values()) - {"valid"}) >= 12
    elif scene == "full_disk":
        assert figure["Unsaved pairs"] >= 1
    elif scene == "gone":
        assert figure["First access end"] < LIFETIME
    else:
        assert figure["Need somebody"] == figure["Unsaved pairs"] == 0
    owners: Any = next(one for one in shown if one.panel == "Owner and followers").answer
    last = sorted(series["values"][-1][1] for series in owners)
    assert last == ({"bad_configuration": ["0", "0"]}.get(scene, ["0", "1"]) if pods else ["1"])


def _labels(asked: Asked, key: str, value: str) -> dict[str, str]:
    return {series["metric"][key]: series["metric"][value] for series in asked.answer}
