"""Packages built from a copy of what git tracks, as from a fresh clone; once in a run, however many workers."""

import fcntl
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.needs import needs
from tests.process.rig import ROOT

DEBIAN_PYTHON: Final = "/usr/bin/python3"
EARLIER: Final = "0.0.9"
"""The version to upgrade from: older than any that is built here."""
_SETTINGS: Final = re.compile("PYTHON|VIRTUAL_ENV|MAKE|DESTDIR|PREFIX")


@dataclass(frozen=True, slots=True)
class Built:
    """Where the packages lie."""

    tree: Path
    deb: Path
    earlier: Path
    wheel: Path
    archive: Path


def tracked(below: str = ".") -> list[str]:
    """Return the names of the files that git tracks below a directory."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--", below]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


def check_out(directory: Path) -> Path:
    """Copy the tracked files as they are now; return the directory."""
    for name in tracked():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    return directory


def make(tree: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run make in a tree, without what the tests' own environment would tell it."""
    environment = {name: value for name, value in os.environ.items() if not _SETTINGS.match(name)}
    # Packing tightly takes three times as long as everything else.
    environment["DPKG_DEB_COMPRESSOR_TYPE"] = "none"
    command = ["make", *arguments]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def build(directory: Path) -> Built:
    """Build everything below a directory, unless another worker has; then wait for it."""
    tree = directory / "tree"
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "done").exists():
            _build(tree)
            (directory / "done").touch()
    (deb,) = (tree / "dist").glob("*.deb")
    (earlier,) = (tree / "earlier").glob("*.deb")
    (wheel,) = (tree / "dist").glob("*.whl")
    (archive,) = (tree / "dist").glob("*.tar.gz")
    return Built(tree, deb, earlier, wheel, archive)


def _build(tree: Path) -> None:
    check_out(tree)
    make(tree, "dist", f"PYTHON={DEBIAN_PYTHON}")
    make(tree, "deb")
    version = tree / "rotator" / "__init__.py"
    text = version.read_text()
    version.write_text(re.sub(r'(?m)^(VERSION.*= )".*"', rf'\1"{EARLIER}"', text))
    (tree / "dist").rename(tree / "newest")
    make(tree, "deb")
    (tree / "dist").rename(tree / "earlier")
    (tree / "newest").rename(tree / "dist")
    version.write_text(text)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The packages of this tree, and a Debian package of an earlier version of it."""
    needs("git checkout", "Debian's Python", "dpkg-deb", "package index")
    base = tmp_path_factory.getbasetemp()
    return build((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "builds")
