"""The paths below /sandbox/, and the checks of switches and scripts."""

from dataclasses import fields
from typing import Any

import pytest

from rotator.sandbox.odd import CONNECTION_FAULTS, FAULTS, GRANT_ODDITIES, REFUSAL_ODDITIES
from rotator.sandbox.switches import Switches
from tests.sandbox.conftest import Customer


def test_index_names_everything(customer: Customer) -> None:
    """The index lists every switch, fault and odd answer."""
    index = customer.http.get("/sandbox/").json()
    assert set(index["switches"]) == {each.name for each in fields(Switches)}
    assert set(index["faults"]) == {*FAULTS, *REFUSAL_ODDITIES}
    assert set(index["connection_faults"]) == set(CONNECTION_FAULTS)
    assert set(index["odd"]) == {*GRANT_ODDITIES, *REFUSAL_ODDITIES}


def test_switches_are_turned_over_http(customer: Customer) -> None:
    """PATCH turns the switches that it names and answers with all of them."""
    answer = customer.http.patch("/sandbox/switches", json={"rotation": False, "access_lifetime": 20})
    assert answer.status_code == 200
    assert answer.json() == customer.http.get("/sandbox/switches").json()
    assert (answer.json()["rotation"], customer.sandbox.switches.grace_seconds) == (False, 0)
    assert customer.login()["expires_in"] == 20


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rotatoin": True}, "unknown switch 'rotatoin'; the switches are rotation, "),
        ({"rotation": 1}, "switch 'rotation' must be true or false, not 1"),
        ({"access_lifetime": "20"}, "switch 'access_lifetime' must be a number, 0 or more, not '20'"),
        ({"access_lifetime": True}, "must be a number"),
        ({"latency_seconds": -1}, "must be a number, 0 or more"),
        ({"fault_ratio": 1.5}, "switch 'fault_ratio' must be 0 to 1"),
        ({"grace_answer": "old"}, "switch 'grace_answer' must be same or new"),
        ({"disabled_users": "user"}, "must be a list of strings"),
        ({"fault": "after:5o3"}, "unknown fault or odd answer 'after:5o3'; did you mean '503'?"),
        ({"fault": "bom"}, "'bom' is an odd answer, not a fault: use the switch 'odd'"),
        ({"odd": "bomb"}, "unknown odd answer 'bomb'; did you mean 'bom'?"),
        ([], "the body must be a JSON object"),
    ],
)
def test_wrong_switches(customer: Customer, changes: Any, word: str) -> None:
    """A wrong change is refused as a whole, in one line that names the switch."""
    answer = customer.http.patch("/sandbox/switches", json=changes)
    assert answer.status_code == 400
    assert word in answer.json()["error"]
    assert customer.sandbox.switches == Switches()


def test_script_over_http(customer: Customer) -> None:
    """POST replaces the script, GET shows what is left of it, and a wrong step changes nothing."""
    assert customer.http.post("/sandbox/script", json=["ok", "after:drop"]).json() == ["ok", "after:drop"]
    customer.login()
    assert customer.http.post("/sandbox/script", json=["no such step"]).status_code == 400
    assert customer.http.post("/sandbox/script", json="ok").status_code == 400
    assert customer.http.get("/sandbox/script").json() == ["after:drop"]


def test_issue_over_http(customer: Customer) -> None:
    """Pairs for a fleet are issued in one request, all of them good; a wrong count is refused."""
    pairs = customer.http.post("/sandbox/issue", json={"count": 50}).json()
    assert len({pair["refresh_token"] for pair in pairs}) == 50
    customer.granted(customer.refresh(pairs[-1]["refresh_token"]))
    for wrong in ({"count": 0}, {"count": "1"}, {"user": 1}):
        assert customer.http.post("/sandbox/issue", json=wrong).status_code == 400


def test_revoke_over_http(customer: Customer) -> None:
    """An empty body revokes everything; a user's name revokes what is that user's."""
    customer.login()
    customer.login("fleet-1@example.com")
    assert customer.http.post("/sandbox/revoke", json={"user": "fleet-1@example.com"}).json() == {"revoked": 1}
    assert customer.http.post("/sandbox/revoke").json() == {"revoked": 1}


def test_books_over_http(customer: Customer) -> None:
    """The books tell the same over HTTP as in the process."""
    pair = customer.login()
    customer.me(pair["access_token"])
    customer.me("unknown")
    books = customer.http.get("/sandbox/books").json()
    assert books == customer.books.as_json()
    assert (books["tokens_issued"], books["good_calls"], books["dead_calls"]) == (1, 1, 1)
    assert books["token_requests"] == {"granted": 1}


def test_secret_stays_out_of_the_repr() -> None:
    """The client secret does not show when switches are printed."""
    assert "sandbox-secret" not in repr(Switches())
