"""`rotator mirror`: a Secret as files, with the right to list and watch that one Secret and no other."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.rig import PATIENCE, ROOT, wait_until
from tests.secrets_scan import assert_no_secrets, planted
from tests.testbed.kubernetes.cluster import Namespace

SECRET = "home-token"


class Pod:
    """An application's pod with a mirror in it."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self.directory = directory
        self.file = directory / "token"
        rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"], "resourceNames": [SECRET]}
        account = namespace.account(rule, name="application")
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "KUBECONFIG": str(account.kubeconfig(directory / "kubeconfig"))
        }  # fmt: skip

    def publish(self, token: str, generation: int, seconds: float = 3600.0) -> None:
        """Publish a token as the owner does."""
        expires_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        annotations = {"token-rotator/generation": str(generation), "token-rotator/expires-at": expires_at}
        if self.namespace.get("secrets", SECRET) is None:
            self.namespace.make_secret(SECRET, {"token": token}, metadata={"annotations": annotations})
        else:
            self.namespace.edit(
                "secrets", SECRET, {"metadata": {"annotations": annotations}, "stringData": {"token": token}}
            )

    def command(self, *arguments: str) -> list[str]:
        """Return the argument vector."""
        return [sys.executable, "-B", "-m", "rotator.cli", "mirror", SECRET, f"token={self.file}", *arguments]

    def once(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Mirror once."""
        return subprocess.run(
            self.command("--once", *arguments),
            capture_output=True, text=True, env=self.environment, cwd=ROOT, timeout=PATIENCE, check=False,
        )  # fmt: skip

    @contextmanager
    def mirror(self) -> Generator["subprocess.Popen[bytes]"]:
        """Mirror until the end of the block."""
        log = self.directory / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(self.command(), stderr=stderr, env=self.environment, cwd=ROOT)
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0
        assert_no_secrets(log)

    def holds(self, token: str) -> None:
        """Wait until the file holds a token."""
        wait_until(lambda: self.file.exists() and self.file.read_text() == token, f"the file holds {token}")

    def has_told(self, *messages: str) -> None:
        """Wait until these are all of the log's messages: what was done is told a moment later."""
        wait_until(lambda: self.events() == [*messages], f"it tells {messages}")

    def events(self) -> list[str]:
        """Return the log's messages."""
        return [json.loads(line)["message"] for line in (self.directory / "log").read_text().splitlines()]


@pytest.fixture
def pod(namespace: Namespace, tmp_path: Path) -> Pod:
    """Return a pod."""
    return Pod(namespace, tmp_path)


def test_a_file_follows_the_secret_and_never_goes_back(pod: Pod) -> None:
    """C23, H16: a new token is there at once, and one of an older generation is not taken."""
    pod.publish(planted("one"), 1)
    with pod.mirror():
        pod.holds(planted("one"))
        assert stat.S_IMODE(pod.file.stat().st_mode) == 0o640
        pod.publish(planted("three"), 3)
        pod.holds(planted("three"))
        pod.publish(planted("two"), 2, 3000)
        pod.publish(planted("four"), 4)
        pod.holds(planted("four"))
        pod.namespace.delete("secrets", SECRET)
        pod.publish(planted("six"), 6)
        pod.holds(planted("six"))
        pod.has_told(*(f"generation {number} of Secret {SECRET} is in place" for number in (1, 3, 4, 6)))


def test_once_ends_when_the_file_is_there(pod: Pod) -> None:
    """H25: for an init container: the application starts with a token, or not yet."""
    run = pod.once("--timeout", "3")
    assert run.returncode == 75
    assert run.stderr == f"rotator: not written within 3 s: Secret {pod.namespace.name}/{SECRET} is not there yet\n"
    pod.publish(planted("one"), 1)
    assert pod.once().returncode == 0
    assert pod.file.read_text() == planted("one")


def test_what_is_of_no_use_is_not_written(pod: Pod) -> None:
    """A token that is over, or a key that is not there, is told."""
    pod.publish(planted("old"), 1, -10)
    run = pod.once("--timeout", "3")
    assert run.returncode == 75
    assert f"the token in Secret {SECRET} is over since" in run.stderr
    pod.publish(planted("one"), 2)
    run = pod.once("--timeout", "3", f"password={pod.directory}/password")
    assert f"Secret {SECRET} has no key password; it has token" in run.stderr
    assert not pod.file.exists()


def test_a_state_is_not_mirrored(pod: Pod) -> None:
    """The Secret of a state holds a refresh token: it is not copied into an application's pod, rights or not."""
    pod.namespace.make_secret(SECRET, {"token": planted("refresh")}, type="token-rotator/state")
    run = pod.once("--timeout", "3")
    assert run.returncode == 75
    assert f"Secret {SECRET} holds a state, refresh token included: name the published Secret" in run.stderr
    assert not pod.file.exists()


def test_a_missing_right_is_told_with_the_rule(pod: Pod) -> None:
    """H12, H13: what to add to the Role is told at the start, both verbs in one rule."""
    run = pod.once("--timeout", "3", "--namespace", "elsewhere")
    assert run.returncode == 75
    rule = f'- {{apiGroups: [""], resources: ["secrets"], resourceNames: ["{SECRET}"], verbs: ["list", "watch"]}}'
    assert f"add to the Role in namespace elsewhere: {rule}" in json.loads(run.stderr.splitlines()[0])["message"]


def test_a_directory_that_comes_later_is_no_reason_to_give_up(pod: Pod) -> None:
    """What could not be written is tried again."""
    pod.file = pod.directory / "late" / "token"
    pod.publish(planted("one"), 1)
    with pod.mirror():
        wait_until(lambda: any("late" in line for line in pod.events()), "the trouble is told")
        pod.file.parent.mkdir()
        pod.holds(planted("one"))


def test_a_file_that_somebody_removes_or_changes_is_written_again(pod: Pod) -> None:
    """H15: what a consumer's pod does to its copy is mended within a second or two, and told."""
    pod.publish(planted("one"), 1)
    with pod.mirror():
        pod.holds(planted("one"))
        pod.file.unlink()
        pod.holds(planted("one"))
        pod.file.write_text("mine")
        pod.holds(planted("one"))
        pod.file.chmod(0o666)
        wait_until(lambda: stat.S_IMODE(pod.file.stat().st_mode) == 0o640, "the mode is back")
        again = f"{pod.file} was removed or changed by somebody else: it is written again"
        pod.has_told(f"generation 1 of Secret {SECRET} is in place", *[again] * 3)


@pytest.mark.parametrize("argument", ["token", "token=relative", "=/x"])
def test_a_wrong_argument_is_told(pod: Pod, argument: str) -> None:
    """The form is shown."""
    run = pod.once(argument)
    assert run.returncode == 64
    assert "is not KEY=/path/of/file" in run.stderr
