"""How the daemon starts and how it ends: one owner, no request wasted, nothing lost."""

import json
import signal
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from rotator.adapters.file_store import FileStore
from rotator.core.model import Fingerprinter
from rotator.ports import Problem
from tests.process.life import Life, begin_rotation, events, rotate, wait_for_generation
from tests.process.rig import PATIENCE, DaemonProcess, wait_until
from tests.secrets_scan import planted


def test_memory_and_disk_hold_the_same_tokens_after_each_cycle(life: Life) -> None:
    """B3: status, the status page and the stored state show the same fingerprints, cycle after cycle."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    seen, mark = set(), ""
    with life.daemon() as daemon:
        fingerprint = Fingerprinter((life.state_directory / ".fingerprint-key").read_bytes())
        for generation in (2, 3, 4):
            shown = rotate(daemon)
            stored = life.on_disk()["tokens"]
            page = json.loads(daemon.page("/status"))["credentials"][0]
            assert shown["generation"] == generation
            for view in (shown, page, daemon.shown()):
                assert view["refresh_token_fingerprint"] == fingerprint(stored["refresh_token"])
                assert view["access_token_fingerprint"] == fingerprint(stored["access_token"])
            mark = shown["refresh_token_fingerprint"]
            seen.add(mark)
            assert f"left, fingerprint {mark}\n" in life.run("status").stdout
        assert daemon.stop() == 0
    assert len(seen) == 3
    assert f"left, fingerprint {mark}\n" in life.run("status").stdout


def test_a_new_container_goes_on_with_the_newest_token_of_the_volume(life: Life, tmp_path: Path) -> None:
    """B4, B29: only the state directory survives; the next daemon, elsewhere, refreshes with what it holds."""
    life.put_pair(age=60, lifetime=4)
    with life.daemon() as daemon:
        wait_for_generation(daemon, 3)
        assert daemon.stop() == 0
    generation = life.on_disk()["tokens"]["generation"]
    (tmp_path / "new").mkdir()
    new = Life(tmp_path / "new", life.server)
    life.state_directory.rename(tmp_path / "volume")
    new.state_directory = tmp_path / "volume"
    new.configure()
    with new.daemon() as daemon:
        wait_for_generation(daemon, generation + 2)
        daemon.wait_until(new.has_good_token, "the new token is published")
    assert life.books.replays_outside_grace == 0


def test_sigterm_waits_for_a_slow_answer_and_saves_it(life: Life) -> None:
    """B7: a stop while the server takes its time ends with status 0, the new pair stored and nothing sent twice."""
    life.server.sandbox.change(access_lifetime=3600, latency_seconds=2)
    life.put_pair(age=0)
    with life.daemon() as daemon:
        begin_rotation(life, daemon)
        assert daemon.stop() == 0
        names = [event["event"] for event in events(daemon)]
    assert names[-3:] == ["stopping", "refreshed", "stopped"]
    stored = life.stored()
    assert stored is not None
    assert stored.generation == 2
    assert stored.refresh_started_at is None
    assert life.books.token_requests == {"granted": 1}
    assert not life.socket.exists()


def test_a_stop_waits_no_longer_than_the_request_may_last(life: Life) -> None:
    """B7, B9: a server that never answers is given up on by the request's own limit; the next start sends it again."""
    life.server.sandbox.change(access_lifetime=3600, grace_seconds=60)
    life.server.sandbox.script(["after:hang"])
    life.refresh["replay_window"] = "30s"
    life.configure(
        daemon='drain_timeout = "30s"', defaults='connect_timeout = "1s"\nread_timeout = "2s"\ntotal_timeout = "3s"'
    )
    life.put_pair(age=0)
    with life.daemon() as daemon:
        begin_rotation(life, daemon)
        assert daemon.stop() == 0
        stopping, stopped = (_at(daemon, name) for name in ("stopping", "stopped"))
        assert stopped - stopping < 15
        assert events(daemon, "refresh_failed")[0]["reason"] == "read_timeout"
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        daemon.wait_until(life.has_good_token, "the token is published")
        life.server.sandbox.change()
    assert life.books.replays_in_grace == 1
    assert life.books.families_revoked == 0


def test_the_lock_is_given_up_last(life: Life) -> None:
    """B8: while a stop waits for an answer nobody else gets the state; whoever gets it then finds the new pair."""
    life.server.sandbox.change(access_lifetime=3600)
    life.server.sandbox.script(["hang"])
    life.put_pair(age=0)
    with life.daemon() as daemon:
        begin_rotation(life, daemon)
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait_until(lambda: events(daemon, "stopping"), "it stops")
        refused = life.run("run")
        assert refused.returncode == 75
        assert f"in use by another rotator, process {daemon.process.pid}" in refused.stderr
        life.server.sandbox.change()
        state = wait_until(lambda: _opened(life.state_directory), "the lock is free")
        try:
            loaded = state.load("home")
            assert not isinstance(loaded, Problem)
            assert loaded.state.generation == 2
        finally:
            state.close()
        assert daemon.process.wait(PATIENCE) == 0


def _opened(directory: Path) -> FileStore | None:
    store = FileStore.open(directory)
    return store if isinstance(store, FileStore) else None


@pytest.mark.parametrize("wait", ["nothing due", "Retry-After", "back-off", "login required", "output retried"])
def test_sigterm_ends_every_wait_at_once(life: Life, wait: str) -> None:
    """E16: whatever the daemon waits for, if no request is under way it ends within a second."""
    life.server.sandbox.change(access_lifetime=3600, retry_after="6")
    if wait != "login required":
        life.put_pair(age=0)
    if wait == "output retried":
        life.output().mkdir()
    with life.daemon() as daemon:
        if wait == "Retry-After":  # waited for inside the request's own round
            life.server.sandbox.change(fault="503_retry_after")
            begin_rotation(life, daemon)
            wait_until(lambda: life.books.token_requests["503_retry_after"] == 1, "the server asked for patience")
        elif wait == "back-off":
            life.server.stop()
            assert rotate(daemon)["reason"] == "connect"
        elif wait == "output retried":
            daemon.wait_until(lambda: daemon.shown()["outputs"][0]["failures"], "the output fails")
        assert daemon.stop() == 0
        stopping, stopped = (_at(daemon, name) for name in ("stopping", "stopped"))
    assert stopped - stopping < 4  # of the six that the server asks for, and of the hours until a refresh is due
    assert life.books.token_requests.total() == (1 if wait == "Retry-After" else 0)


def _at(daemon: DaemonProcess, name: str) -> float:
    (event,) = events(daemon, name)
    return datetime.fromisoformat(event["time"]).timestamp()


@contextmanager
def _save_failing(life: Life, **switches: str) -> Generator[tuple[DaemonProcess, Path]]:
    """Run a daemon with an answer that cannot be saved until the directory that is returned is removed.

    `switches` are turned before the server answers.
    """
    life.server.sandbox.change(access_lifetime=3600)
    life.server.sandbox.script(["hang"])
    life.put_pair(age=0)
    state = life.state_directory / "home.json"
    with life.daemon() as daemon:
        begin_rotation(life, daemon)
        state.unlink()
        state.mkdir()  # no rename replaces it
        life.server.sandbox.change(**switches)
        daemon.wait_until(lambda: daemon.shown()["save_failing"], "the save fails")
        yield daemon, state


def test_a_stop_with_an_unsaved_pair_is_told_by_the_exit_status(life: Life) -> None:
    """B24: a pair that only memory holds is the loudest alert, is published all the same, and ends with status 74."""
    with _save_failing(life) as (daemon, _):
        daemon.wait_until(lambda: daemon.shown()["unsaved"], "memory alone holds the pair")
        daemon.wait_until(life.has_good_token, "the token is published all the same")
        assert daemon.sample("rotator_pair_unsaved", credential="home") == 1
        assert daemon.sample("rotator_fleet_unsaved_pairs") == 1
        daemon.process.terminate()
        assert daemon.process.wait(PATIENCE) == 74
        (alert,) = events(daemon, "stopped_unsaved")
        assert alert["level"] == "critical"
        assert "home" in alert["message"]
        assert str(life.state_directory) in events(daemon, "pair_unsaved")[0]["message"]


def test_an_unsaved_pair_is_saved_as_soon_as_that_is_possible(life: Life) -> None:
    """B24: the save is tried again each second, and who asks for a rotation hears of it; then the stop is ordinary."""
    with _save_failing(life) as (daemon, block):
        daemon.wait_until(lambda: daemon.shown()["unsaved"], "memory alone holds the pair")
        asked = life.run("rotate", "home")
        assert asked.returncode == 74
        assert asked.stderr.startswith("rotator: home: not saved: io_error: ")
        block.rmdir()
        daemon.wait_until(lambda: not daemon.shown()["unsaved"], "the pair is saved")
        assert life.on_disk()["tokens"]["generation"] == 2
        assert daemon.stop() == 0


@pytest.mark.parametrize("command", ["run", "run --once", "status"])
def test_a_damaged_spill_is_told(life: Life, command: str) -> None:
    """B25, G8: that a damaged spill was set aside is said where the state is read, which is after the start."""
    life.server.sandbox.change(access_lifetime=3600)
    spill = life.directory / "spill"
    life.configure(daemon=f'spill_directory = "{spill}"')
    life.put_pair(age=0)
    spill.mkdir(mode=0o700)
    (spill / "home.json").write_text("torn")
    words = f"{spill}/home.json is damaged (it is no JSON, or only a part of it) and was kept as home.json.corrupt-1"
    if command == "run":
        with life.daemon() as daemon:
            daemon.wait_until(lambda: words in daemon.log, "it is told")
            assert [event["level"] for event in events(daemon, "store_warning")] == ["warning"]
    else:
        assert words in life.run(*command.split()).stderr
    assert (spill / "home.json.corrupt-1").read_text() == "torn"


@pytest.mark.parametrize("heals", [True, False])
def test_a_pair_that_is_spilled_is_not_lost_by_a_stop(life: Life, heals: bool) -> None:
    """B24, B25: a pair that is kept in the spill directory is told as that, by status, log and exit status."""
    spill = life.directory / "spill" / "home.json"
    life.configure(daemon=f'spill_directory = "{spill.parent}"')
    with _save_failing(life) as (daemon, block):
        shown = daemon.shown()
        assert not shown["unsaved"]
        assert f"kept in {spill}" in shown["text"]
        assert json.loads(spill.read_text())["state"]["tokens"]["generation"] == 2
        if heals:
            block.rmdir()
            daemon.wait_until(lambda: not daemon.shown()["save_failing"], "the pair is saved in its place")
            assert life.on_disk()["tokens"]["generation"] == 2
            assert not spill.exists()
        assert daemon.stop() == 0
        assert f"kept in {spill}" in events(daemon, "save_failed")[0]["message"]
        assert events(daemon, "pair_unsaved", "stopped_unsaved") == []
    if not heals:
        block.rmdir()
    with life.daemon() as daemon:
        daemon.wait_until(lambda: not spill.exists(), "the pair is saved in its place, before it is used")
        assert life.on_disk()["tokens"]["generation"] == 2
        assert rotate(daemon)["generation"] == 3


def test_a_stop_that_loses_no_pair_is_no_alarm(life: Life) -> None:
    """B24: what cannot be saved is a refusal; the newest tokens are stored, and the stop says nothing else."""
    with _save_failing(life, client_secret=planted("second-secret")) as (daemon, block):
        assert daemon.stop() == 0
        assert events(daemon, "stopped_unsaved") == []
    block.rmdir()


def test_a_second_daemon_sends_nothing_and_names_the_first(life: Life) -> None:
    """C1: two daemons on one state directory, a token due for both: the second ends, and one request was sent."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=7200)
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        before = life.books
        second = life.run("run")
        assert second.returncode == 75
        assert second.stderr.splitlines()[-1].startswith(
            f"rotator: {life.state_directory} is in use by another rotator, process {daemon.pid}; stop that one"
        )
        assert life.run("run", "--once").returncode == 75
        assert life.books == before
        assert daemon.get("/v1/version")["pid"] == daemon.pid


def test_after_kill_9_the_next_daemon_starts_at_once(life: Life) -> None:
    """C24: the lock is the kernel's, so a killed holder leaves nothing to wait for or to remove."""
    life.put_pair(age=60, lifetime=4)
    for generation in (2, 3, 4):
        with life.daemon() as daemon:
            wait_for_generation(daemon, generation)
            daemon.kill()
            assert daemon.process.returncode == -signal.SIGKILL
    assert life.books.families_revoked == 0


def test_a_missing_state_directory_is_told_with_its_cure(life: Life) -> None:
    """C26: the message has the directory, the command that makes it, and the unit's setting."""
    life.state_directory = life.directory / "no" / "state"
    life.configure()
    run = life.run("run")
    assert run.returncode == 78
    assert f"mkdir -p -m 0700 {life.state_directory}" in run.stderr
    assert "StateDirectory=state" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_restarts_in_a_row_find_their_port_free(life: Life) -> None:
    """M11: a scrape's connection that lingers keeps no port from the next daemon."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    for _ in range(4):
        with life.daemon() as daemon:
            assert daemon.sample("rotator_generation", credential="home") == 1
            daemon.kill()


def test_a_stop_is_heeded_while_the_pages_are_in_use(life: Life) -> None:
    """A client that keeps its connection open does not keep the daemon."""
    life.put_pair(age=0, lifetime=3600)
    with life.daemon() as daemon, socket.create_connection(life.metrics_address) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - started < 15
