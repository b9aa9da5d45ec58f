"""The real daemon against a real authorization server that nobody here wrote: django-oauth-toolkit."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from rotator.adapters.control_client import ControlClient
from tests.process.life import events, rotate
from tests.process.rig import CLIENT_SECRET, NAME, USERNAME, DaemonProcess, Rig, SandboxProcess, wait_until
from tests.secrets_scan import planted
from tests.testbed.front import Front, run_front
from tests.testbed.toolkit import Toolkit, run_toolkit

ROTATION: Final = {"ROTATE_REFRESH_TOKEN": True, "REFRESH_TOKEN_REUSE_PROTECTION": True}
SHORT: Final = {"ACCESS_TOKEN_EXPIRE_SECONDS": 4}
LONG: Final = {"ACCESS_TOKEN_EXPIRE_SECONDS": 3600}
"""Refreshed when a test says so."""
GRACE: Final = {"REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 60}
POLICY: Final = 'refresh = { jitter = 0.0, backoff_initial = "500ms", confirm_after = "1s", replay_window = "5s" }'


class Bed(Rig):
    """An installation whose requests go to a toolkit through a front."""

    def __init__(self, directory: Path, toolkit: Toolkit, front: Front) -> None:
        super().__init__(directory, SandboxProcess(toolkit.url))
        self.toolkit = toolkit
        self.front = front
        self.ask_at(front.url)

    def ask_at(self, url: str) -> None:
        """Configure another address of the token endpoint."""
        self.configure(defaults=POLICY, credentials=f'[credentials.{NAME}]\ntoken_url = "{url}"')

    def refresh_token(self) -> str:
        """Return the refresh token that is stored, while a daemon runs."""
        state = json.loads((self.state_directory / f"{NAME}.json").read_text())["state"]
        return str(state["tokens"]["refresh_token"])

    def write_secret(self, secret: str) -> None:
        """Replace the file with the client secret, all at once."""
        new = self.directory / "client-secret.new"
        new.write_text(secret)
        new.chmod(0o600)
        new.rename(self.directory / "client-secret")


@contextmanager
def bed(directory: Path, **provider: object) -> Generator[Bed]:
    """Run a toolkit and a front until the end of the block; the user has logged in."""
    with run_toolkit(directory, **provider) as toolkit, run_front(toolkit) as front:
        new = Bed(directory, toolkit, front)
        new.login()
        yield new


def wait_for_published(daemon: DaemonProcess, bed: Bed, generation: int) -> None:
    """Wait until tokens of a generation, or a later one, are published and good for a consumer."""

    def published() -> bool:
        shown = daemon.shown()
        return shown["generation"] >= generation and shown["outputs"][0]["current"] and bed.has_good_token()

    daemon.wait_until(published, f"generation {generation} is published and accepted")


def begin_rotation(bed: Bed, fate: str) -> None:
    """Have the daemon refresh, and wait until the request has met a fate."""
    bed.front.fates.append(fate)
    ControlClient(bed.socket, 0.1).post(f"/v1/rotate/{NAME}")
    wait_until(lambda: fate in bed.front.met, f"the request is {fate}")


def test_short_lived_tokens_are_rotated_and_accepted_generation_after_generation(tmp_path: Path) -> None:
    """A password login, then rotation: each published token is accepted, no refresh token is presented twice."""
    with bed(tmp_path, **ROTATION, **SHORT) as home, home.daemon() as daemon:
        seen = set()
        for generation in (1, 2, 3, 4):
            wait_for_published(daemon, home, generation)
            known = home.toolkit.introspect(home.token())
            assert (known["active"], known["username"]) == (True, USERNAME)
            assert abs(daemon.shown()["expires_at"] - known["exp"]) <= 1
            seen.add(home.refresh_token())
        assert daemon.stop() == 0
    assert len(seen) == 4
    assert set(home.front.met) == {"200"}


def test_a_server_that_does_not_rotate_keeps_its_refresh_token(tmp_path: Path) -> None:
    """With rotation off the access token changes, the refresh token stays, and each is accepted."""
    with bed(tmp_path, ROTATE_REFRESH_TOKEN=False, **SHORT) as home, home.daemon() as daemon:
        refresh_token, access_tokens = home.refresh_token(), set()
        for generation in (1, 2, 3):
            wait_for_published(daemon, home, generation)
            access_tokens.add(home.token())
            assert home.refresh_token() == refresh_token
    assert len(access_tokens) == 3


@pytest.mark.parametrize("fate", ["unasked", "unanswered"])
def test_a_kill_during_the_request_heals_within_the_grace_period(tmp_path: Path, fate: str) -> None:
    """Killed after the reservation, the server asked or not: the next daemon replays, gets one pair, and goes on."""
    with bed(tmp_path, **ROTATION, **LONG, **GRACE) as home:
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
    with bed(tmp_path, **ROTATION, **LONG, **GRACE) as home, home.daemon() as daemon:
        begin_rotation(home, "cut")
        wait_for_published(daemon, home, 2)
        lost, again = home.front.answers[1:]
        assert lost["refresh_token"] == again["refresh_token"] == home.refresh_token()
        assert rotate(daemon)["standing"] == "valid"
    assert home.front.met == ["200", "cut", "200", "200"]


def test_without_a_grace_period_a_lost_answer_is_told_and_a_login_heals_it(tmp_path: Path) -> None:
    """Reuse protection kills the family: the daemon says that an answer was lost and asks for a login."""
    with bed(tmp_path, **ROTATION, **LONG) as home:
        with home.daemon() as daemon:
            begin_rotation(home, "unanswered")
            daemon.kill()
        with home.daemon() as daemon:
            daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "the grant is dead")
            assert "the answer to an earlier refresh was lost" in daemon.shown()["text"]
            home.login()
            assert rotate(daemon)["standing"] == "valid"
            wait_for_published(daemon, home, 3)


def test_a_wrong_client_secret_is_healed_by_the_corrected_file(tmp_path: Path) -> None:
    """Status 401, `invalid_client`: nothing is lost, and the corrected file is noticed without a restart."""
    with bed(tmp_path, **ROTATION, **LONG) as home, home.daemon() as daemon:
        before = home.refresh_token()
        home.write_secret(planted("wrong"))
        shown = rotate(daemon)
        assert (shown["standing"], shown["reason"]) == ("refused", "invalid_client")
        assert home.front.met[-1] == "401"
        assert home.refresh_token() == before
        assert home.has_good_token()
        home.write_secret(CLIENT_SECRET)
        wait_for_published(daemon, home, 2)
        assert daemon.shown()["standing"] == "valid"


def test_a_revoked_token_is_believed_and_healed_by_a_login(tmp_path: Path) -> None:
    """Status 400, `invalid_grant`, asked about twice: a login is required, and heals."""
    with bed(tmp_path, **ROTATION, **LONG) as home, home.daemon() as daemon:
        home.toolkit.revoke(home.refresh_token())
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


@pytest.mark.parametrize(("direct", "reason"), [(True, "connect"), (False, "http_5xx")], ids=["refused", "502"])
def test_a_restart_of_the_server_is_waited_out(tmp_path: Path, direct: bool, reason: str) -> None:
    """The server is away, seen as refused connections or as a proxy's 502: the daemon goes on once it is back."""
    with bed(tmp_path, **ROTATION, **SHORT) as home:
        if direct:
            home.ask_at(f"{home.toolkit.url}/v2/token")
        with home.daemon() as daemon:
            wait_for_published(daemon, home, 2)
            home.toolkit.stop()
            daemon.wait_until(lambda: daemon.shown()["failures"] >= 1, "a refresh has failed")
            assert daemon.shown()["reason"] == reason
            generation = daemon.shown()["generation"]
            home.toolkit.start()
            wait_for_published(daemon, home, generation + 2)
            assert daemon.shown()["standing"] == "valid"
