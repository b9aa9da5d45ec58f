"""`needs(component)`: skip a test on a machine that lacks something, fail it in CI.

A skipped test proves nothing, so nothing may be skipped where the whole suite is promised to run:
`.ci/run` installs every component and sets `CI=true`.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.process.rig import PATIENCE
from tests.testbed.drawing import workshop
from tests.testbed.oidc_provider import PACKAGES

_MOUNT_FUSE: Final = "exec 3<>/dev/fuse; mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none /mnt"
# For LD_PRELOAD; the loader knows what $LIB is. Not by way of the command `faketime`: that one refuses to run where
# an earlier process of its number was killed, for what such a process had in /dev/shm stays there for ever.
FAKETIME: Final = "/usr/$LIB/faketime/libfaketime.so.1"
_IN_AN_HOUR: Final = 'test $(($(LD_PRELOAD="$0" FAKETIME=+1h date +%s) - $(date +%s))) -gt 3500'
# A component is there if its probe works: a program that is installed but may not do its work
# (ptrace forbidden in a container, say) counts as missing. None: only root will do.
PROBES: Final[dict[str, tuple[str, ...] | None]] = {
    "Debian's Python": ("/usr/bin/python3", "-c", "import ensurepip, venv"),
    "chromium": ("chromium", "--version"),
    # Images can be built and run, which takes a root with its rights.
    "containers": (sys.executable, "-B", "-m", "tests.testbed.image.rig"),
    "curl": ("curl", "--version"),
    "dpkg-deb": ("dpkg-deb", "--version"),
    "faketime": ("sh", "-c", _IN_AN_HOUR, FAKETIME),
    "groff": ("groff", "-man", "-Tutf8", "-z", "/dev/null"),
    "fuse": ("unshare", "--mount", "sh", "-ec", _MOUNT_FUSE),
    "git checkout": ("git", "-c", "safe.directory=*", "rev-parse", "--git-dir"),
    "hadolint": (str(Path(sys.executable).with_name("hadolint")), "--version"),
    "helm": (sys.executable, "-B", "-m", "tests.testbed.kubernetes.build", "--there", "clients"),
    "kubectl": (sys.executable, "-B", "-m", "tests.testbed.kubernetes.build", "--there", "clients"),
    "kubernetes": (sys.executable, "-B", "-m", "tests.testbed.kubernetes.build", "--there", "kubernetes"),
    "mandoc": ("mandoc", "-T", "lint", "-W", "error", "/dev/null"),
    # Too large to be installed unasked: `python -m tests.testbed.drawing.workshop` does it.
    "grafana components": ("ls", str(workshop.PACKAGES.mark)),
    "mount namespace": ("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"),
    "network namespace": ("unshare", "--net", "ip", "link", "set", "lo", "up"),
    # `python -m tests.testbed.oidc_provider` installs it.
    "oidc-provider": ("sh", "-ec", f"ls {PACKAGES.mark}; node --version"),
    "openssl": ("openssl", "version"),
    # Where packages come from, or a cache, answers.
    "package index": (sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "mdurl"),
    "prometheus": ("prometheus", "--version"),
    "promtool": ("promtool", "--version"),
    "root": None,
    # A process of root that may not kill those of others.
    "setpriv": ("setpriv", "--bounding-set", "-kill", "setpriv", "--reuid", "65534", "true"),
    "strace": ("strace", "-f", "-o", "/dev/null", "true"),
    # To a process that is no child: Yama (kernel.yama.ptrace_scope) reserves that to root.
    "strace attach": ("sh", "-ec", "sleep 2 & strace -qq -o /dev/null -e trace=none -p $!; true"),
    "systemd-analyze": ("systemd-analyze", "--version"),
    # A container with systemd as PID 1 boots.
    "systemd-nspawn": (sys.executable, "-B", "-m", "tests.testbed.systemd.machine"),
    "time namespace": ("unshare", "--time", "--boottime", "60", "--fork", "true"),
    "tzdata": ("test", "-e", "/usr/share/zoneinfo/Europe/Amsterdam"),
}


def needs(*components: str) -> None:
    """Skip the calling test if a component is missing, or fail it if the variable CI is `true`."""
    for component in components:
        missing = _missing(component)
        if missing and os.environ.get("CI") == "true":
            pytest.fail(f"{component} is needed in CI: {missing}")
        if missing:
            pytest.skip(f"needs {component}: {missing}")


@functools.cache
def _missing(component: str) -> str:
    probe = PROBES[component]
    if probe is None:
        return "" if os.geteuid() == 0 else "run the tests as root"
    try:
        run = subprocess.run(
            probe, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if run.returncode == 0 else f"{' '.join(probe)}: {run.stderr.strip()}"
