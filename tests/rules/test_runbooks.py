"""Each alert has a runbook, each runbook an alert, and what it says to type can be typed."""

import re
import shlex
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


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("    ")]
