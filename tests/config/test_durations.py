"""The duration parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.config.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        (0, 0.0),
        ("500ms", 0.5),
        ("90s", 90.0),
        ("15m", 900.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("30d", 2592000.0),
        ("2w", 1209600.0),
    ],
)
def test_reads_numbers_and_units(text: object, seconds: float) -> None:
    """A duration is a number of seconds, or numbers with units."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    "text", ["", "90", "s", "90 s", "-5s", "5S", "5y", "1e3s", "٣s", True, None, [], {}, "1h 30m", "infs"]
)
def test_refuses_what_could_mean_anything(text: object) -> None:
    """A text without a unit, with an unknown unit or with a sign is refused with the grammar."""
    with pytest.raises(ValueError, match="is not a duration: write a number of seconds"):
        parse_duration(text)


@pytest.mark.parametrize("value", [-1, -0.001, float("nan"), float("inf"), 10**400, "101w999999999999w"])
def test_refuses_what_no_clock_can_show(value: object) -> None:
    """Negative, endless and absurd durations are refused."""
    with pytest.raises(ValueError, match="between 0 and 100 years"):
        parse_duration(value)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.lists(st.integers()), st.booleans()))
def test_answers_everything(value: object) -> None:
    """Whatever stands there, the result is a number in range or a ValueError for the user."""
    try:
        seconds = parse_duration(value)
    except ValueError:
        return
    assert 0 <= seconds <= 100 * 365 * 86400


@given(st.integers(0, 10**9), st.sampled_from([1, 60, 3600, 86400, 0.001, 0.25]))
def test_reads_what_it_writes(count: int, unit: float) -> None:
    """`format_duration` writes a text that reads as the same duration."""
    seconds = min(count * unit, 10**9)
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)
