"""Directories that fill up, turn read-only, or are tampered with."""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from rotator.adapters.control_client import ControlClient
from tests.needs import needs
from tests.process.life import Life, begin_rotation, events, rotate
from tests.process.rig import PATIENCE, DaemonProcess, wait_until

_MOUNT: Final = 'mount -t tmpfs -o size=64k,mode=0700 none "$0" && exec "$@"'


def _on_a_small_disk(directory: Path) -> tuple[str, ...]:
    """Return the prefix for a command that has a directory on a file system of 64 KiB, which nobody else sees."""
    needs("mount namespace", "root")
    return ("unshare", "--mount", "sh", "-c", _MOUNT, str(directory))


def _inside(daemon: DaemonProcess, path: Path) -> Path:
    """Return a path as the daemon sees it."""
    return Path(f"/proc/{daemon.process.pid}/root{path}")


def _fill(directory: Path) -> Path:
    """Leave no room in a file system."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def _adopt(life: Life, daemon: DaemonProcess) -> None:
    """Hand in a pair: the state directory is one that only the daemon sees."""
    ControlClient(life.socket, PATIENCE).post("/v1/adopt/home", {"pair": json.dumps(life.sandbox.issue())})
    daemon.wait_until(life.has_good_token, "the token is published")


def test_outputs_that_were_deleted_or_edited_come_back_without_a_token_request(life: Life) -> None:
    """H15: an output is restored by itself, and nobody asks the server for it."""
    life.server.sandbox.change(access_lifetime=3600)
    outputs = [life.directory / "out" / f"home.{name}" for name in ("deleted", "edited", "chmodded")]
    paths = ", ".join(f'{{ path = "{path.parent}/{{name}}{path.suffix}", mode = "0600" }}' for path in outputs)
    life.configure(credentials=f"[credentials.home]\noutputs = [{paths}]")
    state = life.put_pair(age=0)
    assert state.tokens is not None
    token = state.tokens.access_token
    with life.daemon() as daemon:
        daemon.wait_until(lambda: all(path.exists() for path in outputs), "all are written")
        outputs[0].unlink()
        outputs[1].write_text("edited")
        outputs[2].chmod(0o644)
        daemon.wait_until(lambda: len(events(daemon, "output_changed")) >= 3, "all three are noticed")
        told = " ".join(event["message"] for event in events(daemon, "output_changed"))
        assert all(str(path) in told for path in outputs), "the log names the files themselves"
        daemon.wait_until(lambda: all(path.exists() and path.read_text() == token for path in outputs), "restored")
        daemon.wait_until(lambda: {path.stat().st_mode & 0o777 for path in outputs} == {0o600}, "with their mode")
        assert daemon.shown()["generation"] == 1
    assert life.books.token_requests == {}


def test_a_full_output_directory_keeps_the_old_token_and_heals(life: Life) -> None:
    """G7, E9: no room for the new token: the old one stays whole, it is told, and room is all it takes."""
    life.server.sandbox.change(access_lifetime=3600)
    other = life.directory / "other"
    other.mkdir()
    outputs = f'[{{ path = "{life.output()}" }}, {{ path = "{other}/home" }}]'
    life.configure(credentials=f"[credentials.home]\noutputs = {outputs}")
    life.put_pair(age=0)
    with life.daemon(prefix=_on_a_small_disk(life.output().parent)) as daemon:
        output = _inside(daemon, life.output())
        daemon.wait_until(output.exists, "the token is published")
        old = output.read_text()
        filler = _fill(output.parent)
        assert rotate(daemon)["generation"] == 2
        sink = str(life.output())
        daemon.wait_until(
            lambda: daemon.sample("rotator_output_consecutive_failures", credential="home", sink=sink) >= 2, "it fails"
        )
        assert output.read_text() == old
        assert {path.name for path in output.parent.iterdir()} == {"filler", "home"}
        assert daemon.sample("rotator_output_current", credential="home", sink=sink) == 0
        assert daemon.sample("rotator_failures_total", operation="publish", reason="no_space") >= 2
        assert "ENOSPC" in events(daemon, "publish_failed")[0]["message"]
        assert (other / "home").read_text() == daemon.get("/v1/token/home")["access_token"]
        filler.unlink()
        daemon.wait_until(lambda: output.read_text() == (other / "home").read_text(), "room was made")
        assert daemon.sample("rotator_output_current", credential="home", sink=sink) == 1
        assert daemon.stop() == 0
    assert life.books.token_requests == {"granted": 1}


def test_an_output_that_went_with_a_boot_is_written_again_during_an_outage(life: Life) -> None:
    """A state may say that an output was written to a directory in memory: at the start it is looked at."""
    life.server.sandbox.change(access_lifetime=3600, fault="500")
    life.put_pair(age=0)
    with life.daemon() as daemon:
        daemon.wait_until(life.token, "the token is published")
        assert rotate(daemon)["reason"] == "http_5xx"  # this is saved, and with it that the output was written
        assert daemon.stop() == 0
    assert life.on_disk()["deliveries"]
    life.output().unlink()
    with life.daemon() as daemon:
        daemon.wait_until(life.token, "the token is published again")
        assert daemon.shown()["generation"] == 1


def test_a_read_only_output_directory_heals_when_it_is_writable_again(life: Life) -> None:
    """E9: a remount as read-only stops the publishing, not the rotation, and is told as what it is."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    directory = life.output().parent
    with life.daemon(prefix=_on_a_small_disk(directory)) as daemon:
        output = _inside(daemon, life.output())
        daemon.wait_until(output.exists, "the token is published")
        _remount(daemon, directory, "ro")
        assert rotate(daemon)["generation"] == 2
        daemon.wait_until(lambda: daemon.shown()["outputs"][0]["reason"] == "read_only", "it is told")
        assert "EROFS" in events(daemon, "publish_failed")[0]["message"]
        _remount(daemon, directory, "rw")
        daemon.wait_until(lambda: life.sandbox.accepts(output.read_text()), "the new token is published")
        daemon.wait_until(lambda: daemon.shown()["outputs"][0]["current"], "and counted")
        assert daemon.stop() == 0
    assert life.books.token_requests == {"granted": 1}


def _remount(daemon: DaemonProcess, directory: Path, mode: str) -> None:
    namespace = f"--mount=/proc/{daemon.process.pid}/ns/mnt"
    subprocess.run(("nsenter", namespace, "mount", "-o", f"remount,{mode}", str(directory)), check=True)


def test_with_a_full_state_directory_no_request_leaves(life: Life) -> None:
    """B6, G7: a refresh token that could not be saved is not spent, though the token runs out; room heals it."""
    life.server.sandbox.change(access_lifetime=9)
    with life.daemon(prefix=_on_a_small_disk(life.state_directory)) as daemon:
        _adopt(life, daemon)
        state = _inside(daemon, life.state_directory)
        filler = _fill(state)
        generation, requests = daemon.shown()["generation"], life.books.token_requests
        last = life.token()
        daemon.wait_until(lambda: not life.has_good_token(), "the token is over")
        refused = {"operation": "save", "reason": "no_space"}
        daemon.wait_until(lambda: daemon.sample("rotator_failures_total", **refused) >= 2, "two saves fail")
        assert (daemon.shown()["generation"], life.books.token_requests) == (generation, requests)
        assert life.token() == last
        assert json.loads((state / "home.json").read_text())["state"]["tokens"]["generation"] == generation
        said = events(daemon, "save_failed")[0]["message"]
        assert "ENOSPC" in said
        assert "no refresh token is spent" in said
        assert '"ready":false' in daemon.page("/readyz")
        assert '"live":true' in daemon.page("/livez")
        filler.unlink()
        daemon.wait_until(life.has_good_token, "room was made")
        assert daemon.shown()["standing"] == "valid"
        assert daemon.stop() == 0
    assert life.books.replays_outside_grace == life.books.families_revoked == 0


def test_a_disk_that_fills_up_during_the_request_costs_nothing(life: Life) -> None:
    """B24: the new pair lives in memory, is published, and is saved as soon as there is room."""
    life.server.sandbox.change(access_lifetime=3600)
    with life.daemon(prefix=_on_a_small_disk(life.state_directory)) as daemon:
        _adopt(life, daemon)
        life.server.sandbox.script(["hang"])
        begin_rotation(life, daemon)
        state = _inside(daemon, life.state_directory)
        filler = _fill(state)
        life.server.sandbox.change()
        daemon.wait_until(lambda: daemon.sample("rotator_fleet_unsaved_pairs") == 1, "the alert")
        assert daemon.shown()["generation"] == 2
        daemon.wait_until(life.has_good_token, "the new token is published")
        filler.unlink()
        daemon.wait_until(lambda: daemon.sample("rotator_fleet_unsaved_pairs") == 0, "room was made")
        assert json.loads((state / "home.json").read_text())["state"]["tokens"]["generation"] == 2
        assert daemon.stop() == 0
    assert life.books.token_requests == {"granted": 1}


def test_a_read_only_state_directory_is_told_at_the_start(life: Life) -> None:
    """B6: nothing could be saved, so nothing is begun: the message names directory and fault."""
    needs("mount namespace", "root")
    life.put_pair(age=7200)
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(life.state_directory), *life.command("run")],
        capture_output=True, text=True, env=life.environment(), timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert run.returncode == 74
    assert str(life.state_directory) in run.stderr
    assert "EROFS" in run.stderr
    assert "Traceback" not in run.stderr
    assert life.books.token_requests == {}
    wait_until(lambda: life.run("run", "--once").returncode == 0, "writable again, it works")


def test_hooks_that_hang_hold_up_no_refresh(life: Life) -> None:
    """L3 B24: three hooks that never end keep neither of two workers: every other credential gets its token at once."""
    names = ["a", "b", "c", "x", "y"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hooks = f'hooks = [{{ webhook = "http://127.0.0.1:{silent.getsockname()[1]}/", timeout = "5m" }}]'
        tables = (f"[credentials.{name}]\n{hooks if name < 'm' else ''}" for name in names)
        life.configure(daemon="max_concurrent = 2\nmax_concurrent_per_server = 1", credentials="\n".join(tables))
        for name in names:
            life.put_pair(age=3600, name=name)
        with life.daemon() as daemon:
            for name in names:
                daemon.wait_until(partial(life.has_good_token, name), f"{name} is refreshed")
            assert rotate(daemon, "a")["generation"] == 3, "nor its own credential"
            assert daemon.stop() == 0


@contextlib.contextmanager
def _hanging(daemon: DaemonProcess, directory: Path) -> Iterator[None]:
    """Let a directory hang for the daemon, as a file server does that is away: a FUSE that nobody serves."""
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    mount = ("nsenter", "-t", str(daemon.pid), "-m", "mount", "-t", "fuse", "-o", options, "none", str(directory))
    try:
        subprocess.run(mount, pass_fds=(fuse,), check=True)
        yield
    finally:
        os.close(fuse)


def test_an_output_that_hangs_keeps_no_other_from_being_restored(life: Life) -> None:
    """L3, H15: the patrol leaves a file system that hangs behind; other outputs come back, and the stop is in time."""
    needs("fuse")
    life.server.sandbox.change(access_lifetime=3600)
    slow = life.directory / "slow"
    slow.mkdir()
    life.configure(credentials=f"[credentials.a]\noutputs = [{{ path = '{slow}/a' }}]\n[credentials.home]")
    for name in ("a", "home"):
        life.put_pair(age=0, name=name)
    with life.daemon(prefix=("unshare", "--mount")) as daemon:
        daemon.wait_until(lambda: (slow / "a").exists() and life.output().exists(), "both are written")
        with _hanging(daemon, slow):
            for _ in range(2):
                life.output().unlink()
                daemon.wait_until(life.output().exists, "the other one is restored")
            assert rotate(daemon)["generation"] == 2
            assert daemon.stop() == 0
