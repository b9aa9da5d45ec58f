"""What a real daemon tells systemd in the course of its life, heard at the other end of NOTIFY_SOCKET."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.ear import Ear, listening
from tests.needs import needs
from tests.process.life import Life, begin_rotation, events, rotate, wait_for_generation
from tests.process.rig import CLIENT_SECRET, PATIENCE, wait_until
from tests.process.test_save_errors import fill

WATCHDOG: Final = 6.0
"""Seconds of silence after which this systemd would kill: enough for a busy machine."""


@pytest.fixture
def ear(life: Life) -> Iterator[Ear]:
    """Hears whoever is given `told(life)` for an environment."""
    with listening(str(life.directory / "notify")) as ear:
        yield ear


def told(life: Life) -> dict[str, str]:
    """Return the environment that systemd gives a service of Type=notify with WatchdogSec=."""
    return {"NOTIFY_SOCKET": str(life.directory / "notify"), "WATCHDOG_USEC": f"{WATCHDOG * 1e6:.0f}"}


def test_ready_means_that_the_sweep_runs_not_that_a_token_is_there(life: Life, ear: Ear) -> None:
    """I1, I2: READY comes though nobody has logged in, after a first ping, and each step of the start asks for time."""
    with life.daemon(environment=told(life)) as daemon:
        daemon.wait_until(lambda: ear.all("READY"), "READY")
        assert not life.output().exists()
        daemon.wait_until(lambda: "needs a login" in ear.status, "the line for people")
        assert ear.status == "1 credential, 1 needs a login (home)"
        life.login()
        daemon.wait_until(lambda: "needs a login" not in ear.status, "the line after a login")
        assert ear.status.startswith("1 credential, next refresh home ")
    order = ear.all("STATUS", "EXTEND_TIMEOUT_USEC", "WATCHDOG", "READY")
    start = order[: order.index("READY=1")]
    assert start[:2] == ["STATUS=reading the configuration", "EXTEND_TIMEOUT_USEC=60000000"]
    assert start[-2] == "WATCHDOG=1"
    assert start[-1].startswith("STATUS=1 credential")


def test_a_token_call_that_hangs_is_no_reason_for_a_restart(life: Life, ear: Ear) -> None:
    """I3: the watchdog is fed while a token call hangs, and after it; the line tells of a refused grant."""
    life.server.sandbox.change(access_lifetime=3600)
    life.server.sandbox.script(["hang"])
    life.put_pair(age=0)
    with life.daemon(environment=told(life)) as daemon:
        begin_rotation(life, daemon)
        before = len(ear.pings)
        daemon.wait_until(lambda: len(ear.pings) >= before + 3, "pings while the call hangs")
        assert daemon.shown()["refreshing"]
        life.server.sandbox.change()
        wait_for_generation(daemon, 2)
        life.sandbox.revoke()
        assert rotate(daemon)["reason"] == "invalid_grant"
        daemon.wait_until(lambda: "1 needs a login (home)" in ear.status, "the line tells of the dead grant")
        assert ear.longest_silence() < WATCHDOG


def test_a_full_disk_is_no_reason_for_a_restart(life: Life, ear: Ear) -> None:
    """I3: with not a byte left the watchdog is fed, and the line says that something is failing."""
    needs("mount namespace")
    life.put_pair(age=0, lifetime=3600)
    kept = life.directory / "kept"
    script = f'cp -a "$0" {kept}; mount -t tmpfs -o size=64k,mode=0700 tmpfs "$0"; cp -a {kept}/. "$0"; exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-ec", script, str(life.state_directory))
    with life.daemon(prefix=prefix, environment=told(life)) as daemon:
        disk = Path(f"/proc/{daemon.process.pid}/root{life.state_directory}")
        fill(disk)
        assert rotate(daemon)["reason"] == "no_space"
        daemon.wait_until(lambda: "1 is failing (home)" in ear.status, "the line tells of it")
        before = len(ear.pings)
        daemon.wait_until(lambda: len(ear.pings) >= before + 3, "pings")
        (disk / "filler").unlink()
        assert rotate(daemon)["generation"] == 2
        daemon.wait_until(lambda: "failing" not in ear.status, "the line tells that it is over")
        assert ear.longest_silence() < WATCHDOG


def test_a_loop_that_hangs_feeds_no_watchdog(life: Life, ear: Ear) -> None:
    """I3, I9: whoever reads the log stops doing so, the loop hangs in a write, and the watchdog starves."""
    environment = life.environment(told(life))
    with subprocess.Popen(life.command("run"), stderr=subprocess.PIPE, env=environment) as daemon:
        assert daemon.stderr is not None

        def is_silent() -> bool:
            daemon.send_signal(signal.SIGHUP)  # each reload that is refused is a line
            return ear.longest_silence() > WATCHDOG / 2

        try:
            wait_until(lambda: ear.all("READY"), "READY")
            life.config.write_text("no configuration")
            fcntl.fcntl(daemon.stderr, fcntl.F_SETPIPE_SZ, 4096)
            wait_until(is_silent, "the pipe is full, and the pings stop")
        finally:
            daemon.kill()
        assert b"reload_refused" in daemon.stderr.read()


def test_a_reload_is_told_whether_it_is_good_or_bad(life: Life, ear: Ear) -> None:
    """RELOADING comes before READY for each reload, and the line says that one was refused until one is not."""
    good = life.config.read_text()
    with life.daemon(environment=told(life)) as daemon:
        _wait_for_more(ear, 0)
        for text in (good, "no configuration", good):
            before = len(ear.all("READY"))
            life.config.write_text(text)
            os.kill(daemon.pid, signal.SIGHUP)
            _wait_for_more(ear, before)
            assert ear.status.startswith("the last reload was refused, see the log; ") == (text != good)
        daemon.post("/v1/reload")
        daemon.wait_until(lambda: len(ear.all("READY")) == 5, "READY after a reload on request")
    assert ear.all("RELOADING", "READY") == ["READY=1", *["RELOADING=1", "READY=1"] * 4]


def _wait_for_more(ear: Ear, before: int) -> None:
    wait_until(lambda: len(ear.all("READY")) > before, "READY, of the start or of a reload")


def test_a_stop_says_how_long_it_may_take(life: Life, ear: Ear) -> None:
    """B7: STOPPING comes first, asks for the drain's time and more, and the answer under way is still saved."""
    life.server.sandbox.change(access_lifetime=3600)
    life.server.sandbox.script(["hang"])
    life.configure(
        daemon='drain_timeout = "40s"', defaults='connect_timeout = "5s"\nread_timeout = "20s"\ntotal_timeout = "30s"'
    )
    life.put_pair(age=0)
    with life.daemon(environment=told(life)) as daemon:
        begin_rotation(life, daemon)
        daemon.process.terminate()
        daemon.wait_until(lambda: ear.all("STOPPING"), "STOPPING")
        assert ear.heard[-1].fields == {
            "STOPPING": "1",
            "STATUS": "stopping: token requests under way, whose answers are waited for: 1",
            "EXTEND_TIMEOUT_USEC": "70000000",
        }
        assert not events(daemon, "stopped")
        life.server.sandbox.change()
        assert daemon.process.wait(PATIENCE) == 0
    stored = life.stored()
    assert stored is not None
    assert stored.generation == 2
    assert ear.all("STOPPING", "READY") == ["READY=1", "STOPPING=1"]


def test_nothing_inherits_the_way_to_systemd(life: Life, ear: Ear) -> None:
    """A command that the configuration names cannot speak for the daemon, nor does another rotator command."""
    seen = life.directory / "seen"
    command = ["sh", "-c", f"env > {seen}; cat {life.directory}/client-secret"]
    life.configure(credentials=f"[credentials.home]\nclient_secret = {{ command = {command} }}")
    life.write_secret("client-secret", CLIENT_SECRET)
    with life.daemon(environment=told(life)) as daemon:
        life.login()
        assert daemon.shown()["generation"] == 1
        daemon.wait_until(lambda: ear.all("READY"), "READY")
        assert life.run("status", **told(life)).returncode == 0
    environment = seen.read_text()
    assert "PATH=" in environment
    assert "NOTIFY_SOCKET" not in environment
    assert "WATCHDOG" not in environment
    assert ear.all("READY") == ["READY=1"]


def test_client_secret_and_seed_may_be_systemd_credentials(life: Life) -> None:
    """I5, I8: files of mode 0440 in $CREDENTIALS_DIRECTORY are all that is needed; `status` does without them."""
    directory = life.directory / "credentials"
    directory.mkdir()
    for name, text in (("client-secret", CLIENT_SECRET), ("seed-home", life.sandbox.issue()["refresh_token"])):
        (directory / name).write_text(text)
        (directory / name).chmod(0o440)
    secret, seed = '{ credential = "client-secret" }', '{ credential = "seed-{name}" }'
    life.configure(credentials=f"[credentials.home]\nclient_secret = {secret}\nseed = {seed}")
    with life.daemon(environment={"CREDENTIALS_DIRECTORY": str(directory)}) as daemon:
        daemon.wait_until(life.has_good_token, "the seed has brought a token")
        assert life.run("status").returncode == 0
        assert life.run("wait", "home").returncode == 0


def test_a_way_to_systemd_that_leads_nowhere_is_told_and_borne(life: Life) -> None:
    """A NOTIFY_SOCKET that is gone is a warning; the daemon works as ever and ends well."""
    life.put_pair(age=0, lifetime=3600)
    with life.daemon(environment=told(life)) as daemon:
        assert rotate(daemon)["generation"] == 2
        (warning,) = events(daemon, "start_warning")
        assert "NOTIFY_SOCKET" in warning["message"]
        assert daemon.stop() == 0
