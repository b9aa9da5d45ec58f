"""The sandbox in one object: authorization server, switches and script, for tests in the same process.

Every method may be called from any thread while requests are answered.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rotator.sandbox.authorization_server import AuthorizationServer
from rotator.sandbox.books import Books
from rotator.sandbox.odd import Step, parse_step
from rotator.sandbox.switches import Switches

DEFAULT_CLIENT_ID: Final = "sandbox-client"
DEFAULT_USERS: Final = {"user@example.com": "sandbox-password"}


class Sandbox:
    """An authorization server with switches and a script.

    `users` maps user names, or patterns of names, to passwords. `clock` gives seconds since the epoch. `seed` makes
    the choice of the requests that `fault_ratio` strikes repeatable.
    """

    def __init__(
        self,
        *,
        switches: Switches | None = None,
        client_id: str = DEFAULT_CLIENT_ID,
        users: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        seed: int = 0,
    ) -> None:
        self.authorization_server: Final = AuthorizationServer(
            client_id=client_id, users=users or DEFAULT_USERS, clock=clock
        )
        self._switches = switches or Switches()
        self._script: deque[Step] = deque()
        self._random = random.Random(seed)  # noqa: S311 -- chooses faults, guards nothing
        self._lock = threading.Lock()
        self._changes = 0

    @property
    def switches(self) -> Switches:
        """The switches now."""
        return self._switches

    @property
    def changes(self) -> int:
        """How often a switch was turned; a hanging request goes on when this grows."""
        return self._changes

    @property
    def books(self) -> Books:
        """A copy of the books."""
        return self.authorization_server.books

    @property
    def script_left(self) -> list[str]:
        """The steps that no token request has met yet."""
        with self._lock:
            return [str(step) for step in self._script]

    def change(self, **changes: Any) -> Switches:
        """Turn switches, all or none, and let hanging requests go on. Raises ValueError for a wrong one."""
        with self._lock:
            self._switches = self._switches.changed(changes)
            self._changes += 1
            return self._switches

    def script(self, steps: Iterable[str]) -> None:
        """Plan what happens to the next token requests, in order, instead of what was planned before.

        Each step is "ok", a fault, `after:` and a fault, or an odd answer; see `odd`. Raises ValueError for another.
        """
        parsed = [parse_step(step) for step in steps]
        with self._lock:
            self._script = deque(parsed)

    def issue(self, user: str | None = None) -> dict[str, Any]:
        """Make a fresh token answer without a password, for tests and benchmarks that need many."""
        return self.authorization_server.issue(self._switches, user)

    def revoke(self, user: str | None = None) -> int:
        """Revoke every grant, or those of `user`; how many."""
        return self.authorization_server.revoke(user)

    def next_step(self) -> Step:
        """Decide what happens to the token request that has just come in."""
        switches = self._switches
        with self._lock:
            if self._script:
                return self._script.popleft()
            if switches.fault and self._random.random() < switches.fault_ratio:
                return parse_step(switches.fault)
            return Step(oddity=switches.odd)
