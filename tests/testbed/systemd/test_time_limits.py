"""What takes longer than the unit's limits, and is given the time because the daemon asks for it."""

import time

from tests.testbed.systemd.installed import UNIT, Installed

_LIMIT = 3.0
_SLOW = "scope = { command = ['/bin/sh', '-c', 'sleep 3.5; echo openid'] }"


def test_a_slow_configuration_delays_start_and_reload_and_fails_neither(installed: Installed) -> None:
    """I2: reading it takes longer than TimeoutStartSec; the watchdog, shorter still, does not bite meanwhile."""
    installed.drop_in("impatient", f"TimeoutStartSec={_LIMIT:g}s", "WatchdogSec=2s")
    installed.machine.run("systemctl", "daemon-reload")
    installed.configure(defaults=_SLOW)
    for verb in ("start", "reload"):
        began = time.monotonic()
        installed.machine.run("systemctl", verb, UNIT)
        assert time.monotonic() - began > _LIMIT
        assert installed.state() == "active"
    assert installed.restarts() == 0
