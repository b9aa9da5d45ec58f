"""Other services that live on the token, with the example drop-ins; several daemons; what the outside can see."""

import json
import re
from pathlib import Path

import pytest

from tests.process.rig import CLIENT_SECRET, PASSWORD, ROOT, USERNAME
from tests.secrets_scan import assert_no_secrets, planted
from tests.testbed.systemd.installed import UNIT, UNITS, Installed

CONSUMER = """
[Service]
DynamicUser=yes
RuntimeDirectory=consumer
ExecStart=/bin/sh -c 'cat /run/rotator/home.token >/run/consumer/read && exec sleep inf'
ExecReload=/bin/sh -c 'cat /run/rotator/home.token >/run/consumer/read'
"""


def test_a_consumer_waits_for_the_first_token_and_is_told_of_each_new_one(installed: Installed) -> None:
    """The example drop-in holds the consumer's start until there is a token, the path unit reloads it for the next.

    The consumer may read the file it knows of, and nothing else of rotator's.
    """
    machine = installed.machine
    machine.write("/etc/systemd/system/consumer.service", CONSUMER)
    for example in (path for path in (UNITS / "examples").rglob("*") if path.is_file()):
        machine.write(f"/etc/systemd/system/{example.relative_to(UNITS / 'examples')}", example.read_text())
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "consumer-token.path")
    machine.run("systemctl", "--no-block", "start", "consumer")
    installed.wait_until(lambda: installed.state() == "active", "it brings the daemon along")
    assert machine.show("consumer", "ActiveState", "SubState") == {
        "ActiveState": "activating", "SubState": "start-pre",
    }  # fmt: skip
    installed.login()
    read = machine.root / "run/consumer/read"
    installed.wait_until(lambda: read.exists() and read.read_text() == installed.token_file().read_text(), "it reads")
    for _ in range(2):
        assert installed.rotate()["standing"] == "valid"
        installed.wait_until(lambda: read.read_text() == installed.token_file().read_text(), "it is told and reads")
    pid = machine.show("consumer", "MainPID")["MainPID"]
    as_consumer = ("nsenter", f"--target={pid}", "--mount", "setpriv", *_identity(machine.root / f"proc/{pid}/status"))
    for command in ("cat /run/rotator/home.token", "ls /run/rotator", "ls /var/lib/rotator", "rotator status"):
        done = machine.run(*as_consumer, "sh", "-c", command, check=False)
        assert (done.returncode == 0) == (command == "cat /run/rotator/home.token"), done


_SECTION = (ROOT / "README.md").read_text().partition("## Configuration\n")[2]
_README = re.findall(r"(?:^    .*\n)+", _SECTION, re.MULTILINE)
_EXAMPLES = {"README": _README[0], "reference": (ROOT / "docs/reference/rotator.example.toml").read_text()}
_MEANT = {
    "https://ce-api.example.com": "{server}",
    "http://127.0.0.1:8080/token-changed": "{server}/sandbox/issue",
    '# listen = "127.0.0.1:9774"': 'listen = "{metrics}"',
    "my-labelpartner": "sandbox-client",
    "my-account-client": "sandbox-client",
    "account-client-secret": "client-secret",
    'file = "/etc/rotator/client-secret"': 'credential = "client-secret"',
    "# group = ": "group = ",
}
"""What somebody changes in an example: the addresses and the client; and a line that is commented out."""


@pytest.mark.parametrize("where", _EXAMPLES)
def test_the_outputs_and_hooks_of_the_examples_work_in_the_shipped_service(installed: Installed, where: str) -> None:
    """With the server's own address, and the program that a hook calls, nothing else is needed."""
    machine, metrics = installed.machine, ":".join(map(str, installed.metrics_address))
    machine.write("/usr/local/bin/token-changed", "#!/bin/sh\necho $1 >/run/rotator/changed\n", 0o755)
    text = _EXAMPLES[where]
    for shown, meant in _MEANT.items():
        text = text.replace(shown, meant.replace("{server}", installed.server.url).replace("{metrics}", metrics))
    if where == "README":
        installed.configure(credentials=text)
    else:
        machine.write("/etc/rotator/rotator.toml", text)
    installed.start()
    names = re.findall(r"\[credentials[.](household-\d)\]", text)
    for name in names:
        installed.login(name)

    def all_is_done() -> bool:
        return all(output["current"] for name in names for output in installed.shown(name)["outputs"])

    installed.wait_until(all_is_done, "outputs are written, hooks have run")
    assert all(installed.has_good_token(name) for name in names)
    assert "failed" not in installed.log()


def _identity(status: Path) -> list[str]:
    """Return the options that make setpriv become whoever a process is."""
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    uid, gid, groups = (fields[key].split() for key in ("Uid", "Gid", "Groups"))
    return [f"--reuid={uid[0]}", f"--regid={gid[0]}", f"--groups={','.join(groups)}"]


def test_two_configurations_are_two_daemons(installed: Installed) -> None:
    """`rotator@NAME` takes its own configuration, state, runtime directory and socket; the command line finds each."""
    machine = installed.machine
    for name in ("one", "two"):
        installed.configure(
            path=f"/etc/rotator/{name}/rotator.toml",
            daemon=f'state_directory = "/var/lib/rotator-{name}"\nruntime_directory = "/run/rotator-{name}"',
            metrics="enabled = false",
            credentials=f"[credentials.{name}]\noutputs = [{{ path = '/run/rotator-{name}/token' }}]",
        )
        unit = f"rotator@{name}.service"
        installed.drop_in("credentials", "LoadCredential=client-secret:/etc/rotator/client-secret", unit=unit)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "rotator@one", "rotator@two")
    for name in ("one", "two"):
        at = ("rotator", "--config", f"/etc/rotator/{name}/rotator.toml")
        machine.run(*at, "login", name, "--username", USERNAME, "--password-stdin", stdin=PASSWORD)
        machine.run("systemctl", "reload", f"rotator@{name}")
        assert f"{name}: valid, generation 1" in machine.run(*at, "status").stdout
        assert (machine.root / f"run/rotator-{name}/token").read_text()
        assert json.loads((machine.disk / f"var/lib/rotator-{name}/{name}.json").read_text())


def test_no_secret_can_be_seen_from_outside(installed: Installed) -> None:
    """With debug logs, through refusals, a dead grant, a crash: no secret in journal, status or process list."""
    machine = installed.machine
    installed.configure(log='level = "debug"')
    installed.drop_in("at-once", "RestartSec=100ms")
    machine.run("systemctl", "daemon-reload")
    installed.start()
    installed.login()
    installed.rotate()
    machine.run("rotator", "login", "home", "--username", USERNAME, "--password-stdin", stdin=planted("x"), check=False)
    installed.server.sandbox.change(client_secret=planted("other"))
    assert installed.rotate()["reason"] == "invalid_client"
    installed.server.sandbox.change(client_secret=CLIENT_SECRET)
    installed.server.sandbox.script(["echo"])
    installed.rotate()
    installed.server.sandbox.revoke()
    installed.rotate()
    machine.run("systemctl", "reload", UNIT)
    installed.kill("SIGSEGV")
    installed.wait_until(lambda: installed.restarts() == 1 and installed.state() == "active", "it is started again")
    process = machine.root / f"proc/{installed.main_pid()}"
    assert_no_secrets(
        machine.run("systemctl", "status", "--full", "--lines=1000", UNIT).stdout,
        machine.run("systemctl", "show", UNIT).stdout,
        machine.run("rotator", "status", "--json", check=False).stdout,
        (process / "cmdline").read_bytes(),
        (process / "environ").read_bytes(),
        json.dumps(machine.journal()),
    )
    assert "DEBUG" in installed.log()
    assert re.search(r"Max core file size +0 +0 ", (process / "limits").read_text())
