"""The wheel and the source archive: everything is in them, and what is installed from them works."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

from rotator import VERSION
from tests.packaging.builds import Built, tracked


def names_in(wheel: Path) -> set[str]:
    """Return the names of the files in a wheel, those about the wheel itself left out."""
    with zipfile.ZipFile(wheel) as files:
        return {name for name in files.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_of_the_package_and_no_other(built: Built) -> None:
    """A page or template that is no Python is in the wheel too; tests are not."""
    assert names_in(built.wheel) == set(tracked("rotator"))


def test_the_wheel_says_what_it_is(built: Built) -> None:
    """Name, version, licence with its text, README, Python versions, libraries and command are in its metadata."""
    with zipfile.ZipFile(built.wheel) as files:
        about = f"token_rotator-{VERSION}.dist-info"
        metadata = message_from_bytes(files.read(f"{about}/METADATA"))
        licence = files.read(f"{about}/licenses/LICENSE").decode()
        assert "rotator = rotator.cli:main" in files.read(f"{about}/entry_points.txt").decode()
    assert (metadata["Name"], metadata["Version"]) == ("token-rotator", VERSION)
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert licence == (built.tree / "LICENSE").read_text()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).startswith("# rotator\n")
    asked = [line for line in (built.tree / "requirements/run.in").read_text().splitlines() if line[:1] != "#"]
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(needed) == len(asked)


def test_the_source_archive_makes_the_same_wheel(built: Built, tmp_path: Path) -> None:
    """Whoever builds from the archive gets the files that the wheel has."""
    with tarfile.open(built.archive) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    (builder,) = (built.tree / "build").glob("tools-*/bin/python")
    code = "import sys; from setuptools import build_meta as b; d = sys.argv[1]; b.build_wheel(d)"
    subprocess.run([builder, "-c", code, tmp_path], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert names_in(wheel) == names_in(built.wheel)


def test_what_the_wheel_installs_works(built: Built, tmp_path: Path) -> None:
    """In a fresh environment, as pipx makes one: version, check and the demo, which loses no token."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv/bin/python")
    pip = [python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", "-r", str(built.tree / "requirements/run.txt")], check=True)
    subprocess.run([*pip, "--no-index", str(built.wheel)], check=True)  # asks for nothing that is not pinned
    (tmp_path / "rotator.toml").write_text(
        f"daemon = {{ state_directory = '{tmp_path}', runtime_directory = '{tmp_path}' }}\n"
        "metrics = { listen = '127.0.0.1:0' }\n"
    )

    def rotator(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(tmp_path / "venv/bin/rotator"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert rotator("version").stdout == f"rotator {VERSION}\n"
    check = rotator("check", "--config", "rotator.toml")
    assert (check.returncode, check.stderr) == (0, ""), check.stdout
    demo = rotator("demo", "--for", "5")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert sys.prefix not in demo.stdout
