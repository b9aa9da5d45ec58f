"""Grants that die and come back, and runs that do what is due and end."""

import signal
import subprocess
import time
from dataclasses import replace

import pytest

from rotator.core.state import Delivery
from tests.process.life import Life, events, rotate, wait_for_generation
from tests.process.rig import NAME, PASSWORD, PATIENCE, USERNAME, wait_until


def _state(life: Life) -> object:
    state = life.stored()
    assert state is not None
    return state.generation, state.tokens and state.tokens.access_token


def test_a_revoked_grant_is_doubted_believed_told_and_healed_by_a_login(life: Life) -> None:
    """Suspect, then reauthorization required; /readyz and status say why and what to do; a login heals it at once."""
    life.put_pair(age=0, lifetime=4)
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        life.sandbox.revoke()
        daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "it is believed")
        refused = life.books.token_requests["invalid_grant"]
        assert refused == 2
        daemon.wait_until(lambda: '"ready":false' in daemon.page("/readyz"), "the last token is over")
        assert "home: reauthorization_required: " in daemon.page("/readyz")
        assert '"live":true' in daemon.page("/livez")
        status = life.run("status")
        assert status.returncode == 69
        assert "rotator login home" in status.stdout
        assert daemon.sample("rotator_state", credential="home", state="reauthorization_required") == 1
        assert [event["after"] for event in events(daemon, "status_changed")] == ["suspect", "reauthorization_required"]
        assert life.token() != ""
        life.server.sandbox.change(access_lifetime=3600)
        life.login()
        assert life.has_good_token()
        assert daemon.shown()["standing"] == "valid"
        assert '"ready":true' in daemon.page("/readyz")
        assert rotate(daemon)["standing"] == "valid"
    assert life.books.token_requests["invalid_grant"] == refused


def test_a_dead_grant_may_end_the_daemon(life: Life) -> None:
    """I11: with `on_dead_grant = "exit"` a supervisor is told by status 77; nothing is lost by it."""
    life.configure(daemon='on_dead_grant = "exit"')
    life.put_pair(age=0, lifetime=4)
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        life.sandbox.revoke()
        assert daemon.process.wait(PATIENCE) == 77
        assert [event["event"] for event in events(daemon)][-1] == "stopped"
    assert life.on_disk()["tokens"]["refresh_token"]


def test_a_daemon_that_is_started_on_a_dead_grant_gives_time_to_log_in(life: Life) -> None:
    """I11: with `on_dead_grant = "exit"` a start waits for a login until the next refusal, then ends with 77 again."""
    life.refresh["probe_interval"] = "1h"
    life.configure(daemon='on_dead_grant = "exit"')
    life.put_pair(age=0, lifetime=4)
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        life.sandbox.revoke()
        assert daemon.process.wait(PATIENCE) == 77
    with life.daemon() as daemon:
        daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "the grant is still dead")
        life.login()
        assert daemon.shown()["standing"] == "valid"
        assert daemon.stop() == 0
    life.refresh["probe_interval"] = "1s"
    life.configure(daemon='on_dead_grant = "exit"')
    life.sandbox.revoke()
    with life.daemon(clean=False) as daemon:
        assert daemon.process.wait(PATIENCE) == 77
    with life.daemon(clean=False) as daemon:  # the next probe finds it dead still
        assert daemon.process.wait(PATIENCE) == 77


def test_a_user_who_is_enabled_again_is_noticed(life: Life) -> None:
    """A disabled user looks like a dead grant; the slow probe finds out when he is back, without a person."""
    life.refresh["probe_interval"] = "2s"
    life.configure()
    life.put_pair(age=0, lifetime=4)
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        life.server.sandbox.change(disabled_users=[USERNAME])
        daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "the grant looks dead")
        life.server.sandbox.change(disabled_users=[])
        daemon.wait_until(lambda: daemon.shown()["standing"] == "valid", "the probe heals it")
        wait_until(life.has_good_token, "the new token is published")
    assert life.books.families_revoked == 0


def test_once_does_what_is_due_and_says_how_it_went(life: Life) -> None:
    """I10, I11: 0 for a valid token, due or not; 75 for what passes; 77 for a login; 78 for the configuration."""
    life.server.sandbox.change(access_lifetime=3600)
    nobody = life.run("run", "--once")
    assert nobody.returncode == 77
    assert "home: login_required: log in: rotator login home" in nobody.stderr
    life.put_pair(age=7200)
    done = life.run("run", "--once")
    assert (done.returncode, life.has_good_token()) == (0, True)
    before, books = _state(life), life.books
    life.output().unlink()
    again = life.run("run", "--once")  # nothing is due but the output
    assert (again.returncode, life.has_good_token()) == (0, True)
    assert (_state(life), life.books.token_requests) == (before, books.token_requests)
    life.put_pair(age=7200, name="other")
    life.configure(credentials="[credentials.home]\n[credentials.other]")
    life.server.sandbox.change(fault="503")
    assert life.run("run", "--once").returncode == 75  # one of two
    held_back = life.run("run", "--once")  # the failure was in the run before
    assert held_back.returncode == 75
    assert "other: ambiguous: " in held_back.stderr
    life.server.sandbox.change(fault="")
    life.put_pair(age=7200, name="third")
    life.configure(credentials="[credentials.home]\n[credentials.third]")
    life.sandbox.revoke()
    dead = life.run("run", "--once")
    assert dead.returncode == 77
    assert "rotator login third" in dead.stderr
    life.configure(credentials="[credentials.home]\nno_such_key = 1")
    wrong = life.run("run", "--once")
    assert wrong.returncode == 78
    assert "no_such_key" in wrong.stderr


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (None, 77, "login_required: log in: rotator login home"),
        ("torn", 77, "home.json.corrupt-1; log in again (rotator login home)"),
        ('{"format":99}', 78, "install the newer rotator again"),
        ("a directory", 75, "cannot read the state in"),
    ],
    ids=["absent", "damaged", "newer", "unreadable"],
)
def test_once_tells_states_of_no_use_apart(life: Life, content: str | None, status: int, words: str) -> None:
    """G8, I11: absent and damaged need a login, a newer format the newer rotator, what cannot be read may pass."""
    file = life.state_directory / "home.json"
    if content == "a directory":
        file.mkdir()
    elif content is not None:
        file.write_text(content)
    for _ in range(2):  # what was set aside is no less damaged the next time
        done = life.run("run", "--once")
        assert done.returncode == status
        assert words in done.stderr
    assert not life.books.token_requests


def test_a_login_is_refused_while_the_state_cannot_be_read(life: Life) -> None:
    """G10: no pair is asked for that could not be saved over what is there; once mended, the next login reads it."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    file = life.state_directory / "home.json"
    whole = file.rename(life.directory / "kept")
    file.mkdir()
    with life.daemon() as daemon:
        daemon.wait_until(lambda: daemon.shown()["standing"] == "state_unreadable", "it is noticed")
        refused = life.run("login", "home", "--username", USERNAME, "--password-stdin", stdin=PASSWORD)
        assert refused.returncode == 74
        assert "nobody can log in yet: cannot read the state in" in refused.stderr
        assert not life.books.token_requests
        file.rmdir()
        whole.rename(file)
        life.login()
        assert (daemon.shown()["generation"], daemon.shown()["unsaved"]) == (2, False)
        assert daemon.stop() == 0


def test_once_is_not_taken_in_by_what_an_output_once_held(life: Life) -> None:
    """I10: the state remembers a delivery of an older token that lives on; the output is gone, the new token over."""
    state, later = life.put_pair(age=7200), time.time() + 3600
    output = str(life.output("{name}"))  # as the configuration calls it
    life.put_state(replace(state, deliveries={output: Delivery(0, later - 7200, expires_at=later)}))
    life.server.sandbox.change(fault="503")
    assert life.run("run", "--once").returncode == 75
    assert not life.output().exists()
    life.put_pair(age=0, lifetime=7200)
    life.output().mkdir()  # nothing can be written there, whoever one is
    assert life.run("run", "--once").returncode == 75


def test_an_init_container_leaves_nothing_to_do_for_the_daemon(life: Life) -> None:
    """H25, I10: `run --once` brings the first token; the daemon after it publishes nothing and asks for nothing."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=7200)
    assert life.run("run", "--once").returncode == 0
    token, books, written_at = life.token(), life.books, life.output().stat().st_mtime_ns
    with life.daemon() as daemon:
        daemon.wait_until(lambda: '"ready":true' in daemon.page("/readyz"), "it is ready")
        assert rotate(daemon)["generation"] == 3
        assert daemon.stop() == 0
    assert (token, books.refresh_grants, life.books.refresh_grants) == (token, 1, 2)
    assert written_at < life.output().stat().st_mtime_ns


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_once_waits_for_a_request_in_flight_when_it_is_stopped(life: Life, number: signal.Signals) -> None:
    """B7: an init container that is stopped while the server takes its time saves the answer before it ends."""
    life.server.sandbox.change(access_lifetime=3600)
    life.server.sandbox.script(["hang"])
    life.put_pair(age=7200)
    with subprocess.Popen(life.command("run", "--once"), stderr=subprocess.DEVNULL, env=life.environment()) as process:
        wait_until(lambda: life.server.sandbox.script_left == [], "the request is under way")
        process.send_signal(number)
        life.server.sandbox.change()
        assert process.wait(PATIENCE) in (0, 75)
    state = life.stored(NAME)
    assert state is not None
    assert (state.generation, state.refresh_started_at) == (2, None)
