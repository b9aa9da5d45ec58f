"""Which credentials the page shows first, and what looking at many of them costs."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rotator.adapters.web.survey import PAGE_SIZE, Level, Question, findings, survey
from rotator.core.model import DAY, HOUR, MINUTE, Reason
from rotator.core.standing import CredentialView, Standing
from tests.desk import NOW, OUTPUT
from tests.page.fleet import credential, each_state, fleet


def names(question: Question, *views: CredentialView) -> list[str]:
    """Return what is shown, in its order."""
    return list(survey(views, question, NOW).names)


@pytest.mark.parametrize("standing", Standing)
def test_every_standing_has_its_urgency(standing: Standing) -> None:
    """A standing is fine, watched, or needs somebody; only a valid credential is fine."""
    worst = findings(credential("one", standing=standing), NOW)[0]
    assert worst.text == standing.replace("_", " ")
    assert (worst.level == Level.FINE) == (standing == Standing.VALID)
    needs = {Standing.LOGIN_REQUIRED, Standing.REAUTHORIZATION_REQUIRED, Standing.STATE_UNREADABLE, Standing.REFUSED}
    assert (worst.level == Level.ACT) == (standing in needs)


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        pytest.param({"unsaved": True, "reason": Reason.NO_SPACE}, Level.ACT, "not saved", id="unsaved"),
        pytest.param({"expires_at": NOW}, Level.ACT, "access token expired", id="access token over"),
        pytest.param({"refresh_expires_at": NOW}, Level.ACT, "refresh token expired", id="refresh token over"),
        pytest.param({"reason": Reason.NO_SPACE, "save_failing": True}, Level.WATCH, "cannot save", id="no room"),
        pytest.param({"clock_suspect": True}, Level.WATCH, "clock suspect", id="clock"),
        pytest.param({"fuse_blown": True}, Level.WATCH, "fuse blown", id="fuse"),
        pytest.param({"outputs": (replace(OUTPUT, failures=1),)}, Level.WATCH, "output failing", id="output"),
        pytest.param(
            {"refresh_life_began_at": NOW - 23 * DAY - 1, "refresh_expires_at": NOW + 7 * DAY - 1},
            Level.WATCH, "refresh token ends soon", id="a week before a month is over",
        ),
        pytest.param(
            {"refresh_life_began_at": NOW - 23 * DAY, "refresh_expires_at": NOW + 7 * DAY},
            Level.FINE, "valid", id="more than a week before",
        ),
        pytest.param(
            {"refresh_life_began_at": NOW - 28 * DAY - 1, "refresh_expires_at": NOW + 2 * DAY - 1},
            Level.ACT, "refresh token ends soon", id="two days before",
        ),
        pytest.param(
            {"refresh_life_began_at": NOW - 7 * HOUR, "refresh_expires_at": NOW + 3 * HOUR - 1},
            Level.WATCH, "refresh token ends soon", id="less than a third of a short life",
        ),
        pytest.param(
            {"refresh_life_began_at": NOW - HOUR, "refresh_expires_at": NOW + HOUR},
            Level.FINE, "valid", id="a short life half over",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_beside_the_standing_comes_first(changes: dict[str, object], level: Level, text: str) -> None:
    """A valid credential whose pair is unsaved, for instance, is not shown as fine."""
    assert (
        findings(credential("one", **changes), NOW)[0].level,
        findings(credential("one", **changes), NOW)[0].text,
    ) == (
        level,
        text,
    )


def test_the_most_urgent_come_first() -> None:
    """Those that need somebody, then those in trouble, the first to run out ahead; what is fine stands by name."""
    ill = {"standing": Standing.RETRYING, "failures": 1}
    views = (
        credential("a-fine"),
        credential("b-fine", expires_at=NOW + 1),
        credential("late", **ill, expires_at=NOW + 30 * MINUTE),
        credential("soon", **ill, expires_at=NOW + MINUTE),
        credential("over", **ill, expires_at=NOW - 1),
        credential("without", standing=Standing.LOGIN_REQUIRED, expires_at=None),
    )
    assert names(Question(), *views) == ["without", "over", "soon", "late", "a-fine", "b-fine"]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("name", ["a", "b", "c"]), ("access", ["c", "a", "b"]), ("refresh", ["b", "a", "c"])],
)
def test_other_orders(sort: str, expected: list[str]) -> None:
    """By name, by the end of the access token (none at all first), by that of the refresh token (unknown last)."""
    views = (
        credential("a", expires_at=NOW + 1, refresh_expires_at=NOW + 2),
        credential("b", expires_at=NOW + 2, refresh_expires_at=NOW + 1),
        credential("c", expires_at=None, refresh_expires_at=None, refresh_issued_at=None),
    )
    assert names(Question(sort=sort), *views) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("EINDHOVEN", {"household-eindhoven"}),
        ("reauthorization required", {"household-eindhoven"}),
        ("not saved", {"household-leiden"}),
        ("expired connect", {"household-delft"}),
        ("missing_directory", {"household-nijmegen"}),
        ("/run/rotator/ .env", {"household-nijmegen"}),
        ("client_credentials", {"labelpartner-account-api"}),
        ("nobody", set()),
    ],
)
def test_search_looks_at_everything_that_is_shown(text: str, expected: set[str]) -> None:
    """Each word must stand somewhere: in name, state, error, output or fingerprint; case does not matter."""
    assert set(names(Question(text=text), *each_state())) == expected


def test_search_finds_a_fingerprint() -> None:
    """Whoever holds a token's fingerprint, from a log line say, finds whose it is."""
    assert names(Question(text="deadbeef"), credential("a"), credential("b", access_token_fingerprint="deadbeef")) == [
        "b"
    ]


def test_counts_are_of_all_that_match_the_text() -> None:
    """The filter by urgency changes what is listed, not what the other filters say they hold."""
    found = survey(each_state(), Question(level=Level.FINE), NOW)
    assert found.counts == {Level.ACT: 6, Level.WATCH: 7, Level.FINE: 3}
    assert (found.total, found.matching, len(found.names)) == (16, 3, 3)
    assert survey(each_state(), Question(text="household"), NOW).matching == 13


def test_pages_hold_everything_once() -> None:
    """All pages together hold each credential once; a page beyond the last is the last."""
    views = fleet(2 * PAGE_SIZE + 1)
    pages = [survey(views, Question(page=number), NOW) for number in (1, 2, 3, 4)]
    assert [len(page.names) for page in pages] == [PAGE_SIZE, PAGE_SIZE, 1, 1]
    assert [page.page for page in pages] == [1, 2, 3, 3]
    assert {page.pages for page in pages} == {3}
    assert sorted(name for page in pages[:3] for name in page.names) == sorted(view.name for view in views)


def test_no_credentials_are_one_empty_page() -> None:
    """A daemon without credentials has a page all the same."""
    found = survey((), Question(page=7), NOW)
    assert (found.names, found.page, found.pages, found.total, found.first_to_end) == ((), 1, 1, 0, None)


def test_the_refresh_token_that_ends_first_is_named() -> None:
    """It is the first of all, whatever is searched for."""
    found = survey(each_state(), Question(text="breda"), NOW)
    assert found.first_to_end == (NOW + 4 * DAY + HOUR, "household-utrecht")


def test_a_large_fleet_costs_no_memory() -> None:
    """Views are looked at one by one and let go: the first page of 20,000 takes less than 128 KiB to find."""
    view = credential("household")

    def views() -> Iterator[CredentialView]:
        for number in range(20_000):
            yield replace(view, name=f"household-{number * 7919 % 20_000:06}")

    tracemalloc.start()
    try:
        found = survey(views(), Question(), NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.total, found.names[0], len(found.names)) == (20_000, "household-000000", PAGE_SIZE)
    assert peak < 128 * 1024
