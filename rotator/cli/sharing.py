"""Puts together what replicas share: the store in Kubernetes, the Leases, the watch."""

import functools
import os
import secrets
from typing import Final

from rotator.adapters.clock import BootClock
from rotator.adapters.kubernetes.client import KubernetesClient
from rotator.adapters.kubernetes.lease import LeaseTimes
from rotator.adapters.kubernetes.leases import Leases
from rotator.adapters.kubernetes.peers import KubernetesPeers
from rotator.adapters.kubernetes.store import SecretStore
from rotator.assembly import Assembly
from rotator.cli.exits import ExitCode, Stop
from rotator.config import Config
from rotator.config.settings import KubernetesConfig
from rotator.ports import Observer
from rotator.share import SharingRotator

_RENEW_AT_MOST: Final = 10.0


def shared_assembly(config: Config, observer: Observer) -> Assembly:
    """Put the parts together around the store in Kubernetes. Nothing is sent yet."""
    settings = config.daemon.kubernetes
    assert settings is not None  # noqa: S101 - else there is nothing to share
    api = KubernetesClient(os.environ)
    namespace = _namespace(settings, api)
    store = SecretStore(api, namespace, settings.secret_prefix, settings.timeout)
    times = LeaseTimes(
        duration=settings.lease_duration,
        renew_every=min(_RENEW_AT_MOST, settings.spare / 3),
        save_allowance=settings.save_allowance,
        timeout=settings.timeout,
    )
    identity = f"{os.uname().nodename}-{secrets.token_hex(3)}"
    clock = BootClock()
    leases = Leases(api, namespace, settings.lease, settings.shards, identity, times, clock)
    peers = KubernetesPeers(api, store, leases, api.close)
    make = functools.partial(SharingRotator, ownership=peers, takeover=leases.takeover)
    return Assembly(store, observer, clock=clock, peers=peers, make_rotator=make)


def _namespace(settings: KubernetesConfig, api: KubernetesClient) -> str:
    namespace = settings.namespace or api.namespace()
    if not namespace:
        text = "kubernetes.namespace: this is no pod, and no kubeconfig names one: set it, or KUBECONFIG"
        raise Stop(ExitCode.CONFIG, text)
    return namespace
