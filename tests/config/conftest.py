"""A writer and loader of configurations, for the tests of this directory."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rotator.config import Config, ConfigError, load

Load = Callable[..., Config | tuple[ConfigError, ...]]

BASE = """\
[defaults]
token_url = "https://login.example.com/token"
client_id = "web"
client_secret = { file = "/nowhere/client-secret" }
"""
"""Four lines, so that what a test adds starts on line 5."""


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Return a function that loads a text; keyword arguments are further files of `conf.d`."""

    def load_it(text: str, environ: Mapping[str, str] | None = None, **more: str) -> Config | tuple[ConfigError, ...]:
        (tmp_path / "rotator.toml").write_text(text)
        if more:
            (tmp_path / "conf.d").mkdir(exist_ok=True)
        for name, content in more.items():
            (tmp_path / "conf.d" / f"{name}.toml").write_text(content)
        return load(tmp_path / "rotator.toml", None, environ or {})

    return load_it


@pytest.fixture
def good(load_text: Load) -> Callable[..., Config]:
    """Return a function that loads a configuration which must be good."""

    def load_it(text: str, environ: Mapping[str, str] | None = None, **more: str) -> Config:
        config = load_text(text, environ, **more)
        assert isinstance(config, Config), "\n".join(map(str, config))
        return config

    return load_it


@pytest.fixture
def errors(load_text: Load, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that loads a bad configuration; its errors come without the directory."""

    def load_it(text: str, environ: Mapping[str, str] | None = None, **more: str) -> list[str]:
        found = load_text(text, environ, **more)
        assert not isinstance(found, Config)
        return [str(error).replace(f"{tmp_path}/", "") for error in found]

    return load_it


@pytest.fixture
def warnings(good: Callable[..., Config], tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that loads a good configuration and gives its warnings."""

    def load_it(text: str, environ: Mapping[str, str] | None = None, **more: str) -> list[str]:
        return [str(warning).replace(f"{tmp_path}/", "") for warning in good(text, environ, **more).warnings]

    return load_it
