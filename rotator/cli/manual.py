"""Makes rotator(1) from the commands themselves.

`python -m rotator.cli.manual` tells whether the page is fresh, `--write` writes it.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from rotator.cli.commands import cli
from rotator.cli.exits import MEANINGS
from rotator.config import roff

PLACE: Final = Path("docs/man/rotator.1")
_EVERYWHERE: Final = ("--help", "--config")  # told once, under OPTIONS
_ENVIRONMENT: Final = {
    "ROTATOR_CONFIG": "The configuration file, where `--config` does not name one.",
    "STATE_DIRECTORY": "Where token sets are kept, where the configuration does not say. systemd sets it.",
    "RUNTIME_DIRECTORY": "Where the control socket is, where the configuration does not say. systemd sets it.",
    "CREDENTIALS_DIRECTORY": 'Where `{ credential = "name" }` in the configuration looks. systemd sets it.',
    "NO_COLOR": "If set, `rotator status` draws without colours.",
    "ROTATOR_DEBUG": "`1`: a bug shows its traceback. It may show secrets: look before you pass it on.",
}
_FILES: Final = {
    "/etc/rotator/rotator.toml": "The configuration; see `rotator.toml`(5).",
    "/etc/rotator/conf.d/*.toml": "More of it, in the order of the names.",
    "/var/lib/rotator": "The token sets, to be kept from others. Move them with the daemon stopped, and never start a "
    "copy: a refresh spends the refresh token in all copies but its own. What a backup brings back takes a login.",
    "/run/rotator/rotator.sock": "The control socket.",
}


def manual_page() -> str:
    """Return the page."""
    ctx = click.Context(cli, info_name="rotator", **cli.context_settings)
    return roff.page(
        "rotator",
        1,
        "keep OAuth 2.0 access tokens fresh, and never lose a refresh token",
        roff.heading("SYNOPSIS"),
        roff.paragraphs("`rotator` [OPTIONS] COMMAND [ARGS]..."),
        roff.heading("DESCRIPTION"),
        roff.paragraphs(_help(cli)),
        roff.heading("OPTIONS"),
        *_options(ctx, hidden=()),
        roff.heading("COMMANDS"),
        *_commands(cli, ctx),
        roff.heading("EXIT STATUS"),
        *(roff.item(f"`{code:d}`", f"{text}.") for code, text in MEANINGS.items()),
        roff.heading("ENVIRONMENT"),
        *(roff.item(f"`{name}`", text) for name, text in _ENVIRONMENT.items()),
        roff.heading("FILES"),
        *(roff.item(f"`{name}`", text) for name, text in _FILES.items()),
        roff.heading("SEE ALSO"),
        roff.paragraphs("`rotator.toml`(5), `systemctl`(1), `systemd.exec`(5)"),
    )


def _commands(group: click.Group, ctx: click.Context) -> Iterator[str]:
    """Yield what is said of each command of a group, those of its groups included."""
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None:
            continue
        inner = click.Context(command, info_name=name, parent=ctx)
        usage = " ".join(command.collect_usage_pieces(inner))
        yield roff.subheading(f"{inner.command_path} {usage}")
        yield roff.paragraphs(_help(command))
        yield from _options(inner, hidden=_EVERYWHERE)
        _, _, examples = (command.epilog or "").partition("\n")  # the first line tells click to keep the others
        if examples:
            title, _, lines = examples.partition("\n")
            yield roff.paragraphs(title)
            yield roff.verbatim(re.sub(r"(?m)^  ", "", lines))
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _help(command: click.Command) -> str:
    return re.sub(r"(?<!\S)(--[a-z-]+)", r"`\1`", inspect.cleandoc(command.help or ""))


def _options(ctx: click.Context, hidden: tuple[str, ...]) -> Iterator[str]:
    for option in ctx.command.get_params(ctx):
        record = option.get_help_record(ctx)
        if record and isinstance(option, click.Option) and not set(hidden) & set(option.opts):
            yield roff.item(f"`{record[0]}`", re.sub(r"\s+", " ", record[1]))


def main(arguments: list[str]) -> int:
    """Write the page, or return 1 if it is stale. Run in the project's top directory."""
    page = manual_page()
    if PLACE.is_file() and PLACE.read_text("utf-8") == page:
        return 0
    if arguments == ["--write"]:
        PLACE.parent.mkdir(parents=True, exist_ok=True)
        PLACE.write_text(page, "utf-8")
        return 0
    sys.stderr.write(f"{PLACE} is stale: run python -m rotator.cli.manual --write\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
