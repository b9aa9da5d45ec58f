"""`rotator check`: everything that can be known before the daemon runs."""

import click

from rotator.cli.common import Settings, config_option, examples
from rotator.cli.exits import ExitCode


@click.command(
    short_help="See whether all is ready for the daemon.",
    epilog=examples("rotator check", "sudo -u rotator rotator check --online"),
)
@click.option("--online", is_flag=True, help="Also reach for each token endpoint; no token is spent.")
@config_option
@click.pass_obj
def check(settings: Settings, online: bool) -> ExitCode:  # noqa: FBT001 - click's way
    """Check configuration, permissions, directories, secrets, clock, and the rights that are needed in Kubernetes.

    Each line says ok, warn or fail; a failure says what to do. Exit code 0 without a failure, else 78.
    Run it as the user that the daemon runs as.
    """
    from rotator.cli import findings

    failed = False
    for finding in findings.findings(settings, online=online):
        mark = click.style(f"{finding.level:<4}", fg=findings.COLOURS[finding.level])
        click.echo(f"{mark}  {finding.text}")
        failed = failed or finding.level == findings.FAIL
    return ExitCode.CONFIG if failed else ExitCode.OK
