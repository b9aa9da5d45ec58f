"""What django-oauth-toolkit alone does: a grace period, and stored tokens that outlive a restart of the server."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.process.life import rotate
from tests.testbed.bed import Bed, bed, begin_rotation, wait_for_published
from tests.testbed.toolkit import run_toolkit

ROTATION: Final = {"ROTATE_REFRESH_TOKEN": True, "REFRESH_TOKEN_REUSE_PROTECTION": True}
SHORT: Final = {"ACCESS_TOKEN_EXPIRE_SECONDS": 4}
LONG: Final = {"ACCESS_TOKEN_EXPIRE_SECONDS": 3600}
"""Refreshed when a test says so."""
GRACE: Final = {"REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 60}


@contextmanager
def toolkit_bed(directory: Path, **provider: object) -> Generator[Bed]:
    """Run a toolkit and an installation; the user has logged in."""
    with run_toolkit(directory, **provider) as toolkit, bed(directory, toolkit) as home:
        yield home


@pytest.mark.parametrize("fate", ["unasked", "unanswered"])
def test_a_kill_during_the_request_heals_within_the_grace_period(tmp_path: Path, fate: str) -> None:
    """Killed after the reservation, the server asked or not: the next daemon replays, gets one pair, and goes on."""
    with toolkit_bed(tmp_path, **ROTATION, **LONG, **GRACE) as home:
        before = home.refresh_token()
        with home.daemon() as daemon:
            begin_rotation(home, fate)
            daemon.kill()
        assert home.refresh_token() == before
        with home.daemon() as daemon:
            wait_for_published(daemon, home, 2)
            issued = {answer["refresh_token"] for answer in home.front.answers[1:]}
            assert issued == {home.refresh_token()}, "a replay is answered with the pair that was lost"
            assert rotate(daemon)["standing"] == "valid"
            wait_for_published(daemon, home, 3)
    assert home.front.met == ["200", fate, "200", "200"]


def test_an_answer_lost_on_the_way_is_asked_for_again(tmp_path: Path) -> None:
    """The connection breaks after the server has rotated: one replay within the grace period brings the same pair."""
    with toolkit_bed(tmp_path, **ROTATION, **LONG, **GRACE) as home, home.daemon() as daemon:
        begin_rotation(home, "cut")
        wait_for_published(daemon, home, 2)
        lost, again = home.front.answers[1:]
        assert lost["refresh_token"] == again["refresh_token"] == home.refresh_token()
        assert rotate(daemon)["standing"] == "valid"
    assert home.front.met == ["200", "cut", "200", "200"]


@pytest.mark.parametrize(("direct", "reason"), [(True, "connect"), (False, "http_5xx")], ids=["refused", "502"])
def test_a_restart_of_the_server_is_waited_out(tmp_path: Path, direct: bool, reason: str) -> None:
    """The server is away, seen as refused connections or as a proxy's 502: the daemon goes on once it is back."""
    with toolkit_bed(tmp_path, **ROTATION, **SHORT) as home:
        if direct:
            home.ask_at(f"{home.server.url}/v2/token")
        with home.daemon() as daemon:
            wait_for_published(daemon, home, 2)
            home.server.stop()
            daemon.wait_until(lambda: daemon.shown()["failures"] >= 1, "a refresh has failed")
            assert daemon.shown()["reason"] == reason
            generation = daemon.shown()["generation"]
            home.server.start()
            wait_for_published(daemon, home, generation + 2)
            assert daemon.shown()["standing"] == "valid"
