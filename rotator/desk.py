"""What is asked of the running daemon and answered at once, or when the token call is done."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final

from rotator.agenda import Agenda
from rotator.assembly import Assembly
from rotator.core.model import TokenSet
from rotator.core.standing import CredentialView, shifted
from rotator.credential import Credential
from rotator.ports import Counts, Problem, Pulse, Readiness
from rotator.readiness import is_ready, why_not_ready
from rotator.roster import Roster

SWEEP_SECONDS: Final = 1.0
_LIVE_SECONDS: Final = 15.0
_REASONS_SHOWN: Final = 20


class FrontDesk:
    """Implements `rotator.ports.Desk` on the credentials of this process."""

    def __init__(
        self,
        roster: Roster,
        assembly: Assembly,
        agenda: Agenda,
        errands: Executor,
        since_sweep: Callable[[], float],
        reload: Callable[[], Awaitable[tuple[str, ...]]],
    ) -> None:
        """Take the threads that logins run in, the age of the last sweep (s) and what a reload does."""
        self._roster = roster
        self._assembly = assembly
        self._rotator = assembly.rotator
        self._clock = assembly.clock
        self._agenda = agenda
        self._errands = errands
        self._since_sweep = since_sweep
        self._reload = reload
        self._started_at = self._clock.now()

    def views(self) -> Iterator[CredentialView]:
        """Show every credential, one by one, in the order of their names."""
        for name in self._roster.names():
            credential = self._roster.shown(name)
            if credential is not None:
                yield self._show(credential)

    def find(self, name: str) -> CredentialView | None:
        """Show one credential."""
        credential = self._roster.shown(name)
        return self._show(credential) if credential else None

    def _show(self, credential: Credential) -> CredentialView:
        return self._as_wall(self._rotator.shown(credential, self._clock.now()))

    def _as_wall(self, shown: CredentialView) -> CredentialView:
        now = self._clock.now()
        return shifted(shown, self._clock.wall(now) - now)

    def tokens(self, name: str) -> TokenSet | None:
        """Return the current token set, its end as the wall clock would show it."""
        credential = self._roster.credentials.get(name)
        state = credential.state if credential else None
        if state is None or state.tokens is None or not state.tokens.access_token:
            return None
        return replace(state.tokens, expires_at=self._clock.wall(state.tokens.expires_at))

    def lack(self, name: str) -> str:
        """Say why a credential is not ready; nothing if it is."""
        credential = self._roster.credentials.get(name)
        now = self._clock.now()
        if credential is None or is_ready(credential, now, follows=self._rotator.follows(credential)):
            return ""
        return why_not_ready(credential, self._assembly.fingerprint, now)

    def pulse(self) -> Pulse:
        """Answer the liveness probe (invariant 14)."""
        age = self._since_sweep()
        return Pulse(age < _LIVE_SECONDS, age)

    def readiness(self) -> Readiness:
        """Answer the readiness probe."""
        reasons: list[str] = []
        for credential in self._roster.all():
            now = self._clock.now()
            ready = is_ready(credential, now, follows=self._rotator.follows(credential))
            if not ready and len(reasons) < _REASONS_SHOWN:
                reasons.append(why_not_ready(credential, self._assembly.fingerprint, now))
        return Readiness(not reasons, tuple(reasons), len(self._roster.credentials))

    def counts(self) -> Counts:
        """Return what the daemon counts itself."""
        reloads = self._roster.reloads
        return Counts(
            started_at=self._clock.wall(self._started_at),
            sweep_lag_seconds=max(0.0, self._since_sweep() - SWEEP_SECONDS),
            under_way=self._agenda.under_way,
            clock_jumps_forward=self._clock.jumps_forward,
            clock_jumps_backward=self._clock.jumps_backward,
            reloads_good=reloads.good,
            reloads_bad=reloads.bad,
            last_reload_good=reloads.last_good,
            last_reload_at=self._clock.wall(reloads.last_at),
            leases=self._assembly.peers.leases() if self._assembly.peers is not None else (),
        )

    async def rotate(self, name: str) -> CredentialView | Problem:
        """Refresh one credential now; all who ask share one request (C10, C12)."""
        credential = self._roster.credentials.get(name)
        if credential is None:
            return self._roster.unknown(name)
        if (refusal := self._rotator.refusal(credential)) is not None:
            return refusal
        waiter = self._rotator.ask(credential)
        self._roster.wake(credential)
        return self._as_wall(await asyncio.wrap_future(waiter))

    async def login(self, name: str, username: str, password: str) -> CredentialView | Problem:
        """Get the first pair by the password grant."""
        return await self._errand(name, lambda credential: self._assembly.login(credential, username, password))

    async def adopt(self, name: str, pair: str) -> CredentialView | Problem:
        """Take over a token answer or a bare refresh token."""
        return await self._errand(name, lambda credential: self._assembly.adopt_pair(credential, pair))

    async def _errand(self, name: str, errand: Callable[[Credential], Problem | None]) -> CredentialView | Problem:
        credential = self._roster.credentials.get(name)
        if credential is None:
            return self._roster.unknown(name)

        def run() -> CredentialView | Problem:
            self._rotator.take_up_plan(credential)
            problem = self._rotator.refusal(credential) or errand(credential)
            if problem is not None:
                return problem
            self._rotator.publisher.publish_due(credential)
            self._roster.wake(credential)
            return self._show(credential)

        credential.errands += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._errands, run)
        finally:
            credential.errands -= 1

    async def reload(self) -> tuple[str, ...]:
        """Take a good new configuration without dropping state; refuse a bad one and go on."""
        return await self._reload()
