"""Where secrets are after an eventful life: in the state, in the outputs, in the client's own file, nowhere else."""

import stat
from pathlib import Path
from typing import Final

from rotator.adapters.control_client import ControlClient
from tests.process.life import Life, events, rotate
from tests.process.rig import CLIENT_SECRET, PATIENCE, USERNAME, wait_until
from tests.secrets_scan import assert_no_secrets, planted

_TELLING: Final = (  # answers that hold a secret, and faults that make a library quote what was sent
    "echo", "200_text", "200_cut", "500", "drop", "reset", "half", "invalid_request", "already_used", "301",
    "403", "form_body", "expires_in_text", "scope_ints", "access_token_missing", "after:drop", "invalid_grant_form",
)  # fmt: skip
_HOOK: Final = """#!/bin/sh
cat /proc/$PPID/cmdline /proc/$$/cmdline /proc/$$/environ >> "$1"
echo done >> "$1"
"""


def test_an_eventful_life_leaves_secrets_in_state_and_outputs_only(life: Life) -> None:
    """J2, J3, J5, J6, G6, G16: none in log, pages, status, hooks' arguments and environment, or leftovers."""
    life.server.sandbox.change(access_lifetime=3600, grace_seconds=60)
    hook, heard = life.directory / "hook", life.directory / "heard"
    hook.write_text(_HOOK)
    hook.chmod(0o700)
    names = ["home", *(f"c{number}" for number in range(len(_TELLING)))]
    tables = "\n".join(f"[credentials.{name}]" for name in names)
    life.configure(
        defaults=f'hooks = [{{ command = ["{hook}", "{heard}"] }}]', credentials=f"{tables}\n[log]\nlevel='debug'"
    )
    for name in names[1:]:
        life.put_pair(age=0, name=name)
    with life.daemon(environment={"SECRET_OF_SOMEBODY": planted("in-the-environment")}) as daemon:
        life.login()
        wrong = life.run("login", "home", "--username", USERNAME, "--password-stdin", stdin=planted("wrong-password"))
        assert wrong.returncode == 77
        life.server.sandbox.script(_TELLING)
        client = ControlClient(life.socket, PATIENCE)
        for _, answer in client.post_all(f"/v1/rotate/{name}" for name in names[1:]):
            assert_no_secrets(str(answer))
        wait_until(lambda: life.server.sandbox.script_left == [], "all of it has happened")
        for page in ("/metrics", "/status", "/readyz", "/livez"):
            assert_no_secrets(daemon.page(page))
        life.write_secret("client-secret", planted("wrong-secret"))
        assert rotate(daemon)["reason"] == "invalid_client"
        for command in ("status", "status --json", "rotate home", "check --online", "config show", "config schema"):
            life.run(*command.split())
        life.write_secret("client-secret", CLIENT_SECRET)
        daemon.wait_until(lambda: daemon.shown()["standing"] == "valid", "all is well")
        daemon.wait_until(lambda: heard.exists() and heard.read_text().count("done") > len(names), "hooks have run")
        assert len({event["event"] for event in events(daemon)}) > 5
        assert_no_secrets(Path(f"/proc/{daemon.pid}/cmdline").read_bytes())
        assert daemon.stop() == 0
    assert "ROTATOR_CREDENTIAL" in heard.read_text()
    places = {life.state_directory, life.output().parent, life.directory / "client-secret"}
    assert_no_secrets(*(path for path in life.directory.iterdir() if path not in places))
    assert {path.name for path in life.output().parent.iterdir()} == set(names)  # no leftovers
    assert {path.name for path in life.state_directory.glob("*.*")} == {".lock", ".fingerprint-key"} | {
        f"{name}.json" for name in names
    }
    for path in life.state_directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(life.state_directory.stat().st_mode) == 0o700


def test_a_failure_that_goes_on_is_told_at_1_2_4_8_times(life: Life) -> None:
    """E3: many credentials that fail again and again leave a few lines each in the log; the metrics count them all."""
    life.server.sandbox.change(access_lifetime=3600, fault="429")
    life.refresh["backoff_max"] = "500ms"
    names = [f"c{number}" for number in range(10)]
    life.configure(credentials="\n".join(f"[credentials.{name}]" for name in names))
    for name in names:
        life.put_pair(age=7200, name=name)
    with life.daemon() as daemon:
        daemon.wait_until(lambda: min(daemon.shown(name)["failures"] for name in names) >= 8, "eight failures each")
        lines = events(daemon, "refresh_failed")
        attempts = sum(
            daemon.sample("rotator_refresh_attempts_total", credential=name, outcome="unavailable") for name in names
        )
    assert attempts >= 80
    assert len(lines) <= len(names) * 5
    assert {line["failures"] for line in lines} <= {1, 2, 4, 8, 16}
    assert {line["credential"] for line in lines} == set(names)
