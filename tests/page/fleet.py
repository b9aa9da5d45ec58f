"""Credentials in every state there is, as a page would get to see them."""

from dataclasses import replace
from typing import Final

from rotator.core.model import DAY, HOUR, MINUTE, Reason
from rotator.core.standing import CredentialView, OutputView, Standing
from tests.desk import NOW, OUTPUT, VIEW

_FILE: Final = replace(OUTPUT, name="/run/rotator/{name}.token")
_HOOK: Final = replace(OUTPUT, name="hook signal HUP /run/nginx.pid", is_hook=True, expires_at=None)


def credential(name: str, **changes: object) -> CredentialView:
    """Return a credential of which all is well, changed as told."""
    well = replace(
        VIEW, name=name, issued_at=NOW - 14 * MINUTE, expires_at=NOW + 46 * MINUTE, next_at=NOW + 24 * MINUTE,
        last_attempt_at=NOW - 14 * MINUTE, last_success_at=NOW - 14 * MINUTE, generation=1482,
        refresh_issued_at=NOW - 14 * MINUTE, refresh_life_began_at=NOW - 14 * MINUTE,
        refresh_expires_at=NOW + 30 * DAY - 14 * MINUTE, outputs=(_FILE,),
    )  # fmt: skip
    return replace(well, **changes)  # type: ignore[arg-type]


def _failing(reason: Reason, text: str) -> OutputView:
    return replace(_FILE, current=False, failures=7, reason=reason, text=text, generation=1481)


def each_state() -> tuple[CredentialView, ...]:
    """Return one credential in each state that a person may meet."""
    retrying = {
        "standing": Standing.RETRYING, "failures": 4, "next_why": "retry", "next_at": NOW + 52,
        "reason": Reason.CONNECT, "issued_at": NOW - 48 * MINUTE, "expires_at": NOW + 12 * MINUTE,
        "text": "ce-api.example.com refuses connections; check token_url, the firewall and that the server runs",
    }  # fmt: skip
    dead = {
        "standing": Standing.REAUTHORIZATION_REQUIRED, "failures": 3, "next_why": "probe", "next_at": NOW + 41 * MINUTE,
        "reason": Reason.INVALID_GRANT, "text": "Refresh token has been revoked by the user",
        "issued_at": NOW - 42 * MINUTE, "expires_at": NOW + 18 * MINUTE,
    }  # fmt: skip
    no_token = {
        "standing": Standing.LOGIN_REQUIRED, "generation": 0, "issued_at": None, "expires_at": None, "next_at": None,
        "refresh_issued_at": None, "refresh_expires_at": None, "refresh_life_began_at": None,
        "last_attempt_at": None, "last_success_at": None,
        "next_why": Reason.LOGIN_REQUIRED, "access_token_fingerprint": "", "refresh_token_fingerprint": "",
        "outputs": (replace(_FILE, current=False, generation=0, delivered_at=None, expires_at=None),),
    }  # fmt: skip
    return (
        credential("household-amsterdam", outputs=(_FILE, _HOOK)),
        credential("household-breda", **retrying),
        credential("household-delft", **retrying | {"issued_at": NOW - 75 * MINUTE, "expires_at": NOW - 15 * MINUTE}),
        credential("household-eindhoven", **dead),
        credential("household-gouda", **no_token),
        credential(
            "household-haarlem",
            standing=Standing.SUSPECT,
            failures=1,
            next_why="retry",
            next_at=NOW + 8,
            reason=Reason.INVALID_GRANT,
            text="Token is not active",
        ),
        credential(
            "household-leiden",
            unsaved=True,
            save_failing=True,
            reason=Reason.NO_SPACE,
            text="/var/lib/rotator is full; make room",
        ),
        credential(
            "household-nijmegen",
            outputs=(
                _failing(Reason.MISSING_DIRECTORY, "/srv/app/run is not there; make it"),
                replace(_FILE, name="/run/rotator/{name}.env"),
                _HOOK,
                replace(_FILE, name="/run/rotator/{name}.json"),
            ),
        ),
        credential(
            "household-roermond",
            standing=Standing.AMBIGUOUS,
            failures=1,
            next_why="replay",
            next_at=NOW + 2,
            reason=Reason.READ_TIMEOUT,
            text="no answer within 60 s; it may have been carried out",
        ),
        credential(
            "household-tilburg",
            standing=Standing.REFUSED,
            failures=2,
            next_why="retry",
            next_at=NOW + 11 * MINUTE,
            reason=Reason.INVALID_CLIENT,
            text="Client authentication failed.",
        ),
        credential("household-utrecht", refresh_life_began_at=NOW - 26 * DAY, refresh_expires_at=NOW + 4 * DAY + HOUR),
        credential("household-venlo", refreshing=True, next_at=NOW - 1),
        credential(
            "household-zwolle",
            standing=Standing.STARTING,
            **{key: no_token[key] for key in ("generation", "issued_at", "expires_at", "last_success_at", "outputs")}
            | {"next_at": NOW, "next_why": "first", "access_token_fingerprint": "", "last_attempt_at": None},
        ),
        credential(
            "labelpartner-account-api",
            grant="client_credentials",
            refresh_issued_at=None,
            refresh_life_began_at=None,
            refresh_expires_at=None,
            refresh_token_fingerprint="",
            outputs=(),
        ),
        credential(
            "lan-gateway", refresh_expires_at=None, refresh_life_began_at=None, clock_suspect=True, fuse_blown=True
        ),
        credential(
            "staging",
            standing=Standing.STATE_UNREADABLE,
            reason=Reason.STATE_UNREADABLE,
            next_at=None,
            text="/var/lib/rotator/staging.json: not JSON; it was moved to staging.json.bad; log in anew",
        ),
    )


def fleet(count: int) -> tuple[CredentialView, ...]:
    """Return so many credentials, nearly all of them well, as in real life."""
    if count == 1:
        return (credential("household-1"),)
    ill = each_state()
    well = []
    for number in range(count - len(ill)):
        age = number * 37 % 39
        well.append(
            credential(
                f"household-{number + 1:05}",
                generation=100 + number * 13 % 900,
                issued_at=NOW - age * MINUTE,
                expires_at=NOW + (60 - age) * MINUTE,
                next_at=NOW + (39 - age) * MINUTE + number % 60,
                refresh_issued_at=NOW - age * MINUTE,
                refresh_life_began_at=NOW - age * MINUTE,
                refresh_expires_at=NOW + 30 * DAY - age * MINUTE,
                access_token_fingerprint=f"{number * 2654435761 % 2**32:08x}",
                refresh_token_fingerprint=f"{number * 2246822519 % 2**32:08x}",
            )
        )
    return (*ill, *well)
