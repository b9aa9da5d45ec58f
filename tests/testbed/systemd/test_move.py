"""docs/how-to/move.md, followed to the letter on one machine, which is the old one first and the new one then."""

import re
from typing import Final

from tests.process.rig import NAME, ROOT
from tests.testbed.systemd.installed import Installed

_HOME: Final = "/srv"
"""Where the operator of the test machine types."""
_PAGE: Final = (ROOT / "docs/how-to/move.md").read_text()


def test_a_move_takes_no_login_and_an_old_copy_and_a_retired_credential_do_no_harm(installed: Installed) -> None:
    """B4, B15: what the page says to type; a server that revokes all when a spent token comes never has reason to."""
    blocks = [block.replace("NAME", NAME) for block in re.findall(r"(?:^    .*\n)+", _PAGE, re.MULTILINE)]
    pack, unpack, clear, restored, retire = blocks
    machine = installed.machine

    def type_in(block: str) -> None:
        machine.run("sh", "-ec", f"cd {_HOME}\n{block}")

    installed.start()
    installed.login()
    assert installed.rotate()["generation"] == 2
    type_in(pack)
    machine.run("cp", f"{_HOME}/rotator.tar", f"{_HOME}/backup.tar")
    machine.run("rm", "-r", "/etc/rotator", "/var/lib/rotator", "/run/rotator")  # another machine
    type_in(unpack)
    installed.wait_for_generation(3)
    machine.run("cp", f"{_HOME}/backup.tar", f"{_HOME}/rotator.tar")
    machine.run("systemctl", "stop", "rotator")
    type_in(clear)
    machine.run("tar", "-C", "/", "-xf", f"{_HOME}/backup.tar")
    type_in(restored)
    assert installed.shown()["standing"] == "login_required"
    installed.login()
    assert installed.rotate()["standing"] == "valid"
    installed.configure(credentials="")
    type_in(retire)
    files = machine.run("find", "/var/lib/rotator", "/run/rotator", "-name", f"{NAME}*").stdout
    assert files == ""
    installed.configure()
    machine.run("systemctl", "reload", "rotator")
    assert installed.shown()["standing"] == "login_required"
    assert installed.books.token_requests == {"granted": 5}
