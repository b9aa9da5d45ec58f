"""`rotator rotate`."""

import time
from collections.abc import Iterator
from typing import Any

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
from rotator.cli.exits import ExitCode, code_of


@click.command(epilog=examples("rotator rotate home", "rotator rotate --all --timeout 120"))
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Rotate every credential.")
@timeout_option(30.0)
@config_option
@click.pass_obj
def rotate(settings: Settings, name: str | None, every: bool, timeout: float) -> ExitCode:  # noqa: FBT001 - click's way
    """Refresh the tokens of NAME now, whether or not they are due.

    Several people who ask at once share one request. When the time is over the daemon goes on.
    """
    if bool(name) == every:
        raise click.UsageError("give one NAME, or --all")
    worst = ExitCode.OK
    for one, result in _results(settings, name, timeout):
        code = _report(one, result)
        worst = worst or code
    return worst


def _results(settings: Settings, name: str | None, timeout: float) -> Iterator[tuple[str, Any]]:
    from rotator.adapters.control_client import path_of

    client = client_of(settings, timeout)
    listed = client.get(path_of("status", name) if name else "/v1/status")
    if is_no_daemon(listed):
        from rotator.cli import offline

        yield from offline.rotations(load_config(settings), name, timeout)
        return
    names = [view["name"] for view in good(listed)["credentials"]]
    answers = client.post_all(path_of("rotate", one) for one in names)
    for one, (_, answer) in zip(names, answers, strict=True):
        yield one, answer["credentials"][0] if isinstance(answer, dict) else answer


def _report(name: str, result: Any) -> ExitCode:
    """Print how one rotation went; a view without trouble is a good one."""
    from rotator.core import words

    if not isinstance(result, dict):
        say(f"{name}: {result.text}")
        return code_of(result.reason)
    if result["reason"] or result["expires_at"] is None:
        step = words.next_step(result, time.time())
        why = words.last_error(result) if result["reason"] else result["standing"]
        # Which of the two saves of a rotation it was, the last one or that of its mark, nobody can see from here.
        what = "not saved" if result["save_failing"] else "not rotated"
        say(f"{name}: {what}: {why}; {step}")
        return code_of(result["reason"] or result["standing"])
    clock = words.access_clock(result, time.time())
    click.echo(f"{name}: rotated, generation {result['generation']}; access token: {clock}")
    return ExitCode.OK
