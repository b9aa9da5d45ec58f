"""Makes the reference page, the JSON Schema and the example from the models.

`python -m rotator.config.reference` tells whether the files are fresh, `--write` writes them.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from rotator.config.durations import GRAMMAR, format_duration
from rotator.config.example import EXAMPLE
from rotator.config.schema import (
    CredentialTable,
    DaemonTable,
    HookTable,
    LogTable,
    MetricsTable,
    OutputTable,
    RefreshTable,
    Root,
)
from rotator.config.values import SOURCE_FORMS

DIRECTORY: Final = Path("docs/reference")
_SECTIONS: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("[daemon]", DaemonTable),
    ("[metrics]", MetricsTable),
    ("[log]", LogTable),
    ("[credentials.NAME] and [defaults]", CredentialTable),
    ("refresh", RefreshTable),
    ("outputs", OutputTable),
    ("hooks", HookTable),
)
_INTRODUCTION: Final = f"""\
# Configuration

This page is made from the program: `python -m rotator.config.reference --write`.
[rotator.example.toml](rotator.example.toml) is a configuration to start from,
[configuration.schema.json](configuration.schema.json) teaches an editor the keys.

The configuration is TOML: one file, and the files `*.toml` of the directory `conf.d` beside it, in
the order of their names. A key in a later file replaces the same key of an earlier one; a
credential in two files is an error. A credential takes from `[defaults]` what it does not set
itself: `refresh` and `extra` key by key, everything else as a whole. All errors are reported at
once; an unknown key is an error. `rotator check` tries a configuration, `rotator config show`
prints what came of it, `rotator reload` takes it into use; a bad one is refused and changes nothing.

**Text** in the tables below is {SOURCE_FORMS}.
`credential` is a file in systemd's `$CREDENTIALS_DIRECTORY`; a command runs without a shell, has
10 s, and its output counts. Secrets (`client_secret`, `seed`, `extra`, `webhook`) are read again on
each use, all other texts when the configuration is loaded. One line end at the end of a value is
cut off; any other control character is an error. Nothing is expanded: `$` is a dollar sign. A file
must belong to its owner alone (mode 0600), unless it lies in `$CREDENTIALS_DIRECTORY` or in a
Kubernetes volume, which keep others out by themselves. `{{name}}` stands for the credential's name
in the places of secrets, in output paths and in hooks.

**Duration** is {GRAMMAR}.
"""


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


def reference_page() -> str:
    """Return the reference page in Markdown."""
    definitions = configuration_schema()["$defs"]
    parts = [_INTRODUCTION]
    for title, model in _SECTIONS:
        definition = definitions[model.__name__]
        needed = definition.get("required", ())
        rows = [_row(key, about, key in needed) for key, about in definition["properties"].items()]
        about = " ".join(definition["description"].split())
        head = "| key | value | default | meaning |\n| --- | --- | --- | --- |"
        parts.append(f"## {title}\n\n{about}\n\n{head}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _row(key: str, about: dict[str, Any], needed: bool) -> str:  # noqa: FBT001 -- a column of the table
    default = "**required**" if needed else _default(about)
    examples = about.get("examples", ())
    example = f" Example: `{_toml(examples[0])}`." if examples else ""
    text = f"{about['description']}{example}".replace("|", "\\|")
    return f"| `{key}` | {_kind(about)} | {default} | {text} |"


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


def documents() -> dict[str, str]:
    """Return the contents of the generated files by name."""
    schema = json.dumps(configuration_schema(), indent=2, ensure_ascii=False) + "\n"
    return {
        "configuration.md": reference_page(),
        "configuration.schema.json": schema,
        "rotator.example.toml": EXAMPLE,
    }


def main(arguments: list[str]) -> int:
    """Write the files, or return 1 if one of them is stale. Run in the project's top directory."""
    stale = [
        (DIRECTORY / name, text)
        for name, text in documents().items()
        if not (DIRECTORY / name).is_file() or (DIRECTORY / name).read_text("utf-8") != text
    ]
    if arguments == ["--write"]:
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        for path, text in stale:
            path.write_text(text, "utf-8")
        return 0
    for path, _ in stale:
        sys.stderr.write(f"{path} is stale: run python -m rotator.config.reference --write\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
