"""Which credentials a page shows, and in which order: the most urgent first. Pure.

One look at each, and no more is kept than sort keys up to the page that is asked for: 100,000 cost no memory.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rotator.core.model import DAY
from rotator.core.standing import CredentialView, Standing

PAGE_SIZE: Final = 100
ENDS_SOON: Final = "refresh token ends soon"


class Level(StrEnum):
    """How urgent a credential is, the worst first."""

    ACT = "act"
    """Readers have no valid token, or it will not heal without a person."""
    WATCH = "watch"
    """Something is amiss, and rotator is at it."""
    FINE = "fine"


# As the alerts have it: so long before, or at so small a share of a shorter life.
_ENDS: Final = ((Level.ACT, 2 * DAY, 0.1), (Level.WATCH, 7 * DAY, 0.3))
_RANKS: Final = {level: rank for rank, level in enumerate(Level)}
_NO_CURE_OF_ITS_OWN: Final = frozenset(
    {Standing.REAUTHORIZATION_REQUIRED, Standing.LOGIN_REQUIRED, Standing.STATE_UNREADABLE, Standing.REFUSED}
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to say of a credential, and how urgent it is."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """What the address of the page asks for."""

    text: str = ""
    level: Level | None = None
    sort: str = "urgency"
    page: int = 1


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found. `counts` are of all that match the text; `names` are those of one page."""

    total: int
    counts: dict[Level, int]
    names: tuple[str, ...]
    matching: int
    page: int
    first_to_end: tuple[float, str] | None
    """The refresh token that ends first of all: when (instant), and whose."""

    @property
    def pages(self) -> int:
        """Return how many pages there are, at least one."""
        return max(1, -(-self.matching // PAGE_SIZE))


def alarms(view: CredentialView, now: float) -> Iterator[Finding]:
    """Say what is wrong beside the standing."""
    if view.unsaved:
        yield Finding(Level.ACT, "not saved")
    if view.expires_at is not None and view.expires_at <= now:
        yield Finding(Level.ACT, "access token expired")
    ends_at, began_at = view.refresh_expires_at, view.refresh_life_began_at
    if ends_at is not None and view.standing != Standing.REAUTHORIZATION_REQUIRED:
        life = ends_at - began_at if began_at is not None else float("inf")
        if ends_at <= now:
            yield Finding(Level.ACT, "refresh token expired")
        else:
            near = [level for level, limit, share in _ENDS if ends_at - now < min(limit, share * life)]
            yield from (Finding(level, ENDS_SOON) for level in near[:1])
    if view.clock_suspect:
        yield Finding(Level.WATCH, "clock suspect")
    if view.fuse_blown:
        yield Finding(Level.WATCH, "fuse blown")
    if any(output.failures for output in view.outputs):
        yield Finding(Level.WATCH, "output failing")
    if view.save_failing and not view.unsaved:
        yield Finding(Level.WATCH, "cannot save")  # no refresh leaves until that is mended (case E2)


def findings(view: CredentialView, now: float) -> tuple[Finding, ...]:
    """Say how a credential stands, the worst first: there is always something."""
    level = Level.WATCH
    if view.standing == Standing.VALID:
        level = Level.FINE
    elif view.standing in _NO_CURE_OF_ITS_OWN:
        level = Level.ACT
    standing = Finding(level, view.standing.replace("_", " "))
    return tuple(sorted((standing, *alarms(view, now)), key=lambda finding: _RANKS[finding.level]))


_Key = tuple[float, float, str]
_SORTS: Final[dict[str, Callable[[CredentialView, Level], _Key]]] = {
    # What is fine keeps its place, though its deadline moves: a list that jumps about cannot be read.
    "urgency": lambda view, level: (_RANKS[level], (view.expires_at or 0.0) if level != Level.FINE else 0.0, view.name),
    "name": lambda view, _: (0, 0.0, view.name),
    "access": lambda view, _: (0, view.expires_at or 0.0, view.name),
    "refresh": lambda view, _: (
        view.refresh_issued_at is None,
        view.refresh_expires_at if view.refresh_expires_at is not None else float("inf"),
        view.name,
    ),
}
SORTS: Final = tuple(_SORTS)


def survey(views: Iterable[CredentialView], question: Question, now: float) -> Survey:
    """Look at every credential once, and pick the page that is asked for, or the last one there is."""
    counts = dict.fromkeys(Level, 0)
    total = 0
    first_to_end: tuple[float, str] | None = None
    words, sort = question.text.casefold().split(), _SORTS[question.sort]

    def keys() -> Iterator[_Key]:
        nonlocal total, first_to_end
        for view in views:
            total += 1
            if view.refresh_expires_at is not None:
                end = view.refresh_expires_at, view.name
                first_to_end = min(first_to_end or end, end)
            if words and not _has(view, words, now):
                continue
            level = findings(view, now)[0].level
            counts[level] += 1
            if question.level in (None, level):
                yield sort(view, level)

    found = heapq.nsmallest(question.page * PAGE_SIZE, keys())
    matching = sum(counts.values()) if question.level is None else counts[question.level]
    page = min(question.page, max(1, -(-len(found) // PAGE_SIZE)))
    names = tuple(name for _, _, name in found[(page - 1) * PAGE_SIZE : page * PAGE_SIZE])
    return Survey(total, counts, names, matching, page, first_to_end)


def _has(view: CredentialView, words: list[str], now: float) -> bool:
    """Tell whether each word stands somewhere in what the page shows of a credential."""
    shown = [view.name, view.standing, view.grant, view.reason or "", view.text]
    shown += [view.access_token_fingerprint, view.refresh_token_fingerprint]
    shown += [finding.text for finding in findings(view, now)]
    for output in view.outputs:
        shown += [output.name, output.reason or "", output.text]
    everything = "\n".join(shown).casefold()
    return all(word in everything for word in words)
