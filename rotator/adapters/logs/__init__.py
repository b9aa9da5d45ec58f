"""The log: one line on stderr for each thing worth knowing, JSON or text, with no secret in it."""

from rotator.adapters.logs.lines import configure
from rotator.adapters.logs.observer import Fanout, LogObserver
from rotator.adapters.logs.redact import redact

__all__ = ["Fanout", "LogObserver", "configure", "redact"]
