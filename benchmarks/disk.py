"""The disk that states are measured on: one as deployments have it.

ext4 without a journal (seen on virtual machines made for tests) keeps a new file off the inode of every file removed
within the last minute, and looks at each of these first. A save replaces a file, so there it costs the more CPU the
more saves there were: from 0.1 ms to 0.6 ms, all of it the kernel's. No deployment has such a disk: where the checkout
is on one, an image file with an ordinary ext4 is mounted for the run, if that is allowed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.deployment import DISK, DISK_VARIABLE

_IMAGE_BYTES: Final = 2 << 30
_MOUNT: Final = 'mkfs.ext4 -q -F "$1"; mount -o loop "$1" "$2"; shift 2; exec "$@"'


def lacks_journal(path: Path) -> bool:
    """Tell whether a path is on ext4 without a journal."""
    device = path.stat().st_dev
    name = Path(os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")).name
    return Path(f"/proc/fs/ext4/{name}").is_dir() and not [*Path("/proc/fs/jbd2").glob(f"{name}-*")]


def run_on_image(arguments: Sequence[str]) -> int | None:
    """Run the benchmarks on a disk image that only they can see; None if this machine does not let us."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "mount", "mkfs.ext4"))):
        return None
    with tempfile.TemporaryDirectory(prefix="rotator-bench-", dir=DISK) as place:
        image, mounted = Path(place, "image"), Path(place, "mounted")
        with image.open("wb") as file:  # in full, so that no write has to find room for the image as well
            for _ in range(_IMAGE_BYTES >> 20):
                file.write(bytes(1 << 20))
            os.fsync(file.fileno())
        mounted.mkdir()
        program = [sys.executable, "-m", "benchmarks", *arguments]
        shell = ["unshare", "--mount", "sh", "-ec", _MOUNT, "sh", str(image), str(mounted), *program]
        return subprocess.run(shell, env={**os.environ, DISK_VARIABLE: str(mounted)}, check=False).returncode
