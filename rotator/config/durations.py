"""The one reader of durations in a configuration."""

import math
import re
from typing import Final

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d|w)")
_LONGEST: Final = 100 * 365 * 86400

GRAMMAR: Final = (
    'a number of seconds (`90`, `0.5`) or a text of numbers with units (`"90s"`, `"15m"`, `"1h30m"`, `"30d"`); '
    "units: ms, s, m, h, d, w"
)


def parse_duration(value: object) -> float:
    """Return seconds, 0 or more and at most 100 years.

    Takes a number of seconds, or text such as `90s`, `15m`, `1h30m`, `30d`. Raises ValueError with a
    text for the user otherwise. A text without a unit is refused: nobody can tell what was meant.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"is not a duration: write {GRAMMAR}")  # noqa: TRY004 -- as promised
    seconds = _from_text(value) if isinstance(value, str) else value
    if not 0 <= seconds <= _LONGEST or not math.isfinite(seconds):
        raise ValueError("must lie between 0 and 100 years")
    return float(seconds)


def _from_text(text: str) -> float:
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"is not a duration: write {GRAMMAR}")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as the same number of seconds."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / _UNIT_SECONDS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return "0s" if seconds == 0 else f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
