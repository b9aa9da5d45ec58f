"""Real replicas, a real API server, a strict authorization server: what a release of rotator is for."""

from pathlib import Path

from tests.needs import needs
from tests.testbed.kubernetes.chaos import run


def test_no_mishap_costs_a_token(tmp_path: Path) -> None:
    """C1, C2, C5, C6, C22: a few of the rounds that `python -m tests.testbed.kubernetes.chaos` runs by the hundred."""
    needs("kubernetes", "openssl")
    table = run(tmp_path, rounds=4, seed=7, replicas=2)
    assert table.good, str(table)
    assert table.rotations > 0
