"""`rotator status`."""

import json
import os
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
    say,
    timeout_option,
)
from rotator.cli.exits import ExitCode


@click.command(epilog=examples("rotator status", "rotator status home --json"))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON document.")
@timeout_option(5.0)
@config_option
@click.pass_obj
def status(settings: Settings, name: str | None, as_json: bool, timeout: float) -> ExitCode:  # noqa: FBT001 - click's way
    """Show how each credential stands, or the one called NAME.

    Two clocks run: the access token's (minutes to hours; rotator renews it) and the refresh
    token's (days; when it is over, a person must log in).

    Exit code 0: each credential shown has an unexpired access token and none needs a person.
    69: some credential has none or needs a login, or the daemon does not answer.
    """
    from rotator.adapters.control_client import path_of

    answer = client_of(settings, timeout).get(path_of("status", name) if name else "/v1/status")
    if is_no_daemon(answer):
        from rotator.cli import offline

        views = offline.views(load_config(settings, looking=True), name)
        say("no daemon is running; this is what it left behind. Start it: rotator run")
    else:
        views = good(answer)["credentials"]
    from rotator.cli import words

    now = time.time()
    if as_json:
        click.echo(json.dumps(words.with_iso({"now_at": now, "credentials": views}), indent=2))
    elif not views:
        click.echo("no credentials are configured; add a table [credentials.NAME]")
    else:
        colour = False if os.environ.get("NO_COLOR") else None
        blocks = ("\n".join(words.block(view, now)) for view in views)
        click.echo("\n\n".join(blocks), color=colour)
    return words.verdict(views, now)
