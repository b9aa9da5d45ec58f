"""Each alert has a runbook, each runbook an alert, and what it says to type can be typed."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from deploy.prometheus.written import ALERTS
from rotator.adapters.metrics.reference import families
from rotator.cli.commands import cli
from rotator.core.model import Reason

ROOT = Path(__file__).parents[2]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("Rotator*.md"))
_COMMANDS = "|".join(sorted(cli.list_commands(click.Context(cli))))
_ROTATOR = re.compile(rf"\brotator ((?:{_COMMANDS})\b[^|<>&`\n#,;.)]*)")
_LOG = """
from rotator.adapters.logs import LogObserver, configure
from rotator.core.model import Oddity, Reason
from rotator.ports import *

configure("info", {0!r})
tell, full = LogObserver().notify, Problem(Reason.NO_SPACE, "the disk is full")
for name in "home", "home2":
    tell(RefreshFinished(name, "granted", None, "", 0.1, 5, 0, (Oddity.ROTATION_MISSING,), why="asked"))
    tell(RefreshFinished(name, "refused", Reason.INVALID_GRANT, "revoked", 0.1, 5, 1))
    tell(StatusChanged(name, "ok", "suspect", "revoked"))
    tell(SaveFinished(name, full, 0.1, holds_new_pair=True))
    tell(SaveFinished(name, full, 0.1, holds_new_pair=False))
    tell(Notice("seed_unusable", "seed of " + name + ": empty", name, "error"))
tell(Notice("bug", "an error", "home2", "critical", {{"exception": ValueError("oops")}}))
for event in "reload_refused", "replicas_differ", "replicas_out_of_touch", "lease_lost":
    tell(Notice(event, "the Lease rotator", level="error"))
"""
_FOUND = {
    "RotatorAccessTokenExpired": ["refresh_failed"],
    "RotatorAccessTokenExpiring": ["refresh_failed"],
    "RotatorAmbiguousAnswer": ["refresh_failed"],
    "RotatorBug": ["ValueError: oops"],
    "RotatorConfigReloadFailed": ["reload_refused"],
    "RotatorFuseBlown": ["1\n", "why=asked"],
    "RotatorLoginRequired": ["seed_unusable"],
    "RotatorNoLeader": ["replicas_out_of_touch"],
    "RotatorPairUnsaved": ["pair_unsaved"],
    "RotatorReauthorizationRequired": ["status_changed"],
    "RotatorReplicasDiffer": ["replicas_differ"],
    "RotatorRotationMissing": ["credential=home"],
    "RotatorSaveFailing": ["save_failed", "save_failed"],
}
"""What each search of the log in a runbook finds, in their order."""
_HEADINGS = ["## Impact", "## Diagnosis", "## Cure", "## Afterwards"]


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    """Nobody is woken without being told what to do, and no page outlives its alert."""
    assert [path.stem for path in RUNBOOKS] == sorted(alert.name for alert in ALERTS)


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_has_the_parts_that_one_looks_for_at_night(path: Path) -> None:
    """Meaning, impact, diagnosis with commands, cure, and what comes afterwards; its links lead somewhere."""
    text = path.read_text("utf-8")
    assert text.startswith(f"# {path.stem}\n\n")
    assert re.findall(r"^## .*", text, re.MULTILINE) == _HEADINGS
    assert _lines(text.partition("## Diagnosis")[2].partition("## Cure")[0]), "no command to type"
    for link in re.findall(r"\]\((\S+?)\)", text):
        assert (path.parent / link).is_file(), link


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_the_commands_of_a_runbook_exist(path: Path) -> None:
    """Each `rotator …` is a command with these options, each metric and each reason is one there is."""
    text = path.read_text("utf-8")
    for command in _ROTATOR.findall(text):
        words = shlex.split(command)
        chosen: click.Command = cli
        while isinstance(chosen, click.Group):
            found = chosen.get_command(click.Context(chosen), words[0])
            assert found is not None, command
            chosen, words = found, words[1:]
        chosen.make_context(command, words)  # raises for an option or an argument that is not there
    metrics = {family.name for family in families()}
    for name in re.findall(r"`(rotator_[a-z_]+)`", text):
        assert name in metrics, name
    for row in re.findall(r"^\| ((?:`[a-z_0-9]+`(?:, )?)+) \|", text, re.MULTILINE):
        assert set(re.findall(r"`([a-z_0-9]+)`", row)) - set(Reason) == set()


@pytest.fixture(scope="module")
def logs() -> dict[str, str]:
    """Return what the daemon's observer writes of two credentials at the default level: to the journal, in a pod."""
    made = {}
    for command, form in ("journalctl", "text"), ("kubectl", "json"):
        python = [sys.executable, "-c", _LOG.format(form)]
        made[command] = subprocess.run(python, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=True).stderr
    code = "".join(path.read_text("utf-8") for path in (ROOT / "rotator").rglob("*.py"))
    for line in made["kubectl"].splitlines():
        assert f'"{json.loads(line)["event"]}"' in code  # no event is made up
    return made


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_what_a_runbook_searches_the_log_for_is_found_there(path: Path, logs: dict[str, str]) -> None:
    """Each `grep` finds its lines: text in the journal, JSON in Kubernetes; and those of the one credential alone."""
    searches = re.findall(r"^ +(journalctl|kubectl .* logs) [^|]*[|] *(grep .*)", path.read_text("utf-8"), re.MULTILINE)
    sought = _FOUND.get(path.stem, [])
    assert len(searches) == len(sought)
    for (command, search), expected in zip(searches, sought, strict=True):
        shell = ["sh", "-c", search.replace("NAME", "home")]
        lines = logs[command.split()[0]]
        found = subprocess.run(shell, input=lines, capture_output=True, text=True, check=False).stdout
        assert expected in found, search
        assert "NAME" not in search or "home2" not in found, search


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("    ")]
