"""`rotator run` and `rotator reload`."""

import click

from rotator.cli.common import (
    Settings,
    client_of,
    config_option,
    examples,
    finishing,
    good,
    load_config,
    timeout_option,
)
from rotator.cli.exits import ExitCode, Stop


@click.command(
    short_help="Keep every token fresh, until SIGTERM.",
    epilog=examples("rotator run", "rotator -c ./rotator.toml run --once"),
)
@click.option("--once", is_flag=True, help="Refresh what is due, publish, and end.")
@config_option
@click.pass_obj
def run(settings: Settings, once: bool) -> int:  # noqa: FBT001 - click's way
    """Keep every credential's tokens fresh, in the foreground, until SIGTERM or Ctrl-C.

    SIGHUP reads the configuration anew, as `rotator reload` does.

    With --once, for init containers and timers: exit code 0 if every credential has a valid token in
    its outputs, whether or not anything was due; 75 if not and another try may help; 77 if
    somebody must log in; 78 if the configuration is wrong, or a state was written by a newer
    rotator.
    """
    import asyncio
    import contextlib
    import os

    from rotator.adapters.systemd import Systemd

    # First of all: nothing that is started, be it to read the configuration, may inherit what is said to us alone.
    with contextlib.closing(Systemd(os.environ)) as systemd:
        systemd.starting("reading the configuration")
        config = load_config(settings)
        from rotator.cli import composition

        with composition.composed(settings.config, config, systemd) as (daemon, assembly, metrics):
            if once:
                with finishing(assembly.stopping):
                    return daemon.run_once()
            return asyncio.run(composition.serve(config, daemon, assembly.observer, metrics))


@click.command(
    short_help="Have the daemon read its configuration anew.", epilog=examples("rotator check && rotator reload")
)
@timeout_option(30.0)
@config_option
@click.pass_obj
def reload(settings: Settings, timeout: float) -> None:
    """Have the daemon read its configuration anew; a wrong one is refused and changes nothing."""
    problems = good(client_of(settings, timeout).post("/v1/reload"))["problems"]
    if problems:
        raise Stop(ExitCode.CONFIG, *problems, "not reloaded; the daemon goes on as before")
    click.echo("reloaded")
