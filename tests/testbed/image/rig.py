"""Containers without Docker: the image is built by buildah and run by podman, as root, apart from what else is there.

No registry is asked. The base image that the Dockerfile names is made of Debian's own packages, once for a machine: its
Python is the one that this Debian has, whatever the name says.
"""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.children import ROOT

BASE: Final = "python:3.13-slim"
IMAGE: Final = "rotator:test"
HARDENED: Final = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--user=10001:10001")
"""What the manifests ask of a cluster, in podman's words."""
_DEBIAN: Final = ("bookworm", "python3,python3-venv,python3-pip,ca-certificates")
_WITHOUT_BYTECODE: Final = 'find "$1/usr/lib" -name __pycache__ -prune -exec rm -r {} +'  # as the image of that name
_LINKS: Final = 'for each in python3 python pip3; do ln -s /usr/bin/$each "$1/usr/local/bin/$each"; done'
_LIMITS: Final = ("--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096")
"""Without these podman raises its own limits, which not every root may."""


@dataclass(frozen=True, slots=True)
class Containers:
    """A store of images below a directory."""

    directory: Path

    @property
    def _store(self) -> list[str]:
        return [f"--root={self.directory}/store", f"--runroot={self.directory}/run", "--storage-driver=overlay"]

    def buildah(self, *arguments: str) -> str:
        """Run buildah; return what it prints."""
        return _run(["buildah", *self._store, *arguments])

    def command(self, *arguments: str) -> list[str]:
        """Return the argument vector of a podman command."""
        return ["podman", *self._store, "--cgroup-manager=cgroupfs", "--runtime=runc", *arguments]

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Run podman; return what it prints."""
        return _run(self.command(*arguments), check=check)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Have the image until the end of the block: whoever comes first builds it, whoever leaves last removes it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        built = self.directory / "built"
        with (self.directory / "users").open("w") as users, (self.directory / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not built.exists():
                self._build()
                built.touch()
            fcntl.flock(door, fcntl.LOCK_UN)
            try:
                yield
            finally:
                fcntl.flock(door, fcntl.LOCK_EX)
                with suppress(BlockingIOError):  # another worker uses it
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    built.unlink()
                    self.remove()

    def _build(self) -> None:
        """Build the image from the checkout."""
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", container, str(_base()), "/")
        self.buildah("config", "--env=PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
        self.buildah("commit", "--quiet", "--rm", container, BASE)
        # The kind of image that knows a HEALTHCHECK; certificates, for whoever has an authority of their own.
        self.buildah(
            "bud", "--quiet", "--isolation=chroot", "--pull-never", "--format=docker",
            "--volume=/etc/ssl/certs:/etc/ssl/certs:ro", f"--tag={IMAGE}", str(ROOT),
        )  # fmt: skip

    def run(self, *options: str) -> list[str]:
        """Return the argument vector that runs the image with everything taken from it that the manifests take."""
        return self.command("run", "--pull=never", *_LIMITS, *HARDENED, *options)

    @contextmanager
    def running(self, name: str, *options: str) -> Iterator[str]:
        """Run a container of the image in the background; remove it afterwards."""
        _run(self.run("--detach", f"--name={name}", *options))
        try:
            yield name
        finally:
            self.podman("rm", "--force", "--time=5", name, check=False)

    def remove(self) -> None:
        """Remove images and mounts."""
        self.podman("rm", "--all", "--force", "--time=1", check=False)
        self.podman("rmi", "--all", "--force", check=False)
        subprocess.run(["umount", "--quiet", f"{self.directory}/store/overlay"], check=False, capture_output=True)


def _base() -> Path:
    """Return a tar file of the base image: kept outside the checkout, made where it is missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rotator-tests"
    cache.mkdir(parents=True, exist_ok=True)
    made = cache / f"image-base-{_DEBIAN[0]}-2.tar"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=cache) as place:
            tar = Path(place) / "base.tar"
            _run([
                "mmdebstrap", "--quiet", "--variant=minbase", f"--include={_DEBIAN[1]}",
                "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
                "--dpkgopt=path-exclude=/usr/share/locale/*", f"--customize-hook={_LINKS}",
                f"--customize-hook={_WITHOUT_BYTECODE}",
                "--customize-hook=rm -rf $1/var/lib/apt/lists/* $1/usr/lib/python3*/EXTERNALLY-MANAGED",
                _DEBIAN[0], str(tar),
            ])  # fmt: skip
            tar.rename(made)
    return made


def _run(command: list[str], *, check: bool = True) -> str:
    environment = {**os.environ, "DISABLE_HC_SYSTEMD": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


if __name__ == "__main__":  # the probe: whether a container can run at all
    with tempfile.TemporaryDirectory() as scratch:
        probe = Containers(Path(scratch))
        _run(["mmdebstrap", "--version"])
        container = probe.buildah("from", "scratch").strip()
        probe.buildah("add", "--quiet", container, "/bin/true", "/true")
        probe.buildah("commit", "--quiet", "--rm", container, "probe")
        probe.podman("images", "--quiet")
        probe.remove()
