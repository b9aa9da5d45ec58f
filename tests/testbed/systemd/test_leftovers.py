"""What tests leave behind that are killed."""

import subprocess
import sys
from pathlib import Path

from tests.needs import needs
from tests.process.rig import ROOT, wait_until
from tests.testbed.systemd.leftovers import PREFIX, reap

_BOOT = """
import pathlib, sys, time
from tests.testbed.systemd.machine import new_machine
with new_machine(pathlib.Path(sys.argv[1])) as machine:
    machine.boot()
    print(flush=True)
    time.sleep(600)
"""


def test_a_machine_whose_tests_were_killed_is_ended_by_the_next_ones(tmp_path: Path) -> None:
    """Its systemd outlives a SIGKILL of the tests; whoever makes a machine next ends it, and no machine in use."""
    needs("systemd-nspawn")
    killed = subprocess.Popen([sys.executable, "-c", _BOOT, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert killed.stdout is not None
    groups = [Path("/sys/fs/cgroup", at, f"{PREFIX}{killed.pid}-1") for at in ("", "unified", "systemd")]
    with killed:
        assert killed.stdout.readline()
        assert any(group.exists() for group in groups)
        reap()
        assert any(group.exists() for group in groups)
        killed.kill()
    wait_until(lambda: not Path("/proc", str(killed.pid)).exists(), "it is gone")
    reap()
    assert not any(group.exists() for group in groups)
