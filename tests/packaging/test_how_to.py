"""docs/how-to/systemd.md, followed to the letter."""

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.needs import needs
from tests.packaging.builds import Built
from tests.packaging.debian import bare_machine, sandbox
from tests.process.rig import CLIENT_SECRET, PASSWORD, ROOT, USERNAME, SandboxProcess, free_address
from tests.terminal import converse
from tests.testbed.systemd.machine import Machine

pytestmark = pytest.mark.timeout(300)

PAGE: Final = ROOT / "docs/how-to/systemd.md"
SECTION: Final = "From the package to a token"


def steps() -> list[str]:
    """Return the indented blocks of the section, in order."""
    text = PAGE.read_text().partition(f"\n## {SECTION}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, re.MULTILINE)
    return [re.sub(r"(?m)^    ", "", block) for block in blocks]


def type_in(machine: Machine, command: str) -> str:
    """Carry out one line of the page as a person would; return what came to the screen."""
    if command.startswith("install "):
        return machine.run("sh", "-c", command, stdin=f"{CLIENT_SECRET}\n").stdout
    if not command.startswith("rotator login"):
        return machine.run("sh", "-c", f"cd /root; {command}").stdout
    questions = (("User name for home:", USERNAME), ("Password (not shown):", PASSWORD))
    there = ["nsenter", "--target", str(machine._leader), "--all", *command.split()]
    code, shown = converse({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}, there, *questions)
    assert code == 0, shown
    return shown


@pytest.mark.shows_secrets
def test_the_page_leads_from_the_package_to_a_token(built: Built, tmp_path: Path) -> None:
    """Nothing but what the page says, on a machine that never saw rotator: the file holds a token that is accepted."""
    needs("systemd-nspawn")
    with sandbox() as server, bare_machine(tmp_path) as machine:
        shutil.copy(built.deb, machine.disk / "root")
        host, port = free_address()  # other tests on this machine have theirs
        yours = {"https://ce-api.example.com": server.url, "my-labelpartner": "sandbox-client"}
        shown = ""
        for step in steps():
            if step.startswith("# /"):
                file, _, text = step.removeprefix("# ").partition("\n")
                for theirs, ours in yours.items():
                    assert theirs in text
                    text = text.replace(theirs, ours)
                machine.write(file, f'{text}\n[metrics]\nlisten = "{host}:{port}"\n')
                continue
            for command in step.splitlines():
                shown = type_in(machine, command)
        assert SandboxProcess(server.url).accepts(shown)
