"""The demo from beginning to end."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from rotator.demo.lines import Lines
from rotator.demo.screen import Screen
from rotator.demo.stage import DemoFailed, Stage, View, open_stage
from rotator.demo.story import Totals, look, totals

_FRAME_SECONDS: Final = 0.25


class _Ending:
    """Whether somebody asked for the end. A flag, because a signal handler must not wait for a lock."""

    def __init__(self) -> None:
        self.is_asked = False

    def ask(self, *_: object) -> None:
        self.is_asked = True


def run(seconds: float | None, lifetime: float) -> int:
    """Show rotator at work until Ctrl-C, or for `seconds`; access tokens live `lifetime` seconds.

    Returns 0 if nothing was refused and, where there was time for it, tokens were rotated; else 1.
    """
    try:
        with _ending_on_signals() as ending, open_stage(lifetime, lambda: ending.is_asked) as (stage, check):
            started_at = time.monotonic()
            with _show(stage) as show:
                before: Sequence[View] = ()
                while not ending.is_asked and (seconds is None or time.monotonic() - started_at < seconds):
                    check()
                    scene = look(stage, before, time.monotonic() - started_at)
                    show.show(scene)
                    before = scene.views
                    time.sleep(_FRAME_SECONDS)
            stage.stop_consumers()
            result = totals(stage)
            must_have_rotated = time.monotonic() - started_at > lifetime
    except DemoFailed as failure:
        click.echo(f"rotator: demo: {failure}", err=True)
        return 1
    return _sum_up(result, must_have_rotated=must_have_rotated)


def _sum_up(result: Totals, *, must_have_rotated: bool) -> int:
    good = result.is_good(must_have_rotated=must_have_rotated)
    click.echo(f"{'good' if good else 'NOT GOOD'}: {result.line}")
    return 0 if good else 1


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[_Ending]:
    ending = _Ending()
    wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in wanted}
    try:
        for number in wanted:
            if before[number] is not signal.SIG_IGN:  # nohup
                signal.signal(number, ending.ask)
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(stage: Stage) -> Screen | Lines:
    console = Console()
    is_plain = not sys.stdout.isatty() or console.is_dumb_terminal
    return Lines(_places(stage)) if is_plain else Screen(console, _places(stage))


def _places(stage: Stage) -> list[tuple[str, str]]:
    program = sys.argv[0] if Path(sys.argv[0]).name == "rotator" else "rotator"
    return [
        ("token files", f"{stage.tokens}{os.sep}"),
        ("metrics", f"curl -s http://127.0.0.1:{stage.metrics_port}/metrics | grep ^rotator_"),
        ("status", f"{program} -c {stage.config} status"),
        ("sandbox", f"{stage.calm.url}/sandbox/books"),
        ("", f"{stage.flaky.url}/sandbox/books (household-3's: it loses answers)"),
        ("daemon's log", str(stage.log)),
    ]
