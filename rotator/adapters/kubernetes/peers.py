"""The replicas of a release: Leases say who owns what, copies of the owners' states come by a watch."""

from collections.abc import Callable, Collection
from typing import Final

from rotator.adapters.kubernetes import state_secret
from rotator.adapters.kubernetes.copies import BY_NAME_UP_TO, Copies
from rotator.adapters.kubernetes.leases import Leases
from rotator.adapters.kubernetes.rules import Right
from rotator.adapters.kubernetes.store import SecretStore
from rotator.adapters.kubernetes.wire import Api
from rotator.core.state import CredentialState

_START_PATIENCE: Final = 5.0
_SECRET_VERBS: Final = ("get", "list", "watch", "patch", "create")
_LEASE_VERBS: Final = ("get", "patch", "create")


def rights_of(namespace: str, prefix: str, credentials: Collection[str], leases: Collection[str]) -> tuple[Right, ...]:
    """Return the rights that a replica uses, and no others."""
    by_name = len(credentials) <= BY_NAME_UP_TO
    secrets = [state_secret.secret_name(prefix, name) for name in credentials] if by_name else [""]
    return (
        *(Right(verb, "", "secrets", namespace, name) for verb in _SECRET_VERBS for name in secrets),
        *(Right(verb, "coordination.k8s.io", "leases", namespace, name) for verb in _LEASE_VERBS for name in leases),
    )


class KubernetesPeers:
    """Implements `rotator.ports.Peers`."""

    def __init__(self, api: Api, store: SecretStore, leases: Leases, close_api: Callable[[], None]) -> None:
        """Take part in nothing before `start`. `close_api` is called last."""
        self._close_api = close_api
        self._api = api
        self._store = store
        self._leases = leases
        self._copies: Copies | None = None
        self.term = leases.term
        self.may_spend = leases.may_spend
        self.owner = leases.owner
        self.leases = leases.views

    def start(
        self,
        names: Collection[str],
        came: Callable[[str, CredentialState], object],
        changed: Callable[[], None],
        busy: Callable[[], Collection[str]],
    ) -> None:
        """Take part; see `rotator.ports.Peers`. Copies first: who owns a credential from the start loads it itself."""
        self._copies = Copies(self._api, self._store, came)
        self._copies.follow(names, _START_PATIENCE)
        self._leases.follow(names)
        self._leases.start(changed, busy, _START_PATIENCE)

    def follow(self, names: Collection[str]) -> None:
        """Follow these credentials from now on."""
        self._leases.follow(names)
        if self._copies is not None:
            self._copies.follow(names, 0.0)

    def trouble(self) -> str:
        """Say why the API server does not serve us; see `rotator.ports.Peers`."""
        watch = self._copies.trouble if self._copies is not None else ""
        return self._leases.trouble() or watch

    def close(self) -> None:
        """Hand over everything at once."""
        if self._copies is not None:
            self._copies.close()
        self._leases.close()
        self._close_api()
