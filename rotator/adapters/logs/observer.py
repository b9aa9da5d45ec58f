"""From events to log records: one stable name for each thing that happened, and the same thing not too often."""

import logging
import threading
from collections.abc import Iterable
from typing import Final

from rotator.core.model import Oddity
from rotator.core.state import Status
from rotator.ports import (
    Event,
    Notice,
    Observer,
    PublishFinished,
    RefreshFinished,
    RefreshStarted,
    SaveFinished,
    StatusChanged,
)

_LEVELS: Final = logging.getLevelNamesMapping()
_STATUS: Final = {
    Status.OK: (logging.INFO, "the grant is good again"),
    Status.SUSPECT: (logging.WARNING, "the grant is in doubt and will be asked for once more"),
    Status.REAUTHORIZATION_REQUIRED: (logging.ERROR, "the grant is dead: log in anew with `rotator login {0}`"),
}
_MOST_FAILING: Final = 1000


class Fanout:
    """An `Observer` that tells several others, in their order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def add(self, observer: Observer) -> None:
        """Tell one more, e.g. the daemon, which is made last."""
        self._observers = (*self._observers, observer)

    def notify(self, event: Event) -> None:
        """Tell everyone."""
        for observer in self._observers:
            observer.notify(event)


class LogObserver:
    """Writes events to the logger `rotator`.

    A failure that repeats is written at its occurrences 1, 2, 4, 8, ... (case E3) and when its reason changes;
    at level debug, each time.
    Nothing is kept of a credential that is well.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger("rotator")
        self._lock = threading.Lock()
        self._failing_saves: dict[str, int] = {}

    def notify(self, event: Event) -> None:
        """Write one event, if it is worth a line."""
        match event:
            case RefreshStarted():
                self._log(logging.DEBUG, "refresh_started", "asking for a new token", event.credential, why=event.why)
            case RefreshFinished():
                self._refreshed(event)
            case SaveFinished():
                self._saved(event)
            case PublishFinished():
                self._published(event)
            case StatusChanged():
                level, words = _STATUS[Status(event.after)]
                self._log(
                    level, "status_changed", words.format(event.credential), event.credential, before=event.before,
                    after=event.after, why=event.text or None,
                )  # fmt: skip
            case Notice():
                fields = dict(event.fields or {})
                error = fields.pop("exception", None)
                cause = error if isinstance(error, BaseException) else None
                self._write(_LEVELS[event.level.upper()], event.event, event.text, event.credential, fields, cause)

    def _refreshed(self, event: RefreshFinished) -> None:
        seconds, generation = round(event.seconds, 3), event.generation
        match event.outcome:
            case "granted":
                missing = Oddity.ROTATION_MISSING in event.oddities
                level = logging.WARNING if missing else logging.INFO
                text = "a new token, but the refresh token was not replaced" if missing else "a new token"
                self._log(
                    level, "refreshed", text, event.credential, why=event.why or None, generation=generation,
                    seconds=seconds, oddities=list(event.oddities),
                )  # fmt: skip
            case "late":
                text = "an answer came after the tokens had been replaced; it changes nothing"
                self._log(logging.INFO, "refresh_late", text, event.credential, generation=generation, seconds=seconds)
            case _:
                text = event.text or f"no new token: {event.reason}"
                level = logging.WARNING if event.news else _at_powers_of_two(logging.WARNING, event.failures)
                self._log(
                    level, "refresh_failed", text, event.credential,
                    why=event.why or None, outcome=event.outcome, reason=event.reason, failures=event.failures,
                    generation=generation, seconds=seconds,
                )  # fmt: skip

    def _saved(self, event: SaveFinished) -> None:
        if event.problem is None and not self._failing_saves and not self._logger.isEnabledFor(logging.DEBUG):
            return  # as nearly always
        seconds, failures = round(event.seconds, 4), self._failures_of_save(event)
        if event.problem is None:
            level = logging.INFO if failures else logging.DEBUG
            text = "the state is saved" + (" again" if failures else "")
            self._log(level, "saved", text, event.credential, after_failures=failures or None, seconds=seconds)
            return
        name, level = ("pair_unsaved", logging.CRITICAL) if event.holds_new_pair else ("save_failed", logging.ERROR)
        stake = "; the newest tokens are in memory only" if event.holds_new_pair else "; no refresh token is spent"
        self._log(
            _at_powers_of_two(level, failures), name, event.problem.text + stake, event.credential,
            reason=event.problem.reason, failures=failures, seconds=seconds,
        )  # fmt: skip

    def _failures_of_save(self, event: SaveFinished) -> int:
        """Return how often saving has failed in a row; after a success, how often it had."""
        with self._lock:
            if event.problem is None:
                self._failing_saves.pop("", None)
                return self._failing_saves.pop(event.credential, 0)
            # With a full disk all credentials fail: beyond some, they share one count.
            crowded = event.credential not in self._failing_saves and len(self._failing_saves) >= _MOST_FAILING
            key = "" if crowded else event.credential
            self._failing_saves[key] = self._failing_saves.get(key, 0) + 1
            return self._failing_saves[key]

    def _published(self, event: PublishFinished) -> None:
        seconds, problem = round(event.seconds, 4), event.problem
        if problem is None and not self._logger.isEnabledFor(logging.DEBUG):
            return  # as nearly always
        if problem is None:
            self._log(
                logging.DEBUG, "published", f"{event.sink} is up to date", event.credential, sink=event.sink,
                generation=event.generation, seconds=seconds,
            )  # fmt: skip
            return
        self._log(
            _at_powers_of_two(logging.ERROR, event.failures), "publish_failed", problem.text, event.credential,
            sink=event.sink, reason=problem.reason, failures=event.failures, generation=event.generation,
            seconds=seconds,
        )  # fmt: skip

    def _log(self, level: int, event: str, text: str, credential: str, **fields: object) -> None:
        self._write(level, event, text, credential, fields)

    def _write(
        self,
        level: int,
        event: str,
        text: str,
        credential: str,
        fields: dict[str, object],
        cause: BaseException | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            shown = {"credential": credential or None, **fields}
            shown = {key: value for key, value in shown.items() if value is not None}
            self._logger.log(level, "%s", text, exc_info=cause, extra={"event": event, "fields": shown})


def _at_powers_of_two(level: int, occurrence: int) -> int:
    """Return the level for occurrences 1, 2, 4, 8, ..., debug for those between."""
    return level if occurrence & (occurrence - 1) == 0 else logging.DEBUG
