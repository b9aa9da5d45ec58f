"""What stands in output files."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.template import FORMATS, check_template, render
from tests.samples import AT, token_set

TOKENS = token_set(3, access_token="acc'ess", id_token="id", scope="a b", refresh_token="the-refresh-token")


def test_raw_is_the_token_and_nothing_else() -> None:
    """The raw format is the access token, with a newline only if one is asked for."""
    assert render("raw", TOKENS, AT, newline=False) == b"acc'ess"
    assert render("raw", TOKENS, AT, newline=True) == b"acc'ess\n"
    assert render("id_token", TOKENS, AT, newline=False) == b"id"


def test_header_is_ready_to_send() -> None:
    """The header format is a whole request header."""
    assert render("header", TOKENS, AT, newline=False) == b"Authorization: Bearer acc'ess"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_env_is_safe_for_a_shell(token: str) -> None:
    """The env format's values come out of a shell as they went in, whatever is in them."""
    text = render("env", token_set(access_token=token), AT + 0.9, newline=True).decode()
    words = dict(word.split("=", 1) for word in shlex.split(text))
    assert {"ACCESS_TOKEN": token, "TOKEN_TYPE": "Bearer", "EXPIRES_AT": "1700000000"} == words


def test_json_holds_everything_but_the_refresh_token() -> None:
    """The json format has numbers as numbers, and the id token only if there is one."""
    expected = {
        "access_token": "acc'ess",
        "id_token": "id",
        "token_type": "Bearer",
        "expires_at": 1700000000,
        "expires_at_iso": "2023-11-14T22:13:20Z",
        "scope": "a b",
        "generation": 3,
    }
    assert expected == json.loads(render("json", TOKENS, AT, newline=True))
    del expected["id_token"]
    without = token_set(3, access_token="acc'ess", scope="a b")
    assert expected == json.loads(render("json", without, AT, newline=True))


@pytest.mark.parametrize("template", [*FORMATS, "{access_token} {scope} {generation}"])
def test_the_refresh_token_is_in_no_output(template: str) -> None:
    """Invariant 11: no format shows the refresh token."""
    assert b"the-refresh-token" not in render(template, TOKENS, AT, newline=True)


def test_a_template_makes_the_header_of_the_lan_api() -> None:
    """CE-API's LAN API takes a header of its own kind."""
    template = 'Authorization: N2G-LAN-USER token="{access_token}"'
    assert check_template(template) is None
    expected = b'Authorization: N2G-LAN-USER token="acc\'ess"'
    assert expected == render(template, TOKENS, AT, newline=False)


def test_doubled_braces_are_braces() -> None:
    """A template can make JSON."""
    template = '{{"t": {{"a": "{access_token}", "e": {expires_at}}}}}'
    assert check_template(template) is None
    expected = {"t": {"a": "acc'ess", "e": 1700000000}}
    assert expected == json.loads(render(template, TOKENS, AT, newline=False))


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{acces_token}", "{acces_token} is unknown"),
        ("{refresh_token}", "{refresh_token} is unknown"),
        ("{access_token!r}", "unknown"),
        ("{}", "unknown"),
        ('{"a": 1}', "unknown"),
        ("{ {access_token} }", "write {{"),
        ("{access_token}}", "write }}"),
        ("", "empty"),
        (" ", "empty"),
    ],
)
def test_a_wrong_template_is_told_with_the_cure(template: str, word: str) -> None:
    """A template with a typing error is refused before it is used, in words that help."""
    assert word in (check_template(template) or "")


@given(st.text(), st.floats(-1e18, 1e18), st.text(st.characters()))
def test_rendering_never_fails(template: str, expires_at: float, token: str) -> None:
    """A31: a template that was found good can be filled with anything a server sends."""
    if check_template(template) is None:
        render(template, token_set(access_token=token), expires_at, newline=False)
    for name in FORMATS:
        render(name, token_set(access_token=token), expires_at, newline=False)
