"""What changes while the daemon runs: its configuration, client secrets, seeds."""

import json
import os
import signal

import pytest

from tests.process.life import Life, events, rotate, wait_for_generation
from tests.process.rig import CLIENT_SECRET, DaemonProcess, wait_until
from tests.secrets_scan import planted


def _reload_by_signal(daemon: DaemonProcess, outcome: str) -> None:
    before = daemon.sample("rotator_config_reloads_total", outcome=outcome)
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait_until(
        lambda: daemon.sample("rotator_config_reloads_total", outcome=outcome) == before + 1, f"reload: {outcome}"
    )


@pytest.fixture
def long(life: Life) -> Life:
    """An installation whose tokens live so long that nothing is due."""
    life.server.sandbox.change(access_lifetime=3600)
    return life


def test_a_good_configuration_is_taken_without_dropping_state(long: Life) -> None:
    """M6: SIGHUP adds, removes and changes credentials; the series of a removed one are gone at once."""
    long.configure(credentials="[credentials.home]\n[credentials.away]")
    for name in ("home", "away", "new"):
        long.put_pair(age=0, name=name)
    other = long.directory / "out" / "other"
    with long.daemon() as daemon:
        daemon.wait_until(lambda: long.token("home") and long.token("away"), "both are published")
        assert rotate(daemon, "away")["generation"] == 2
        before = long.books
        long.configure(
            credentials=f'[credentials.home]\noutputs = [{{ path = "{other}", format = "env" }}]\n[credentials.new]'
        )
        _reload_by_signal(daemon, "success")
        assert 'credential="away"' not in daemon.page("/metrics")
        assert 'credential="new"' in daemon.page("/metrics")
        assert daemon.sample("rotator_config_last_reload_successful") == 1
        daemon.wait_until(lambda: other.exists() and long.token("new"), "the new outputs are written")
        assert f"ACCESS_TOKEN='{long.token('home')}'\n" in other.read_text()
        assert [output["name"] for output in daemon.shown("home")["outputs"]] == [str(other)]
        long.configure(
            credentials=f'[credentials.home]\noutputs = [{{ path = "{other}", format = "header" }}]\n[credentials.new]'
        )
        _reload_by_signal(daemon, "success")
        daemon.wait_until(lambda: other.read_text().startswith("Authorization"), "the same output in its new form")
        assert daemon.shown("home")["generation"] == 1
        assert long.books == before
        long.configure(credentials="[credentials.home]\n[credentials.away]")
        _reload_by_signal(daemon, "success")
        daemon.wait_until(lambda: daemon.shown("away")["generation"] == 2, "the state of the removed one was kept")
        assert long.books == before


def test_a_bad_configuration_is_refused_and_the_daemon_goes_on(life: Life) -> None:
    """A wrong configuration changes nothing; log and metric say so; the next good one is taken."""
    life.put_pair(age=60, lifetime=4)
    good = life.config.read_text()
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        for bad, said in (
            ("not toml", "rotator.toml"),
            (good.replace("client_id", "client_ID"), "defaults.client_ID"),
            (good.replace("[credentials.home]", "[credentials.home]\ntoken_url = 'ftp://nowhere'"), "token_url"),
            (good.replace(str(life.state_directory), "/elsewhere"), "restart rotator for it"),
        ):
            life.config.write_text(bad)
            _reload_by_signal(daemon, "failure")
            assert daemon.sample("rotator_config_last_reload_successful") == 0
            assert said in "".join(event["message"] for event in events(daemon, "reload_refused"))
        wait_for_generation(daemon, daemon.shown()["generation"] + 1)
        life.config.write_text(good)
        _reload_by_signal(daemon, "success")
        assert daemon.sample("rotator_config_last_reload_successful") == 1


def test_a_corrected_client_secret_heals_by_itself(long: Life) -> None:
    """K8, E1: a wrong secret is asked about once; the corrected file is noticed without restart, reload or a person."""
    long.put_pair(age=0)
    with long.daemon() as daemon:
        daemon.wait_until(long.has_good_token, "the token is published")
        long.server.sandbox.change(client_secret=planted("second-secret"))
        shown = rotate(daemon)
        assert (shown["standing"], shown["reason"]) == ("refused", "invalid_client")
        assert daemon.sample("rotator_failing", credential="home", reason="invalid_client") == 1
        assert long.has_good_token()
        long.write_secret("client-secret", planted("second-secret") + "\n")
        wait_for_generation(daemon, 2)
        assert daemon.shown()["standing"] == "valid"
        assert long.books.token_requests == {"invalid_client": 1, "granted": 1}
        long.server.sandbox.change(client_secret=CLIENT_SECRET)
        long.write_secret("client-secret", CLIENT_SECRET)
        assert rotate(daemon)["generation"] == 3  # a secret that was changed in time is never noticed


SECRETS = {"the environment": '{ env = "SECRET" }', "a command": "{ command = ['sh', '-c', 'cat $HOME/other'] }"}


@pytest.mark.parametrize("source", SECRETS)
def test_a_client_secret_that_was_corrected_between_two_runs_is_tried_at_once(life: Life, source: str) -> None:
    """K8, E1: what was refused stays refused, however often rotator starts; with another secret it is asked at once."""
    life.configure(credentials=f"[credentials.home]\nclient_secret = {SECRETS[source]}")
    life.put_pair(age=7200)

    def run_with(secret: str) -> int:
        life.write_secret("other", secret)
        return life.run("run", "--once", SECRET=secret, HOME=str(life.directory)).returncode

    for _ in range(3):
        assert run_with(planted("second-secret")) == 75
    assert life.books.token_requests == {"invalid_client": 1}
    assert planted("second-secret") not in json.dumps(life.on_disk())
    assert run_with(planted("third-secret")) == 75
    assert run_with(CLIENT_SECRET) == 0
    assert life.books.token_requests == {"invalid_client": 2, "granted": 1}


def test_a_restarted_daemon_tries_a_corrected_secret_at_once(long: Life) -> None:
    """K8: after a restart, which is all that can bring a new systemd credential, nobody waits for a quarter of an hour.

    A secret that cannot be read is the same: nothing was sent, and the next daemon, which can read it, goes on.
    """
    long.put_pair(age=7200)
    credentials = long.directory / "credentials"
    credentials.mkdir()
    long.configure(credentials="[credentials.home]\nclient_secret = { credential = 'client-secret' }")
    told: dict[str, str] = {"CREDENTIALS_DIRECTORY": str(credentials)}
    with long.daemon(environment=told) as daemon:
        daemon.wait_until(lambda: daemon.shown()["reason"] == "bad_input", "there is no such credential")
        assert daemon.stop() == 0
    for secret, outcome in ((planted("second-secret"), "invalid_client"), (CLIENT_SECRET, "valid")):
        (credentials / "client-secret").write_text(secret)
        with long.daemon(environment=told) as daemon:
            daemon.wait_until(
                lambda: outcome in (daemon.shown()["standing"], daemon.shown()["reason"]),  # noqa: B023 - called within its round
                outcome,
            )
            assert daemon.stop() == 0
    assert long.books.token_requests == {"invalid_client": 1, "granted": 1}


def test_a_client_that_is_corrected_by_a_reload_is_tried_at_once(long: Life) -> None:
    """K8: a new client id in the configuration ends the wait; a reload that changes something else does not."""
    long.put_pair(age=7200)
    long.configure(credentials="[credentials.home]\nclient_id = 'nobody'")
    with long.daemon() as daemon:
        daemon.wait_until(lambda: daemon.shown()["standing"] == "refused", "it is refused")
        asked = daemon.shown()["last_attempt_at"]
        long.configure(credentials="[credentials.home]\nclient_id = 'nobody'\nhooks = [{ command = ['true'] }]")
        _reload_by_signal(daemon, "success")
        daemon.wait_until(lambda: len(daemon.shown()["outputs"]) == 2, "the hook is there")
        assert daemon.shown()["last_attempt_at"] == asked
        long.configure()
        _reload_by_signal(daemon, "success")
        daemon.wait_until(lambda: daemon.shown()["standing"] == "valid", "it is tried")
    assert long.books.token_requests == {"invalid_client": 1, "granted": 1}


def test_a_changed_seed_is_a_new_login_and_an_old_one_is_not(long: Life) -> None:
    """B20, B21: state beats seed, also after a restart; a seed that changes is a deliberate new login."""
    seed = long.write_secret("seed", long.sandbox.issue()["refresh_token"])
    long.configure(credentials=f'[credentials.home]\nseed = {{ file = "{seed}" }}')
    with long.daemon() as daemon:
        wait_for_generation(daemon, 2)
        assert rotate(daemon)["generation"] == 3
        assert daemon.stop() == 0
    before = long.books
    with long.daemon() as daemon:  # the seed is the token that was spent first
        daemon.wait_until(lambda: daemon.shown()["standing"] == "valid", "the state is taken up")
        os.utime(seed)
        daemon.wait_until(lambda: events(daemon, "inputs_changed"), "the file was looked at")
        assert long.books == before
        assert daemon.shown()["generation"] == 3
        long.write_secret("seed", long.sandbox.issue()["refresh_token"] + "\n")
        wait_for_generation(daemon, 5)
        wait_until(long.has_good_token, "the new login is published")
        assert rotate(daemon)["generation"] == 6
    assert long.books.replays_outside_grace == long.books.families_revoked == 0


def test_a_changed_seed_heals_a_dead_grant(life: Life) -> None:
    """B21: after the grant has died a new seed is all it takes."""
    life.server.sandbox.change(access_lifetime=3600)
    seed = life.write_secret("seed", life.sandbox.issue()["refresh_token"])
    life.configure(credentials=f'[credentials.home]\nseed = {{ file = "{seed}" }}')
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        life.sandbox.revoke()
        rotate(daemon)
        daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "the grant is dead")
        life.write_secret("seed", life.sandbox.issue()["refresh_token"])
        daemon.wait_until(lambda: daemon.shown()["standing"] == "valid", "the new seed heals it")
        wait_until(life.has_good_token, "the new token is published")
