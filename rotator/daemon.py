"""Start, sweep, patrol, reload, drain, stop. Holds no policy: what is due is asked of the core.

The main thread runs the event loop: signals, APScheduler's interval jobs, web pages and the control socket. Token
calls and files belong to a few worker threads, so that nothing that hangs out there is felt in here.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from rotator.adapters.systemd import Systemd
from rotator.agenda import Agenda
from rotator.assembly import Assembly, InputsUnusable
from rotator.config import Config, ConfigError
from rotator.config.fixed import fixed_changes
from rotator.core.model import Reason, TokenSet
from rotator.core.standing import CredentialView, counted, shifted
from rotator.core.state import CredentialState, Status
from rotator.credential import Credential, Plan
from rotator.once import Exit, run_once
from rotator.ports import Counts, Event, Notice, Peers, Problem, Pulse, Readiness, RefreshFinished
from rotator.readiness import in_one_line, is_ready, why_not_ready
from rotator.tidings import Tidings
from rotator.workers import Workers

SWEEP_SECONDS: Final = 1.0
PATROL_SECONDS: Final = 5.0
_PATROL_AT_LEAST: Final = 500  # credentials looked at in one patrol; a full round takes a minute at most
_PATROL_ROUNDS: Final = 10
_PATROLS_AT_MOST: Final = 4  # side by side, where the others hang
_LIVE_SECONDS: Final = 15.0
_REASONS_SHOWN: Final = 20
_asked: Final = attrgetter("endpoint", "client_id", "client_secret", "grant", "scope", "extra")
"""What a request says besides the token: a refusal may be due to it."""
_LAST_SAVES_SECONDS: Final = 30.0  # after the drain, on a slow disk


class Daemon:
    """One process's worth of credentials. Implements `rotator.ports.Desk`."""

    def __init__(
        self,
        config: Config,
        assembly: Assembly,
        load_config: Callable[[], Config | tuple[ConfigError, ...]],
        systemd: Systemd,
        in_force: Callable[[Config], None] = lambda _: None,
    ) -> None:
        """Take a good configuration and the parts made for it.

        `load_config` reads it anew for a reload; `in_force` hears of each one that has come into force, when `run`
        begins and after each good reload, and must not wait.

        Raises `InputsUnusable` if what is configured cannot be made into working parts.
        """
        self._config = config
        self._load_config = load_config
        self._in_force = in_force
        self._assembly = assembly
        self._clock = assembly.clock
        self._rotator = assembly.rotator
        self._notify = assembly.observer.notify
        self._systemd = systemd
        self._agenda = Agenda(config.daemon.max_concurrent_per_server, config.daemon.max_concurrent)
        self._credentials: dict[str, Credential] = {}
        self._leaving: dict[str, Credential] = {}  # taken out of the configuration, and perhaps still in use
        plans = assembly.plans(config)
        assembly.sweep_temporaries(plans.values())
        for name, plan in plans.items():
            self._add(name, plan)
        self._workers = Workers(self._agenda, assembly, config.daemon.max_concurrent)
        self._helpers = ThreadPoolExecutor(4, thread_name_prefix="errand")  # logins, patrols: never behind a token call
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._exit = Exit.DONE
        self._swept_at = time.monotonic()
        self._patrol_from = 0
        self._patrols: list[threading.Thread] = []
        self._looked_at: set[str] = set()
        self._started_at = self._clock.now()
        self._reloads = [0, 0]
        self._reloading: set[asyncio.Future[tuple[str, ...]]] = set()
        self._one_reload = asyncio.Lock()
        self._last_reload = (True, self._started_at)
        self._tidings = Tidings(assembly.peers, self._notify)

    def _add(self, name: str, plan: Plan) -> None:
        credential = self._credentials[name] = Credential(name, plan)
        self._agenda.put(credential, 0.0)

    # -- run ---------------------------------------------------------------------------------------

    async def run(self) -> Exit:
        """Run until SIGTERM or SIGINT, then drain."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        # An interval job survives a late loop, an overlap and an exception; a one-shot job does not.
        scheduler = AsyncIOScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        seconds = min(SWEEP_SECONDS, self._systemd.sweep_seconds)
        scheduler.add_job(self._sweep, "interval", seconds=seconds, id="sweep")
        scheduler.add_job(self._patrol, "interval", seconds=PATROL_SECONDS, id="patrol")
        scheduler.start()
        self._rotator.publisher.run_hook = self._workers.run_hook
        await self._sweep()
        if self._assembly.peers is not None:
            self._loop.run_in_executor(self._helpers, self._join, self._assembly.peers)
        self._in_force(self._config)
        self._notify(Notice("started", f"watching over {counted(len(self._credentials))}", fields={"pid": os.getpid()}))
        self._systemd.tell(*self._in_one_line())
        self._systemd.ready()  # not when the first token has come: that is the server's affair (case I2)
        try:
            await self._until_stopped(self._stop, scheduler)
        finally:
            scheduler.pause()
            await self._drain()
            scheduler.shutdown(wait=False)
        return self._exit

    async def _until_stopped(self, stop: asyncio.Event, scheduler: AsyncIOScheduler) -> None:
        """Wait for the stop, and see to it that the sweep goes on meanwhile.

        APScheduler waits for instants of the wall clock: set back by an hour, it would sleep for one (case L2).
        """
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), SWEEP_SECONDS)
            now = datetime.now(UTC)
            for job in scheduler.get_jobs():
                if job.next_run_time - now > job.trigger.interval:
                    job.modify(next_run_time=now)

    def stop(self, exit_with: Exit = Exit.DONE) -> None:
        """Ask for the end, from any thread."""
        self._exit = max(self._exit, exit_with)
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _drain(self) -> None:
        """Let requests under way end and be saved; start no new ones; close the store last (invariant 13)."""
        self._assembly.stopping.set()
        patience = self._config.daemon.drain_timeout
        under_way = self._agenda.under_way
        text = f"token requests under way, whose answers are waited for: {under_way}"
        self._systemd.stopping(f"stopping: {text}" if under_way else "stopping", patience + _LAST_SAVES_SECONDS)
        self._notify(Notice("stopping", text))
        if not await asyncio.get_running_loop().run_in_executor(self._helpers, self._agenda.wait_idle, patience):
            self._assembly.abort_all()
        await asyncio.to_thread(self._workers.shutdown)
        await asyncio.to_thread(self._helpers.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._workers.shutdown_hooks)
        everybody = (*self._credentials.values(), *self._leaving.values())
        for credential in everybody:
            if credential.unsaved or not credential.leaving:  # the state of one that has gone may be removed
                self._rotator.save_unsaved(credential)
        lost = [credential.name for credential in everybody if credential.only_in_memory]
        if lost:
            self._exit = Exit.UNSAVED
            text = f"the newest tokens of {', '.join(lost[:5])} could not be saved and end with this process"
            self._notify(Notice("stopped_unsaved", text, level="critical"))
        for credential in everybody:
            for waiter in (*credential.served, *credential.waiters):
                waiter.cancel()
        self._assembly.close()
        self._notify(Notice("stopped", "store closed, lock released"))

    def run_once(self) -> Exit:
        """Do what is due for every credential and end; see `rotator.once`."""
        credentials = tuple(self._credentials.values())
        if self._assembly.peers is not None:
            # No worker is woken: `run_once` steps each credential itself. Two at a time may spend one token twice.
            self._assembly.peers.start(
                tuple(self._credentials), self._take_copy, self._tidings.tell, lambda: tuple(self._credentials)
            )
        ended = run_once(credentials, self._assembly, self._config.daemon.max_concurrent_per_server)
        self._assembly.close()
        return ended

    # -- replicas ----------------------------------------------------------------------------------

    def _join(self, peers: Peers) -> None:
        peers.start(tuple(self._credentials), self._copy_came, self._owner_changed, self._agenda.names_under_way)

    def _take_copy(self, name: str, state: CredentialState) -> Credential | None:
        """Take over a copy of a state; return the credential, or None if that changed nothing."""
        credential = self._credentials.get(name)
        return credential if credential is not None and self._rotator.follow(credential, state) else None

    def _copy_came(self, name: str, state: CredentialState) -> None:
        if (credential := self._take_copy(name, state)) is not None:
            self._wake(credential)

    def _owner_changed(self) -> None:
        """See to all credentials: some have come to us, or are no longer ours."""
        self._tidings.tell()
        now = self._clock.now()
        for credential in tuple(self._credentials.values()):
            self._agenda.put(credential, now)
        self._workers.wake()

    # -- sweep -------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Wake a worker if anything is due that nobody gets to. A coroutine, as APScheduler runs others in a thread.

        Runs each second in the loop and cannot block: if it does not get through, neither do the watchdog's pings.
        """
        self._swept_at = time.monotonic()
        self._workers.look()
        self._systemd.alive()

    async def _patrol(self) -> None:
        """Look at a part of the credentials: outputs and states deleted or edited, secrets changed. No token call."""
        self._patrols = [patrol for patrol in self._patrols if patrol.is_alive()]
        if len(self._patrols) == _PATROLS_AT_MOST:
            return
        names = list(self._credentials)
        size = max(_PATROL_AT_LEAST, len(names) // _PATROL_ROUNDS + 1)
        part = names[self._patrol_from : self._patrol_from + size]
        self._patrol_from = 0 if self._patrol_from + size >= len(names) else self._patrol_from + size
        # Nobody waits for it, not even the stop: a file system may hang.
        patrol = threading.Thread(target=self._look_at, args=(part,), name="patrol", daemon=True)
        self._patrols.append(patrol)
        patrol.start()
        if not self._patrol_from:  # a round is over
            await self._tell_systemd()

    async def _tell_systemd(self) -> None:
        if self._systemd.listens and not self._assembly.stopping.is_set():  # it has its last word by then
            self._systemd.tell(*await asyncio.get_running_loop().run_in_executor(self._helpers, self._in_one_line))

    def _in_one_line(self) -> tuple[str, str]:
        standing, outlook = in_one_line(tuple(self._credentials.values()), self._clock.now())
        return standing if self._last_reload[0] else f"the last reload was refused, see the log; {standing}", outlook

    def _look_at(self, names: list[str]) -> None:
        self._tidings.tell()
        self._assembly.tell_store_warnings()
        for name in names:
            credential = self._credentials.get(name)
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
                    self._wake(credential)
            finally:
                self._looked_at.discard(name)

    def _wake(self, credential: Credential) -> None:
        self._agenda.put(credential, self._clock.now())
        self._workers.wake()

    def notify(self, event: Event) -> None:
        """Hear of a dead grant: the configuration may want an exit then (case I11). Observer.

        Of each refusal, the first and a later one: a start on a dead grant gives time to log in until the next.
        """
        if self._config.daemon.on_dead_grant == "stay" or not isinstance(event, RefreshFinished):
            return
        credential = self._credentials.get(event.credential)
        state = credential.state if credential else None
        if state is not None and state.status is Status.REAUTHORIZATION_REQUIRED and event.outcome == "refused":
            self.stop(Exit.DEAD_GRANT)

    # -- desk --------------------------------------------------------------------------------------

    def views(self) -> Iterator[CredentialView]:
        """Show every credential, one by one, in the order of their names."""
        for name in sorted(self._credentials):
            credential = self._credentials.get(name)
            if credential is not None:
                yield self._show(credential)

    def find(self, name: str) -> CredentialView | None:
        """Show one credential."""
        credential = self._credentials.get(name)
        return self._show(credential) if credential else None

    def _show(self, credential: Credential) -> CredentialView:
        return self._as_wall(self._rotator.shown(credential, self._clock.now()))

    def _as_wall(self, shown: CredentialView) -> CredentialView:
        now = self._clock.now()
        return shifted(shown, self._clock.wall(now) - now)

    def tokens(self, name: str) -> TokenSet | None:
        """Return the current token set, its end as the wall clock would show it."""
        credential = self._credentials.get(name)
        state = credential.state if credential else None
        if state is None or state.tokens is None or not state.tokens.access_token:
            return None
        return replace(state.tokens, expires_at=self._clock.wall(state.tokens.expires_at))

    def lack(self, name: str) -> str:
        """Say why a credential is not ready; nothing if it is."""
        credential = self._credentials.get(name)
        now = self._clock.now()
        if credential is None or is_ready(credential, now, follows=self._rotator.follows(credential)):
            return ""
        return why_not_ready(credential, self._assembly.fingerprint, now)

    def pulse(self) -> Pulse:
        """Answer the liveness probe (invariant 14)."""
        age = time.monotonic() - self._swept_at
        return Pulse(age < _LIVE_SECONDS, age)

    def readiness(self) -> Readiness:
        """Answer the readiness probe."""
        reasons: list[str] = []
        for credential in tuple(self._credentials.values()):
            now = self._clock.now()
            ready = is_ready(credential, now, follows=self._rotator.follows(credential))
            if not ready and len(reasons) < _REASONS_SHOWN:
                reasons.append(why_not_ready(credential, self._assembly.fingerprint, now))
        return Readiness(not reasons, tuple(reasons), len(self._credentials))

    def counts(self) -> Counts:
        """Return what the daemon counts itself."""
        return Counts(
            started_at=self._clock.wall(self._started_at),
            sweep_lag_seconds=max(0.0, time.monotonic() - self._swept_at - SWEEP_SECONDS),
            under_way=self._agenda.under_way,
            clock_jumps_forward=self._clock.jumps_forward,
            clock_jumps_backward=self._clock.jumps_backward,
            reloads_good=self._reloads[0],
            reloads_bad=self._reloads[1],
            last_reload_good=self._last_reload[0],
            last_reload_at=self._clock.wall(self._last_reload[1]),
            leases=self._assembly.peers.leases() if self._assembly.peers is not None else (),
        )

    async def rotate(self, name: str) -> CredentialView | Problem:
        """Refresh one credential now; all who ask share one request (C10, C12)."""
        credential = self._credentials.get(name)
        if credential is None:
            return _unknown(name, self._credentials)
        if (refusal := self._rotator.refusal(credential)) is not None:
            return refusal
        waiter = self._rotator.ask(credential)
        self._wake(credential)
        return self._as_wall(await asyncio.wrap_future(waiter))

    async def login(self, name: str, username: str, password: str) -> CredentialView | Problem:
        """Get the first pair by the password grant."""
        return await self._errand(name, lambda credential: self._assembly.login(credential, username, password))

    async def adopt(self, name: str, pair: str) -> CredentialView | Problem:
        """Take over a token answer or a bare refresh token."""
        return await self._errand(name, lambda credential: self._assembly.adopt_pair(credential, pair))

    async def _errand(self, name: str, errand: Callable[[Credential], Problem | None]) -> CredentialView | Problem:
        credential = self._credentials.get(name)
        if credential is None:
            return _unknown(name, self._credentials)

        def run() -> CredentialView | Problem:
            self._rotator.take_up_plan(credential)
            problem = self._rotator.refusal(credential) or errand(credential)
            if problem is not None:
                return problem
            self._rotator.publisher.publish_due(credential)
            self._wake(credential)
            return self._show(credential)

        credential.errands += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._helpers, run)
        finally:
            credential.errands -= 1

    # -- reload ------------------------------------------------------------------------------------

    def _reload_soon(self) -> None:
        # The loop holds its tasks weakly: without these references a reload could vanish half-way.
        task = asyncio.ensure_future(self.reload())
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def reload(self) -> tuple[str, ...]:
        """Take a good new configuration without dropping state; refuse a bad one and go on."""
        async with self._one_reload:  # else the older of two might be taken last
            self._systemd.reloading()
            try:
                problems = await self._reload()
                await self._tell_systemd()
            finally:
                if not self._assembly.stopping.is_set():
                    self._systemd.ready()
            return problems

    async def _reload(self) -> tuple[str, ...]:
        loaded = await asyncio.get_running_loop().run_in_executor(self._helpers, self._load_plans)
        if not isinstance(loaded[0], Config):
            self._reloads[1] += 1
            self._last_reload = (False, self._clock.now())
            for line in loaded:
                self._notify(Notice("reload_refused", f"{line}; the running configuration stays", level="error"))
            return tuple(str(line) for line in loaded)
        config, plans = loaded
        self._take_over(config, plans)
        self._reloads[0] += 1
        self._last_reload = (True, self._clock.now())
        self._in_force(config)
        self._notify(Notice("reloaded", f"configuration reloaded: {counted(len(self._credentials))}"))
        return ()

    def _load_plans(self) -> tuple[Config, dict[str, Plan]] | tuple[str, ...]:
        config = self._load_config()
        if not isinstance(config, Config):
            return tuple(str(error) for error in config)
        if fixed := fixed_changes(self._config, config):
            return fixed
        try:
            return config, self._assembly.plans(config)
        except InputsUnusable as error:
            return (str(error),)

    def _take_over(self, config: Config, plans: dict[str, Plan]) -> None:
        self._leaving = {name: credential for name, credential in self._leaving.items() if credential.in_use}
        for name in self._credentials.keys() - plans.keys():
            gone = self._leaving[name] = self._credentials.pop(name)
            gone.leaving = True
            self._agenda.put(gone, self._clock.now())
        for name, plan in plans.items():
            if name in self._leaving:
                # The same again: a second one beside it would spend the token that its request is spending.
                self._credentials[name] = self._leaving.pop(name)
                self._credentials[name].leaving = False
            credential = self._credentials.get(name)
            before = self._config.credentials.get(name)
            if credential is None:
                self._add(name, plan)
            elif config.credentials[name] != before:
                heals = before is None or _asked(config.credentials[name]) != _asked(before)
                self._rotator.replan(credential, plan, heals=heals)
                self._wake(credential)
        self._config = config
        if self._assembly.peers is not None:
            self._assembly.peers.follow(tuple(self._credentials))
        self._workers.wake()


def _unknown(name: str, credentials: dict[str, Credential]) -> Problem:
    known = ", ".join(sorted(credentials)[:5]) or "none"
    return Problem(Reason.BAD_INPUT, f"no credential is called {name}; configured: {known}")
