"""One kill of a rotating daemon, and what became of the credential.

A daemon runs with a pair that is good for a while. strace is attached to its worker thread, told to send SIGKILL at
one call; then a reload makes the refresh due. The signal comes at the entry of the call and the call is not carried
out, so the kill at call N is the kill *after* call N-1 and *before* call N: all N together are both sides of each.

A killed process leaves what it wrote, synced or not. A power cut does not: so the daemon is started again from
what a disk that keeps no more than it must would hold as well, without the outputs, which lie in memory.
"""

import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.process.disk import Disk, restore
from tests.process.rig import NAME, PATIENCE, DaemonProcess, Rig, SandboxProcess
from tests.process.trace import Call, read_trace, traced, worker_of

ONE_WORKER: Final = "max_concurrent = 1\nmax_concurrent_per_server = 1"
"""So that it is known which thread will rotate."""
GRACE: Final = 60.0
"""Seconds for which a forgiving server answers again, and rotator asks again: enough for a slow machine to restart."""
NOT_DUE: Final = f'refresh = {{ replay_window = "{GRACE:.0f}s" }}'
DUE: Final = f'refresh = {{ ratio = 0.3, replay_window = "{GRACE:.0f}s" }}'
AGE: Final = 1800.0
"""Seconds of an hour that the access token has behind it: due with the one setting, not with the other."""
LOST_TEXT: Final = "the answer to an earlier refresh was lost"
_LOST: Final = ("suspect", "reauthorization_required")


class Cut(StrEnum):
    """How the process ends."""

    KILL = "kill"
    NAMES_LOST = "power cut, unsynced names lost"
    DATA_LOST = "power cut, unsynced data torn"


@dataclass(frozen=True, slots=True)
class Point:
    """Where to kill: at the entry of the nth call of this name."""

    name: str
    nth: int
    cut: Cut = Cut.KILL

    def __str__(self) -> str:
        return f"{self.name}-{self.nth}, {self.cut}"


@dataclass(frozen=True, slots=True)
class Save:
    """The calls that make one state durable; indexes into the trace."""

    opened: int
    written: int
    synced: int
    renamed: int
    durable: int


@dataclass(frozen=True, slots=True)
class Rotation:
    """One rotation that nothing hindered."""

    calls: list[Call]
    reserve: Save
    sent: int
    answered: int
    save: Save
    published: int

    @property
    def since_sent(self) -> float:
        """Seconds from the request's last byte leaving to the new pair being durable: the window at its widest."""
        return self.calls[self.save.durable].over_at - self.calls[self.sent].at

    @property
    def since_answer(self) -> float:
        """Seconds from the answer's arrival to the new pair being durable: our own part of it."""
        return self.calls[self.save.durable].over_at - self.calls[self.answered].over_at

    @property
    def until_written(self) -> float:
        """Seconds from the answer's arrival to the new pair being written: what a kill can still cost."""
        return self.calls[self.save.written].over_at - self.calls[self.answered].over_at

    @property
    def points(self) -> list[Point]:
        """Every call from the reservation on, and each power cut that differs from a kill there."""
        points = []
        for index in range(self.reserve.opened, len(self.calls)):
            call = self.calls[index]
            points.append(Point(call.name, call.nth))
            if any(save.opened < index <= save.durable for save in (self.reserve, self.save)):
                points += [Point(call.name, call.nth, cut) for cut in (Cut.NAMES_LOST, Cut.DATA_LOST)]
        return points


def rotation_in(calls: list[Call], rig: Rig) -> Rotation:
    """Find a rotation's parts in a trace."""
    reserve, save = saves_in(calls, rig)
    out = str(rig.output().parent)
    return Rotation(
        calls, reserve, request_in(calls), max(i for i, call in enumerate(calls) if call.name == "recvfrom"), save,
        next(i for i, call in enumerate(calls) if call.name == "renameat" and call.path == out),
    )  # fmt: skip


def request_in(calls: list[Call]) -> int:
    """Return the index of the call that sends the last of the request; -1 if it was not carried out."""
    sent = (i for i, call in enumerate(calls) if call.name == "sendto" and call.succeeded)
    return next((i for i in sent if calls[i].strings[0].startswith(b"grant_type=")), -1)


def saves_in(calls: list[Call], rig: Rig) -> list[Save]:
    """Find the complete saves of the state in a trace."""
    directory = str(rig.state_directory)

    def after(start: int, name: str, path: str) -> int:
        wanted = (i for i, call in enumerate(calls) if i > start and (call.name, call.path) == (name, path))
        return next((i for i in wanted if calls[i].succeeded), -1)

    found = []
    for opened, call in enumerate(calls):
        if call.name != "openat" or call.path != directory or "O_CREAT" not in call.arguments or not call.succeeded:
            continue
        temporary = f"{directory}/{call.strings[0].decode()}"
        save = Save(
            opened,
            after(opened, "write", temporary),
            after(opened, "fsync", temporary),
            after(opened, "renameat", directory),
            after(opened, "fsync", directory),
        )
        if save.durable != -1:
            found.append(save)
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one kill."""

    point: Point
    struck: bool
    """Whether the rotation came to that call."""
    in_window: bool
    """Whether it fell between the request's last byte and the new pair being safe: from a kill as soon as it is written
    whole, from a power cut once it is durable."""
    healed: bool
    told: str
    """What the daemon said was lost."""
    outside_grace: int
    """Refresh tokens that were presented again too late."""


def _is_temporary(call: Call, rig: Rig) -> bool:
    return call.path.startswith(f"{rig.state_directory}/.rotator-{NAME}.")


@contextmanager
def about_to_rotate(rig: Rig, *, prefix: Sequence[str] = ()) -> Generator[tuple[DaemonProcess, Callable[[], object]]]:
    """Run a daemon that has nothing to do, until the function that comes with it is called."""
    rig.configure(daemon=ONE_WORKER, defaults=NOT_DUE)
    rig.put_pair(age=AGE)
    with rig.daemon(prefix=prefix, clean=False) as daemon:
        daemon.wait_until(lambda: daemon.shown()["outputs"][0]["current"], "the old token is published")
        rig.configure(daemon=ONE_WORKER, defaults=DUE)
        yield daemon, lambda: daemon.post("/v1/reload")


def has_rotated(daemon: DaemonProcess, generation: int = 2) -> bool:
    """Tell whether a new token is there and published."""
    shown = daemon.shown()
    return bool(shown["generation"] >= generation and shown["outputs"][0]["current"] and shown["standing"] == "valid")


def unhindered(rig: Rig) -> Rotation:
    """Trace a rotation that nothing hinders."""
    trace = rig.directory / "trace"
    with about_to_rotate(rig) as (daemon, rotate), traced(worker_of(daemon.pid), trace):
        rotate()
        daemon.wait_until(lambda: has_rotated(daemon), "a rotation")
    return rotation_in(read_trace(trace), rig)


def strike(rig: Rig, point: Point) -> Verdict:
    """Kill a rotating daemon at a point, start another, and tell what became of the credential."""
    trace, books = rig.directory / "trace", rig.sandbox.books()
    with about_to_rotate(rig) as (daemon, rotate):
        old, disk = rig.token(), Disk(rig.state_directory)
        with traced(worker_of(daemon.pid), trace, f"{point.name}:signal=KILL:when={point.nth}"):
            struck = not completes(daemon, rotate)
    calls = read_trace(trace)
    if struck:
        assert calls[-1].point == f"{point.name}-{point.nth}", calls[-1]
        assert calls[-1].result == "?", "the call at whose entry the daemon was killed was carried out"
    for call in calls:
        disk.follow(call)
    if point.cut is not Cut.KILL:
        restore(rig.state_directory, disk.kept(names=point.cut is Cut.DATA_LOST))
        rig.output().unlink(missing_ok=True)
    saves = saves_in(calls, rig)
    since = calls[request_in(calls) :]
    renamed = any(call.name == "renameat" and call.succeeded for call in since)
    written = any(call.name == "write" and call.succeeded and _is_temporary(call, rig) for call in since)
    safe = len(saves) > 1 or (renamed and point.cut is not Cut.NAMES_LOST) or (written and point.cut is Cut.KILL)
    told = start_again(rig, old)
    return Verdict(
        point,
        struck,
        request_in(calls) != -1 and not safe,
        told == "",
        told,
        rig.sandbox.books()["replays_outside_grace"] - books["replays_outside_grace"],
    )


def completes(daemon: DaemonProcess, rotate: Callable[[], object]) -> bool:
    """Have a daemon rotate; tell whether it did, or was killed on the way."""
    try:
        rotate()
        daemon.wait_until(lambda: has_rotated(daemon), "a kill, or a rotation")
    except AssertionError:  # it may die while it answers
        if daemon.process.wait(PATIENCE) != -signal.SIGKILL:
            raise
    return daemon.process.poll() is None


def start_again(rig: Rig, old: str) -> str:
    """Start a daemon without any help, and see to it that the credential is well; if not, return what the daemon says.

    `old`: the access token from before.
    """
    before = rig.sandbox.books()["token_requests"]
    with rig.daemon() as daemon:
        daemon.wait_until(lambda: has_rotated(daemon) or daemon.shown()["standing"] in _LOST, "a verdict")
        shown = daemon.shown()
        if shown["standing"] in _LOST:
            return f"{shown['standing']}: {shown['text']}"
        assert rig.token() != old
        assert rig.has_good_token()
        if rig.sandbox.books()["token_requests"] == before:  # the new pair was saved: does it lead to a next one?
            daemon.post(f"/v1/rotate/{NAME}")
            daemon.wait_until(lambda: has_rotated(daemon, shown["generation"] + 1), "the next rotation")
            assert rig.has_good_token()
    return ""


def place(directory: Path, name: str, sandbox: SandboxProcess) -> Rig:
    """Make a fresh installation below a directory."""
    (directory / name).mkdir()
    return Rig(directory / name, sandbox)


def strike_all(directory: Path, sandbox: SandboxProcess, points: Sequence[Point]) -> Generator[Verdict]:
    """Strike at each point, each time in a fresh installation."""
    for number, point in enumerate(points):
        yield strike(place(directory, str(number), sandbox), point)


def fault(verdict: Verdict, *, grace: bool) -> str:
    """Return what is wrong with a verdict, or nothing."""
    if verdict.healed:
        return "presented too late" if verdict.outside_grace and grace else ""
    if grace:
        return "lost in spite of the grace window"
    if not verdict.in_window:
        return "lost outside the window"
    return "" if LOST_TEXT in verdict.told else "does not say what is lost"
