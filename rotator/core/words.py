"""How a credential stands, in plain words: the same for terminal and page. Pure.

A view is taken as a mapping, because the command line gets it as JSON from the daemon.
"""

from collections.abc import Mapping
from typing import Any, Final

from rotator.core.model import Oddity, Reason
from rotator.core.standing import span

View = Mapping[str, Any]
"""A `CredentialView` as JSON."""
NEEDS_A_PERSON: Final = ("login_required", "reauthorization_required", "state_unreadable")
_NEXT: Final = {
    "due": "refresh",
    "refresh_token_aging": "refresh, to keep the refresh token young",
    "first": "first refresh",
    "retry": "try again",
    "replay": "repeat the request, because its fate is unknown",
    "probe": "ask whether the grant works again",
    "clock_suspect": "refresh, because the clock is suspect",
    "fuse_blown": "refresh; there were suspiciously many, see the log",
}

_CURES: Final = {
    "invalid_client": "correct client_id or client_secret (a changed file is noticed at once)",
    "unauthorized_client": "have the server's operator allow this grant to the client",
    "invalid_scope": "correct scope, then: rotator reload",
}

ODDITIES: Final = {
    Oddity.EXPIRES_IN_TEXT: "expires_in is text instead of a number; it is read as one",
    Oddity.EXPIRES_IN_MISSING: "expires_in is missing; assumed_lifetime counts: set it to what the server grants",
    Oddity.EXPIRES_IN_ODD: "expires_in is no number; assumed_lifetime counts: set it to what the server grants",
    Oddity.EXPIRES_IN_CLAMPED: "expires_in is longer than max_lifetime, which counts: raise that if it is true",
    Oddity.JWT_EXPIRES_EARLIER: "the access token ends before expires_in says; its own end counts",
    Oddity.SCOPE_SHAPE: "scope is neither text nor an array of texts; what can be read of it counts",
    Oddity.SCOPE_CHANGED: "the granted scope is not the one asked for: correct scope, or have the operator allow it",
    Oddity.ID_TOKEN_ODD: "id_token is no text; it is left out",
    Oddity.FORM_ENCODED: "the answer is a form instead of JSON; it is read as one",
    Oddity.ACCESS_TOKEN_MISSING: "the answer holds no access token; the one before it stays",
}
"""What had to be tolerated in an answer. A missing rotation is told at each refresh."""


def is_fresh(view: View, now: float) -> bool:
    """Tell whether there is an unexpired access token."""
    return view["expires_at"] is not None and bool(view["expires_at"] > now)


def access_clock(view: View, now: float) -> str:
    """Say how long the access token still works."""
    if view["expires_at"] is None:
        return "none yet"
    if view["expires_at"] <= now:
        return f"expired {span(now - view['expires_at'])} ago"
    of = view["expires_at"] - view["issued_at"]
    return f"{span(view['expires_at'] - now)} left of {span(of)}"


def refresh_clock(view: View, now: float) -> str:
    """Say how long the refresh token still works; when it is over a person must log in."""
    if view["grant"] == "client_credentials":
        return "not needed (client credentials)"
    if view["refresh_issued_at"] is None:
        return "none yet"
    if view["standing"] == "reauthorization_required":
        return "no longer accepted by the server"
    if view["refresh_expires_at"] is None:
        return "end unknown; set refresh_token_lifetime to be warned in time"
    if view["refresh_expires_at"] <= now:
        return f"expired {span(now - view['refresh_expires_at'])} ago"
    return f"{span(view['refresh_expires_at'] - now)} left"


def next_step(view: View, now: float) -> str:
    """Say what rotator, or a person, does next."""
    login = f"log in: rotator login {view['name']}"
    if view["reason"] == Reason.TOKEN_REUSE:  # many servers revoke all there is, the newest access token too (case C20)
        login = f"find who else uses the refresh token, then {login}; the access token may be dead already"
    if (holder := view.get("held_by")) is not None:
        who = f"{holder} refreshes" if holder else "no replica holds the Lease now"
        return f"follow: {who}; this replica keeps its own outputs current"
    if view["refreshing"]:
        return "a refresh is under way"
    if view["standing"] == "state_unreadable":
        return "put the state in order, as said below"
    if view["unsaved"]:
        return "save the newest tokens, which only memory holds; tried each second"
    if view["next_at"] is None:
        return login
    what = _NEXT.get(str(view["next_why"]), str(view["next_why"]))
    when = f"in {span(view['next_at'] - now)}" if view["next_at"] >= now + 1 else "now"
    line = f"{what} {when}" if ";" not in what and "," not in what else f"{when}: {what}"
    cure = login if view["standing"] in NEEDS_A_PERSON else _CURES.get(str(view["reason"]))
    return f"{cure}; until then {line}" if cure else line


def last_error(view: View) -> str:
    """Say what went wrong since the last success."""
    if not view["reason"]:
        return "none"
    times = f", {view['failures']} times in a row" if view["failures"] > 1 else ""
    text = view["text"].removesuffix(".")  # many servers' descriptions are sentences
    return f"{view['reason']}: {text}{times}" if text else f"{view['reason']}{times}"


def output_line(output: Mapping[str, Any], name: str, now: float) -> str:
    """Say whether one output or hook of the credential `name` is up to date, and how long the token in it works."""
    title = output["name"].replace("{name}", name)
    if output["current"]:
        return f"{title}: {'done' if output['is_hook'] else 'current'}"
    line = f"{title}: {output['reason']}: {output['text']}" if output["failures"] else f"{title}: not yet"
    if output["is_hook"] or output["expires_at"] is None:
        return line
    if output["expires_at"] <= now:
        return f"{line}; the token in it expired {span(now - output['expires_at'])} ago"
    return f"{line}; the token in it has {span(output['expires_at'] - now)} left"
