"""Status in plain words: two clocks, what comes next, what went wrong (case B32)."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import click

from rotator.cli.exits import ExitCode
from rotator.core.standing import span

View = Mapping[str, Any]
"""A `CredentialView` as JSON."""
_COLOURS: Final = {
    "valid": "green",
    "starting": "cyan",
    "retrying": "yellow",
    "ambiguous": "yellow",
    "refused": "yellow",
    "suspect": "yellow",
}
_NEEDS_A_PERSON: Final = ("login_required", "reauthorization_required", "state_unreadable")
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


def is_fresh(view: View, now: float) -> bool:
    """Tell whether there is an unexpired access token."""
    return view["expires_at"] is not None and bool(view["expires_at"] > now)


def is_well(view: View, now: float) -> bool:
    """Tell whether there is an unexpired access token and no person is needed."""
    return is_fresh(view, now) and view["standing"] not in _NEEDS_A_PERSON


def verdict(views: Iterable[View], now: float) -> ExitCode:
    """Return the exit code of `rotator status`."""
    return ExitCode.OK if all(is_well(view, now) for view in views) else ExitCode.UNAVAILABLE


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
    if view["refreshing"]:
        return "a refresh is under way"
    if view["standing"] == "state_unreadable":
        return "put the state in order, as said below"
    if view["next_at"] is None:
        return login
    what = _NEXT.get(str(view["next_why"]), str(view["next_why"]))
    when = f"in {span(view['next_at'] - now)}" if view["next_at"] >= now + 1 else "now"
    line = f"{what} {when}" if ";" not in what and "," not in what else f"{when}: {what}"
    cure = login if view["standing"] in _NEEDS_A_PERSON else _CURES.get(str(view["reason"]))
    return f"{cure}; until then {line}" if cure else line


def last_error(view: View) -> str:
    """Say what went wrong since the last success."""
    if not view["reason"]:
        return "none"
    times = f", {view['failures']} times in a row" if view["failures"] > 1 else ""
    text = view["text"].removesuffix(".")  # many servers' descriptions are sentences
    return f"{view['reason']}: {text}{times}" if text else f"{view['reason']}{times}"


def output_line(output: Mapping[str, Any], name: str) -> str:
    """Say whether one output or hook of the credential `name` is up to date."""
    title = output["name"].replace("{name}", name)
    if output["current"]:
        return f"{title}: {'done' if output['is_hook'] else 'current'}"
    if output["failures"]:
        return f"{title}: {output['reason']}: {output['text']}"
    return f"{title}: not yet"


def block(view: View, now: float) -> Iterator[str]:
    """Yield the lines that show one credential."""
    colour = _COLOURS.get(view["standing"], "red")
    generation = f"generation {view['generation']}" if view["generation"] else "no token yet"
    yield f"{click.style(view['name'], bold=True)}: {click.style(view['standing'], fg=colour)}, {generation}"
    access = f"  access token:  {access_clock(view, now)}"
    yield access if is_fresh(view, now) else click.style(access, fg="red")
    yield f"  refresh token: {refresh_clock(view, now)}"
    yield f"  next:          {next_step(view, now)}"
    yield f"  last error:    {last_error(view)}"
    if view["unsaved"]:
        yield click.style("  NOT SAVED:     the newest tokens are in memory only; see the log", fg="red")
    if view["clock_suspect"]:
        yield "  clock:         it was set back; check the time service of this machine"
    for output in view["outputs"]:
        line = f"  {'hook:  ' if output['is_hook'] else 'output:'}        {output_line(output, view['name'])}"
        yield click.style(line, fg="red") if output["failures"] else line


def with_iso(document: Any) -> Any:
    """Return a JSON document in which each instant is also written for people: `x_at_iso`."""
    if isinstance(document, Mapping):
        written: dict[str, Any] = {}
        for key, value in document.items():
            written[key] = with_iso(value)
            if key.endswith("_at"):
                written[f"{key}_iso"] = _iso(value)
        return written
    return [with_iso(one) for one in document] if isinstance(document, list | tuple) else document


def _iso(instant: float | None) -> str | None:
    if instant is None:
        return None
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
