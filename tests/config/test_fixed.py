"""What a reload cannot change."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from rotator.config import Config, load
from rotator.config.fixed import fixed_changes
from rotator.config.settings import KubernetesConfig

_TEXT = """
    [credentials.home]
    token_url = "https://login.example/token"
    client_id = "c"
    client_authentication = "none"
    outputs = [{ path = "/run/rotator/home" }]
"""
_TAKEN = {"daemon": {"drain_timeout", "on_dead_grant"}, "metrics": set[str]()}


@pytest.fixture
def running(tmp_path: Path) -> Config:
    """The configuration that is in force."""
    (tmp_path / "rotator.toml").write_text(_TEXT)
    config = load(tmp_path / "rotator.toml", None, {})
    assert isinstance(config, Config), config
    return config


def changed(config: Config, table: str, **values: Any) -> Config:
    """Return it with other values in one table."""
    return replace(config, **{table: replace(getattr(config, table), **values)})


def test_nothing_changed_is_no_problem(running: Config) -> None:
    """M6: log and credentials are a reload's to change."""
    assert fixed_changes(running, replace(running, log=replace(running.log, level="debug"), credentials={})) == ()


@pytest.mark.parametrize("table", _TAKEN)
def test_each_other_key_is_named(running: Config, table: str) -> None:
    """M6: whatever else is changed is named by its key; what the daemon takes up is not."""
    for field in fields(getattr(running, table)):
        key = {"host": "listen", "port": "listen"}.get(field.name, field.name)
        found = fixed_changes(running, changed(running, table, **{field.name: object()}))
        if field.name in _TAKEN[table]:
            assert found == ()
        elif field.name != "kubernetes":
            assert found == (f"{table}.{key}: cannot change while running; restart rotator for it",)


def test_an_address_is_one_key(running: Config) -> None:
    """Host and port come from one setting and are told once."""
    assert len(fixed_changes(running, changed(running, "metrics", host="::", port=1))) == 1


def test_the_store_is_named(running: Config) -> None:
    """The store in Kubernetes is another start's, with all that belongs to it."""
    kubernetes = KubernetesConfig("a", "b", "c", 1, 60.0, 5.0, 30.0)
    (found,) = fixed_changes(running, changed(running, "daemon", kubernetes=kubernetes))
    assert found.startswith("kubernetes: cannot change while running")
    assert found.endswith("restart rotator for it")
