"""What only a start takes up: a reload that changes it is refused, rather than said to be in force."""

from dataclasses import fields
from typing import Final

from rotator.config.settings import Config, DaemonConfig, MetricsConfig

_TAKEN: Final = ("drain_timeout", "on_dead_grant")
_KEYS: Final = {"host": "listen", "port": "listen"}
_CURE: Final = "restart rotator for it"


def fixed_changes(running: Config, new: Config) -> tuple[str, ...]:
    """Return a line for each key that a running daemon cannot change, and that is another in `new`."""
    changed = [
        f"{key}: cannot change while running; {_CURE}"
        for key in (*_changed("daemon", running.daemon, new.daemon), *_changed("metrics", running.metrics, new.metrics))
    ]
    if running.daemon.kubernetes != new.daemon.kubernetes:
        text = "cannot change while running, nor the longest total_timeout, which a lease must outlast"
        changed.append(f"kubernetes: {text}; {_CURE}")
    return tuple(changed)


def _changed(table: str, running: DaemonConfig | MetricsConfig, new: DaemonConfig | MetricsConfig) -> dict[str, None]:
    names = [field.name for field in fields(running) if field.name not in (*_TAKEN, "kubernetes")]
    changed = [name for name in names if getattr(running, name) != getattr(new, name)]
    return dict.fromkeys(f"{table}.{_KEYS.get(name, name)}" for name in changed)
