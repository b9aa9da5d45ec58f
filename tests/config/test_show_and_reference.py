"""The generated pages are fresh and true; what is shown holds no secret."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from rotator.config import EXAMPLE, Config, load, show
from rotator.config.reference import DIRECTORY, documents, main
from rotator.config.tables import configuration_schema
from tests.config.conftest import BASE
from tests.secrets_scan import planted, secrets_in

PROJECT = Path(__file__).parents[2]


def test_the_generated_files_are_fresh() -> None:
    """Reference page, JSON Schema and example are what the program would write today."""
    for name, text in documents().items():
        assert (PROJECT / DIRECTORY / name).read_text("utf-8") == text, "run python -m rotator.config.reference --write"


def test_stale_files_are_noticed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command fails on a missing or edited file, names it, and `--write` cures it."""
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert main(["--write"]) == 0
    assert main([]) == 0
    (tmp_path / DIRECTORY / "reference/configuration.md").write_text("edited")
    capsys.readouterr()
    assert main([]) == 1
    assert capsys.readouterr().err == (
        "docs/reference/configuration.md is stale: run python -m rotator.config.reference --write\n"
    )


def test_every_key_is_described() -> None:
    """Each key of each table has a description, and the page and the example know the tables."""
    page = documents()["reference/configuration.md"]
    for table in configuration_schema()["$defs"].values():
        for key, about in table["properties"].items():
            assert about["description"].endswith("."), key
            assert f"`{key}`" in page
    json.dumps(configuration_schema(), allow_nan=False)


NO_DEFAULTS = ("spill_directory", "control_socket_group", "scope", "ca_file", "proxy", "group", "propagation")
"""Keys that the example shows commented out with a value that is not the default."""


def test_the_example_loads(good: Callable[..., Config]) -> None:
    """The example is good and draws no warning, also with all that is commented out."""
    assert good(EXAMPLE).warnings == ()
    assert good(re.sub(r"(?m)^# ([a-z_]+ = )", r"\1", EXAMPLE)).warnings == ()


def test_the_example_s_defaults_are_the_defaults(good: Callable[..., Config]) -> None:
    """What the example shows commented out as a default is one."""
    uncommented = re.sub(rf"(?m)^# (?!{'|'.join(NO_DEFAULTS)})([a-z_]+ = )", r"\1", EXAMPLE)
    assert uncommented.count("\n#") < EXAMPLE.count("\n#") - 15
    assert good(uncommented) == good(EXAMPLE)


def test_what_is_shown_is_the_configuration(good: Callable[..., Config], tmp_path: Path) -> None:
    """What is shown loads as the same configuration when nothing had to be hidden."""
    text = f"""{BASE}refresh = {{ floor = "1h30m" }}
[credentials.web]
outputs = [{{ path = "/run/{{name}}", template = '"{{access_token}}" \\{{{{', group = "web" }}]
hooks = [{{ command = ["/bin/true", "{{name}}"] }}, {{ signal = "HUP", pid_file = "/p" }}]
seed = {{ credential = "seed-{{name}}" }}
[credentials."we.b"]
scope = "a\\u007f".
[metrics]
listen = "[::1]:1"
""".replace('scope = "a\\u007f".', 'scope = "ä b"')
    config = good(text)
    shown = show(config)
    (tmp_path / "again.toml").write_text(shown)
    again = load(tmp_path / "again.toml", None, {})
    assert isinstance(again, Config), "\n".join(map(str, again))
    assert (config.daemon, config.metrics, config.log) == (again.daemon, again.metrics, again.log)
    assert config.credentials == again.credentials


def test_no_secret_is_shown(good: Callable[..., Config]) -> None:
    """Values in place, passwords in URLs and a command's arguments are hidden; the rest stays TOML."""
    shown = show(
        good(
            f"""[credentials.web]
token_url = "https://user:{planted("a")}@login.example.com/token"
client_id = "web"
client_secret = "{planted("b")}"
seed = {{ command = ["/bin/echo", "{planted("c")}"] }}
extra = {{ password = "{planted("d")}", audience = {{ file = "/a" }} }}
proxy = "http://{planted("e")}@proxy.example.com"
hooks = [{{ webhook = "https://example.com/{planted("f")}" }}]
"""
        )
    )
    assert secrets_in(shown) == []
    web = tomllib.loads(shown)["credentials"]["web"]
    assert web["token_url"] == "https://(hidden)@login.example.com/token"
    assert web["seed"] == {"command": ["/bin/echo", "(hidden)"]}
    assert web["extra"] == {"password": "(hidden)", "audience": {"file": "/a"}}


def test_a_fleet_is_shown_short(good: Callable[..., Config]) -> None:
    """Credentials with the same settings are spelt out once."""
    shown = show(good(f"{BASE}[credentials.a]\n[credentials.b]\n"))
    assert "[credentials.a]\n" in shown
    assert "\n# [credentials.b]: like a\n" in shown
