"""`rotator health`."""

import click

from rotator.cli.common import Settings, client_of, config_option, examples, good, timeout_option
from rotator.cli.exits import ExitCode, Stop


@click.command(epilog=examples("rotator health", "rotator health --ready"))
@click.option("--ready", is_flag=True, help="Also ask whether every required output holds an unexpired token.")
@timeout_option(5.0)
@config_option
@click.pass_obj
def health(settings: Settings, ready: bool, timeout: float) -> ExitCode:  # noqa: FBT001 - click's way
    """Tell whether the daemon lives: for health checks.

    It is for containers that have no curl.

    It lives if it has looked for work within the last seconds. A full disk, a server that is away or a
    refused grant is no reason to restart it, and does not count.

    Exit code 0: it lives, and with --ready it is ready. 69: not so.
    """
    client = client_of(settings, timeout)
    pulse = good(client.get("/v1/health"))
    if not pulse["live"]:
        text = f"the daemon has not looked for work for {pulse['sweep_age_seconds']:.0f} s; restart it"
        raise Stop(ExitCode.UNAVAILABLE, text)
    if ready and not (found := good(client.get("/v1/readiness")))["ready"]:
        raise Stop(ExitCode.UNAVAILABLE, *(f"not ready: {reason}" for reason in found["reasons"]))
    click.echo("ready" if ready else "live")
    return ExitCode.OK
