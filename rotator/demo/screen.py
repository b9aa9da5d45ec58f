"""The demo on a terminal: a table that is drawn anew several times a second."""

import time
from collections import deque
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rotator.demo.stage import View
from rotator.demo.story import Scene, left

_NEWS_KEPT: Final = 6
_COLOURS: Final = {"valid": "green", "retrying": "yellow", "ambiguous": "yellow", "suspect": "yellow"}


class Screen:
    """Takes the whole terminal while it runs, and gives it back as it was."""

    def __init__(self, console: Console, places: list[tuple[str, str]]) -> None:
        self._places = places
        self._news: deque[tuple[float, str]] = deque(maxlen=_NEWS_KEPT)
        self._live = Live(console=console, screen=True, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self._live.stop()

    def show(self, scene: Scene) -> None:
        """Draw."""
        self._news.extend((scene.now, line) for line in scene.news)
        parts = (self._title(scene), _table(scene), _totals(scene), self._happened(), self._where())
        self._live.update(Group(*parts), refresh=True)

    def _title(self, scene: Scene) -> Text:
        minutes, seconds = divmod(int(scene.running_seconds), 60)
        return Text.assemble(("rotator demo", "bold"), f"  {minutes}:{seconds:02}  ", ("Ctrl-C ends it", "dim"))

    def _happened(self) -> Group:
        lines = [
            Text.assemble(
                (time.strftime("%H:%M:%S ", time.localtime(at)), "dim"), line, overflow="ellipsis", no_wrap=True
            )
            for at, line in self._news
        ]
        blank = [Text("")] * (_NEWS_KEPT - len(lines))
        return Group(Text("\nWhat happened", "bold"), *lines, *blank)

    def _where(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("", "")
        for row in self._places:
            table.add_row(*row)
        return table


def _table(scene: Scene) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    for title, justify in (("credential", "left"), ("standing", "left")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("next refresh", ratio=1, min_width=8)
    for title in ("in", "access", "refresh", "gen", "outputs"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_row()
    for view in scene.views:
        table.add_row(*_row(view, scene.now))
    return table


def _row(view: View, now: float) -> tuple[Text | ProgressBar, ...]:
    standing, outputs = str(view["standing"]), view["outputs"]
    current = sum(1 for output in outputs if output["current"])
    return (
        Text(view["name"], "bold"),
        Text(standing, _COLOURS.get(standing, "red")),
        _bar(view, now),
        Text("now" if view["refreshing"] else left(view["next_at"], now)),
        Text(left(view["expires_at"], now)),
        Text(left(view["refresh_expires_at"], now)),
        Text(str(view["generation"])),
        Text(f"{current}/{len(outputs)}", "" if current == len(outputs) else "red"),
    )


def _bar(view: View, now: float) -> ProgressBar:
    """Fill up from the last success to the next refresh."""
    begun, due = view["issued_at"] or now, view["next_at"] or now
    return ProgressBar(total=max(due - begun, 0.001), completed=max(0.0, now - begun), width=None)


def _totals(scene: Scene) -> Text:
    totals = scene.totals
    good = "bold green" if totals.is_good(must_have_rotated=False) else "bold red"
    return Text.assemble("\nThe consumers beside it: ", (totals.line, good))
