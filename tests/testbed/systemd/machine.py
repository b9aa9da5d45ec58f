"""A machine of its own: systemd as PID 1 of a container whose root is a throw-away overlay over this machine's root.

Nothing is downloaded and nothing is left behind: the mounts live in a namespace that ends with the tests' process,
however that ends. Only what runs on a machine outlives tests that are killed; the next ones see to it. A boot takes
some 0.3 s. The network is the host's, unless one of its own, a loopback, is wanted.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.process.rig import PATIENCE, ROOT, wait_until
from tests.testbed.systemd.leftovers import PREFIX, free, reap

# nspawn wants a memory file system for its own directory, or a reboot fails.
_HOLD: Final = """
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -t tmpfs -o size=512m,mode=755 tmpfs "$1"
cd "$1"
mkdir .upper .work root
mount -t overlay overlay -o lowerdir=/,upperdir=.upper,workdir=.work root
echo ready
exec cat >/dev/null # until the tests' process lets go of its end
"""
# A control group of its own in each hierarchy: several machines may run at once.
_BOOT: Final = """
machine=$1; shift
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    if [ -e $hierarchy/cgroup.procs ]; then
        mkdir -p $hierarchy/$machine
        echo $$ >$hierarchy/$machine/cgroup.procs
    fi
done
exec "$@"
"""
# Not multi-user.target: no service of this machine's own is wanted.
_TARGET: Final = """
[Unit]
Requires=basic.target dbus.service
After=basic.target dbus.service
AllowIsolate=yes
"""
ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}
_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL")
_PYTHON: Final = "/opt/testbed/python"
_SOURCE: Final = "/opt/testbed/source"
_PACKAGES: Final = "/opt/testbed/packages"
_BOOT_ME_AGAIN: Final = 133  # how systemd-nspawn passes a reboot on
_numbers: Final = itertools.count(1)


class Machine:
    """Boots, is told what to do, and dies in whatever way."""

    def __init__(self, directory: Path, *, own_network: bool = False, firewall: bool = False) -> None:
        """Make the machine's disk below an empty directory; it is freed by `close`.

        `firewall`: its systemd may load the programs that IPAddressDeny= consists of.
        """
        reap()
        self._options = ["--private-network"] if own_network else []
        self._options += ["--capability=all", "--system-call-filter=bpf"] if firewall else []
        self._name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self._console = directory.with_suffix(".console")
        self._container: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._holder = subprocess.Popen(
            ["unshare", "--mount", *_WITH_PARENT, "sh", "-ec", _HOLD, "sh", str(directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self._root = directory / "root"
        self._furnish()

    # -- disk --------------------------------------------------------------------------------------

    @property
    def disk(self) -> Path:
        """The root file system, whether or not the machine is up."""
        return Path(f"/proc/{self._holder.pid}/root{self._root}")

    @property
    def root(self) -> Path:
        """The root as the machine sees it while it is up, `/run` included."""
        return Path(f"/proc/{self._leader}/root")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the disk; its directories are made."""
        file = self.disk / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f".{file.name}.new")
        new.write_text(text)
        new.chmod(mode)
        new.rename(file)

    def _furnish(self) -> None:
        self.write("/etc/machine-id", "")
        self.write("/etc/systemd/system/testbed.target", _TARGET)
        # The journal is kept over a reboot, in memory that is this machine's alone.
        shutil.rmtree(self.disk / "var/log/journal", ignore_errors=True)
        (self.disk / "var/log/journal").mkdir(parents=True)
        for name in ("python", "source", "packages"):
            (self.disk / "opt/testbed" / name).mkdir(parents=True)
        self.write("/usr/bin/rotator", _launcher(), 0o755)

    # -- power -------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Switch it on and wait until it is up."""
        with self._console.open("ab") as console:
            self._container = subprocess.Popen(
                [
                    "nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *_WITH_PARENT,
                    "sh", "-ec", _BOOT, "sh", self._name,
                    "systemd-nspawn", "--quiet", "--directory", str(self._root), "--boot", "--register=no",
                    "--keep-unit", "--console=pipe", "--resolv-conf=off", "--timezone=off", f"--machine={self._name}",
                    *self._options, *_binds(),
                    "systemd.unit=testbed.target",
                ],
                env=ENVIRONMENT | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        self._wait_for_boot(self._container)

    def _wait_for_boot(self, container: subprocess.Popen[bytes]) -> None:
        children = Path(f"/proc/{container.pid}/task/{container.pid}/children")

        def is_up() -> bool:
            assert container.poll() is None, self._console.read_text(errors="replace")[-3000:]
            leaders = children.read_text().split()
            self._leader = int(leaders[0]) if leaders else 0
            is_active = ("systemctl", "is-active", "--quiet", "testbed.target")
            return bool(leaders) and self.run(*is_active, check=False).returncode == 0

        wait_until(is_up, "the machine is up")

    def reboot(self) -> None:
        """Shut it down in order and boot it again."""
        assert self._container is not None
        self.run("systemctl", "--no-block", "reboot")
        assert self._container.wait(4 * PATIENCE) == _BOOT_ME_AGAIN, self._console.read_text(errors="replace")[-3000:]
        self.boot()

    def cut_power(self) -> None:
        """End everything that runs on it at one instant."""
        if self._container is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader or self._container.pid, 9)
            self._container.wait(PATIENCE)
            self._container = None

    def close(self) -> None:
        """Free everything."""
        try:
            self.cut_power()
        finally:
            self._holder.communicate()
            free(self._name)

    # -- use ---------------------------------------------------------------------------------------

    def command(self, *command: str) -> list[str]:
        """Return the argument vector that runs a command on it, as root of its own."""
        return ["nsenter", "--target", str(self._leader), "--all", *command]

    def run(
        self, *command: str, stdin: str = "", user: str = "root", check: bool = True, patience: float = 2 * PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on it to its end, as root of its own or as somebody else."""
        become = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        done = subprocess.run(
            self.command(*become, *command),
            input=stdin, capture_output=True, text=True, timeout=patience, check=False, env=ENVIRONMENT,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}{done.stdout}"
        return done

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return what systemd knows of a unit."""
        shown = self.run("systemctl", "show", unit, f"--property={','.join(properties)}").stdout
        return dict(line.split("=", 1) for line in shown.splitlines())

    def journal(self, unit: str = "") -> list[dict[str, Any]]:
        """Return the entries of the journal, those of a unit or all."""
        self.run("journalctl", "--sync")
        only = [f"--unit={unit}"] if unit else []
        lines = self.run("journalctl", "--output=json", "--all", *only).stdout.splitlines()
        return [json.loads(line) for line in lines]


def _python() -> tuple[Path, str]:
    """Return where this Python is installed and, of that, the interpreter."""
    base = Path(sys.base_prefix)
    return base, str(Path(os.path.realpath(sys.executable)).relative_to(base))


def _binds() -> list[str]:
    """Show the machine this Python, its packages and the source, where no home directory hides them."""
    return [
        f"--bind-ro={place}:{name}"
        for place, name in (
            (_python()[0], _PYTHON),
            (ROOT / "rotator", f"{_SOURCE}/rotator"),
            (sysconfig.get_path("purelib"), _PACKAGES),
        )
    ]


def _launcher() -> str:
    """Return the command `rotator`: the source under test, run by this Python."""
    return (
        "#!/bin/sh\n"
        f"export LD_LIBRARY_PATH={_PYTHON}/lib PYTHONPATH={_SOURCE}:{_PACKAGES}\n"
        f'exec {_PYTHON}/{_python()[1]} -B -m rotator.cli "$@"\n'
    )


@contextmanager
def new_machine(directory: Path, *, own_network: bool = False, firewall: bool = False) -> Generator[Machine]:
    """Return a machine that is switched off, until the end of the block."""
    (directory / "machine").mkdir()
    machine = Machine(directory / "machine", own_network=own_network, firewall=firewall)
    try:
        yield machine
    finally:
        machine.close()


if __name__ == "__main__":  # the probe of tests/needs.py
    with tempfile.TemporaryDirectory() as scratch, new_machine(Path(scratch)) as probed:
        probed.boot()
