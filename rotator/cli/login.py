"""`rotator login`."""

import sys
import time
from typing import Any, Final

import click

from rotator.cli.common import (
    Settings,
    client_of,
    config_option,
    examples,
    good,
    is_no_daemon,
    load_config,
    say,
    timeout_option,
)
from rotator.cli.exits import ExitCode, Stop, code_of

_PAIR_LIMIT: Final = 60_000  # characters; the control socket takes 64 KiB


@click.command(
    short_help="Get the first tokens, or new ones for a dead grant.",
    epilog=examples(
        "rotator login home",
        "pass show ce-api | rotator login home --username me@example.com --password-stdin",
        "rotator login home --from-stdin < answer.json",
    ),
)
@click.argument("name")
@click.option("--username", metavar="USER", help="User name; asked for if not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@click.option(
    "--from-stdin",
    is_flag=True,
    help="Read a token answer, or a bare refresh token, from standard input; as JSON or text.",
)
@timeout_option(100.0)
@config_option
@click.pass_obj
def login(
    settings: Settings,
    name: str,
    username: str | None,
    password_stdin: bool,  # noqa: FBT001 - click's way
    from_stdin: bool,  # noqa: FBT001 - click's way
    timeout: float,
) -> ExitCode:
    """Get the first tokens of NAME, or new ones when its grant is dead.

    Asks for user name and password, sends them to the token endpoint once (password grant) and keeps
    neither. With --from-stdin it takes over tokens that were got elsewhere.
    """
    if from_stdin and (password_stdin or username):
        raise click.UsageError("--from-stdin brings tokens, it needs no user name and no password")
    if password_stdin and not username:
        raise click.UsageError("--password-stdin needs --username")
    from rotator.adapters.control_client import path_of

    client = client_of(settings, timeout)
    known = client.get(path_of("status", name))  # tell a misspelt name before a password is typed
    if is_no_daemon(known):
        from rotator.cli import offline

        configuration = load_config(settings)
        offline.named(configuration, name)
        return _report(offline.login(configuration, name, _body(name, username, password_stdin, from_stdin)))
    good(known)
    body = _body(name, username, password_stdin, from_stdin)
    answer = client.post(path_of("adopt" if from_stdin else "login", name), body)
    return _report(good(answer)["credentials"][0])


def _report(view: dict[str, Any]) -> ExitCode:
    """Print what was got. A bare refresh token brings an access token only with its first refresh."""
    from rotator.core import words

    now = time.time()
    if view["reason"]:
        say(f"{view['name']}: tokens taken over, but {words.last_error(view)}; {words.next_step(view, now)}")
        return code_of(view["reason"])
    click.echo(f"{view['name']}: logged in, generation {view['generation']}")
    click.echo(f"  access token:  {words.access_clock(view, now)}")
    click.echo(f"  refresh token: {words.refresh_clock(view, now)}")
    if view["expires_at"] is None:
        click.echo(f"  next:          {words.next_step(view, now)}")
    for output in view["outputs"]:
        click.echo(f"  output:        {words.output_line(output, view['name'], now)}")
    return ExitCode.OK


def _body(name: str, username: str | None, password_stdin: bool, from_stdin: bool) -> dict[str, str]:  # noqa: FBT001
    if from_stdin:
        return {"pair": _pair()}
    username, password = _asked(name, username, password_stdin=password_stdin)
    return {"username": username, "password": password}


def _pair() -> str:
    """Read tokens; what is wrong with them is said without showing them."""
    from rotator.core.login import parse_pair

    if sys.stdin.isatty():
        click.echo("Paste a token answer or a refresh token, then Ctrl-D:", err=True)
    text = sys.stdin.read(_PAIR_LIMIT + 1)
    parsed = "it is larger than 60 kB" if len(text) > _PAIR_LIMIT else parse_pair(text)
    if isinstance(parsed, str):
        raise Stop(ExitCode.DATAERR, f"standard input: {parsed}")
    return text


def _asked(name: str, username: str | None, *, password_stdin: bool) -> tuple[str, str]:
    """Return user name and password; the password is never echoed."""
    if password_stdin:
        password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    elif not sys.stdin.isatty():
        raise Stop(
            ExitCode.NOINPUT,
            "there is no terminal to ask for the password; use --username and --password-stdin",
        )
    else:
        username = username or click.prompt(f"User name for {name}", err=True)
        password = click.prompt("Password (not shown)", hide_input=True, err=True)
    if not password:
        raise Stop(ExitCode.DATAERR, "the password on standard input is empty; pass it on one line")
    return str(username), str(password)
