"""The settings as tables: what the reference page and the manual page both show."""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from rotator.config.durations import format_duration
from rotator.config.schema import (
    CredentialTable,
    DaemonTable,
    HookTable,
    KubernetesSecretTable,
    KubernetesTable,
    LogTable,
    MetricsTable,
    OutputTable,
    RefreshTable,
    Root,
)

_TABLES: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("[daemon]", DaemonTable),
    ("[kubernetes]", KubernetesTable),
    ("[metrics]", MetricsTable),
    ("[log]", LogTable),
    ("[credentials.NAME] and [defaults]", CredentialTable),
    ("refresh", RefreshTable),
    ("outputs", OutputTable),
    ("kubernetes_secret of an output", KubernetesSecretTable),
    ("hooks", HookTable),
)


class Setting(NamedTuple):
    """One key. The texts are Markdown without tables: code in backticks, nothing else."""

    key: str
    kind: str
    default: str
    needed: bool
    meaning: str


class Table(NamedTuple):
    """One table of the configuration."""

    title: str
    about: str
    settings: tuple[Setting, ...]


def configuration_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a configuration file."""
    schema = _tidied(Root.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "rotator"}


def _tidied(node: Any) -> Any:
    """Take out what TOML cannot say (null) and what tells nothing (titles made from names)."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: value if key == "default" else _tidied(value) for key, value in node.items()}
    if isinstance(node.get("title"), str):
        del node["title"]
    if "default" in node and (node["default"] is None or isinstance(node["default"], dict)):
        del node["default"]
    if "anyOf" in node:
        variants = [variant for variant in node["anyOf"] if variant != {"type": "null"}]
        if len(variants) == 1:
            del node["anyOf"]
            return {**variants[0], **node}
        node["anyOf"] = variants
    return node


def tables() -> Iterator[Table]:
    """Yield the tables in the order in which a configuration is written."""
    definitions = configuration_schema()["$defs"]
    for title, model in _TABLES:
        definition = definitions[model.__name__]
        needed = definition.get("required", ())
        settings = (_setting(key, about, key in needed) for key, about in definition["properties"].items())
        yield Table(title, " ".join(definition["description"].split()), tuple(settings))


def _setting(key: str, about: dict[str, Any], needed: bool) -> Setting:  # noqa: FBT001 -- a column of the table
    examples = about.get("examples", ())
    example = f" Example: `{_toml(examples[0])}`." if examples else ""
    return Setting(key, _kind(about), "" if needed else _default(about), needed, f"{about['description']}{example}")


def _default(about: dict[str, Any]) -> str:
    if about.get("default") in (None, [], {}):
        return ""
    if about.get("$comment") == "duration":
        return f"`{_toml(format_duration(about['default']))}`"
    return f"`{_toml(about['default'])}`"


def _kind(about: dict[str, Any]) -> str:
    if "$comment" in about:
        return str(about["$comment"])
    if "enum" in about:
        return ", ".join(f"`{_toml(value)}`" for value in about["enum"])
    if "$ref" in about:
        return "table, see below"
    if about["type"] == "array":
        return "list of texts" if about["items"].get("type") == "string" else "list of tables, see below"
    plain = {
        "boolean": "true or false",
        "integer": "whole number",
        "object": "table of texts",
        "string": "text in quotes",
    }
    return plain.get(about["type"], "number") + _limits(about)


def _limits(about: dict[str, Any]) -> str:
    limits = (about.get("minimum"), about.get("maximum"))
    return f", {limits[0]} to {limits[1]}" if None not in limits else ""


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, str) and '"' in value:
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False)
