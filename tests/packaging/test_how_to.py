"""docs/how-to/systemd.md, followed to the letter."""

import json
import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.needs import needs
from tests.packaging.builds import Built
from tests.packaging.debian import bare_machine
from tests.process.rig import ROOT, wait_until
from tests.terminal import converse
from tests.testbed.systemd.machine import ENVIRONMENT

PAGE: Final = (ROOT / "docs/how-to/systemd.md").read_text()
CONSUMER: Final = """[Service]
DynamicUser=yes
RuntimeDirectory=consumer
ExecStart=/bin/sh -c 'cp /run/rotator/home.token /run/consumer && exec sleep inf'
"""


def script() -> str:
    """Return what the page says to type: its indented blocks, in order. A step that fails ends it."""
    blocks = re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)
    lines = [line.removeprefix("    ") for block in blocks for line in block.splitlines()]
    return "\n".join(["set -e", "cd /root", *lines, "echo the end"])


@pytest.mark.shows_secrets
def test_the_page_leads_from_the_package_to_a_token_and_further(built: Built, tmp_path: Path) -> None:
    """Nothing but what the page says, on a machine that never saw rotator: the server accepts what is in the file.

    And further: a consumer, a new secret, a credential, an encrypted one, a reload; a rotation proves each secret.
    """
    needs("systemd-nspawn", "curl")
    user, password = re.findall(r"one user \(`(\S+)`, password `(\S+)`\)", PAGE)[0]
    answers = (("User name for home:", user), ("Password (not shown):", password))
    with bare_machine(tmp_path, own_network=True) as machine:
        shutil.copy(built.deb, machine.disk / "root")
        machine.write("/etc/systemd/system/consumer.service", CONSUMER)
        typed = machine.command("bash", "-c", script())
        code, shown = converse(ENVIRONMENT | {"NO_COLOR": "1"}, typed, *answers, patience=200)
        assert (code, shown.splitlines()[-1]) == (0, "the end"), shown
        assert "home: logged in, generation 1" in shown
        assert "home: valid, generation 1" in shown
        assert len(re.findall(r"home: rotated, generation [234]", shown)) == 3
        machine.run("systemctl", "start", "consumer")
        copied = machine.root / "run/consumer/home.token"
        wait_until(lambda: copied.exists() and copied.read_text(), "the consumer has read the token")
        assert copied.read_text() == (machine.root / "run/rotator/home.token").read_text()
        assert not (machine.disk / "etc/rotator/client-secret").exists()
        books = json.loads(machine.run("curl", "--silent", "http://127.0.0.1:8080/sandbox/books").stdout)
        assert (books["good_calls"], books["dead_calls"], books["replays_outside_grace"]) == (1, 0, 0)
