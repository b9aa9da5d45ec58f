"""Status in plain words, for every way a credential may stand."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from rotator.cli.words import block, is_well
from rotator.core.standing import Standing, span
from rotator.core.words import access_clock, last_error, next_step, output_line, refresh_clock
from tests.desk import NOW, OUTPUT, VIEW


def shown(**changes: Any) -> dict[str, Any]:
    """Return the standard view with some fields changed, as it comes through the socket."""
    return asdict(replace(VIEW, **changes))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"), (0, "0 s"), (0.9, "0 s"), (119, "119 s"), (120, "2 min"), (3599, "59 min"), (3600, "60 min"),
        (7199, "119 min"), (7200, "2 h"), (86400 * 2 - 1, "47 h"), (86400 * 2, "2 days"), (86400 * 30 - 1, "29 days"),
    ],
)  # fmt: skip
def test_spans_are_never_overstated(seconds: float, text: str) -> None:
    """B32: one unit, rounded down."""
    assert span(seconds) == text


def test_the_two_clocks() -> None:
    """B32: each clock says whose it is and how much is left."""
    assert access_clock(shown(), NOW) == "50 min left of 60 min"
    assert access_clock(shown(), NOW + 3060) == "expired 60 s ago"
    assert access_clock(shown(expires_at=None, issued_at=None), NOW) == "none yet"
    assert refresh_clock(shown(), NOW) == "30 days left"
    assert refresh_clock(shown(), NOW + 86400 * 31) == "expired 24 h ago"
    assert refresh_clock(shown(refresh_issued_at=None, refresh_expires_at=None), NOW) == "none yet"
    unknown = "end unknown; set refresh_token_lifetime to be warned in time"
    assert refresh_clock(shown(refresh_expires_at=None), NOW) == unknown
    dead = shown(standing=Standing.REAUTHORIZATION_REQUIRED)
    assert refresh_clock(dead, NOW) == "no longer accepted by the server"
    assert refresh_clock(shown(grant="client_credentials"), NOW) == "not needed (client credentials)"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "refresh in 30 min"),
        ({"next_why": "retry", "next_at": NOW + 4}, "try again in 4 s"),
        ({"next_why": "retry", "next_at": NOW - 4}, "try again now"),
        ({"next_why": "refresh_token_aging"}, "in 30 min: refresh, to keep the refresh token young"),
        ({"refreshing": True}, "a refresh is under way"),
        ({"next_at": None, "next_why": "login_required"}, "log in: rotator login web"),
        (
            {"standing": Standing.REAUTHORIZATION_REQUIRED, "next_why": "probe", "next_at": NOW + 3500},
            "log in: rotator login web; until then ask whether the grant works again in 58 min",
        ),
        (  # C20
            {
                "standing": Standing.REAUTHORIZATION_REQUIRED,
                "reason": "token_reuse",
                "next_why": "probe",
                "next_at": NOW + 3500,
            },
            (
                "find who else uses the refresh token, then log in: rotator login web; the access token may be dead "
                "already; until then ask whether the grant works again in 58 min"
            ),
        ),
        (
            {"standing": Standing.REFUSED, "reason": "invalid_client", "next_why": "retry", "next_at": NOW + 890},
            "correct client_id or client_secret (a changed file is noticed at once); until then try again in 14 min",
        ),
        ({"next_why": "retry", "next_at": NOW + 0.9}, "try again now"),
        ({"standing": Standing.STATE_UNREADABLE}, "put the state in order, as said below"),
    ],
)
def test_the_next_step_says_who_does_what(changes: dict[str, Any], text: str) -> None:
    """B18 C20: a dead grant names the login; everything else is rotator's own business and has a time."""
    assert next_step(shown(**changes), NOW) == text


def test_errors_and_outputs() -> None:
    """The last error has its reason, and how often; each output says whether it is current, else its token's end."""
    assert last_error(shown()) == "none"
    assert last_error(shown(reason="dns", text="no such host", failures=1)) == "dns: no such host"
    assert last_error(shown(reason="dns", text="It failed.", failures=2)) == "dns: It failed, 2 times in a row"
    assert last_error(shown(reason="dns", text="", failures=3)) == "dns, 3 times in a row"
    assert output_line(asdict(replace(OUTPUT, name="/run/{name}")), "web", NOW) == "/run/web: current"
    assert output_line(asdict(replace(OUTPUT, current=False, expires_at=None)), "web", NOW).endswith(": not yet")
    failed = asdict(replace(OUTPUT, current=False, failures=2, reason="no_space", text="disk full"))
    for changes, end in (
        ({"expires_at": NOW + 120}, ": no_space: disk full; the token in it has 2 min left"),
        ({"expires_at": NOW - 120}, ": no_space: disk full; the token in it expired 2 min ago"),
        ({"expires_at": None}, ": no_space: disk full"),
        ({"expires_at": NOW + 120, "is_hook": True}, ": no_space: disk full"),
    ):
        assert output_line(failed | changes, "web", NOW).endswith(end)


def test_alarms_have_lines_of_their_own() -> None:
    """Unsaved tokens and a suspect clock are not to be overlooked."""
    text = "\n".join(block(shown(unsaved=True, clock_suspect=True), NOW))
    assert "NOT SAVED:     the newest tokens are in memory only" in text
    assert "clock:         it was set back" in text


@pytest.mark.parametrize("standing", list(Standing))
def test_all_is_well_while_the_token_works_and_nobody_is_needed(standing: Standing) -> None:
    """B18: the exit code of status tells when a person must act or a token is over."""
    person = standing in (Standing.LOGIN_REQUIRED, Standing.REAUTHORIZATION_REQUIRED, Standing.STATE_UNREADABLE)
    assert is_well(shown(standing=standing), NOW) is not person
    assert not is_well(shown(standing=standing), NOW + 3000)
