"""What is told of the replicas: Leases won and lost, a holder unlike us, an API server that is out of touch."""

import threading
from collections.abc import Callable, Iterator

from rotator.ports import LeaseView, Notice, Peers


class Tidings:
    """Tells what has changed since it last told; may be called from any thread."""

    def __init__(self, peers: Peers | None, notify: Callable[[Notice], object]) -> None:
        """Take the peers, if there are any."""
        self._peers = peers
        self._notify = notify
        self._telling = threading.Lock()
        self._leases: dict[str, LeaseView] = {}
        self._trouble = ""

    def tell(self) -> None:
        """Tell the news, if there are any."""
        if self._peers is None:
            return
        with self._telling:
            for lease in self._peers.leases():
                known = self._leases.get(lease.name, LeaseView(lease.name, held=False))
                self._leases[lease.name] = lease
                for news in _news_of(lease, known):
                    self._notify(news)
            trouble = self._peers.trouble()
            if trouble != self._trouble:
                self._trouble = trouble
                text = trouble or "Lease and watch work again"
                self._notify(Notice("replicas_out_of_touch", text, level="error" if trouble else "info"))


def _news_of(lease: LeaseView, known: LeaseView) -> Iterator[Notice]:
    if known.held is not lease.held:
        event, what = ("lease_taken", "refreshes") if lease.held else ("lease_lost", "no longer refreshes")
        yield Notice(event, f"this replica {what} the credentials of the Lease {lease.name}")
    if lease.stranger and not known.stranger:
        text = (
            f"{lease.stranger}, which holds the Lease {lease.name}, has other credentials in its configuration than"
            " this replica: those that it does not know are refreshed by nobody. Give both the same credentials, or"
            " each a Lease of its own (kubernetes.lease)"
        )
        yield Notice("replicas_differ", text, level="error")
    elif known.stranger and not lease.stranger:
        yield Notice("replicas_agree", f"whoever holds the Lease {lease.name} has the same credentials again")
