"""Makes the reference page, JSON Schema, example and rotator.toml(5) from the models.

`python -m rotator.config.reference` tells whether the files are fresh, `--write` writes them.
"""

import json
import sys
from pathlib import Path
from typing import Final

from rotator.config.durations import GRAMMAR
from rotator.config.example import EXAMPLE
from rotator.config.manual import manual_page
from rotator.config.tables import Setting, configuration_schema, tables
from rotator.config.values import SOURCE_FORMS

DIRECTORY: Final = Path("docs")
_ABOUT_THIS_PAGE: Final = """\
# Configuration

This page is made from the program: `python -m rotator.config.reference --write`.
[rotator.example.toml](rotator.example.toml) is a configuration to start from,
[configuration.schema.json](configuration.schema.json) teaches an editor the keys.
"""
_INTRODUCTION: Final = f"""\
The configuration is TOML: one file, and the files `*.toml` of the directory `conf.d` beside it, in
the order of their names. A key in a later file replaces the same key of an earlier one; a
credential in two files is an error. A credential takes from `[defaults]` what it does not set
itself: `refresh` and `extra` key by key, everything else as a whole. All errors are reported at
once; an unknown key is an error. `rotator check` tries a configuration, `rotator config show`
prints what came of it, `rotator reload` takes it into use; a bad one is refused and changes nothing.

**Text** in the tables below is {SOURCE_FORMS}.
`credential` is a file in systemd's `$CREDENTIALS_DIRECTORY`, which is filled when the unit starts:
a credential that is changed later needs a restart, where a `file` needs nothing. A command runs
without a shell, has 10 s, and its output counts. Secrets (`client_secret`, `seed`, `extra`,
`webhook`) are read again on each use, all other texts when the configuration is loaded. One line
end at the end of a value is cut off; any other control character is an error. Nothing is expanded:
`$` is a dollar sign. A file must belong to its owner alone (mode 0600), unless it lies in
`$CREDENTIALS_DIRECTORY` or in a Kubernetes volume, which keep others out by themselves. `{{name}}`
stands for the credential's name in the places of secrets, in output paths and in hooks.

**Duration** is {GRAMMAR}.
"""


def reference_page() -> str:
    """Return the reference page in Markdown."""
    head = "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    parts = [_ABOUT_THIS_PAGE, _INTRODUCTION]
    for title, about, settings in tables():
        parts.append(f"## {title}\n\n{about}\n\n{head}\n" + "\n".join(map(_row, settings)) + "\n")
    return "\n".join(parts)


def _row(setting: Setting) -> str:
    default = "**required**" if setting.needed else setting.default
    meaning = setting.meaning.replace("|", "\\|")
    return f"| `{setting.key}` | {setting.kind} | {default} | {meaning} |"


def documents() -> dict[str, str]:
    """Return the contents of the generated files by their place in docs."""
    schema = json.dumps(configuration_schema(), indent=2, ensure_ascii=False) + "\n"
    return {
        "reference/configuration.md": reference_page(),
        "reference/configuration.schema.json": schema,
        "reference/rotator.example.toml": EXAMPLE,
        "man/rotator.toml.5": manual_page(_INTRODUCTION, EXAMPLE),
    }


def main(arguments: list[str]) -> int:
    """Write the files, or return 1 if one of them is stale. Run in the project's top directory."""
    stale = [
        (DIRECTORY / name, text)
        for name, text in documents().items()
        if not (DIRECTORY / name).is_file() or (DIRECTORY / name).read_text("utf-8") != text
    ]
    if arguments == ["--write"]:
        for path, text in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return 0
    for path, _ in stale:
        sys.stderr.write(f"{path} is stale: run python -m rotator.config.reference --write\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
