"""Looks at the credentials in turn: outputs and states that were deleted or edited, secrets that changed."""

import threading
from typing import Final

from rotator.assembly import Assembly
from rotator.roster import Roster
from rotator.tidings import Tidings

PATROL_SECONDS: Final = 5.0
_AT_LEAST: Final = 500  # credentials looked at in one patrol; a full round takes a minute at most
_ROUNDS: Final = 10
_SIDE_BY_SIDE: Final = 4  # where the others hang


class Patrol:
    """Asks no server. Nobody waits for it, not even the stop: a file system may hang."""

    def __init__(self, roster: Roster, assembly: Assembly, tidings: Tidings) -> None:
        """Begin with the first credential."""
        self._roster = roster
        self._assembly = assembly
        self._rotator = assembly.rotator
        self._tidings = tidings
        self._from = 0
        self._threads: list[threading.Thread] = []
        self._looked_at: set[str] = set()

    def go(self) -> bool:
        """Have the next part looked at, in a thread of its own; return whether that ends a round."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) == _SIDE_BY_SIDE:
            return False
        names = list(self._roster.credentials)
        size = max(_AT_LEAST, len(names) // _ROUNDS + 1)
        part = names[self._from : self._from + size]
        self._from = 0 if self._from + size >= len(names) else self._from + size
        thread = threading.Thread(target=self._look_at, args=(part,), name="patrol", daemon=True)
        self._threads.append(thread)
        thread.start()
        return not self._from

    def _look_at(self, names: list[str]) -> None:
        self._tidings.tell()
        self._assembly.tell_store_warnings()
        for name in names:
            credential = self._roster.credentials.get(name)
            if self._assembly.stopping.is_set():
                return
            if credential is None or credential.busy or name in self._looked_at:
                continue
            self._looked_at.add(name)  # and it stays there if this hangs
            try:
                if (
                    self._rotator.has_lost(credential)
                    or self._rotator.publisher.reconcile(credential)
                    or self._rotator.intake.inputs_changed(credential)
                ):
                    self._roster.wake(credential)
            finally:
                self._looked_at.discard(name)
