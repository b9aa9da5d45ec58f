"""The unit files themselves, judged by systemd's own tools."""

import re
import subprocess

import pytest

from tests.needs import needs
from tests.testbed.systemd.installed import UNITS, Installed

SERVICES = ("rotator.service", "rotator@.service", "rotator-once.service")
EXPOSURE = 15
"""Tenths. 0 is a program that can do nothing, 100 one that runs as root without any limit."""


def settings(unit: str) -> list[str]:
    """Return the lines of a unit file that mean something."""
    lines = (UNITS / unit).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def hardening(unit: str) -> list[str]:
    """Return the settings that keep a unit's processes in."""
    lines = settings(unit)
    end = lines.index("[Install]") if "[Install]" in lines else len(lines)
    return lines[lines.index("ProtectSystem=strict") : end]


def test_systemd_has_nothing_to_say_about_the_units(installed: Installed) -> None:
    """`systemd-analyze verify` prints nothing, for each unit and the examples; about a misspelt key it would."""
    machine = installed.machine
    names = [path.name.replace("@.", "@home.") for path in sorted(UNITS.glob("rotator*.*"))]
    for example in (UNITS / "examples").rglob("*.*"):
        if example.is_file():
            machine.write(f"/etc/systemd/system/{example.relative_to(UNITS / 'examples')}", example.read_text())
    machine.write("/etc/systemd/system/consumer.service", "[Service]\nExecStart=sleep inf\n")
    verify = ("systemd-analyze", "verify", "--man=no")
    done = machine.run(*verify, *names, "consumer.service", "consumer-token.path")
    assert done.stdout + done.stderr == ""
    installed.drop_in("misspelt", "ProtectSytem=strict")
    assert "ProtectSytem" in machine.run(*verify, *names).stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_the_exposure_is_low(unit: str) -> None:
    """`systemd-analyze security` gives each service at most 1.5 of 10."""
    needs("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}"]
    done = subprocess.run([*command, UNITS / unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Overall exposure level for rotator\S*: 1\.\d OK", done.stdout)


def test_the_services_are_kept_in_alike() -> None:
    """The hardening is the same in every service, line for line."""
    first, *others = map(hardening, SERVICES)
    assert len(first) > 20
    for other in others:
        assert other == first


def test_no_command_runs_before_the_daemon() -> None:
    """I6: no ExecStartPre, which would cost the daemon its credentials on systemd 252; it checks everything itself."""
    for unit in SERVICES:
        keys = [line.partition("=")[0] for line in settings(unit)]
        assert [key for key in keys if key.startswith("Exec") and key not in ("ExecStart", "ExecReload")] == []


def test_nothing_is_waited_for_at_start() -> None:
    """No unit relies on network-online.target: the daemon starts without a network and goes on when there is one."""
    assert [path for path in UNITS.rglob("*.*") if path.is_file() and "network-online" in path.read_text()] == []
