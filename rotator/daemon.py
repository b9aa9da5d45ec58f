"""Start, sweep, patrol, reload, drain, stop. Holds no policy: what is due is asked of the core.

The main thread runs the event loop: signals, APScheduler's interval jobs, web pages and the control socket. Token
calls and files belong to a few worker threads, so that nothing that hangs out there is felt in here.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from rotator.adapters.systemd import Systemd
from rotator.agenda import Agenda
from rotator.assembly import Assembly
from rotator.config import Config, ConfigError
from rotator.core.standing import counted
from rotator.core.state import CredentialState, Status
from rotator.credential import Credential, Plan
from rotator.desk import SWEEP_SECONDS, FrontDesk
from rotator.once import Exit, run_once
from rotator.patrol import PATROL_SECONDS, Patrol
from rotator.ports import Event, Notice, Peers, RefreshFinished
from rotator.readiness import in_one_line
from rotator.roster import Roster
from rotator.save import SAVE_RETRY
from rotator.tidings import Tidings
from rotator.workers import Workers

_LAST_SAVES_SECONDS: Final = 30.0  # after the drain, on a slow disk
_LAST_SAVES_TRIED_SECONDS: Final = 20.0  # so that the last try, which may take ten, is done by then


class Daemon:
    """One process's worth of credentials, and the desk where it may be asked about them."""

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
        self._load_config = load_config
        self._in_force = in_force
        self._assembly = assembly
        self._clock = assembly.clock
        self._rotator = assembly.rotator
        self._notify = assembly.observer.notify
        self._systemd = systemd
        self._agenda = Agenda(config.daemon.max_concurrent_per_server, config.daemon.max_concurrent)
        self._workers = Workers(self._agenda, assembly, config.daemon.max_concurrent)
        self._roster = Roster(config, assembly, self._agenda, self._workers)
        self._helpers = ThreadPoolExecutor(4, thread_name_prefix="errand")  # logins, reloads: never behind a token call
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._exit = Exit.DONE
        self._swept_at = time.monotonic()
        self._reloading: set[asyncio.Future[tuple[str, ...]]] = set()
        self._one_reload = asyncio.Lock()
        self._tidings = Tidings(assembly.peers, self._notify)
        self._patrol = Patrol(self._roster, assembly, self._tidings)
        self.desk = FrontDesk(self._roster, assembly, self._agenda, self._helpers, self._since_sweep, self.reload)

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
        scheduler.add_job(self._look_round, "interval", seconds=PATROL_SECONDS, id="patrol")
        scheduler.start()
        self._rotator.publisher.run_hook = self._workers.run_hook
        await self._sweep()
        if self._assembly.peers is not None:
            self._loop.run_in_executor(self._helpers, self._join, self._assembly.peers)
        self._in_force(self._roster.config)
        self._notify(
            Notice("started", f"watching over {counted(len(self._roster.credentials))}", fields={"pid": os.getpid()})
        )
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
        patience = self._roster.config.daemon.drain_timeout
        under_way = self._agenda.under_way
        text = f"token requests under way, whose answers are waited for: {under_way}"
        self._systemd.stopping(f"stopping: {text}" if under_way else "stopping", patience + _LAST_SAVES_SECONDS)
        self._notify(Notice("stopping", text))
        if not await asyncio.get_running_loop().run_in_executor(self._helpers, self._agenda.wait_idle, patience):
            self._assembly.abort_all()
        await asyncio.to_thread(self._workers.shutdown)
        await asyncio.to_thread(self._helpers.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._workers.shutdown_hooks)
        everybody = self._roster.everybody()
        await asyncio.to_thread(self._save_last, everybody)
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

    def _save_last(self, everybody: Sequence[Credential]) -> None:
        """Save what only memory holds. An API server that is away is asked until time is up, for it may come back."""
        until = time.monotonic() + (_LAST_SAVES_TRIED_SECONDS if self._assembly.peers is not None else 0.0)
        # The state of one that has gone may be removed.
        left = [credential for credential in everybody if credential.unsaved or not credential.leaving]
        while left:
            left = [credential for credential in left if not self._rotator.save_unsaved(credential)]
            if time.monotonic() >= until or not any(credential.only_in_memory for credential in left):
                return
            time.sleep(SAVE_RETRY)  # in a thread of its own, and nothing is left that could wake it sooner

    def run_once(self) -> Exit:
        """Do what is due for every credential and end; see `rotator.once`."""
        if self._assembly.peers is not None:
            # No worker is woken: `run_once` steps each credential itself. Two at a time may spend one token twice.
            self._assembly.peers.start(self._names(), self._take_copy, self._tidings.tell, self._names)
        ended = run_once(self._roster.all(), self._assembly, self._roster.config.daemon.max_concurrent_per_server)
        self._assembly.close()
        return ended

    def _names(self) -> tuple[str, ...]:
        return tuple(self._roster.credentials)

    # -- replicas ----------------------------------------------------------------------------------

    def _join(self, peers: Peers) -> None:
        peers.start(self._names(), self._copy_came, self._owner_changed, self._agenda.names_under_way)

    def _take_copy(self, name: str, state: CredentialState) -> Credential | None:
        """Take over a copy of a state; return the credential, or None if that changed nothing."""
        credential = self._roster.credentials.get(name)
        return credential if credential is not None and self._rotator.follow(credential, state) else None

    def _copy_came(self, name: str, state: CredentialState) -> None:
        if (credential := self._take_copy(name, state)) is not None:
            self._roster.wake(credential)

    def _owner_changed(self) -> None:
        """See to all credentials: some have come to us, or are no longer ours."""
        self._tidings.tell()
        self._roster.wake(*self._roster.all())

    # -- sweep -------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Wake a worker if anything is due that nobody gets to. A coroutine, as APScheduler runs others in a thread.

        Runs each second in the loop and cannot block: if it does not get through, neither do the watchdog's pings.
        """
        self._swept_at = time.monotonic()
        self._workers.look()
        self._systemd.alive()

    async def _look_round(self) -> None:
        """Look at a part of the credentials. A coroutine likewise; it does not wait."""
        if self._patrol.go():
            await self._tell_systemd()

    def _since_sweep(self) -> float:
        return time.monotonic() - self._swept_at

    async def _tell_systemd(self) -> None:
        if self._systemd.listens and not self._assembly.stopping.is_set():  # it has its last word by then
            self._systemd.tell(*await asyncio.get_running_loop().run_in_executor(self._helpers, self._in_one_line))

    def _in_one_line(self) -> tuple[str, str]:
        standing, outlook = in_one_line(self._roster.all(), self._clock.now())
        refused = "" if self._roster.reloads.last_good else "the last reload was refused, see the log; "
        return f"{refused}{standing}", outlook

    def notify(self, event: Event) -> None:
        """Hear of a dead grant: the configuration may want an exit then (case I11). Observer.

        Of each refusal, the first and a later one: a start on a dead grant gives time to log in until the next.
        """
        if self._roster.config.daemon.on_dead_grant == "stay" or not isinstance(event, RefreshFinished):
            return
        credential = self._roster.credentials.get(event.credential)
        state = credential.state if credential else None
        if state is not None and state.status is Status.REAUTHORIZATION_REQUIRED and event.outcome == "refused":
            self.stop(Exit.DEAD_GRANT)

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
        reloads = self._roster.reloads
        if isinstance(loaded[0], str):
            reloads.count(self._clock.now(), good=False)
            for line in loaded:
                self._notify(Notice("reload_refused", f"{line}; the running configuration stays", level="error"))
            return tuple(map(str, loaded))
        config, plans = loaded
        self._roster.take_over(config, plans)
        reloads.count(self._clock.now(), good=True)
        self._in_force(config)
        self._notify(Notice("reloaded", f"configuration reloaded: {counted(len(plans))}"))
        return ()

    def _load_plans(self) -> tuple[Config, dict[str, Plan]] | tuple[str, ...]:
        config = self._load_config()
        if not isinstance(config, Config):
            return tuple(str(error) for error in config)
        plans = self._roster.plans(config)
        return plans if isinstance(plans, tuple) else (config, plans)
