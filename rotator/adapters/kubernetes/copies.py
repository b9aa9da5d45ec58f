"""How followers hear of new states.

With few credentials each Secret is watched by its name, so that a Role need name only those; with many, one watch of
all Secrets with the store's label, for which the Role must allow to list and watch the namespace's Secrets.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from rotator.adapters.kubernetes import state_secret
from rotator.adapters.kubernetes.store import SecretStore
from rotator.adapters.kubernetes.watch import Watch
from rotator.adapters.kubernetes.wire import Api, metadata_of, version_of
from rotator.core.record import RecordError
from rotator.core.state import CredentialState

BY_NAME_UP_TO: Final = 8


class Copies:
    """Watches the states of credentials and hands every new one on."""

    def __init__(self, api: Api, store: SecretStore, came: Callable[[str, CredentialState], object]) -> None:
        """Watch nothing before `follow`. `came` is called in our threads, with each state, old ones included.

        The store hears of each Secret that is gone, of no use, or behind what this process has stored.
        """
        self._api = api
        self._store = store
        self._came = came
        self._watches: dict[str, Watch] = {}
        self._names: frozenset[str] = frozenset()

    @property
    def trouble(self) -> str:
        """Return what is wrong with a watch or with what it brought, on one line; empty if all is well."""
        return next((watch.trouble for watch in tuple(self._watches.values()) if watch.trouble), "")

    def follow(self, names: Collection[str], patience: float) -> None:
        """Watch these credentials from now on; return once all that is stored has come, or after `patience` seconds."""
        store = self._store
        selectors = {"": {"labelSelector": f"{state_secret.LABEL}={state_secret.label_of(store.prefix)}"}}
        if len(names) <= BY_NAME_UP_TO:
            secrets = {state_secret.secret_name(store.prefix, name) for name in names}
            selectors = {secret: {"fieldSelector": f"metadata.name={secret}"} for secret in secrets}
        # One watch of all has already told of those that are new to us, when they were not ours: it begins anew.
        outdated = set() if self._names.issuperset(names) else {""}
        self._names = frozenset(names)
        for key in self._watches.keys() - (selectors.keys() - outdated):
            self._watches.pop(key).stop()
        begun = []
        for key in selectors.keys() - self._watches.keys():
            watch = Watch(self._api, store.collection, selectors[key], store.timeout, self._hand_on, store.lost)
            self._watches[key] = watch
            watch.start()
            begun.append(watch)
        deadline = time.monotonic() + patience
        for watch in begun:
            watch.listed.wait(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Hand nothing on any more."""
        for watch in self._watches.values():
            watch.stop()

    def _hand_on(self, body: Mapping[str, Any]) -> str:
        name, secret, version = state_secret.credential_of(body), str(metadata_of(body).get("name")), version_of(body)
        try:
            state = state_secret.read(body, name) if name else None
        except RecordError as error:
            self._store.lost(secret, version)
            return f"Secret {secret}: {error}"
        if state is not None:
            if self._store.is_ahead_of(name, state):
                self._store.lost(secret, version)
            self._came(name, state)
        return ""
