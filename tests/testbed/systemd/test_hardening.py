"""Everything that the daemon does, done under the whole hardening of its unit; and what it keeps from it."""

import socket
from pathlib import Path

import pytest

from tests.needs import needs
from tests.process.rig import CLIENT_SECRET, wait_until
from tests.testbed.systemd.installed import UNIT, Installed, install

HOOK = r"""#!/bin/sh
# What a hook can do and what it cannot: each line that begins with "can" is one finding.
exec >/run/rotator/hook 2>&1
can() { echo "can $*"; }
grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd):' /proc/self/status
[ "$(id -un)" = rotator ] && can be rotator
[ -z "$NOTIFY_SOCKET$WATCHDOG_USEC$CREDENTIALS_DIRECTORY" ] || can see what is the daemon\'s alone
[ -n "$(cat /run/rotator/home.token)" ] && can read the token
curl --silent --output /dev/null "$1" && can use the network
for place in /etc /usr /var /srv; do touch $place/open/x && can write to $place; done
ls /home/open && can look into /home
ls /proc/1 && can see other processes
ls /dev/net && can see devices
unshare --user true && can make namespaces
chmod u+s /run/rotator/hook && can make setuid programs
/usr/bin/python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)' && can write code
/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)' && can open other sockets
/usr/bin/python3 -c 'import os; os.sched_setaffinity(0, {0})' && can choose its processors
/usr/bin/python3 -c 'import ctypes; raise SystemExit(-ctypes.CDLL(None).ptrace(0, 0, 0, 0))' && can be traced
echo the end
"""


@pytest.fixture
def hooked(installed: Installed) -> Installed:
    """A daemon with each kind of output and hook, and a client secret from a command."""
    needs("curl")
    installed.machine.write("/usr/local/bin/hook", HOOK, 0o755)
    installed.configure(
        secret='command = ["/bin/cat", "/etc/rotator/own-secret"]',
        defaults=f"""
        hooks = [
          {{ command = ["/usr/local/bin/hook", "{installed.server.url}/sandbox/books"] }},
          {{ webhook = "{installed.server.url}/sandbox/issue" }},
        ]
        """,
    )
    installed.machine.write("/etc/rotator/own-secret", CLIENT_SECRET)
    for place in ("/etc", "/usr", "/var", "/srv", "/home"):  # as far as its permissions go, all may write there
        installed.machine.run("install", "-d", "-m", "777", f"{place}/open")
    return installed


def test_all_works_under_the_hardening_and_nothing_more(hooked: Installed) -> None:
    """Login, rotation, outputs, hooks, reload work; what no part of it needs is refused to all of it."""
    hooked.start()
    hooked.login()
    assert hooked.rotate()["generation"] == 2
    hooked.machine.run("systemctl", "reload", UNIT)
    hooked.wait_for_generation(2)
    found = hooked.machine.root / "run/rotator/hook"
    hooked.wait_until(lambda: found.exists() and found.read_text().endswith("the end\n"), "the hook has run")
    said = found.read_text().splitlines()
    assert [line for line in said if line.startswith("can ")] == [
        "can be rotator", "can read the token", "can use the network",
    ]  # fmt: skip
    assert {"Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"} <= set(said)
    assert [output["text"] for output in hooked.shown()["outputs"] if output["failures"]] == []


def test_no_system_call_that_the_daemon_makes_is_refused(hooked: Installed) -> None:
    """Traced through login, rotation, outputs, hooks, a reload and the stop: nothing meets EPERM."""
    needs("strace attach")
    machine = hooked.machine
    machine.write("/usr/local/bin/hook", "#!/bin/sh\ncurl --silent $1 | sort >/run/rotator/hook\n", 0o755)
    hooked.start()
    trace = ("strace", "-f", "-qq", "-o", "/var/log/trace", "-p", str(hooked.main_pid()))
    machine.run("systemd-run", "--unit=tracer", "--property=KillMode=mixed", *trace)
    hooked.wait_until(lambda: "TracerPid:\t0" not in _status(hooked), "it is traced")
    hooked.login()
    hooked.rotate()
    machine.run("systemctl", "reload", UNIT)
    machine.run("systemctl", "stop", UNIT)
    wait_until(lambda: machine.show("tracer", "ActiveState")["ActiveState"] != "active", "the tracer has ended")
    calls = (machine.disk / "var/log/trace").read_text(errors="replace")
    assert "fchown(" in calls
    refused = [line for line in calls.splitlines() if "EPERM" in line]
    assert refused == []


def _status(installed: Installed) -> str:
    return (installed.machine.root / f"proc/{installed.main_pid()}/status").read_text()


BESIDES = {
    "output elsewhere": (["ReadWritePaths=/srv/app"], {"outputs": 'path = "/srv/app/home"'}),
    "another group": (["SupplementaryGroups=www-data"], {"outputs": 'path = "/run/rotator/home", group = "www-data"'}),
    "secret below home": (
        ["BindReadOnlyPaths=/home/me/secret:/etc/rotator/secret"], {"secret": 'file = "/etc/rotator/secret"'},
    ),
    "no other users": (["PrivateUsers=yes"], {"outputs": 'path = "/run/rotator/home"'}),
}  # fmt: skip


@pytest.mark.parametrize("what", BESIDES)
def test_what_a_configuration_needs_besides_is_a_line_in_a_drop_in(installed: Installed, what: str) -> None:
    """What docs/how-to/systemd.md says to set is enough; other users, which it says may be unknown, are not needed."""
    settings, configuration = BESIDES[what]
    machine = installed.machine
    machine.run("install", "-d", "-o", "rotator", "/srv/app")
    machine.run("install", "-d", "-m", "700", "/home/me")
    machine.run("install", "-o", "rotator", "-m", "600", "/etc/rotator/client-secret", "/home/me/secret")
    installed.configure(**configuration)
    installed.drop_in("besides", *settings)
    machine.run("systemctl", "daemon-reload")
    installed.start()
    installed.login()
    assert installed.rotate()["generation"] == 2
    machine.run("rotator", "wait", "home")


def test_only_the_addresses_that_are_allowed_are_reached(tmp_path: Path) -> None:
    """IPAddressDeny= as the example has it: daemon and hooks reach the server and, unless that is allowed, nobody else.

    Outputs and control socket do without a network; the token that is there stays.
    """
    needs("systemd-nspawn", "curl")
    with install(tmp_path, firewall=True) as installed, socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        call = f"curl --silent --max-time 2 --write-out %{{num_connects}} http://127.0.0.2:{port}/"
        script = f"{call} >/run/rotator/answer; true"
        hooks = f'hooks = [{{ command = ["/bin/sh", "-c", "{script}"] }}]'
        installed.configure(defaults=f'connect_timeout = "1s"\n{hooks}')
        answer = installed.machine.root / "run/rotator/answer"

        def allow(*addresses: str) -> None:
            installed.drop_in("only", "IPAddressDeny=any", f"IPAddressAllow={' '.join(addresses)}")
            installed.machine.run("systemctl", "daemon-reload")
            installed.machine.run("systemctl", "restart", UNIT)

        def hook_gets_through() -> bool:
            installed.wait_until(lambda: installed.shown()["outputs"][-1]["current"], "the hook has run")
            said = answer.read_text()
            answer.unlink()
            return said == "1"

        allow(installed.server.host)
        installed.login()
        assert not hook_gets_through()
        allow("localhost")
        assert installed.rotate()["generation"] == 2
        assert hook_gets_through()
        allow("192.0.2.10", "2001:db8::10")
        assert installed.rotate()["reason"] == "connect"
        assert installed.has_good_token()
