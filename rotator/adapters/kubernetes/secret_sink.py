"""An output in a Kubernetes Secret: server-side apply of our own keys, and of nothing else."""

import base64
import hashlib
import json
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rotator.adapters.kubernetes import state_secret
from rotator.adapters.kubernetes.lookout import LABEL, Lookout
from rotator.adapters.kubernetes.rules import Right
from rotator.adapters.kubernetes.verdict import SLOWLY
from rotator.adapters.kubernetes.wire import (
    APPLY,
    CONFLICT,
    MANAGER,
    NOT_FOUND,
    Api,
    Reply,
    annotations_of,
    is_earlier,
    secret_path,
    version_of,
)
from rotator.core.model import HOUR, Reason, TokenSet
from rotator.core.template import lack, render
from rotator.ports import Clock, Problem

CREDENTIAL: Final = "token-rotator/credential"
"""The annotation that makes a Secret ours: it names the credential."""
GENERATION: Final = "token-rotator/generation"
EXPIRES_AT: Final = "token-rotator/expires-at"
_SECONDS: Final = 15.0
_OVERWRITTEN_AT_MOST: Final = 3
_TRIES: Final = 5
"""Each needs somebody to write between our look and our write."""


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """What a Secret is to be like."""

    name: str
    namespace: str | None
    """None: the pod's own, or the kubeconfig's."""
    data: tuple[tuple[str, str], ...]
    """Keys, and what stands under each: a format or a template, see `rotator.core.template.render`."""
    type: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    adopt: bool = False
    """Take over a Secret that somebody else made."""


def rights_of(secrets: Collection[tuple[str, str]]) -> Iterator[Right]:
    """Yield the rights that writing these Secrets takes; each is a namespace and a name."""
    return (Right(verb, "", "secrets", *place) for place in sorted(secrets) for verb in ("get", "patch", "create"))


class SecretSink:
    """Implements `rotator.ports.Sink`; one request for each new token, and one more where the Secret may have changed.

    The request says which Secret it means, and which version of it (uid and resourceVersion): what somebody else made
    anew, or another replica wrote meanwhile, is not written over unseen. A token of an older generation never replaces
    a newer one. Other keys, labels and annotations stay as they are: an apply is about what it names.
    """

    __slots__ = (
        "__weakref__", "_api", "_clock", "_contest", "_credential", "_lock", "_lookout", "_overwritten",
        "_settings", "_touched", "_uid", "_version", "_written", "name",
    )  # fmt: skip

    def __init__(
        self, name: str, credential: str, settings: SecretSettings, api: Api, lookout: Lookout, clock: Clock
    ) -> None:
        """Take the settings; nothing is sent before the first `publish`."""
        self.name = name
        self._credential = credential
        self._settings = settings
        self._api = api
        self._lookout = lookout
        self._clock = clock
        self._lock = threading.Lock()
        self._uid = ""
        self._version = ""
        self._written = b""  # a digest of what we last found or left there
        self._touched = False
        self._overwritten: tuple[float, ...] = ()
        self._contest: tuple[float, Problem] | None = None
        """Until when somebody else has the last word, and what is said meanwhile."""

    def publish(self, tokens: TokenSet) -> Problem | None:
        """Apply the Secret, unless it already is as it should be; see `rotator.ports.Sink`."""
        if lacks := lack([template for _, template in self._settings.data], tokens):
            return Problem(Reason.BAD_INPUT, f"{self.name} not written: the server did not issue {lacks}")
        namespace = self._settings.namespace or self._api.namespace()
        wanted = self._wanted(tokens)
        with self._lock:
            problem = self._bring(namespace, wanted)
        if problem is None:
            self._lookout.follow(namespace, self._settings.name, self)
        return problem

    def intact(self) -> bool:
        """Tell whether the Secret is as it was left, as far as the lookout has told."""
        return not self._touched

    def saw(self, found: Mapping[str, Any] | None, version: str) -> None:
        """Take note of what the lookout saw; see `lookout.Watched`."""
        with self._lock:
            if not is_earlier(version, self._version):  # the news of our own earlier writes come late
                self._touched = found is None or _digest(self._ours(found)) != self._written
                if not self._touched:
                    self._version = version  # what others changed is none of our business

    def _wanted(self, tokens: TokenSet) -> dict[str, Any]:
        expires_at = self._clock.wall(tokens.expires_at)
        shown = datetime.fromtimestamp(int(expires_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ours = {CREDENTIAL: self._credential, GENERATION: str(tokens.generation), EXPIRES_AT: shown}
        data = {
            key: base64.b64encode(render(template, tokens, expires_at, newline=False)).decode()
            for key, template in self._settings.data
        }
        return {
            "data": data,
            "labels": {**dict(self._settings.labels), LABEL: "true"},
            "annotations": {**dict(self._settings.annotations), **ours},
        }

    def _ours(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Reduce a Secret to what we put into it."""
        metadata = found.get("metadata") or {}
        keys = {
            "data": (found.get("data") or {}, [key for key, _ in self._settings.data]),
            "labels": (metadata.get("labels") or {}, [*dict(self._settings.labels), LABEL]),
            "annotations": (
                metadata.get("annotations") or {},
                [*dict(self._settings.annotations), CREDENTIAL, GENERATION, EXPIRES_AT],
            ),
        }
        return {part: {key: there.get(key) for key in names} for part, (there, names) in keys.items()}

    def _bring(self, namespace: str, wanted: Mapping[str, Any]) -> Problem | None:
        """Bring the Secret to what is wanted: look first where we do not know how it is."""
        reply = Reply(0, {})
        for _ in range(_TRIES):
            if not self._uid or self._touched:
                found = self._look(namespace, wanted)
                if isinstance(found, Problem):
                    return found
                if found:
                    return None
            reply = self._apply(namespace, wanted)
            if reply.good:
                self._note(reply.body, wanted)
                return None
            if not self._uid or not (reply.status == CONFLICT or "metadata.uid" in reply.text):
                break
            self._uid, self._touched = "", True  # changed, deleted or made anew, and nobody has told yet
        return self._problem(namespace, reply)

    def _look(self, namespace: str, wanted: Mapping[str, Any]) -> Problem | bool:
        """Look at the Secret as it is; True: it is as it should be; False: it is ours to write."""
        again = _digest(wanted) == self._written  # no new token: it would be written only because somebody else wrote
        if again and self._contest is not None and self._clock.now() < self._contest[0]:
            return self._contest[1]
        reply = self._api.call("GET", secret_path(namespace, self._settings.name), timeout=_SECONDS)
        if not reply.good and reply.status != NOT_FOUND:
            return self._problem(namespace, reply)
        found = reply.body if reply.good else {}
        if found.get("type") == state_secret.TYPE:  # whatever is configured: it holds a refresh token
            text = f"{self._place(namespace)} holds a state, which no reader may see: choose another name"
            return Problem(Reason.NOT_OURS, text, SLOWLY)
        self._uid, self._version = str((found.get("metadata") or {}).get("uid", "")), version_of(found)
        if found and not self._settings.adopt and annotations_of(found).get(CREDENTIAL) != self._credential:
            return self._not_ours(namespace, found)
        if self._holds_newer(found, wanted):
            generation = annotations_of(found)[GENERATION]
            newer = f"{self._place(namespace)} holds generation {generation} of another replica, newer than ours"
            text = f"{newer}: it stays until a token comes that is over later; if that is wrong, delete the Secret"
            return Problem(Reason.FENCED, text)
        as_written = bool(found) and _digest(self._ours(found)) == self._written
        if found and _digest(self._ours(found)) == _digest(wanted):
            self._note(found, wanted)
            return True
        if self._touched and not as_written:
            now = self._clock.now()
            self._overwritten = (*(at for at in self._overwritten if at > now - HOUR), now)
            if again and len(self._overwritten) >= _OVERWRITTEN_AT_MOST:
                problem = self._contested(namespace, found)
                self._overwritten, self._contest = (), (now + HOUR, problem)
                return problem
        return False

    def _holds_newer(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        """Tell whether the Secret holds a newer token of this credential: we woke up late, or know an old copy only.

        One that is over sooner is not newer, whatever its number: the state was lost, and a login began anew.
        """
        theirs, ours = annotations_of(found), wanted["annotations"]
        generation = theirs.get(GENERATION, "")
        return (
            theirs.get(CREDENTIAL) == self._credential
            and generation.isdecimal()
            and int(generation) > int(ours[GENERATION])
            and theirs.get(EXPIRES_AT, "") >= ours[EXPIRES_AT]
        )

    def _apply(self, namespace: str, wanted: Mapping[str, Any]) -> Reply:
        settings = self._settings
        metadata = {"name": settings.name, "labels": wanted["labels"], "annotations": wanted["annotations"]}
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": wanted["data"]}
        if self._uid:
            metadata |= {"uid": self._uid, "resourceVersion": self._version}
        if settings.type:
            body["type"] = settings.type
        # By force, but only over a Secret that is known to be ours.
        query = {"fieldManager": MANAGER, "force": "true" if self._uid else "false"}
        path = secret_path(namespace, settings.name)
        return self._api.call("PATCH", path, body, content_type=APPLY, query=query, timeout=_SECONDS)

    def _note(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        self._uid, self._version = str(found["metadata"]["uid"]), version_of(found)
        self._written, self._touched = _digest(wanted), False

    def _problem(self, namespace: str, reply: Reply) -> Problem:
        return Problem(reply.reason or Reason.REJECTED, f"{self._place(namespace)}: {reply.text}", reply.retry_after)

    def _not_ours(self, namespace: str, found: Mapping[str, Any]) -> Problem:
        other = annotations_of(found).get(CREDENTIAL)
        whose = f"belongs to credential {other}" if other else "was not made by rotator"
        text = f"{self._place(namespace)} {whose}: set adopt = true to take it over, or choose another name"
        return Problem(Reason.NOT_OURS, text, SLOWLY)

    def _contested(self, namespace: str, found: Mapping[str, Any]) -> Problem:
        fields = (found.get("metadata") or {}).get("managedFields") or []
        others = sorted({str(entry.get("manager")) for entry in fields} - {MANAGER})
        who = f" ({', '.join(others)})" if others else ""
        text = (
            f"{self._place(namespace)} was overwritten {_OVERWRITTEN_AT_MOST} times within an hour by somebody"
            f" else{who}: make that stop; until then it is written with each new token only"
        )
        return Problem(Reason.CONTESTED, text)

    def _place(self, namespace: str) -> str:
        return f"Secret {namespace}/{self._settings.name}"


def _digest(ours: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(ours, sort_keys=True).encode()).digest()
