"""The demo on a terminal: a table that is drawn anew several times a second."""

from collections import deque
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rotator.demo.stage import View
from rotator.demo.story import Scene, left

_OTHER_ROWS: Final = 20  # what stands above and below the news
_FEWEST_NEWS: Final = 2
_MOST_NEWS: Final = 10
_BAR_WIDTH: Final = 12
_ROOMY: Final = 110
_COLOURS: Final = {"valid": "green", "retrying": "yellow", "ambiguous": "yellow", "suspect": "yellow"}


class Screen:
    """Takes the whole terminal while it runs, and gives it back as it was."""

    def __init__(self, console: Console, places: list[tuple[str, str]]) -> None:
        self._console = console
        self._places = places
        self._news: deque[tuple[float, str]] = deque(maxlen=_MOST_NEWS)
        self._errors: dict[str, tuple[float, str]] = {}
        self._live = Live(console=console, screen=True, auto_refresh=False)

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
        self._errors |= {view["name"]: (scene.now, view["reason"]) for view in scene.views if view["reason"]}
        parts = (_title(scene), self._table(scene), _totals(scene), self._happened(), self._where())
        self._live.update(Group(*parts), refresh=True)

    def _table(self, scene: Scene) -> Table:
        is_roomy = self._console.width >= _ROOMY
        table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("credential", no_wrap=True)
        table.add_column("standing", no_wrap=True)
        table.add_column("next refresh", width=_BAR_WIDTH)
        for title in ("in", "access", "refresh", "gen", "outputs", *(("calls", "refused") if is_roomy else ())):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("last error", no_wrap=True, overflow="ellipsis", ratio=1)
        for view in scene.views:
            counts = scene.calls[view["name"]] if is_roomy else ()
            table.add_row(*_row(view, scene.now), *map(_count, counts), self._last_error(view["name"], scene.now))
        return table

    def _last_error(self, name: str, now: float) -> Text:
        if name not in self._errors:
            return Text("none", "dim")
        at, reason = self._errors[name]
        return Text(reason, "yellow") if now - at < 1 else Text(f"{reason} {int(now - at)} s ago", "dim")

    def _happened(self) -> Group:
        room = min(max(self._console.height - _OTHER_ROWS, _FEWEST_NEWS), _MOST_NEWS)
        lines = [
            Text.assemble((f"{_clock(at)} ", "dim"), line, overflow="ellipsis", no_wrap=True)
            for at, line in list(self._news)[-room:]
        ]
        blank = [Text("")] * (room - len(lines))
        return Group(Text("\nWhat happened", "bold"), *lines, *blank, Text(""))

    def _where(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for row in self._places:
            table.add_row(*row)
        return table


def _title(scene: Scene) -> Text:
    minutes, seconds = divmod(int(scene.running_seconds), 60)
    return Text.assemble(("rotator demo", "bold"), f"  {minutes}:{seconds:02}  ", ("Ctrl-C ends it\n", "dim"))


def _row(view: View, now: float) -> tuple[Text | ProgressBar, ...]:
    standing, outputs = str(view["standing"]), view["outputs"]
    current = sum(1 for output in outputs if output["current"])
    is_now = view["refreshing"] or (view["next_at"] is not None and view["next_at"] < now + 1)
    return (
        Text(view["name"], "bold"),
        Text(standing, _COLOURS.get(standing, "red")),
        _bar(view, now),
        Text("now" if is_now else left(view["next_at"], now)),
        Text(left(view["expires_at"], now)),
        Text(left(view["refresh_expires_at"], now)),
        Text(str(view["generation"])),
        Text(f"{current}/{len(outputs)}", "" if current == len(outputs) else "red"),
    )


def _bar(view: View, now: float) -> ProgressBar:
    """Fill up from the last success to the next refresh."""
    begun, due = view["issued_at"] or now, view["next_at"] or now
    return ProgressBar(
        total=max(due - begun, 0.001), completed=max(0.0, now - begun), complete_style="cyan", finished_style="green"
    )


def _count(number: int) -> Text:
    return Text(str(number))


def _totals(scene: Scene) -> Text:
    totals = scene.totals
    good = "bold green" if totals.is_good(must_have_rotated=False) else "bold red"
    return Text.assemble(
        "\nBeside it, consumers call with what the files hold. The servers' books say:\n",
        (totals.line, good),
        f"\nlost answers that were made good within the grace window: {totals.replays_in_grace}",
    )


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%H:%M:%S")
