"""All Leases of a release: one, or one for each shard of the credentials, split among the replicas.

A replica takes what is free up to its fair share, and what nobody takes. One that holds less than its share writes
its wish on a Lease of the one that holds most, who hands it over when nothing is under way there. So replicas learn
of each other from the Leases alone, and need no right but on those.
"""

import hashlib
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

from rotator.adapters.kubernetes.lease import Lease, LeaseTimes
from rotator.adapters.kubernetes.wire import Api
from rotator.ports import Clock, LeaseView

_LOOK_EVERY: Final = 5.0
_FREE_FOR: Final = 3
"""Looks after which a Lease that nobody took is taken beyond one's share."""


def shard_of(name: str, shards: int) -> int:
    """Return the shard of a credential: the same in every replica and release."""
    return zlib.crc32(name.encode()) % shards


def names_of(name: str, shards: int) -> tuple[str, ...]:
    """Return the names of a release's Leases."""
    return (name,) if shards == 1 else tuple(f"{name}-{number}" for number in range(shards))


class Leases:
    """Implements `rotator.ports.Ownership`."""

    def __init__(
        self, api: Api, namespace: str, name: str, shards: int, identity: str, times: LeaseTimes, clock: Clock
    ) -> None:
        """Hold nothing before `start`."""
        self.identity = identity
        self._times = times
        self._look_every = min(_LOOK_EVERY, times.renew_every)
        titles = names_of(name, shards)
        self._leases = [Lease(api, namespace, title, identity, times, clock) for title in titles]
        self._closing = threading.Event()
        self._turned = {title: threading.Event() for title in titles}
        self._threads: list[threading.Thread] = []
        self._free_since: dict[str, float] = {}
        self._deciding = threading.Lock()
        self._wish_at = 0.0

    @property
    def takeover(self) -> float:
        """Return the seconds after which a holder that dies is replaced, at most."""
        return self._times.duration + self._look_every

    # -- ownership ---------------------------------------------------------------------------------

    def term(self, name: str) -> int | None:
        """Return the number of the present term; see `rotator.ports.Ownership`."""
        return self._lease(name).term

    def may_spend(self, name: str, seconds: float) -> bool:
        """Tell whether we surely stay the owner; see `rotator.ports.Ownership`."""
        return self._lease(name).lasts(seconds)

    def owner(self, name: str) -> str:
        """Return the holder as last seen."""
        return self._lease(name).seen.holder

    def views(self) -> tuple[LeaseView, ...]:
        """Show each Lease; see `rotator.ports.Peers`."""
        return tuple(LeaseView(lease.name, lease.term is not None, lease.stranger) for lease in self._leases)

    def follow(self, names: Collection[str]) -> None:
        """Tell whoever reads a Lease of ours which credentials we refresh under it."""
        mine: list[list[str]] = [[] for _ in self._leases]
        for name in sorted(names):
            mine[shard_of(name, len(mine))].append(name)
        for lease, held in zip(self._leases, mine, strict=True):
            lease.credentials = hashlib.sha256("\n".join(held).encode()).hexdigest()[:16]

    def trouble(self) -> str:
        """Say why the API server does not serve us; empty if it does."""
        return next((lease.trouble for lease in self._leases if lease.trouble), "")

    def _lease(self, name: str) -> Lease:
        return self._leases[shard_of(name, len(self._leases)) if len(self._leases) > 1 else 0]

    # -- turning -----------------------------------------------------------------------------------

    def start(self, changed: Callable[[], None], busy: Callable[[], Collection[str]], patience: float) -> None:
        """Turn the Leases from now on, a thread each; return after each has had a turn, or after `patience` seconds.

        `changed` is called after a Lease was won or lost, `busy` tells the credentials that are under way.
        """
        for lease in self._leases:
            arguments = (lease, changed, busy)
            thread = threading.Thread(target=self._keep, args=arguments, name=f"lease-{lease.name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        deadline = time.monotonic() + patience
        for turned in self._turned.values():
            turned.wait(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """End the turning, then hand over whatever is held. Everything under way must have ended."""
        self._closing.set()
        for thread in self._threads:
            thread.join()
        for lease in self._leases:
            if not lease.hand_over():
                return  # a stop must not wait for each of them

    def _keep(self, lease: Lease, changed: Callable[[], None], busy: Callable[[], Collection[str]]) -> None:
        told = lease.term
        while not self._closing.is_set():
            lease.turn(reach=self._may_reach(lease))
            if len(self._leases) > 1:
                self._balance(lease, busy)
            if lease.term != told:
                told = lease.term
                changed()
            self._turned[lease.name].set()
            every = self._times.renew_every if told is not None and not lease.yielding else self._look_every
            self._closing.wait(every * random.uniform(0.9, 1.0))  # noqa: S311 - so that replicas do not march in step

    # -- shares ------------------------------------------------------------------------------------

    def _replicas(self) -> Counter[str]:
        """Count the shards of every replica that is known: it holds a Lease, or wants one."""
        counted: Counter[str] = Counter({self.identity: 0})
        for lease in self._leases:
            if lease.term is not None:
                counted[self.identity] += not lease.yielding
            elif lease.seen.holder != self.identity and not lease.is_free:
                counted[lease.seen.holder] += 1
            if lease.seen.wanted_by:
                counted[lease.seen.wanted_by] += 0
        return counted

    def _may_reach(self, lease: Lease) -> bool:
        """Take what is free up to our share, rounded up; more only of what nobody takes."""
        if len(self._leases) == 1:
            return True
        replicas = self._replicas()
        if replicas[self.identity] * len(replicas) < len(self._leases):
            return True
        if not lease.is_free:
            self._free_since.pop(lease.name, None)
            return False
        since = self._free_since.setdefault(lease.name, time.monotonic())
        return time.monotonic() - since > _FREE_FOR * self._look_every

    def _balance(self, lease: Lease, busy: Callable[[], Collection[str]]) -> None:
        """Hand over what another lacks, when it is at rest; wish for what we lack, one Lease at a time."""
        with self._deciding:
            replicas = self._replicas()
            share, mine = len(self._leases) // len(replicas), replicas[self.identity]
            if lease.term is not None:
                wanted = lease.seen.wanted_by not in ("", self.identity)
                lease.yielding = wanted and (lease.yielding or mine > share)
            elif mine < share and time.monotonic() > self._wish_at:
                most, shards = replicas.most_common(1)[0]
                if lease.seen.holder == most and shards > share and not lease.seen.wanted_by and lease.want():
                    self._wish_at = time.monotonic() + 2 * self._look_every
        if lease.yielding and not any(self._lease(name) is lease for name in busy()):
            lease.hand_over()
