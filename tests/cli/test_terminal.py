"""The commands at a terminal: what is asked, what is echoed, what has colour."""

from tests.cli.conftest import PASSWORD, USERNAME, Place
from tests.terminal import converse


def test_the_password_is_asked_for_and_not_echoed(rotator: Place) -> None:
    """The user name is shown as it is typed, the password is not."""
    code, shown = converse(
        rotator.environ,
        rotator.command("login", "home"),
        ("User name for home:", USERNAME),
        ("Password (not shown):", PASSWORD),
    )
    assert code == 0, shown
    assert PASSWORD not in shown
    assert "home: logged in, generation 1" in shown


def test_ctrl_c_at_the_password_is_one_word(rotator: Place) -> None:
    """An interrupted login shows no traceback."""
    code, shown = converse(rotator.environ, rotator.command("login", "home"), ("User name for home: ", "\x03"))
    assert code == 130
    assert shown.rstrip().endswith("rotator: interrupted")
    assert "Traceback" not in shown


def test_status_has_colour_at_a_terminal_unless_unwanted(rotator: Place) -> None:
    """NO_COLOR is honoured."""
    rotator.login()
    assert "\x1b[" not in converse(rotator.environ, rotator.command("status"))[1]
    rotator.environment["NO_COLOR"] = ""
    assert "\x1b[32mvalid" in converse(rotator.environ, rotator.command("status"))[1]
