"""The disk refuses: no refresh token is spent that could not be saved, and no pair is lost that came all the same."""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.needs import needs
from tests.process.errors import CALLS, REASONS, Failure, fail_reservation, fail_save
from tests.process.rig import PATIENCE, Rig, SandboxProcess, run_sandbox
from tests.process.strike import LOST_TEXT, Rotation, about_to_rotate, has_rotated, place, start_again, unhindered
from tests.process.trace import traced, worker_of

SAMPLE: Final = [Failure(call, errno) for errno, call in zip(REASONS, itertools.cycle(CALLS), strict=False)]
"""Each error and each call; `python -m tests.process.crash` goes through all pairs."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A sandbox that revokes everything when a refresh token comes twice."""
    needs("strace attach")
    with run_sandbox(tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def rotation(tmp_path_factory: pytest.TempPathFactory, sandbox: SandboxProcess) -> Rotation:
    """A rotation that nothing hindered."""
    return unhindered(place(tmp_path_factory.mktemp("unhindered"), "rig", sandbox))


@pytest.mark.parametrize("failure", SAMPLE, ids=str)
def test_no_token_is_spent_that_could_not_be_saved(tmp_path: Path, sandbox: SandboxProcess, failure: Failure) -> None:
    """B6, G7: while the reservation fails nothing is sent, the old token stays, and it heals by itself."""
    fail_reservation(Rig(tmp_path, sandbox), failure)


@pytest.mark.parametrize("failure", SAMPLE, ids=str)
def test_no_pair_is_lost_that_could_not_be_saved(
    tmp_path: Path, sandbox: SandboxProcess, rotation: Rotation, failure: Failure
) -> None:
    """B24, G7: the pair stays in memory, its token is published, the alert is raised, and it is saved later."""
    index = rotation.save.written if failure.call == "write" else rotation.save.synced
    fail_save(Rig(tmp_path, sandbox), failure, rotation.calls[index].nth)


def test_a_disk_that_is_full_for_real(tmp_path: Path, sandbox: SandboxProcess) -> None:
    """G7: a tiny filesystem fills up before the request, then during it: the old state is whole, nothing is lost."""
    needs("mount namespace")
    rig = Rig(tmp_path, sandbox)
    script = (
        f'cp -a {rig.state_directory} {tmp_path}/kept; mount -t tmpfs -o size=64k,mode=0700 tmpfs "$0"; '
        f'cp {tmp_path}/kept/* "$0"; exec "$@"'
    )
    prefix = ("unshare", "--mount", "sh", "-ec", script, str(rig.state_directory))
    with about_to_rotate(rig, prefix=prefix) as (daemon, rotate):
        disk = Path(f"/proc/{daemon.process.pid}/root{rig.state_directory}")
        old, state, before = rig.token(), (disk / "home.json").read_bytes(), sandbox.books()["token_requests"]
        fill(disk)
        rotate()
        daemon.wait_until(lambda: daemon.shown()["reason"] == "no_space", "a full disk is noticed")
        assert sandbox.books()["token_requests"] == before
        assert (disk / "home.json").read_bytes() == state
        sandbox.switch(latency_seconds=PATIENCE)
        (disk / "filler").unlink()
        daemon.wait_until(lambda: daemon.shown()["refreshing"], "a request")
        fill(disk)
        sandbox.switch(latency_seconds=0.0)
        daemon.wait_until(lambda: has_rotated(daemon) and daemon.shown()["unsaved"], "an unsaved pair")
        assert rig.token() != old
        assert rig.has_good_token()
        assert daemon.sample("rotator_pair_unsaved", credential="home") == 1
        assert {each.name for each in disk.iterdir()} <= {"home.json", "filler", ".lock", ".fingerprint-key"}
        (disk / "filler").unlink()
        daemon.wait_until(lambda: not daemon.shown()["unsaved"], "a save")
        daemon.post("/v1/rotate/home")
        daemon.wait_until(lambda: has_rotated(daemon, 3), "the next rotation")
        assert daemon.stop() == 0


def fill(disk: Path) -> None:
    """Fill a small filesystem to its last byte."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass


def test_a_stop_with_an_unsaved_pair_is_no_clean_exit(tmp_path: Path, sandbox: SandboxProcess) -> None:
    """B24: stopped while no thread can save, it ends with status 74 and says so; the next start says what is lost."""
    rig, failure = Rig(tmp_path, sandbox), Failure("renameat", "EIO")
    with about_to_rotate(rig) as (daemon, rotate):
        old, trace = rig.token(), rig.directory / "trace"
        with (
            traced(worker_of(daemon.pid), trace, failure.inject("2+"), path=rig.state_directory),
            traced(daemon.pid, rig.directory / "others", failure.inject("1+"), path=rig.state_directory, others=True),
        ):
            rotate()
            daemon.wait_until(lambda: has_rotated(daemon) and daemon.shown()["unsaved"], "an unsaved pair")
            assert daemon.stop() == 74
        assert '"event": "stopped_unsaved"' in daemon.log
    assert LOST_TEXT in start_again(rig, old)


def test_a_removed_state_is_saved_again(tmp_path: Path, sandbox: SandboxProcess) -> None:
    """B29, G9: states that are removed under the daemon are saved again, soon and at the stop, whatever is due."""
    rig = Rig(tmp_path, sandbox)
    rig.configure(credentials="[credentials.one]\n[credentials.two]")
    kept = {name: rig.put_pair(age=60, name=name) for name in ("one", "two")}
    files = [rig.state_directory / f"{name}.json" for name in kept]
    with rig.daemon() as daemon:
        daemon.wait_until(lambda: all(rig.has_good_token(name) for name in kept), "the outputs")
        shutil.rmtree(rig.state_directory)
        daemon.wait_until(lambda: all(file.exists() for file in files), "all states")
        assert daemon.log.count('"event": "state_removed"') == len(files)
        files[0].unlink()
        daemon.wait_until(files[0].exists, "one state")
        shutil.rmtree(rig.state_directory)
        assert daemon.stop() == 0, daemon.log
    for name, state in kept.items():
        stored = rig.stored(name)
        assert stored is not None
        assert stored.tokens == state.tokens


def test_a_removed_state_that_cannot_be_saved_is_an_unsaved_pair(tmp_path: Path, sandbox: SandboxProcess) -> None:
    """B24: while there is no directory to save in, memory alone has the tokens: it is said as loudly as ever."""
    rig = Rig(tmp_path, sandbox)
    rig.state_directory = tmp_path / "parent" / "state"
    rig.state_directory.mkdir(mode=0o700, parents=True)
    rig.configure()
    rig.put_pair(age=60)
    with rig.daemon() as daemon:
        daemon.wait_until(rig.has_good_token, "the output")
        shutil.rmtree(rig.state_directory.parent)
        daemon.wait_until(lambda: daemon.sample("rotator_pair_unsaved", credential="home") == 1, "an unsaved pair")
        assert "do not restart rotator" in daemon.shown()["text"]
        rig.state_directory.mkdir(mode=0o700, parents=True)
        daemon.wait_until(lambda: not daemon.shown()["unsaved"], "a save")
        assert daemon.stop() == 0, daemon.log
    assert rig.stored() is not None
