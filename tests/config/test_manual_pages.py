"""The manual pages are fresh, whole, and roff that no checker finds fault with."""

import re
import subprocess
from pathlib import Path

import pytest

from rotator.cli import manual
from rotator.cli.commands import cli
from rotator.config import roff
from rotator.config.tables import tables
from tests.needs import needs

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "docs/man/rotator.1", PROJECT / "docs/man/rotator.toml.5"]


def shown(page: Path) -> str:
    """Return a page as plain text, as `man` would show it."""
    command = ["groff", "-man", "-Tascii", "-P-c", "-P-b", "-P-u", str(page)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_manual_page_of_the_command_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    """rotator(1) is what the program would write today; rotator.toml(5) is tried with the reference."""
    assert PAGES[0].read_text() == manual.manual_page(), "run python -m rotator.cli.manual --write"


def test_a_stale_page_is_noticed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command fails on a missing page, names it, and `--write` cures it."""
    monkeypatch.chdir(tmp_path)
    assert manual.main([]) == 1
    assert capsys.readouterr().err == "docs/man/rotator.1 is stale: run python -m rotator.cli.manual --write\n"
    assert manual.main(["--write"]) == 0
    assert manual.main([]) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_checker_finds_fault_with_a_page(page: Path) -> None:
    """The lint of mandoc and groff with all warnings print nothing."""
    needs("mandoc", "groff")
    for command in (["mandoc", "-T", "lint"], ["groff", "-man", "-Tutf8", "-ww", "-z"]):
        done = subprocess.run([*command, str(page)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_pages_tell_everything() -> None:
    """Every command, and every key with its meaning, is found on the screen."""
    needs("groff")
    commands, settings = map(shown, PAGES)
    for name in cli.commands or cli.list_commands(cli.make_context("rotator", [], resilient_parsing=True)):
        assert re.search(rf"(?m)^   rotator {name} \[OPTIONS\]", commands), name
    for table in tables():
        for setting in table.settings:
            assert re.search(rf"(?m)^ {{7}}{setting.key} \(", settings), setting.key


def test_what_roff_would_take_for_orders_is_shown(tmp_path: Path) -> None:
    """Dots and quotes at the start of a line, backslashes, hyphens and other alphabets come through."""
    needs("mandoc", "groff")
    lines = (".TH is no order", "'tis none either", r"C:\new\-", "--option", "Grüße …")
    page = tmp_path / "page.1"
    page.write_text(
        roff.page("x", 1, "-", roff.heading("A"), *(roff.paragraphs(f"{line}\n\n{line}") for line in lines))
    )
    text = subprocess.run(["groff", "-man", "-Tutf8", "-P-cbu", str(page)], capture_output=True, text=True, check=True)
    for line in lines:
        assert text.stdout.count(line) == 2, line
    lint = subprocess.run(["mandoc", "-T", "lint", str(page)], capture_output=True, text=True, check=False)
    assert lint.stdout == ""
