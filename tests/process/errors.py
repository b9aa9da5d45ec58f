"""One system call of a save fails in a rotating daemon: before the request, or after the answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rotator.core.model import Reason
from tests.process.rig import DaemonProcess, Rig
from tests.process.strike import about_to_rotate, has_rotated, start_again
from tests.process.trace import read_trace, traced, worker_of

REASONS: Final = {
    "ENOSPC": Reason.NO_SPACE,
    "EIO": Reason.IO_ERROR,
    "EROFS": Reason.READ_ONLY,
    "EDQUOT": Reason.NO_SPACE,
    "EACCES": Reason.PERMISSION,
    "EMFILE": Reason.LOCAL_RESOURCES,
}
DIRECTORY_SYNC: Final = "fsync of the directory"
LATEST_RETRY: Final = 1.5
"""Seconds from one attempt of a save to the next, on a machine that may be busy."""
CALLS: Final = ("openat", "write", "fsync", "renameat", DIRECTORY_SYNC)


@dataclass(frozen=True, slots=True)
class Failure:
    """What fails, and how."""

    call: str
    """One of `CALLS`."""
    errno: str
    """One of `REASONS`."""

    def __str__(self) -> str:
        return f"{self.call}: {self.errno}"

    def inject(self, when: str) -> str:
        """Return strace's words for it."""
        return f"{self.call.split()[0]}:error={self.errno}:when={when}"

    @property
    def in_directory(self) -> bool:
        """Whether the call names the state directory, so that no other file's calls need be struck."""
        return self.call not in ("write", "fsync")

    def count(self, daemon: DaemonProcess) -> float:
        """Return how many saves have failed for this reason."""
        return daemon.sample("rotator_failures_total", operation="save", reason=REASONS[self.errno])


def all_failures() -> Iterator[Failure]:
    """Yield each call with each error."""
    for call in CALLS:
        for errno in REASONS:
            yield Failure(call, errno)


def fail_reservation(rig: Rig, failure: Failure) -> None:
    """While the intent mark cannot be saved no request leaves; then all goes on by itself."""
    before = rig.sandbox.books()["token_requests"]
    with about_to_rotate(rig) as (daemon, rotate):
        old = rig.token()
        path = rig.state_directory if failure.in_directory else None
        with traced(worker_of(daemon.pid), rig.directory / "trace", failure.inject("1+"), path=path):
            rotate()
            daemon.wait_until(lambda: failure.count(daemon) > 1, f"a second attempt, {failure}")
            assert rig.sandbox.books()["token_requests"] == before
            assert failure.errno in daemon.shown()["text"]
            assert rig.token() == old
            assert rig.has_good_token()
        daemon.wait_until(lambda: has_rotated(daemon), f"a refresh once {failure} is over")
        assert daemon.stop() == 0, daemon.log
    assert start_again(rig, old) == ""


def fail_save(rig: Rig, failure: Failure, nth: int) -> None:
    """A pair that cannot be saved stays in memory, is published, shouted about, and saved as soon as that works.

    `nth`: which call of that name is the one of the save. Calls that name the state directory fail as long as strace
    is there; `write` and `fsync` of a nameless new file fail once, lest those of the log and the output fail too.
    """
    with about_to_rotate(rig) as (daemon, rotate):
        old = rig.token()
        path, when = (rig.state_directory, "2+") if failure.in_directory else (None, str(nth))
        with traced(worker_of(daemon.pid), rig.directory / "trace", failure.inject(when), path=path):
            rotate()
            if failure.in_directory:
                daemon.wait_until(lambda: has_rotated(daemon), f"a new token in spite of {failure}")
                assert daemon.shown()["unsaved"]
                assert daemon.sample("rotator_pair_unsaved", credential="home") == 1
                assert rig.token() != old
                assert rig.has_good_token()
                daemon.wait_until(lambda: failure.count(daemon) > 3, f"a fourth attempt, {failure}")
            else:
                daemon.wait_until(lambda: failure.count(daemon) == 1, f"{failure}")
        daemon.wait_until(lambda: has_rotated(daemon) and not daemon.shown()["unsaved"], f"a save after {failure}")
        failed_at = [call.at for call in read_trace(rig.directory / "trace") if call.was_made_to_fail]
        if failure.in_directory:  # the second attempt comes at once, before the output; then each second
            assert min(later - sooner for sooner, later in pairwise(failed_at[1:])) < LATEST_RETRY
        assert '"event": "pair_unsaved"' in daemon.log
        assert daemon.stop() == 0, daemon.log
    assert start_again(rig, old) == ""
