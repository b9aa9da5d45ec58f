"""One Lease: who holds it, and how long this process may count on it.

Two clocks that are never compared with another machine's. Our own term is counted from before the renewal was sent, on
the daemon's clock, which counts suspend. Another's ends when its record has not changed for its duration as *we* saw
it. All writes are conditional on the version last seen, so of two that reach for a Lease one gets it.
"""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rotator.adapters.kubernetes.wire import (
    APPLY,
    CONFLICT,
    MANAGER,
    MERGE,
    NOT_FOUND,
    Api,
    Reply,
    annotations_of,
    version_of,
)
from rotator.ports import Clock

WANTED_BY: Final = "token-rotator/wanted-by"
"""A replica that holds less than its share asks the holder for this shard."""
CREDENTIALS: Final = "token-rotator/credentials"
"""A digest of the credentials that the holder refreshes under this Lease."""
_RELEASED_SECONDS: Final = 1
_DIFFERS_FOR: Final = 4.0
"""Durations of a Lease for which its holder may have other credentials than we: replicas are upgraded one by one."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long, in seconds."""

    duration: float
    """From the last renewal until others may take over."""
    renew_every: float
    save_allowance: float
    """What is kept back for the save that follows a request."""
    timeout: float
    """For one request to the API server."""


@dataclass(frozen=True, slots=True)
class _Held:
    term: int
    until: float


@dataclass(frozen=True, slots=True)
class Seen:
    """The record as last read, and since when it stands like that."""

    version: str
    holder: str
    duration: float
    since: float
    wanted_by: str
    credentials: str = ""
    """The holder's digest; empty if it is of a release that wrote none."""


_terms: Final = itertools.count(1)


class Lease:
    """Turned by one thread; the properties may be asked by any."""

    def __init__(self, api: Api, namespace: str, name: str, identity: str, times: LeaseTimes, clock: Clock) -> None:
        """Hold nothing yet."""
        self.name = name
        self.trouble = ""
        """Why the API server did not serve the last turn; empty if it did."""
        self.credentials = ""
        """The digest of what we would refresh under this Lease."""
        self._differs_since: float | None = None
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
        self._identity = identity
        self._times = times
        self._clock = clock
        self._held: _Held | None = None
        self._version = ""  # of the record that we wrote last; empty: the record may be another's
        self.seen = Seen("", "", 0.0, 0.0, "")
        self.yielding = False
        """Whether no new request may begin under this lease: it is about to be handed over."""

    @property
    def term(self) -> int | None:
        """Return the number of the term that we hold; None if we hold none at this moment."""
        held = self._held
        return held.term if held is not None and self._clock.now() < held.until else None

    @property
    def is_free(self) -> bool:
        """Tell whether nobody holds it, as last seen: it was given up, or its holder has not moved for too long."""
        return not self.seen.holder or time.monotonic() - self.seen.since > self.seen.duration

    @property
    def stranger(self) -> str:
        """Return the holder if its credentials have long been others than ours; else nothing."""
        since = self._differs_since
        if since is None or time.monotonic() - since < _DIFFERS_FOR * self._times.duration:
            return ""
        return self.seen.holder

    def lasts(self, seconds: float) -> bool:
        """Tell whether we hold it for so many seconds more and for a save after that, even if we are cut off now."""
        held = self._held
        return (
            held is not None
            and not self.yielding
            and self._clock.now() + seconds + self._times.save_allowance < held.until
        )

    def turn(self, *, reach: bool) -> None:
        """Renew, or look whether the Lease is free; `reach`: take it then."""
        if not (self._version and self._renew()) and self._observe() and reach and not self._version:
            self._take()

    def hand_over(self) -> bool:
        """Give the Lease up, so that another may take it at once; what we owned must be at rest.

        False: the API server does not answer, so others must wait until its time is over.
        """
        self._held, self.yielding = None, False
        spec = {"holderIdentity": "", "leaseDurationSeconds": _RELEASED_SECONDS, "renewTime": _micro_time()}
        reply = self._patch(spec, annotations={WANTED_BY: None}) if self._version else None
        if reply is not None and reply.status == CONFLICT:
            # A renewal whose reply was lost, or a wish written beside our name: it may still be ours.
            found = self._call("GET")
            if found.good and (found.body.get("spec") or {}).get("holderIdentity") == self._identity:
                self._version = version_of(found.body)
                reply = self._patch(spec, annotations={WANTED_BY: None})
        self._version = ""
        self.seen = Seen("", "", 0.0, time.monotonic(), "")
        return reply is None or reply.status != 0

    def want(self) -> bool:
        """Ask the holder for the Lease; it gives it up if it has more than its share."""
        body = {"metadata": {"resourceVersion": self.seen.version, "annotations": {WANTED_BY: self._identity}}}
        return self._call("PATCH", body, MERGE).good

    def _renew(self) -> bool:
        """Renew what we wrote last; False if another has written since."""
        sent_at = self._clock.now()
        spec = {"holderIdentity": self._identity, **self._spec()}
        reply = self._patch(spec, annotations={CREDENTIALS: self.credentials})
        self.trouble = "" if reply.good or reply.status == CONFLICT else reply.text
        if reply.status in (CONFLICT, NOT_FOUND):
            self._version = ""
            return False
        if reply.good:
            self._hold(reply.body, sent_at)
        return True

    def _observe(self) -> bool:
        """Look at the record; True if nobody holds the Lease."""
        reply = self._call("GET")
        if reply.status == NOT_FOUND:
            if self.seen.holder != self._identity and not self.is_free:
                # Somebody deleted it, and its holder counts on it until its time is over, or has made it anew before.
                self.trouble = ""
                return False
            reply = self._call("PATCH", self._vessel(), APPLY)
        self.trouble = "" if reply.good else reply.text
        if not reply.good:
            return False
        spec = reply.body.get("spec") or {}
        version = version_of(reply.body)
        since = self.seen.since if version == self.seen.version else time.monotonic()
        self.seen = seen = Seen(
            version,
            spec.get("holderIdentity") or "",
            float(spec.get("leaseDurationSeconds") or 0),
            since,
            annotations_of(reply.body).get(WANTED_BY, ""),
            annotations_of(reply.body).get(CREDENTIALS, ""),
        )
        self._compare()
        if seen.holder == self._identity:
            # We took it and never heard so, or somebody touched the record. Only a renewal tells until when it is ours.
            self._version = version
            self._renew()
            return False
        self._held = None
        return self.is_free

    def _take(self) -> None:
        sent_at = self._clock.now()
        now = _micro_time()
        spec = {"holderIdentity": self._identity, "acquireTime": now, **self._spec()}
        self._version = self.seen.version
        reply = self._patch(spec, annotations={WANTED_BY: None, CREDENTIALS: self.credentials})
        self._version = ""
        if reply.good:
            self._held = None  # a new term, whatever we held before
            self._hold(reply.body, sent_at)

    def _hold(self, body: Mapping[str, Any], sent_at: float) -> None:
        held = self._held
        self._version = version_of(body)
        self.seen = Seen(
            self._version, self._identity, self._times.duration, time.monotonic(),
            annotations_of(body).get(WANTED_BY, ""), self.credentials,
        )  # fmt: skip
        self._compare()
        self._held = _Held(held.term if held else next(_terms), sent_at + self._times.duration)

    def _compare(self) -> None:
        """Note since when somebody holds the Lease who has other credentials."""
        if not self.seen.holder or self.seen.credentials in ("", self.credentials):
            self._differs_since = None
        elif self._differs_since is None:
            self._differs_since = time.monotonic()

    def _spec(self) -> dict[str, object]:
        # A renewal that changed nothing would not count: the server keeps the version, and a rival's stale one wins.
        return {"renewTime": _micro_time(), "leaseDurationSeconds": -int(-self._times.duration // 1)}

    def _vessel(self) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "labels": {"app.kubernetes.io/managed-by": "rotator"}},
        }

    def _patch(self, spec: dict[str, object], annotations: Mapping[str, str | None]) -> Reply:
        metadata: dict[str, object] = {"resourceVersion": self._version, "annotations": annotations}
        return self._call("PATCH", {"metadata": metadata, "spec": spec}, MERGE)

    def _call(self, method: str, body: dict[str, Any] | None = None, content_type: str = MERGE) -> Reply:
        query = {"fieldManager": MANAGER} if method == "PATCH" else None
        return self._api.call(
            method, self._path, body, content_type=content_type, query=query, timeout=self._times.timeout
        )


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
