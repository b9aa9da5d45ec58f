"""What can be known of a cluster before tokens are kept in it or published to it."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Final

from rotator.adapters.kubernetes import peers, secret_sink
from rotator.adapters.kubernetes.client import KubernetesClient
from rotator.adapters.kubernetes.consumers import stale_readers
from rotator.adapters.kubernetes.leases import names_of
from rotator.adapters.kubernetes.lookout import watches_of
from rotator.adapters.kubernetes.review import cures, missing, warn
from rotator.adapters.kubernetes.rules import Right
from rotator.adapters.kubernetes.wire import Reply
from rotator.config import Config, SecretConfig
from rotator.ports import Observer

_SECONDS: Final = 15.0
_Published = dict[tuple[str, str], list[str]]
"""Credentials by the namespace and name of what they publish."""


def findings(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield `ok`, `warn` or `fail`, and a line, about rights, names and readers."""
    with closing(KubernetesClient(environ)) as api:
        published = _published(config, api.namespace())
        needed = dict.fromkeys(_needed(config, api.namespace(), published))
        lacking = missing(api, (*needed, *watches_of(published)), _SECONDS)
        if isinstance(lacking, Reply):
            yield "fail", lacking.text or f"the API server answered {lacking.status}"
            return
        if any(not right.namespace for right in needed):
            yield "fail", "this is no pod, and no kubeconfig names a namespace: set namespace, or KUBECONFIG"
            return
        for (at, name), credentials in published.items():
            if len(credentials) > 1:
                yield "fail", f"Secret {at}/{name} is published by {' and by '.join(credentials)}: choose another name"
        failures = tuple(cures(right for right in lacking if right in needed))
        yield from (("fail", cure) for cure in failures)
        for cure in cures(right for right in lacking if right not in needed):
            yield "warn", f"changes of a published Secret are noticed late, for want of a watch: {cure}"
        if not failures:
            yield "ok", "the API server answers, and every right that is needed is there"
        for place in dict.fromkeys(at for at, _ in published):
            names = frozenset(name for at, name in published if at == place)
            yield from (("warn", text) for text in stale_readers(api, place, names, _SECONDS))


def review(config: Config, environ: Mapping[str, str], observer: Observer) -> None:
    """Warn of the rights that are missing, all at once; nothing waits for it (case H13)."""

    def ask() -> None:
        with closing(KubernetesClient(environ)) as api:
            namespace = api.namespace()
            warn(api, _needed(config, namespace, _published(config, namespace)), _SECONDS, observer)

    threading.Thread(target=ask, name="review", daemon=True).start()


def _published(config: Config, namespace: str) -> _Published:
    published: _Published = defaultdict(list)
    for name, credential in config.credentials.items():
        for output in credential.outputs:
            if isinstance(output, SecretConfig):
                published[output.namespace or namespace, output.name_for(name)].append(name)
    return published


def _needed(config: Config, namespace: str, published: _Published) -> Iterator[Right]:
    """Yield the rights that nothing goes well without."""
    store = config.daemon.kubernetes
    if store is not None:
        leases = names_of(store.lease, store.shards)
        yield from peers.rights_of(store.namespace or namespace, store.secret_prefix, config.credentials, leases)
    yield from secret_sink.rights_of(published)
