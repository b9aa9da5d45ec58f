"""The `rotator` command itself: its global options, and the last net under everything."""

import os
import sys
from importlib import import_module
from typing import Final

import click

from rotator import VERSION
from rotator.cli.common import Settings, config_option, say
from rotator.cli.exits import MEANINGS, ExitCode, Stop

_COMMANDS: Final = {
    "run": "rotator.cli.running",
    "login": "rotator.cli.login",
    "status": "rotator.cli.status",
    "token": "rotator.cli.token",
    "wait": "rotator.cli.wait",
    "health": "rotator.cli.health",
    "rotate": "rotator.cli.rotate",
    "reload": "rotator.cli.running",
    "mirror": "rotator.cli.mirror",
    "check": "rotator.cli.check",
    "config": "rotator.cli.configure",
    "demo": "rotator.cli.tools",
    "sandbox": "rotator.cli.tools",
    "version": "rotator.cli.tools",
    "completion": "rotator.cli.tools",
}
_INTERRUPTED: Final = 130
_EPILOG: Final = "\n".join(
    ["\b", "Exit codes (sysexits.h):", *(f"  {code:>2}  {text}" for code, text in MEANINGS.items())]
)


class _Commands(click.Group):
    """Imports a command when it is wanted: `rotator status` need not wait for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        found: click.Command | None = getattr(import_module(_COMMANDS[name]), name) if name in _COMMANDS else None
        return found


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's way
    if wanted:
        click.echo(f"rotator {VERSION}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@config_option
def cli() -> None:
    """Keep OAuth 2.0 access tokens fresh, and never lose a refresh token.

    The way in: rotator check, to see whether the configuration is good; rotator login NAME, to get
    the first tokens; rotator run, to keep them fresh; rotator status, to see how things stand.

    login, status, token, wait, health, rotate and reload talk to the running daemon through its control socket.
    Without a daemon, all but wait, health and reload work on the state directory themselves.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code. No failure of any kind shows a traceback.

    `ROTATOR_DEBUG=1` shows it all the same.
    """
    try:
        code = cli.main(arguments, prog_name="rotator", obj=Settings(), standalone_mode=False)
        sys.stdout.flush()
    except Stop as stop:
        for line in stop.lines:
            say(line)
        return stop.code
    except click.UsageError as error:
        say(f"{_sentence(error.format_message())}; see: {_help_of(error)}")
        return ExitCode.USAGE
    except click.ClickException as error:
        say(error.format_message())
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:  # the reader has had enough
        _give_up_stdout()
        return ExitCode.IOERR
    except Exception as error:
        if os.environ.get("ROTATOR_DEBUG") == "1":
            raise
        say(_fault(error))
        _give_up_stdout()
        return ExitCode.IOERR if isinstance(error, OSError) else ExitCode.SOFTWARE
    return int(code or 0)


def _give_up_stdout() -> None:
    """Let what cannot be written vanish: else the interpreter tries again at exit, complains, and changes the code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fault(error: Exception) -> str:
    """Say what is known of an unforeseen failure. Its message is not shown: it may hold a secret."""
    if isinstance(error, OSError) and error.strerror:
        place = f" {error.filename}" if error.filename else ""
        return f"failed on{place or ' a file or stream'}: {error.strerror}; check it and try again"
    return (
        f"a bug: {type(error).__name__}; run it again with ROTATOR_DEBUG=1 and report "
        "what it shows, without any token, where rotator comes from"
    )


def _sentence(text: str) -> str:
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]


def _help_of(error: click.UsageError) -> str:
    return f"{error.ctx.command_path if error.ctx else 'rotator'} --help"
