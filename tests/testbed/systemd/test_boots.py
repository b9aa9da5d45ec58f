"""What a machine goes through: reboots, power cuts, no names at boot, a clock without a battery."""

import pytest

from tests.needs import FAKETIME, needs
from tests.testbed.systemd.installed import UNIT, Installed

SERVER_NAME = "auth.rotator.test"


@pytest.fixture
def enabled(installed: Installed) -> Installed:
    """A daemon that is started at each boot, with somebody logged in."""
    installed.machine.run("systemctl", "add-wants", "testbed.target", UNIT)
    installed.machine.run("systemctl", "enable", UNIT)
    installed.start()
    installed.login()
    return installed


def test_a_reboot_keeps_the_state_and_brings_the_token_back(enabled: Installed) -> None:
    """After a reboot the daemon is up by itself, the token is published again, and nothing was asked of the server."""
    assert (enabled.machine.disk / "etc/systemd/system/multi-user.target.wants/rotator.service").is_symlink()
    token = enabled.token_file().read_text()
    enabled.machine.reboot()
    enabled.wait_for_generation(1)
    assert enabled.token_file().read_text() == token
    assert enabled.books.token_requests == {"granted": 1}
    assert enabled.rotate()["generation"] == 2
    assert enabled.books.replays_outside_grace == 0


@pytest.mark.parametrize(("step", "replays"), [("hang", 0), ("after:hang", 1)], ids=["not carried out", "carried out"])
def test_a_power_cut_in_the_middle_of_a_rotation_heals(enabled: Installed, step: str, replays: int) -> None:
    """Everything ends at one instant, the server asked or not: after the boot the same token is sent."""
    enabled.server.sandbox.change(grace_seconds=60)
    enabled.server.sandbox.script([step])
    enabled.begin_rotation()
    enabled.machine.cut_power()
    enabled.server.sandbox.change()
    enabled.machine.boot()
    enabled.wait_for_generation(2)
    assert enabled.books.replays_in_grace == replays
    assert enabled.books.replays_outside_grace == 0
    assert enabled.books.families_revoked == 0


def test_names_that_do_not_resolve_at_boot_are_waited_for(enabled: Installed) -> None:
    """No DNS at boot: the daemon is up, says what is wrong, and goes on within seconds once names resolve."""
    machine = enabled.machine
    enabled.configure(server=f"http://{SERVER_NAME}:{enabled.server.url.rpartition(':')[2]}")
    machine.write("/etc/hosts", "127.0.0.1 localhost\n")
    machine.write("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    enabled.server.sandbox.change(access_lifetime=4)
    enabled.login()
    machine.reboot()
    enabled.wait_until(lambda: enabled.shown().get("reason") == "dns", "the name does not resolve")
    assert (enabled.state(), enabled.restarts()) == ("active", 0)
    enabled.server.sandbox.change(access_lifetime=3600)
    machine.write("/etc/hosts", f"127.0.0.1 localhost\n{enabled.server.host} {SERVER_NAME}\n")
    enabled.wait_for_generation(2)


def test_a_clock_that_is_set_back_before_the_start_leads_to_a_refresh_at_once(enabled: Installed) -> None:
    """No battery: the machine wakes up a year ago. The saved instants are not trusted, and a new token is got."""
    needs("faketime")
    past = f"LD_PRELOAD={FAKETIME} FAKETIME=-365d DONT_FAKE_MONOTONIC=1"
    enabled.drop_in("clock", f"Environment={past}")
    enabled.machine.reboot()
    enabled.wait_for_generation(2)
    assert "the clock is behind the last saved instant" in enabled.log()
    assert (enabled.state(), enabled.restarts()) == ("active", 0)
    assert enabled.books.replays_outside_grace == 0
