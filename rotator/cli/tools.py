"""`rotator demo`, `sandbox`, `version` and `completion`."""

import click

from rotator import VERSION
from rotator.cli.common import examples
from rotator.cli.exits import ExitCode, Stop
from rotator.sandbox.command import sandbox

__all__ = ["completion", "demo", "sandbox", "version"]

sandbox.epilog = examples(
    "rotator sandbox --port 8080 --access-lifetime 30",
    "rotator sandbox --grace-seconds 10 --reuse-revokes-family --fault 502_html --fault-ratio 0.2",
)


@click.command(
    short_help="Watch rotator at work; needs nothing.", epilog=examples("rotator demo", "rotator demo --for 60")
)
@click.option("--for", "seconds", type=click.FloatRange(min=1), metavar="SECONDS", help="End by itself after so long.")
@click.option(
    "--lifetime",
    type=click.FloatRange(min=10),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How long access tokens live.",
)
def demo(seconds: float | None, lifetime: float) -> int:
    """Watch rotator at work against embedded authorization servers. Needs nothing.

    The daemon is the real one. Beside it consumers read the token files and call a protected resource several
    times a second. Into a file or pipe it writes plain lines.

    Exit code 0: no call was refused, no refresh token presented twice, and tokens were rotated if there was time
    for it. Else 1.
    """
    from rotator.demo import run

    return run(seconds, lifetime)


@click.command(epilog=examples("rotator version"))
def version() -> None:
    """Print the version."""
    click.echo(f"rotator {VERSION}")


@click.command(
    epilog=examples(
        "rotator completion bash > /etc/bash_completion.d/rotator",
        "rotator completion zsh > ~/.zfunc/_rotator",
        "rotator completion fish > ~/.config/fish/completions/rotator.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    if script is None:
        raise Stop(ExitCode.SOFTWARE, f"this click knows no completion for {shell}; update it")
    click.echo(script(ctx.find_root().command, {}, "rotator", "_ROTATOR_COMPLETE").source())
