"""The newcomer's five minutes, as README.md tells them."""

import re
import sys
from pathlib import Path
from typing import Final

from tests.needs import needs
from tests.process.rig import PATIENCE, ROOT
from tests.terminal import converse

_README: Final = (ROOT / "README.md").read_text()
_WALK: Final = _README.partition("## Five minutes\n")[2].partition("\n## ")[0]
_TOKEN: Final = "run/household-1.token"
_UNTIL: Final = 'until {}; do sleep 0.05; [ "$SECONDS" -lt 60 ]; done'


def _blocks(text: str) -> list[list[str]]:
    """Return the code blocks of a text: what is indented by four blanks."""
    found = re.findall(r"(?:^(?: {4}.*)?\n)+", text, re.MULTILINE)
    blocks = [[line.removeprefix("    ") for line in block.splitlines()] for block in found]
    return [block for block in blocks if any(line.strip() for line in block)]


def _script() -> str:
    """Put the walk together: the README's lines, and waits where a person would wait."""
    demo, walk = _blocks(_WALK)
    (sandbox,) = (line for line in demo if " sandbox " in line)
    hurting = [" ".join(command.split()) for command in re.findall(r"`(curl[^`]+)`", _WALK)]
    assert len(hurting) == 2
    lines = ["set -eo pipefail; cd ~/clone", "trap 'kill $(jobs -p); wait' EXIT", "ip link set lo up"]
    lines += [sandbox.partition("#")[0] + " &", _UNTIL.format("curl -sf http://127.0.0.1:8080/sandbox/ >sandbox.json")]
    for line in walk:
        lines.append(line)
        if line.startswith("rotator run &"):
            lines.append(_UNTIL.format(f"[ -S run/rotator.sock ] && [ -s {_TOKEN} ]"))
    return "\n".join([*lines, *hurting, "echo; echo the end"])


def test_the_five_minutes_of_the_readme_work(tmp_path: Path) -> None:
    """The README's own lines, typed in a clean home: check, login, run, status, a call, metrics, revoke, books."""
    needs("network namespace", "curl")
    user = re.search(r"grants everything to (\S+)", _WALK)
    password = re.search(r"password \((\S+)\)", _WALK)
    assert user is not None
    assert password is not None
    binary = tmp_path / "clone" / ".venv" / "bin"
    binary.mkdir(parents=True)
    (binary / "rotator").write_text(f'#!/bin/sh\nexec "{sys.executable}" -B -m rotator.cli "$@"\n')
    (binary / "rotator").chmod(0o755)
    environment = {
        "HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
    }  # fmt: skip
    answers = [("User name for household-1:", user[1]), ("Password (not shown):", password[1])]
    walk = ["unshare", "--net", "bash", "-c", _script()]
    code, shown = converse(environment, walk, *answers, patience=2 * PATIENCE)
    assert code == 0, shown
    assert "household-1: logged in, generation 1" in shown
    assert re.search(r"household-1: valid, generation \d", shown)
    assert '"good_calls":1' in shown.replace(" ", "")  # the token was used
    assert 'rotator_access_token_expiry_timestamp_seconds{credential="household-1"}' in shown
    assert '"revoked":1' in shown.replace(" ", "")
    assert '"replays_outside_grace":0' in shown.replace(" ", "")
    assert '"dead_calls":0' in shown.replace(" ", "")
    assert password[1] not in shown
    assert (tmp_path / "rot" / _TOKEN).read_text() not in shown
