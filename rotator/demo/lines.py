"""The demo as plain lines: into a file, a pipe, or a terminal that can do no more."""

from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

import click

from rotator.demo.story import Scene, left

_PULSE_SECONDS: Final = 5.0


class Lines:
    """Writes a line for each thing that happened, and one every few seconds that all goes well. Each is flushed."""

    def __init__(self, places: list[tuple[str, str]]) -> None:
        self._places = places
        self._next_pulse = 0.0

    def __enter__(self) -> Self:
        """Say where everything is."""
        for title, text in self._places:
            click.echo(f"{title + ':' if title else '':<14}{text}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing to put in order."""

    def show(self, scene: Scene) -> None:
        """Write what is new."""
        clock = datetime.fromtimestamp(scene.now, UTC).astimezone().strftime("%H:%M:%S")
        for line in scene.news:
            click.echo(f"{clock} {line}")
        if scene.running_seconds >= self._next_pulse:
            self._next_pulse = scene.running_seconds + _PULSE_SECONDS
            clocks = ", ".join(f"{view['name']} {left(view['expires_at'], scene.now)}" for view in scene.views)
            click.echo(f"{clock} {scene.totals.calls} calls, {scene.totals.refused} refused; time left: {clocks}")
