"""The daemon's clock: never backward, counting suspend (invariant 10).

The wall clock may be set back; CLOCK_BOOTTIME never is, and it goes on while the machine sleeps. The timeline is
anchored to the wall clock, goes forward with the boot clock at least, and follows the wall clock when that is ahead.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

_JUMP: Final = 2.0
"""Seconds by which wall and boot clock may part between two looks before it is called a jump."""


class BootClock:
    """Implements `rotator.ports.Clock`; thread-safe."""

    def __init__(self, wall: Callable[[], float] = time.time, boot: Callable[[], float] | None = None) -> None:
        """Anchor the timeline now. Both arguments return seconds and exist for tests."""
        self._wall = wall
        self._boot = boot or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        self._lock = threading.Lock()
        self._anchor_wall = wall()
        self._anchor_boot = self._boot()
        self._seen_offset = self._anchor_wall - self._anchor_boot
        self.jumps_forward = 0
        self.jumps_backward = 0

    def now(self) -> float:
        """Return the instant on the timeline: seconds since the epoch, UTC."""
        with self._lock:
            wall, boot = self._wall(), self._boot()
            offset = wall - boot
            if offset - self._seen_offset > _JUMP:
                self.jumps_forward += 1
                self._seen_offset = offset
            elif self._seen_offset - offset > _JUMP:
                self.jumps_backward += 1
                self._seen_offset = offset
            timeline = self._anchor_wall + (boot - self._anchor_boot)
            if wall > timeline:
                self._anchor_wall, self._anchor_boot = wall, boot
                return wall
            return timeline

    def wall(self, instant: float) -> float:
        """Return what the wall clock shows at `instant`: for outputs and metrics that others compare with theirs."""
        skew = self.now() - self._wall()
        return instant - skew if skew > _JUMP else instant
