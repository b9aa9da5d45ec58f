"""What there is to tell: the news since the last look, the totals, and the verdict. No terminal in here."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rotator.core.model import DAY, HOUR, MINUTE
from rotator.demo.stage import Stage, View

_UNITS: Final = ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1.0, "s"))


@dataclass(frozen=True, slots=True)
class Totals:
    """The consumers' counts, and the verdict from the servers' own books."""

    calls: int
    refused: int
    """Calls with a dead access token, as the servers saw them, or with none at all."""
    failed: int
    """Calls that could not be made: no file, no answer."""
    rotations: int
    replays_in_grace: int
    presented_twice: int
    """Refresh tokens presented again outside the grace window: a client would be logged out for that."""

    @property
    def line(self) -> str:
        """One line for people."""
        failed = f", {self.failed} failed" if self.failed else ""
        return (
            f"{self.calls} calls, {self.refused} refused{failed}; {self.rotations} rotations; "
            f"refresh tokens presented twice: {self.presented_twice}"
        )

    def is_good(self, *, must_have_rotated: bool) -> bool:
        """Tell whether the demo showed what it promises."""
        flawless = not (self.refused or self.failed or self.presented_twice)
        return flawless and self.calls > 0 and (self.rotations > 0 or not must_have_rotated)


@dataclass(frozen=True, slots=True)
class Scene:
    """One look at everything. Instants and durations in seconds."""

    views: Sequence[View]
    news: Sequence[str]
    calls: Mapping[str, tuple[int, int]]
    """For each credential: calls made with its file, and those that were refused."""
    totals: Totals
    now: float
    running_seconds: float


def totals(stage: Stage) -> Totals:
    """Add up."""
    consumers, books = stage.consumers.values(), stage.books
    return Totals(
        calls=sum(consumer.calls for consumer in consumers),
        refused=sum(each.dead_calls + each.resource_calls["bare"] for each in books),
        failed=sum(consumer.failed for consumer in consumers),
        rotations=sum(each.refresh_grants + max(0, each.client_credentials_grants - 1) for each in books),
        replays_in_grace=sum(each.replays_in_grace for each in books),
        presented_twice=sum(each.replays_outside_grace for each in books),
    )


def look(stage: Stage, before: Sequence[View], running_seconds: float) -> Scene:
    """Look at everything; `before` is what the credentials looked like last time."""
    views = stage.views()
    calls = {name: (consumer.calls, consumer.refused) for name, consumer in stage.consumers.items()}
    return Scene(views, tuple(news(before, views)), calls, totals(stage), time.time(), running_seconds)


def news(before: Sequence[View], after: Sequence[View]) -> Iterator[str]:
    """Tell what happened between two looks."""
    known: Mapping[str, View] = {view["name"]: view for view in before}
    for view in after:
        old = known.get(view["name"])
        if old is None:
            yield f"{view['name']}: logged in" if view["refresh_issued_at"] else f"{view['name']}: first token"
            continue
        if view["reason"] and (view["reason"], view["failures"]) != (old["reason"], old["failures"]):
            yield f"{view['name']}: {view['reason']}: {view['text']}"
        if view["generation"] > old["generation"]:
            after_all = " after all" if old["reason"] else ""
            yield f"{view['name']}: rotated{after_all}, generation {view['generation']}"
        if view["standing"] != old["standing"] and view["standing"] not in ("valid", "retrying", "ambiguous"):
            yield f"{view['name']}: {view['standing']}"


def left(until: float | None, now: float) -> str:
    """Say how long it is until an instant, short enough for a table."""
    if until is None:
        return "-"
    seconds = max(0.0, until - now)
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), (1.0, "s"))
    return f"{int(seconds / size)} {unit}"
