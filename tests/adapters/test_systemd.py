"""What is sent to NOTIFY_SOCKET, over real sockets that listen, are full, or are gone."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rotator.adapters.systemd import Systemd
from tests.ear import listening
from tests.process.rig import wait_until


@contextmanager
def speaking(address: str, **environ: str) -> Iterator[Systemd]:
    """Return the speaker that a daemon with this environment would have."""
    systemd = Systemd({"NOTIFY_SOCKET": address, **environ})
    try:
        yield systemd
    finally:
        systemd.close()


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A path that nobody listens at yet."""
    return str(tmp_path / "notify")


def test_without_systemd_nothing_is_said() -> None:
    """Without NOTIFY_SOCKET every message is nothing, and the watchdog's variables mean nothing."""
    environ = {"WATCHDOG_USEC": "1000", "PATH": "/bin"}
    systemd = Systemd(environ)
    for speak in (systemd.ready, systemd.alive, systemd.reloading):
        speak()
    systemd.tell("3 credentials", "")
    systemd.stopping("stopping", 5)
    systemd.close()
    assert not systemd.listens
    assert systemd.problem is None
    assert systemd.sweep_seconds == 1
    assert environ == {"PATH": "/bin"}


def test_the_variables_are_taken_out_of_the_environment(address: str) -> None:
    """I1: they are read once, at the start, and nothing that is started later inherits them."""
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}
    Systemd(environ).close()
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_both_kinds_of_address_are_spoken_to(address: str, kind: str) -> None:
    """The address is a path under systemd; elsewhere it may be an abstract one, which begins with @."""
    address = address if kind == "path" else f"@rotator-test-{os.getpid()}"
    with listening(address) as ear, speaking(address) as systemd:
        systemd.starting("reading the configuration")
        systemd.ready()
        wait_until(lambda: len(ear.heard) == 2, "two messages")
    assert ear.heard[0].fields == {"STATUS": "reading the configuration", "EXTEND_TIMEOUT_USEC": "60000000"}
    assert ear.heard[1].fields == {"READY": "1"}


def test_a_reload_carries_the_instant_that_systemd_compares(address: str) -> None:
    """RELOADING=1 comes with the monotonic clock in microseconds, in the same message (Type=notify-reload)."""
    with listening(address) as ear, speaking(address) as systemd:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        systemd.reloading()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        wait_until(lambda: ear.heard, "a message")
    assert ear.heard[0].fields["RELOADING"] == "1"
    assert ear.heard[0].fields["EXTEND_TIMEOUT_USEC"] == "60000000"
    assert before <= int(ear.heard[0].fields["MONOTONIC_USEC"]) <= after


@pytest.mark.parametrize(
    ("microseconds", "pid", "pings", "sweep_seconds"),
    [
        ("60000000", None, 1, 1.0),
        ("60000000", "own", 1, 1.0),
        ("60000000", "other", 0, 1.0),
        ("2000000", None, 3, 0.5),
        ("0", None, 0, 1.0),
        ("soon", None, 0, 1.0),
        ("", None, 0, 1.0),
    ],
)
def test_the_watchdog_is_fed_as_often_as_it_asks(
    address: str, microseconds: str, pid: str | None, pings: int, sweep_seconds: float
) -> None:
    """I1, I3: three sweeps in a row feed a patient watchdog once, an eager one each time, another process's never."""
    environ = {"WATCHDOG_USEC": microseconds}
    if pid is not None:
        environ["WATCHDOG_PID"] = str(os.getpid() if pid == "own" else os.getppid())
    with listening(address) as ear, speaking(address, **environ) as systemd:
        for _ in range(3):
            systemd.alive()
        systemd.ready()
        wait_until(lambda: ear.all("READY"), "the last message")
        assert len(ear.pings) == pings
        assert systemd.sweep_seconds == sweep_seconds


def test_a_line_that_only_grows_more_exact_waits_a_minute(address: str) -> None:
    """The same line is told once, the first outlook and a new standing at once, another outlook after a minute."""
    with listening(address) as ear, speaking(address) as systemd:
        systemd.tell("3 credentials", "")
        systemd.tell("3 credentials", "")
        systemd.tell("3 credentials", "next refresh home in 42 min")
        systemd.tell("3 credentials", "next refresh home in 41 min")
        systemd.tell("3 credentials, 1 is failing (away)", "next refresh home in 41 min")
        systemd.ready()
        wait_until(lambda: ear.all("READY"), "the last message")
    assert ear.all("STATUS") == [
        "STATUS=3 credentials",
        "STATUS=3 credentials, next refresh home in 42 min",
        "STATUS=3 credentials, 1 is failing (away), next refresh home in 41 min",
    ]


def test_a_full_queue_holds_nobody_up_and_loses_nothing(address: str) -> None:
    """While systemd is busy messages wait; the next sweep sends them as one, in which the last word counts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, speaking(address) as systemd:
        listener.bind(address)
        listener.setblocking(False)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    other.sendto(b"X=1", address)
        started = time.monotonic()
        systemd.ready()
        systemd.reloading()
        systemd.tell("3 credentials", "")
        systemd.ready()
        assert time.monotonic() - started < 10
        with contextlib.suppress(BlockingIOError):
            while True:
                assert listener.recv(4096) == b"X=1"
        systemd.alive()
        told = listener.recv(4096).decode().split("\n")
        systemd.alive()
        with pytest.raises(BlockingIOError):
            listener.recv(4096)
    assert [line.partition("=")[0] for line in told] == [
        "RELOADING",
        "MONOTONIC_USEC",
        "EXTEND_TIMEOUT_USEC",
        "STATUS",
        "READY",
    ]


@pytest.mark.parametrize("address", ["/nowhere/at/all", "vsock:2:1234", "relative", f"/{'x' * 200}"])
def test_an_address_that_cannot_be_spoken_to_is_told_and_borne(address: str) -> None:
    """Nothing is raised whatever NOTIFY_SOCKET holds, and one line says why systemd hears nothing."""
    with speaking(address, WATCHDOG_USEC="1000000") as systemd:
        systemd.starting("reading the configuration")
        systemd.alive()
        systemd.ready()
        assert systemd.problem is not None
        assert systemd.problem.startswith("NOTIFY_SOCKET ")
