"""The threads that walk the line: as many as there is waiting to be done at once, and no more."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rotator.agenda import Agenda
from rotator.assembly import Assembly
from rotator.core.model import Halt
from rotator.credential import Credential
from rotator.ports import Notice

_LOOK_SECONDS: Final = 0.5
_JUDGED_SECONDS: Final = 0.05
_MOSTLY_WAITED: Final = 4
_BUG_RETRY: Final = 60.0


class Workers:
    """Takes credentials from the agenda, steps them, puts them back."""

    def __init__(self, agenda: Agenda, assembly: Assembly, most: int) -> None:
        """Start no thread yet; `most` is the largest number of them."""
        self._agenda = agenda
        self._clock = assembly.clock
        self._rotator = assembly.rotator
        self._stopping = assembly.stopping
        self._notify = assembly.observer.notify
        self._most = most
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="rotate")
        self._hooks = ThreadPoolExecutor(most, thread_name_prefix="hook")
        self._lock = threading.Lock()
        self._at_work = 0
        self._took_at = time.monotonic()

    def look(self) -> None:
        """Wake a worker if something is due that nobody gets to."""
        idle = not self._at_work or time.monotonic() - self._took_at > _LOOK_SECONDS
        if idle and self._agenda.startable(self._clock.now()):
            self.wake()

    def wake(self) -> None:
        """Let one more worker see what is due, unless all are at work or the daemon stops."""
        with self._lock:
            if self._at_work >= self._most or self._stopping.is_set():
                return
            self._at_work += 1
        self._pool.submit(self._work)

    def run_hook(self, credential: Credential, hook: Callable[[], None]) -> None:
        """Run a hook in another thread: one that hangs keeps no worker, and no place at a server (case L3)."""

        def run() -> None:
            try:
                hook()
            finally:
                self._agenda.put(credential, self._clock.now())
                self.wake()

        self._hooks.submit(run)

    def shutdown(self) -> None:
        """Wait for the workers to end; they do once `stopping` is set and their requests are over."""
        self._pool.shutdown(cancel_futures=True)

    def shutdown_hooks(self) -> None:
        """Wait for the hooks that run, which `stopping` gives half a second; the others run at the next start."""
        self._hooks.shutdown(cancel_futures=True)

    def _work(self) -> None:
        """Step credentials until none is due.

        A worker that mostly waits, for a server or a disk, brings in a colleague: so a crowd wakes a crowd. Beside one
        that mostly computes, a colleague would only wait for the interpreter, which costs both.
        """
        began, computed = time.monotonic(), time.thread_time()
        try:
            while not self._stopping.is_set():
                credential = self._agenda.take(self._clock.now())
                if credential is None:
                    return
                self._took_at = time.monotonic()
                self._step(credential)
                seconds = time.monotonic() - began
                if seconds > _JUDGED_SECONDS:
                    mostly_waited = seconds > _MOSTLY_WAITED * (time.thread_time() - computed)
                    if mostly_waited and self._agenda.startable(self._clock.now()):
                        self.wake()
                    began, computed = time.monotonic(), time.thread_time()
        finally:
            with self._lock:
                self._at_work -= 1

    def _step(self, credential: Credential) -> None:
        until = self._clock.now() + _BUG_RETRY
        try:
            outcome = self._rotator.step(credential)
            until = float("inf") if isinstance(outcome, Halt) else outcome.until
        except Exception as error:  # noqa: BLE001 - one credential's bug must not stop the others
            text = f"a bug: {type(error).__name__}; this credential is tried again in {_BUG_RETRY:.0f} s"
            self._notify(Notice("bug", text, credential.name, "critical", {"exception": error}))
        finally:
            self._agenda.put_back(credential, until)
