"""The dashboards are drawn by Grafana's own components, on a desk and on a phone, while things go wrong."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.needs import needs
from tests.testbed.drawing.workshop import mistyped
from tests.testbed.prometheus.boards import DASHBOARDS, Board
from tests.testbed.prometheus.play import hurried, staged, trouble, well


@pytest.mark.parametrize("name", ["overview", "credential"])
def test_grafanas_schema_knows_every_field(name: str) -> None:
    """No field of the JSON is unknown to the schema of Grafana 11.6, or of another type; a wrong one is noticed."""
    needs("grafana components")
    board = json.loads((DASHBOARDS / f"{name}.json").read_text())
    assert mistyped(board) == ""
    board["panels"][0]["gridPos"]["w"] = "6"
    board["panels"][1]["descripton"] = "a slip"
    found = mistyped(board)
    assert "Type 'string' is not assignable to type 'number'" in found
    assert "descripton" in found


def test_the_dashboards_can_be_drawn_and_read(tmp_path: Path) -> None:
    """In the midst of trouble every panel is drawn and says what matters, on a desk and on a phone."""
    needs("grafana components", "chromium", "prometheus", "mount namespace")
    from tests.testbed.drawing.drawings import DESK, PHONE, easel, recorded  # noqa: PLC0415 - loads a browser's reins

    with staged(tmp_path, hurried()) as stage:
        well(stage)
        trouble(stage)
        stage.wait_scraped()
        records = {
            name: recorded(
                Board(name, stage.prometheus, {"job": "rotator", "credential": "revoked"}, stage.began_at, time.time())
            )
            for name in ("overview", "credential")
        }
    said = {
        "overview": ("RotatorAccessTokenExpired", "reauthorization required", "invalid_grant", "critical"),
        "credential": ("reauthorization required", "invalid_grant", "4 weeks"),
    }

    def draw() -> None:
        with easel(tmp_path) as pencil:
            for name, record in records.items():
                for size in (DESK, PHONE):
                    drawn = pencil.draw(record, tmp_path / "picture.png", size)
                    assert (drawn.failed, drawn.errors, drawn.empty) == ({}, [], set())
                    if size == DESK:  # a phone shows the first columns of a table
                        assert [word for word in said[name] if word not in drawn.text] == []

    # In a thread of its own: other tests of this worker may hold the browser's reins, and one loop bears one pair.
    with ThreadPoolExecutor(1) as aside:
        aside.submit(draw).result()
