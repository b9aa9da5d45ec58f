"""What a template gets to see of one credential: words, and the lengths of bars. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rotator.adapters.web.survey import ENDS_SOON, Level, alarms, findings
from rotator.core import words
from rotator.core.standing import CredentialView, Standing

_OUTPUTS_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Clock:
    """One token's life. Shares are of the whole life, in per cent; None: there is no bar to draw."""

    text: str
    tone: str
    """`fine`, `watch`, `act` or `none`: never told by colour alone, the text says it too."""
    left: float | None
    due: float | None
    """Where a refresh is due, measured like `left`."""
    began_at: float | None
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class Shown:
    """One credential as the templates write it down."""

    view: Mapping[str, Any]
    level: Level
    shape: str
    """The mark beside the state: its shape says what its colour says."""
    says: tuple[str, ...]
    """Standing and alarms in words, the worst first."""
    access: Clock
    refresh: Clock
    next: str
    error: str
    """Empty if there is none."""
    outputs: tuple[Mapping[str, Any], ...]
    """Those that fail come first."""
    outputs_left_out: int


def shown(view: CredentialView, now: float, most_outputs: int = _OUTPUTS_SHOWN) -> Shown:
    """Put a credential into words."""
    told = asdict(view)
    said = findings(view, now)
    level = said[0].level
    outputs = sorted(told["outputs"], key=lambda output: (not output["failures"], output["current"]))
    return Shown(
        view=told,
        level=level,
        shape="starting" if view.standing == Standing.STARTING and level is not Level.ACT else level,
        says=tuple(finding.text for finding in said),
        access=_access(view, told, now),
        refresh=_refresh(view, told, now),
        next=words.next_step(told, now),
        error=words.last_error(told) if view.reason else "",
        outputs=tuple(_output(output, view.name) for output in outputs[:most_outputs]),
        outputs_left_out=max(0, len(outputs) - most_outputs),
    )


def _access(view: CredentialView, told: Mapping[str, Any], now: float) -> Clock:
    text = words.access_clock(told, now)
    left = _share(view.issued_at, view.expires_at, now)
    due = _share(view.issued_at, view.expires_at, view.next_at) if view.next_why == "due" else None
    tone = _tone(left, troubled=view.failures > 0)
    return Clock(text, tone, left, due, view.issued_at, view.expires_at)


def _refresh(view: CredentialView, told: Mapping[str, Any], now: float) -> Clock:
    text = words.refresh_clock(told, now)
    dead = view.standing == Standing.REAUTHORIZATION_REQUIRED
    left = 0.0 if dead else _share(view.refresh_life_began_at, view.refresh_expires_at, now)
    ending = any(alarm.text == ENDS_SOON for alarm in alarms(view, now))
    tone = _tone(left, troubled=ending)
    return Clock(text, tone, left, None, view.refresh_issued_at, view.refresh_expires_at)


def _tone(left: float | None, *, troubled: bool) -> str:
    if left is None:
        return "none"
    return Level.ACT if left <= 0 else Level.WATCH if troubled else Level.FINE


def _share(began_at: float | None, ends_at: float | None, at: float | None) -> float | None:
    """Return how much of a life is left at an instant, in per cent."""
    if began_at is None or ends_at is None or at is None:
        return None
    life = ends_at - began_at
    return round(100 * min(1.0, max(0.0, (ends_at - at) / life)), 1) if life > 0 else 0.0


def _output(output: dict[str, Any], name: str) -> Mapping[str, Any]:
    title = output["name"].replace("{name}", name)
    if output["current"]:
        return output | {"title": title, "level": Level.FINE, "says": "done" if output["is_hook"] else "current"}
    if output["failures"]:
        says = f"{output['reason']}: {output['text']}" if output["text"] else output["reason"]
        return output | {"title": title, "level": Level.WATCH, "says": says}
    return output | {"title": title, "level": "starting", "says": "not yet"}


def utc(instant: float | None) -> str:
    """Write an instant for people."""
    return "never" if instant is None else datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(instant: float) -> str:
    """Write an instant for machines, as `<time datetime>` wants it."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock_time(instant: float) -> str:
    """Write the time of day."""
    return datetime.fromtimestamp(instant, UTC).strftime("%H:%M:%S UTC")
