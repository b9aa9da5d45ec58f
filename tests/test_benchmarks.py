"""The benchmarks measure what they say: their parts work, with numbers too small to tell anything."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import bare, durable, fleet, interpreter, memory, refresh, scrape, start, stub
from benchmarks.measure import Figure, cpu_seconds, in_turn, median_ratio, resident_bytes
from tests.children import ROOT
from tests.process.rig import PATIENCE


def test_a_figure_says_whether_its_target_is_met() -> None:
    """A target is an upper bound unless it is said to be a lower one, and meeting it exactly will do."""
    assert Figure("a", 2.0, 2.0).ok
    assert not Figure("a", 2.1, 2.0).ok
    assert Figure("a", 0.6, 0.6, at_least=True).ok
    assert not Figure("a", 0.5, 0.6, at_least=True).ok
    assert str(Figure("a", 2.1, 2.0)).startswith("MISSED")
    assert "<= 2" in str(Figure("a", 2.1, 2.0))


def test_measures_are_taken_in_turn_and_compared_pair_by_pair() -> None:
    """One slow moment spoils one pair, and the median does without it."""
    seconds = iter([1.0, 2.0, 100.0, 2.0, 1.0, 2.0])
    pairs = in_turn(3, lambda: next(seconds), lambda: next(seconds))
    assert pairs == [(1.0, 2.0), (100.0, 2.0), (1.0, 2.0)]
    assert median_ratio(pairs) == 0.5


def test_a_process_shows_what_it_costs() -> None:
    """CPU time and memory are read for any process, here for this one."""
    assert cpu_seconds(os.getpid()) >= 0
    assert 1 << 20 < resident_bytes(os.getpid()) < 1 << 34


def test_the_stub_counts_what_it_grants() -> None:
    """Every POST gets tokens of its own and is counted; the bare client's cost comes from the same stub."""
    with stub.running(60) as server:
        assert server.granted() == 0
        assert 0 < bare.cpu_per_post(server.url, 2, 0.1) < 1
        assert server.granted() > 2


def test_the_interpreter_posts_and_publishes(tmp_path: Path) -> None:
    """What `start` compares with does one POST and writes what came of it."""
    with stub.running(60) as server:
        with interpreter.posting(server.url, tmp_path / "token") as process:
            assert process.wait(PATIENCE) == 0
        assert server.granted() == 1
    assert len((tmp_path / "token").read_text()) == 2 * stub.ACCESS_BYTES
    with interpreter.idle() as pid:
        assert resident_bytes(pid) > 10 << 20


@pytest.mark.parametrize(
    "measure",
    [
        lambda: refresh.run(count=20, rounds=1, seconds=3.0),
        lambda: durable.run(count=3),
        lambda: memory.run(rounds=1),
        lambda: start.run(rounds=1),
        lambda: scrape.run(sizes=(3,), scrapes=1, rounds=1, seconds=3.0),
        lambda: fleet.run(sizes=(20,), idle=0.1, due=5),
    ],
    ids=["refresh", "durable", "memory", "start", "scrape", "fleet"],
)
def test_each_benchmark_ends_with_figures(measure: Callable[[], list[Figure]]) -> None:
    """A daemon is laid out, run, measured and cleaned up; the numbers are positive and finite."""
    for figure in measure():
        assert math.isfinite(figure.measured)
        assert figure.measured > 0 or "fleet" in figure.what  # 20 idle credentials cost less than can be measured


def test_the_command_refuses_a_name_it_does_not_know() -> None:
    """`python -m benchmarks nonsense` says what there is."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nonsense"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert run.returncode == 2
    assert "there is no nonsense; there are: refresh, durable, memory, start, scrape, fleet" in run.stderr
