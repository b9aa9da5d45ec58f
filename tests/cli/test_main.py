"""Parsing, help and the last net: what needs neither daemon nor state."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from rotator import VERSION
from rotator.cli.commands import _COMMANDS, cli, main
from rotator.cli.common import Settings, control_socket
from rotator.cli.exits import MEANINGS, ExitCode, code_of
from rotator.core.model import Reason
from tests.cli.conftest import Place


@pytest.mark.parametrize("command", [*_COMMANDS, "config show", "config schema", "config reference"])
def test_every_help_has_an_example(command: str) -> None:
    """Each command's help ends with something to copy."""
    result = CliRunner().invoke(cli, [*command.split(), "--help"], prog_name="rotator")
    assert result.exit_code == 0
    if command != "config":
        assert re.search(rf"Examples?:\n(  .*)*.*rotator {command}", result.output), result.output


def test_the_help_lists_commands_and_exit_codes() -> None:
    """`rotator --help` documents each exit code and each command."""
    result = CliRunner().invoke(cli, ["--help"])
    for code, text in MEANINGS.items():
        assert f"{code.value:>2}  {text}" in result.output
    for command in _COMMANDS:
        assert f"  {command} " in result.output
    assert "..." not in result.output.split("Commands:")[1]


def test_every_exit_code_is_documented() -> None:
    """No code without a meaning."""
    assert set(MEANINGS) == set(ExitCode)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.INVALID_GRANT, 77),
        (Reason.LOGIN_REQUIRED, 77),
        (Reason.INVALID_CLIENT, 78),
        (Reason.DNS, 75),
        (Reason.RATE_LIMITED, 75),
        (Reason.READ_TIMEOUT, 75),
        (Reason.NO_SPACE, 74),
        (Reason.SAVE_FAILED, 74),
        ("no_daemon", 69),
        ("under_way", 75),
        ("unknown_credential", 64),
    ],
)
def test_reasons_have_exit_codes(reason: str, code: int) -> None:
    """The exit code tells what to do: log in, correct the configuration, try again, make room."""
    assert code_of(reason) == code


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["frob"], "no such command 'frob'; see: rotator --help"),
        (["token"], "missing argument 'NAME'; see: rotator token --help"),
        (["rotate"], "give one NAME, or --all; see: rotator rotate --help"),
        (["rotate", "a", "--all"], "give one NAME, or --all; see: rotator rotate --help"),
        (["login", "a", "--password-stdin"], "--password-stdin needs --username; see: rotator login --help"),
        (
            ["login", "a", "--from-stdin", "--username", "u"],
            "--from-stdin brings tokens, it needs no user name and no password; see: rotator login --help",
        ),
        (
            ["token", "a", "--format", "xml"],
            (
                "invalid value for '--format': 'xml' is not one of 'raw', 'header', 'env', 'json', 'id_token'"
                "; see: rotator token --help"
            ),
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong, and where the help is."""
    assert main(arguments) == 64
    assert capsys.readouterr().err == f"rotator: {line}\n"


def test_the_version_is_told_in_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` and `version` say the same."""
    assert main(["--version"]) == 0
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"rotator {VERSION}\n" * 2


def test_a_missing_configuration_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before or after the command, `--config` is the same option."""
    missing = str(tmp_path / "none.toml")
    for arguments in (["-c", missing, "run"], ["run", "--config", missing]):
        assert main(arguments) == 78
        line = f"rotator: {missing}: cannot be read (No such file or directory): create it\n"
        assert capsys.readouterr().err == line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each script calls rotator for what may come next."""
    assert main(["completion", shell]) == 0
    assert f"_ROTATOR_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_completion_offers_commands(rotator: Place) -> None:
    """What the shell asks is answered."""
    rotator.environment |= {"_ROTATOR_COMPLETE": "bash_complete", "COMP_WORDS": "rotator sta", "COMP_CWORD": "1"}
    done = subprocess.run(rotator.command(), capture_output=True, text=True, env=rotator.environ, check=False)
    assert done.stdout == "plain,status\n"


def test_the_schema_is_json_and_the_reference_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    """Both are printed without a configuration."""
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"
    assert main(["config", "reference"]) == 0
    assert capsys.readouterr().out.startswith("#")


def test_config_show_hides_secrets(rotator: Place) -> None:
    """A secret that is written in place is not shown."""
    rotator.configure('client_secret = "PLANTED-in-place"')
    run = rotator("config", "show")
    assert run.code == 0
    assert 'client_secret = "(hidden)"' in run.out


def test_a_full_disk_behind_standard_output_is_one_line(rotator: Place) -> None:
    """`rotator status > /dev/full` says so and fails."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            rotator.command("version"), stdout=full, stderr=subprocess.PIPE, text=True, env=rotator.environ, check=False
        )
    assert done.returncode == 74
    assert done.stderr == "rotator: failed on a file or stream: No space left on device; check it and try again\n"


def test_a_reader_that_goes_away_is_no_crash(rotator: Place) -> None:
    """`rotator config reference | head -1` ends quietly."""
    command = " ".join(rotator.command("config", "reference")) + " | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env=rotator.environ, check=False
    )
    assert done.stderr == ""


def test_a_bug_is_a_line_and_a_traceback_only_on_request(rotator: Place) -> None:
    """Nothing unforeseen shows a traceback or its message, which might hold a secret; ROTATOR_DEBUG=1 does."""
    code = (
        "import sys, rotator.cli.commands as m, click\n"
        "@click.command()\n"
        "def boom(): raise RuntimeError('sec' + 'ret')\n"
        "m._COMMANDS['boom'] = '__main__'\n"
        "sys.exit(m.main(['boom']))\n"
    )
    command = [rotator.command()[0], "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=rotator.environ, check=False)
    assert run.returncode == 70
    assert run.stderr.startswith("rotator: a bug: RuntimeError; run it again with ROTATOR_DEBUG=1 and report")
    assert "secret" not in run.stderr
    assert len(run.stderr.splitlines()) == 1
    run = subprocess.run(
        command, capture_output=True, text=True, env=rotator.environ | {"ROTATOR_DEBUG": "1"}, check=False
    )
    assert "Traceback" in run.stderr


@pytest.mark.parametrize(
    ("daemon", "environment", "expected"),
    [
        ("", {}, "/run/rotator/rotator.sock"),
        ("", {"RUNTIME_DIRECTORY": "{run}:/run/b"}, "{run}/rotator.sock"),
        ("", {"RUNTIME_DIRECTORY": "/run/another-unit"}, "/run/rotator/rotator.sock"),
        ('runtime_directory = "/run/c"', {"RUNTIME_DIRECTORY": "/run/a"}, "/run/c/rotator.sock"),
        ('runtime_directory = "/run/c"\ncontrol_socket = "/s"', {}, "/s"),
        ('control_socket = { env = "PLACE" }', {"PLACE": "/e"}, "/e"),
        ("[nonsense", {"RUNTIME_DIRECTORY": "{run}"}, "{run}/rotator.sock"),
    ],
)
def test_the_socket_is_where_the_daemon_puts_it(
    tmp_path: Path, daemon: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I8: the socket is found from the [daemon] table alone, as the daemon finds it."""
    for name in ("RUNTIME_DIRECTORY", "PLACE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("{run}", str(tmp_path)))
    (tmp_path / "rotator.sock").touch()
    config = tmp_path / "rotator.toml"
    config.write_text(f"[daemon]\n{daemon}\n")
    assert control_socket(Settings(config)) == Path(expected.replace("{run}", str(tmp_path)))


def test_conf_d_is_looked_at_for_the_socket(tmp_path: Path) -> None:
    """A later file's key replaces the earlier one."""
    (tmp_path / "conf.d").mkdir()
    config = tmp_path / "rotator.toml"
    config.write_text('[daemon]\ncontrol_socket = "/a"\n')
    (tmp_path / "conf.d" / "z.toml").write_text('[daemon]\ncontrol_socket = "/z"\n')
    assert control_socket(Settings(config)) == Path("/z")
