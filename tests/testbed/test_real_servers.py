"""The real daemon against real authorization servers that nobody here wrote; each behaviour at each of them."""

from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

import pytest

from tests.needs import needs
from tests.process.life import events, rotate
from tests.process.rig import CLIENT_SECRET
from tests.secrets_scan import planted
from tests.testbed.bed import Bed, bed, begin_rotation, wait_for_published
from tests.testbed.oidc_provider import run_provider
from tests.testbed.toolkit import run_toolkit

SHORT: Final = 4
LONG: Final = 3600
"""Lifetimes of access tokens, in seconds: refreshed again and again, or when a test says so."""


@pytest.fixture(params=["django-oauth-toolkit", "oidc-provider"])
def server(request: pytest.FixtureRequest) -> str:
    """Name a server."""
    if request.param == "oidc-provider":
        needs("oidc-provider")
    return str(request.param)


@contextmanager
def home_at(server: str, directory: Path, lifetime: int, *, rotates: bool = True) -> Generator[Bed]:
    """Run a server without a grace period, to which a used refresh token is the end of the grant; log in there."""
    if server == "oidc-provider":
        running = run_provider(
            directory, rotateRefreshToken=rotates, ttl={"AccessToken": lifetime, "RefreshToken": 86_400}
        )
    else:
        running = run_toolkit(
            directory,
            ROTATE_REFRESH_TOKEN=rotates,
            REFRESH_TOKEN_REUSE_PROTECTION=True,
            ACCESS_TOKEN_EXPIRE_SECONDS=lifetime,
        )
    with running as started, bed(directory, started) as home:
        yield home


def test_short_lived_tokens_are_rotated_and_accepted_generation_after_generation(server: str, tmp_path: Path) -> None:
    """A password login, then rotation: each published token is accepted, no refresh token is presented twice."""
    with home_at(server, tmp_path, SHORT) as home, home.daemon() as daemon:
        seen = set()
        for generation in (1, 2, 3, 4):
            wait_for_published(daemon, home, generation)
            assert home.server.introspect(home.token())["active"]
            seen.add(home.refresh_token())
        assert daemon.stop() == 0
    assert len(seen) == 4
    assert set(home.front.met) == {"200"}


def test_an_answer_that_came_late_is_not_believed_in_longer_than_the_server_does(server: str, tmp_path: Path) -> None:
    """The lifetime counts from the request: from the server's decision to its answer's arrival three seconds pass."""
    with home_at(server, tmp_path, LONG) as home, home.daemon() as daemon:
        home.front.fates.append("late")
        assert rotate(daemon)["standing"] == "valid"
        wait_for_published(daemon, home, 2)
        assert daemon.shown()["expires_at"] < home.server.introspect(home.token())["exp"] + 1  # whole seconds there
    assert home.front.met == ["200", "late"]


def test_a_server_that_does_not_rotate_keeps_its_refresh_token(server: str, tmp_path: Path) -> None:
    """With rotation off the access token changes, the refresh token stays, and each is accepted."""
    with home_at(server, tmp_path, SHORT, rotates=False) as home, home.daemon() as daemon:
        refresh_token, access_tokens = home.refresh_token(), set()
        for generation in (1, 2, 3):
            wait_for_published(daemon, home, generation)
            access_tokens.add(home.token())
            assert home.refresh_token() == refresh_token
    assert len(access_tokens) == 3


def test_without_a_grace_period_a_lost_answer_is_told_and_a_login_heals_it(server: str, tmp_path: Path) -> None:
    """Reuse protection kills the family: the daemon says that an answer was lost and asks for a login."""
    with home_at(server, tmp_path, LONG) as home:
        with home.daemon() as daemon:
            begin_rotation(home, "unanswered")
            daemon.kill()
        with home.daemon() as daemon:
            daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "the grant is dead")
            assert "the answer to an earlier refresh was lost" in daemon.shown()["text"]
            home.login()
            assert rotate(daemon)["standing"] == "valid"
            wait_for_published(daemon, home, 3)


def test_a_wrong_client_secret_is_healed_by_the_corrected_file(server: str, tmp_path: Path) -> None:
    """Status 401, `invalid_client`: nothing is lost, and the corrected file is noticed without a restart."""
    with home_at(server, tmp_path, LONG) as home, home.daemon() as daemon:
        before = home.refresh_token()
        home.write_secret(planted("wrong"))
        shown = rotate(daemon)
        assert (shown["standing"], shown["reason"]) == ("refused", "invalid_client")
        assert home.front.met[-1] == str(HTTPStatus.UNAUTHORIZED)
        assert home.refresh_token() == before
        assert home.has_good_token()
        home.write_secret(CLIENT_SECRET)
        wait_for_published(daemon, home, 2)
        assert daemon.shown()["standing"] == "valid"


def test_a_revoked_token_is_believed_and_healed_by_a_login(server: str, tmp_path: Path) -> None:
    """Status 400, `invalid_grant`, asked about twice: a login is required, and heals."""
    with home_at(server, tmp_path, LONG) as home, home.daemon() as daemon:
        home.server.revoke(home.refresh_token())
        assert rotate(daemon)["standing"] == "suspect"
        daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "it is believed")
        assert daemon.shown()["reason"] == "invalid_grant"
        assert home.front.met == ["200", "400", "400"]
        assert [event["after"] for event in events(daemon, "status_changed")] == ["suspect", "reauthorization_required"]
        home.login()
        assert daemon.shown()["standing"] == "valid"
        wait_for_published(daemon, home, 2)
        assert rotate(daemon)["standing"] == "valid"
        wait_for_published(daemon, home, 3)


def test_a_disabled_user_who_is_enabled_again_needs_no_login(tmp_path: Path) -> None:
    """`invalid_grant` that was not final (B): an hour later, here a second, one probe finds the grant alive."""
    needs("oidc-provider")
    with home_at("oidc-provider", tmp_path, LONG) as home:
        home.ask_at(home.front.url, probe_interval="1s")
        with home.daemon() as daemon:
            (tmp_path / "disabled").touch()
            rotate(daemon)
            daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "it is believed")
            assert daemon.shown()["reason"] == "invalid_grant"
            (tmp_path / "disabled").unlink()
            daemon.wait_until(lambda: daemon.shown()["standing"] == "valid", "the probe was answered")
            wait_for_published(daemon, home, 2)
            assert rotate(daemon)["standing"] == "valid"
