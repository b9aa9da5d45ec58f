"""The dashboards as files: fresh, complete, and built only on metrics that there are."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.frame import ONLY_INTERVALS
from deploy.grafana.parts import STATES
from deploy.grafana.written import files
from deploy.prometheus.rule import RUNBOOKS
from rotator.core.standing import Standing
from tests.needs import needs

FILES: Final = files()
ROOT: Final = Path(__file__).parents[2]
BOARDS: Final = {path.stem: json.loads(text) for path, text in FILES.items()}
PANELS: Final = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
BUILT_IN: Final = {"__rate_interval", "__range", "__interval"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_dashboards_are_fresh(path: Path) -> None:
    """What is committed is what the code makes: `python -m deploy.grafana` was run."""
    assert path.read_text() == FILES[path]


@pytest.mark.parametrize("name", BOARDS)
def test_the_builders_types_read_them_back(name: str) -> None:
    """The JSON is of the type that the builder of Grafana's own schema has: nothing is lost on the way through it."""
    board = BOARDS[name]
    read = json.loads(json.dumps(Dashboard.from_json(board), default=lambda one: one.to_json()))
    for variable in read["templating"]["list"]:
        for field in ONLY_INTERVALS:
            del variable[field]
    del read["annotations"]  # the builder does not know all that a data source puts there
    assert read == {key: value for key, value in board.items() if key != "annotations"}


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_explains_itself(panel: dict[str, Any]) -> None:
    """Description, unit, thresholds, and a word for when there is nothing to show."""
    assert len(panel["description"]) > 20
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert defaults["noValue"]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    """Each row of the grid is 24 wide and no two panels lie upon each other."""
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len(taken) == 24 * (1 + max(y for _, y in taken))


@pytest.mark.parametrize("name", BOARDS)
def test_what_is_urgent_is_seen_without_scrolling(name: str) -> None:
    """On a screen of 1080 lines, of which Grafana takes some 130, 24 rows show: figures and what needs somebody."""
    shown = {panel["title"] for panel in BOARDS[name]["panels"] if panel["gridPos"]["y"] + panel["gridPos"]["h"] <= 24}
    urgent = {
        "overview": {"Need somebody", "Access tokens over", "Alerts", "Credentials that are not well"},
        "credential": {"State", "Access ends in", "Age of the access token", "States"},
    }
    assert urgent[name] <= shown


@pytest.mark.parametrize("name", BOARDS)
def test_only_metrics_that_there_are(name: str) -> None:
    """Every metric is one of the contract, of the recording rules or of Prometheus itself."""
    contract = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    known = set(re.findall(r"^\| `(\w+)` \|", contract, re.MULTILINE))
    known |= {f"{histogram}_bucket" for histogram in known}
    for expr in _exprs(BOARDS[name]):
        used = set(re.findall(r"(?<![\w:])((?:rotator|process)_\w+)", expr))
        assert used <= known, expr


@pytest.mark.parametrize("name", BOARDS)
def test_only_variables_that_there_are(name: str) -> None:
    """Every query looks only at the daemons that are chosen, and every variable used is declared."""
    declared = {variable["name"] for variable in BOARDS[name]["templating"]["list"]}
    for expr in _exprs(BOARDS[name]):
        assert set(re.findall(r"\$(\w+)", expr)) <= declared | BUILT_IN, expr
        assert "$job" in expr, expr


def test_every_state_has_its_colour() -> None:
    """A new state is given a colour before it is seen."""
    assert set(STATES) == set(Standing)


def test_links_lead_somewhere() -> None:
    """Links name dashboards that there are, and the alert's name leads to its runbook."""
    uids = {board["uid"] for board in BOARDS.values()}
    for board in BOARDS.values():
        linked = re.findall(r'"/d/([\w-]+)', json.dumps(board))
        assert linked
        assert set(linked) <= uids
    assert f"{RUNBOOKS}/${{__value.raw}}.md" in json.dumps(BOARDS["overview"])
    assert "https://wiki/rotator/${__value.raw}.md" in "".join(files("https://wiki/rotator").values())
    rules = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
    assert set(re.findall(r'dashboard: "/d/([\w-]+)', rules)) == uids


def test_replicas_that_share_a_lease_count_once(tmp_path: Path) -> None:
    """Two pods that show the same credentials, and a machine with its own: two that need somebody, not three."""
    needs("promtool")
    pods = ('namespace="n", job="pods", instance="1"', 'namespace="n", job="pods", instance="2"')
    everywhere = (*pods, 'job="machines", instance="3"')
    series = {f'rotator_owner{{{pod}, lease="rotator"}}': str(number) for number, pod in enumerate(pods)}
    for one in everywhere:
        for state in "valid", "reauthorization_required":
            series[f'rotator_fleet_credentials{{{one}, state="{state}"}}'] = "1"
        series[f"rotator_fleet_access_tokens_expired{{{one}}}"] = "1"
        series[f'rotator_access_token_age_seconds{{{one}, credential="home"}}'] = "60"
        series[f'rotator_access_token_lifetime_seconds{{{one}, credential="home"}}'] = "3600"
    titles = "Need somebody", "Access tokens over", "Credentials by state", "Age of access tokens"
    exprs = [panel["targets"][0]["expr"] for panel in BOARDS["overview"]["panels"] if panel["title"] in titles]
    assert len(exprs) == len(titles)
    two = {"{}": 2}, {"{}": 2}, {'{state="valid"}': 2, '{state="reauthorization_required"}': 2}, {"{}": 2}
    asked = [
        {
            "expr": re.sub(r"\$\w+", ".*", expr),
            "eval_time": "0s",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
        }
        for expr, samples in zip(exprs, two, strict=True)
    ]
    test = {"input_series": [{"series": name, "values": value} for name, value in series.items()]}
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps({"tests": [{"interval": "1m", **test, "promql_expr_test": asked}]}))
    run = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def _exprs(board: dict[str, Any]) -> list[str]:
    """Return all queries of a dashboard."""
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return [*asked, *(annotation["expr"] for annotation in board["annotations"]["list"])]
