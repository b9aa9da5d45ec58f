"""The daemon is killed at system calls of a rotation: at some here, at every one by `python -m tests.process.crash`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.needs import needs
from tests.process.rig import NAME, SandboxProcess, run_sandbox
from tests.process.strike import (
    GRACE,
    LOST_TEXT,
    Point,
    Rotation,
    about_to_rotate,
    completes,
    fault,
    place,
    start_again,
    strike,
    strike_all,
    unhindered,
)
from tests.process.trace import Call, traced, worker_of

GROUPS: Final = range(6)
STRIDE: Final = 5
_BEFORE_SENDING: Final = 3


@pytest.fixture(scope="module")
def forgiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A sandbox that answers a refresh token again for a minute, and revokes everything when it comes later."""
    needs("strace attach")
    with run_sandbox(tmp_path_factory.mktemp("forgiving"), grace_seconds=GRACE) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A sandbox that revokes everything when a refresh token comes twice."""
    needs("strace attach")
    with run_sandbox(tmp_path_factory.mktemp("strict"), grace_seconds=0.0) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def rotation(tmp_path_factory: pytest.TempPathFactory, forgiving: SandboxProcess) -> Rotation:
    """A rotation that nothing hindered."""
    return unhindered(place(tmp_path_factory.mktemp("unhindered"), "rig", forgiving))


def sample(rotation: Rotation, group: int) -> list[Point]:
    """Return a group's share of the kill points: all around request and save, and each fifth of the others."""
    near = {(c.name, c.nth) for c in rotation.calls[rotation.sent - _BEFORE_SENDING : rotation.save.durable + 2]}
    points = rotation.points
    chosen = [p for i, p in enumerate(points) if (p.name, p.nth) in near or i % STRIDE == 0]
    return chosen[group :: len(GROUPS)]


def before_the_write(rotation: Rotation) -> Call:
    """Return the last moment at which a kill costs the answer: its file is there and holds nothing yet."""
    save = rotation.save
    return next(call for call in rotation.calls[save.opened : save.written] if call.name == "fchmod")


def test_the_order_of_effects(rotation: Rotation) -> None:
    """B2, B5, B6, G19: reserved durably, sent, saved durably, published; each file synced before it gets its name."""
    reserve, save = rotation.reserve, rotation.save
    for each in (reserve, save):
        assert each.opened < each.written < each.synced < each.renamed < each.durable
    sends = [i for i, call in enumerate(rotation.calls) if call.name == "sendto"]
    assert reserve.durable < min(sends) <= rotation.sent < rotation.answered < save.opened
    # After a reload the output is looked at as well; what counts is when it is written.
    written = (i for i, call in enumerate(rotation.calls) if call.path.endswith("/out") and "O_CREAT" in call.arguments)
    assert save.durable < min(written)
    assert rotation.published > save.durable


def test_nothing_stands_between_the_answer_and_its_save(rotation: Rotation) -> None:
    """B2: once the answer is there, nothing is opened, read or written before it is durable but the state itself."""
    between = rotation.calls[rotation.answered + 1 : rotation.save.durable + 1]
    others = [call for call in between if "/state" not in call.path]
    assert {call.name for call in others} <= {"poll"}, others


@pytest.mark.parametrize("group", GROUPS)
def test_a_kill_costs_nothing_with_a_grace_window(
    tmp_path: Path, forgiving: SandboxProcess, rotation: Rotation, group: int
) -> None:
    """B1, B12, B29, C24: killed at any call, or its disk cut off there, the next start refreshes without a human."""
    for verdict in strike_all(tmp_path, forgiving, sample(rotation, group)):
        assert not fault(verdict, grace=True), verdict
        assert not verdict.outside_grace, verdict


@pytest.mark.parametrize("group", GROUPS)
def test_a_kill_costs_a_login_in_one_window_only_without_grace(
    tmp_path: Path, strict: SandboxProcess, rotation: Rotation, group: int
) -> None:
    """B1, B8, B12: only a kill between "request sent" and "written here" loses anything, and then it is told what."""
    for verdict in strike_all(tmp_path, strict, sample(rotation, group)):
        assert not fault(verdict, grace=False), verdict


def test_a_second_kill_costs_nothing_with_a_grace_window(
    tmp_path: Path, forgiving: SandboxProcess, rotation: Rotation
) -> None:
    """B1, B29: killed before the new pair is written, and in the next life, while it is replayed, there again."""
    chmod = before_the_write(rotation)
    rig = place(tmp_path, "rig", forgiving)
    before = forgiving.books()
    # Counted in each thread: the worker's second is the save's, as at first; the main thread makes but one.
    again = ("strace", "-f", "-o", str(tmp_path / "trace"), "-e", "trace=fchmod")
    kill = f"--inject=fchmod:signal=KILL:when={chmod.nth}"
    with about_to_rotate(rig) as (daemon, rotate):
        old = rig.token()
        with traced(worker_of(daemon.pid), tmp_path / "first", f"fchmod:signal=KILL:when={chmod.nth}"):
            assert not completes(daemon, rotate)
    with rig.daemon(prefix=(*again, kill), clean=False) as daemon:
        daemon.wait_until(lambda: False, "a kill in the second life")
    assert start_again(rig, old) == ""
    books = forgiving.books()
    assert books["replays_in_grace"] - before["replays_in_grace"] == 2
    assert books["replays_outside_grace"] == 0


def test_what_is_lost_is_told_and_a_login_heals_it(tmp_path: Path, strict: SandboxProcess, rotation: Rotation) -> None:
    """B1: killed just before the new pair is written, a server without grace has the old one revoked."""
    chmod = before_the_write(rotation)
    rig = place(tmp_path, "rig", strict)
    verdict = strike(rig, Point(chmod.name, chmod.nth))
    assert verdict.struck
    assert verdict.in_window
    assert LOST_TEXT in verdict.told
    with rig.daemon() as daemon:
        daemon.wait_until(lambda: daemon.shown()["standing"] == "reauthorization_required", "no hope left")
        assert LOST_TEXT in daemon.shown()["text"]
        assert LOST_TEXT in daemon.log
        assert f"rotator login {NAME}" in daemon.log
        rig.login()
        daemon.wait_until(rig.has_good_token, "a login")
