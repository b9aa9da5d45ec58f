"""How a log record becomes a line: JSON or text, for a terminal, a file or the journal.

Redaction stands here, at the only place where lines are made, so it holds for every library's logger.
"""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from rotator.adapters.logs.redact import redact, redact_fields

# They write URLs, headers and the time of day at their finer levels.
_CHATTY: Final = ("apscheduler", "asyncio", "httpcore", "httpx", "uvicorn")
_SYSLOG: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_KNOWN: Final = frozenset(RESERVED_ATTRS) | {"message", "taskName"}


def configure(level: Literal["debug", "info", "warning", "error"], format: Literal["auto", "json", "text"]) -> None:  # noqa: A002 - the setting's name
    """Log to stderr from now on, at this level; may be called again. `auto`: text where people read along, else JSON.

    What is read by systemd's journal gets no time, for the journal adds it, but a priority.
    """
    journal = _is_journal(sys.stderr.fileno(), os.environ.get("JOURNAL_STREAM", ""))
    as_text = format == "text" or (format == "auto" and (journal or sys.stderr.isatty()))
    lines = _Stderr(sys.stderr)
    lines.setFormatter(_Text(journal) if as_text else _Json(journal))
    root, number = logging.getLogger(), logging.getLevelNamesMapping()[level.upper()]
    formers = [one for one in root.handlers if isinstance(one, _Stderr)]
    root.addHandler(lines)  # first: a line that other threads write meanwhile may come twice, but not go unredacted
    for former in formers:
        root.removeHandler(former)
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_crash
    threading.excepthook = lambda crash: _log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)


def _is_journal(descriptor: int, stream: str) -> bool:
    """Tell whether a file is the journal's: systemd names its device and inode (and children inherit the name)."""
    status = os.fstat(descriptor)
    return stream == f"{status.st_dev}:{status.st_ino}"


def _log_crash(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    crash = error if error is not None else kind()
    logging.getLogger("rotator").critical(
        "stopped by a bug: %s; please report it", kind.__name__, exc_info=(kind, crash, trace), extra={"event": "crash"}
    )


class _Stderr(logging.StreamHandler[Any]):
    """stderr; what cannot be formatted is said so, without the arguments that logging itself would print."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        with contextlib.suppress(OSError, ValueError):  # stderr is gone: nobody is left to tell
            self.stream.write(f"a log line of {record.name} ({record.filename}:{record.lineno}) could not be written\n")


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, tz=UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _priority(record: logging.LogRecord) -> str:
    return next(f"<{number}>" for level, number in _SYSLOG if record.levelno >= level)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what came with the message: `extra`, and of our own records the one mapping in there."""
    extra = {key: value for key, value in vars(record).items() if key not in _KNOWN and key != "color_message"}
    fields = extra.pop("fields", None)
    return {**extra, **fields} if isinstance(fields, Mapping) else extra


class _Json(JsonFormatter):
    """One JSON object a line."""

    def __init__(self, journal: bool) -> None:  # noqa: FBT001 - private
        super().__init__(json_ensure_ascii=False)
        self._journal = journal

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        # These two are of our own making: nothing in them can be a secret.
        if not self._journal:
            log_data["time"] = _time(record)
        log_data["level"] = record.levelname.lower()
        fields = _fields(record)
        told = {"event": fields.pop("event")} if "event" in fields else {}
        told |= {"message": record.message, "logger": record.name}
        told |= {key: value for key, value in fields.items() if key not in told and key not in log_data}
        log_data.update(redact_fields(told | message_dict))

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return _priority(record) + line if self._journal else line


class _Text(logging.Formatter):
    """A line for people; a traceback follows on lines of its own."""

    def __init__(self, journal: bool) -> None:  # noqa: FBT001 - private
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        event = fields.pop("event", record.name)
        shown = "".join(
            f" {key}={value}" for key, value in redact_fields(fields).items() if value not in (None, "", [])
        )
        line = f"{record.levelname:8} {event}: {record.getMessage()}{shown}"
        lines = [line if self._journal else f"{_time(record)} {line}"]
        if record.exc_info:
            lines += (f"  {each}" for each in self.formatException(record.exc_info).splitlines())
        if record.stack_info:
            lines += (f"  {each}" for each in record.stack_info.splitlines())
        before = _priority(record) if self._journal else ""
        # A line break in a message, a server's for instance, must not pass for the end of a line of ours.
        return redact("\n".join(before + each.translate(_CONTROL) for each in lines))
