"""`rotator token`."""

import sys
import time

import click

from rotator.cli.common import (
    Settings,
    client_of,
    config_option,
    examples,
    good,
    is_no_daemon,
    load_config,
    timeout_option,
)
from rotator.cli.exits import ExitCode, Stop


@click.command(
    epilog=examples(
        'curl -H "$(rotator token home --format header)" https://api.example.com/v1/usage',
        'eval "$(rotator token home --format env)"',
    )
)
@click.argument("name")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["raw", "header", "env", "json", "id_token"]),
    default="raw",
    show_default=True,
    help="As in an output of the configuration.",
)
@timeout_option(5.0)
@config_option
@click.pass_obj
def token(settings: Settings, name: str, format_: str, timeout: float) -> None:
    """Print the access token of NAME. An expired token is never printed.

    The refresh token cannot be had this way.
    """
    from rotator.adapters.control_client import path_of
    from rotator.core.model import TokenSet
    from rotator.core.template import render

    answer = client_of(settings, timeout).get(path_of("token", name))
    if is_no_daemon(answer):
        from rotator.cli import offline

        document = offline.token(load_config(settings, looking=True), name)
    else:
        document = good(answer)
    obtained_at, expires_at = float(document["obtained_at"]), float(document["expires_at"])
    if obtained_at < expires_at <= time.time():  # one that was born expired is published as well
        from rotator.core.standing import span

        text = f"the access token of {name} expired {span(time.time() - expires_at)} ago"
        raise Stop(ExitCode.TEMPFAIL, f"{text}; see: rotator status {name}")
    if format_ == "id_token" and not document["id_token"]:
        raise Stop(ExitCode.UNAVAILABLE, f"{name} has no id token; ask for the scope openid")
    tokens = TokenSet(
        document["generation"], document["access_token"], None, document["id_token"],
        document["token_type"], document["scope"], obtained_at, expires_at, obtained_at, None,
    )  # fmt: skip
    sys.stdout.buffer.write(render(format_, tokens, expires_at, newline=True))
