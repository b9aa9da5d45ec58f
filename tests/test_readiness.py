"""All credentials in one line, as `systemctl status` shows it."""

from dataclasses import replace

import pytest

from rotator.core.model import Grant, Reason, RotationPolicy
from rotator.core.state import CredentialState, Status, Trouble
from rotator.credential import Credential, Plan
from rotator.ports import Problem
from rotator.readiness import in_one_line
from tests.line import ScriptedEndpoint
from tests.samples import AT, state_of

VALID = state_of()
RETRYING = replace(VALID, trouble=Trouble(1, Reason.CONNECT, "refused", AT, AT + 90))
DEAD = replace(VALID, status=Status.REAUTHORIZATION_REQUIRED, trouble=Trouble(2, Reason.INVALID_GRANT, "", AT, AT))
FULL = Problem(Reason.NO_SPACE, "no space left")


def credential(name: str, state: CredentialState | None, grant: Grant = Grant.REFRESH_TOKEN) -> Credential:
    """Return a credential in a state; None: its state has not been read yet."""
    endpoint = ScriptedEndpoint()
    policy = RotationPolicy(jitter=0.0)
    made = Credential(name, Plan(policy, grant, "", lambda: (), endpoint, "server:443", (), ()))
    made.state = state
    return made


@pytest.mark.parametrize(
    ("states", "after", "line"),
    [
        ({}, 0, ("0 credentials", "")),
        ({"a": None}, 0, ("1 credential", "")),
        ({"a": VALID, "b": None, "c": None}, 0, ("3 credentials", "next refresh a in 40 min")),
        ({"a": VALID, "b": VALID}, 2339, ("2 credentials", "next refresh a in 1 min")),
        ({"a": VALID}, 2341, ("1 credential", "next refresh a within a minute")),
        ({"a": VALID}, 5000, ("1 credential", "next refresh a now")),
        ({"a": VALID, "b": RETRYING}, 0, ("2 credentials, 1 is failing (b)", "next refresh b in 1 min")),
        ({"a": DEAD, "b": VALID}, 0, ("2 credentials, 1 needs a login (a)", "next refresh b in 40 min")),
        ({"a": DEAD, "b": CredentialState()}, 0, ("2 credentials, 2 need a login (a, …)", "")),
    ],
)
def test_all_in_one_line(states: dict[str, CredentialState | None], after: float, line: tuple[str, str]) -> None:
    """The line has the number, who needs a person, who fails, and whose refresh is next; minutes are its finest."""
    assert in_one_line([credential(name, state) for name, state in states.items()], AT + after) == line


def test_what_the_disk_does_to_credentials_is_in_the_line() -> None:
    """A state that cannot be read and a save that fails are failures; tokens that only memory holds are told apart."""
    unreadable, full = credential("a", None), credential("b", VALID)
    unreadable.problem = full.save_problem = FULL
    full.unsaved = True
    standing, _ = in_one_line([unreadable, full], AT)
    assert standing == "2 credentials, 2 are failing (a, …), 1 holds tokens that could not be saved (b)"


def test_a_credential_that_is_being_refreshed_is_in_the_line() -> None:
    """While a worker has a credential the agenda does not know when it is due; its state does."""
    busy = credential("a", VALID)
    busy.busy, busy.due_at = True, float("inf")
    assert in_one_line([busy], AT + 2500) == ("1 credential", "next refresh a now")
