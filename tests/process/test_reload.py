"""What changes while the daemon runs: its configuration, client secrets, seeds."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rotator.adapters.control_client import ControlClient, ControlProblem
from tests.process.life import Life, begin_rotation, events, rotate, wait_for_generation
from tests.process.rig import CLIENT_SECRET, PATIENCE, DaemonProcess, wait_until
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


def test_a_lifetime_that_is_set_later_counts_at_once_from_the_login(long: Life) -> None:
    """B30: `refresh_token_lifetime` with a fixed end, set while the daemon runs: the end is told without a refresh."""
    state = long.put_pair(age=600)
    assert state.tokens is not None
    with long.daemon() as daemon:
        daemon.wait_until(long.token, "it is published")
        long.configure(credentials='[credentials.home]\nrefresh_token_lifetime = "90d"\nrefresh_token_slides = false')
        _reload_by_signal(daemon, "success")
        end = state.tokens.refresh_obtained_at + 90 * 86400
        daemon.wait_until(lambda: abs(daemon.shown()["refresh_expires_at"] - end) < 1, "the end counts from the login")
    assert long.books.refresh_grants == 0


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
            (good.replace(str(life.state_directory), "/elsewhere"), "daemon.state_directory: cannot change"),
            (good.replace("[metrics]", "[metrics]\nstatus_page = false"), "metrics.status_page: cannot change"),
        ):
            life.config.write_text(bad)
            _reload_by_signal(daemon, "failure")
            assert daemon.sample("rotator_config_last_reload_successful") == 0
            assert said in "".join(event["message"] for event in events(daemon, "reload_refused"))
        wait_for_generation(daemon, daemon.shown()["generation"] + 1)
        life.config.write_text(good)
        _reload_by_signal(daemon, "success")
        assert daemon.sample("rotator_config_last_reload_successful") == 1


def test_a_reload_takes_another_way_to_log(long: Life) -> None:
    """M6: level and format of the log are taken up by a reload, so that a look at a fault takes no restart."""
    long.put_pair(age=0)
    with long.daemon() as daemon:
        daemon.wait_until(long.has_good_token, "the token is published")
        assert rotate(daemon)["generation"] == 2
        assert events(daemon, "refresh_started") == []
        long.configure(credentials="[credentials.home]\n[log]\nlevel = 'debug'")
        _reload_by_signal(daemon, "success")
        assert rotate(daemon)["generation"] == 3
        assert len(events(daemon, "refresh_started")) == 1
        long.configure(credentials="[credentials.home]\n[log]\nformat = 'text'")
        _reload_by_signal(daemon, "success")
        assert rotate(daemon)["generation"] == 4
        assert len(events(daemon, "refreshed")) == 2
        assert "INFO     refreshed: a new token" in daemon.log


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


def test_a_wrong_client_secret_costs_a_handful_of_requests(life: Life) -> None:
    """E1, K8: sixty credentials of a refused client ask little of its server; with the right secret all go on."""
    names = [f"c{number}" for number in range(60)]
    life.server.sandbox.change(access_lifetime=3600, client_secret=planted("second-secret"))
    life.configure(credentials="\n".join(f"[credentials.{name}]" for name in names))
    for name in names:
        life.put_pair(age=7200, name=name)
    with life.daemon() as daemon:
        daemon.wait_until(
            lambda: all(daemon.shown(name)["reason"] == "invalid_client" for name in names), "all refused"
        )
        assert life.books.token_requests["invalid_client"] <= 3 + 3  # three were under way beside the third
        life.write_secret("client-secret", planted("second-secret"))
        daemon.wait_until(lambda: all(life.has_good_token(name) for name in names), "all granted")
    assert life.books.token_requests["granted"] == len(names)


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


def test_a_corrected_file_of_a_further_field_is_tried_at_once(long: Life) -> None:
    """K8: what `extra` reads from a file is a secret as any other: a new content ends the wait."""
    key = long.write_secret("key-of-home", planted("old-key"))
    long.server.sandbox.change(client_secret=planted("second-secret"))
    long.put_pair(age=7200)
    long.configure(
        credentials=f'[credentials.home]\nextra = {{ api_key = {{ file = "{key.with_name("key-of-{name}")}" }} }}'
    )
    with long.daemon() as daemon:
        daemon.wait_until(lambda: daemon.shown()["reason"] == "invalid_client", "it is refused")
        long.server.sandbox.change(client_secret=CLIENT_SECRET)
        long.write_secret("key-of-home", planted("new-key"))
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


BOTH = "[credentials.home]\n[credentials.other]"
ONE = "[credentials.other]"


@pytest.fixture
def rotating(long: Life) -> Iterator[DaemonProcess]:
    """A daemon with two credentials; the server has carried out a refresh of `home` and keeps the answer back."""
    long.configure(credentials=BOTH)
    for name in ("home", "other"):
        long.put_pair(age=0, name=name)
    with long.daemon() as daemon:
        daemon.wait_until(long.has_good_token, "the token is published")
        long.server.sandbox.script(["after:hang"])
        begin_rotation(long, daemon)
        yield daemon


def _configured(life: Life, daemon: DaemonProcess, credentials: str) -> None:
    life.configure(credentials=credentials)
    _reload_by_signal(daemon, "success")


def test_a_credential_that_comes_back_during_its_request_is_the_same(long: Life, rotating: DaemonProcess) -> None:
    """C9, B16: taken out by a reload and put back by the next, it waits for the answer and spends no token twice."""
    _configured(long, rotating, ONE)
    _configured(long, rotating, f"{BOTH}\n[credentials.third]")
    assert rotating.shown()["refreshing"]
    wait_until(lambda: rotating.shown("third")["standing"] == "login_required", "a worker has seen to all")
    long.server.sandbox.change()
    wait_for_generation(rotating, 2)
    rotating.wait_until(long.has_good_token, "the token is published")
    assert long.books.token_requests == {"after:hang": 1}
    assert long.on_disk()["tokens"]["generation"] == 2
    assert rotate(rotating)["generation"] == 3


def test_a_login_goes_to_the_credential_that_comes_back(long: Life) -> None:
    """C9: taken out and put back while somebody logs in, the credential goes on with the pair of that login."""
    long.configure(credentials=BOTH)
    long.put_pair(age=0)
    long.put_pair(age=0, name="other")
    with long.daemon() as daemon, ThreadPoolExecutor(1) as pool:
        daemon.wait_until(lambda: long.token("home") and long.token("other"), "both are published")
        long.server.sandbox.script(["hang"])
        login = pool.submit(long.login)
        daemon.wait_until(lambda: not long.server.sandbox.script_left, "the login is under way")
        _configured(long, daemon, ONE)
        _configured(long, daemon, f"{BOTH}\n[credentials.third]")
        daemon.wait_until(lambda: daemon.shown("third")["standing"] == "login_required", "a worker has seen to all")
        long.server.sandbox.change()
        login.result(PATIENCE)
        assert daemon.shown()["generation"] == long.on_disk()["tokens"]["generation"] == 2
        assert rotate(daemon)["generation"] == 3


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_credential_that_is_taken_out_unsaved_is_saved(long: Life, rotating: DaemonProcess, comes_back: bool) -> None:
    """B24: a removed credential's new pair is told of until it is saved; put back before that, it still has it."""
    state = long.state_directory / "home.json"
    state.unlink()
    state.mkdir()  # no rename can replace it
    long.server.sandbox.change()
    rotating.wait_until(lambda: rotating.shown()["unsaved"], "the save fails")
    _configured(long, rotating, ONE)
    if comes_back:
        _configured(long, rotating, BOTH)
        assert rotating.shown()["unsaved"]
        assert rotating.shown()["generation"] == 2
    else:
        assert "no longer configured" in rotating.shown()["text"]
        assert rotating.shown()["next_at"] is None
    assert rotating.sample("rotator_pair_unsaved", credential="home") == 1
    assert rotating.sample("rotator_fleet_unsaved_pairs") == 1
    state.rmdir()
    rotating.wait_until(lambda: state.exists() and long.on_disk()["tokens"]["generation"] == 2, "the pair is saved")
    if not comes_back:
        rotating.wait_until(lambda: rotating.sample("rotator_fleet_unsaved_pairs") == 0, "the alert ends")
        assert rotating.sample("rotator_pair_unsaved", credential="home") == -1
    _configured(long, rotating, BOTH)
    assert rotate(rotating)["generation"] == 3
    assert rotating.stop() == 0


def test_a_stop_tells_of_a_removed_credential_that_is_unsaved(long: Life, rotating: DaemonProcess) -> None:
    """B24: who takes a credential out of the configuration learns of its unsaved pair at the stop, too."""
    (long.state_directory / "home.json").unlink()
    (long.state_directory / "home.json").mkdir()
    long.server.sandbox.change()
    rotating.wait_until(lambda: rotating.shown()["unsaved"], "the save fails")
    _configured(long, rotating, ONE)
    _configured(long, rotating, ONE)
    assert rotating.stop() == 74
    assert "home" in events(rotating, "stopped_unsaved")[0]["message"]


def test_who_waits_for_a_credential_that_is_taken_out_is_answered(long: Life) -> None:
    """C12: a rotation that was asked for and not begun yet is answered when the credential is removed."""
    one_at_a_time = "max_concurrent = 1\nmax_concurrent_per_server = 1"
    long.configure(daemon=one_at_a_time, credentials=BOTH)
    for name in ("home", "other"):
        long.put_pair(age=0, name=name)
    with long.daemon() as daemon:
        daemon.wait_until(lambda: long.token("home") and long.token("other"), "both are published")
        long.server.sandbox.script(["hang"])
        begin_rotation(long, daemon)
        client = ControlClient(long.socket, PATIENCE)
        ticket = client._exchange("POST", "/v1/rotate/other?wait=0")
        long.configure(daemon=one_at_a_time)
        _reload_by_signal(daemon, "success")
        long.server.sandbox.change()
        answer = client._finish(ticket, time.monotonic() + PATIENCE)
        assert not isinstance(answer, ControlProblem)
        assert answer["credentials"][0]["generation"] == 1
