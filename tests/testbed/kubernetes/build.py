"""Build what the tests need of Kubernetes, once: `python -m tests.testbed.kubernetes.build`.

No package carries these programs as new as this, but Go's module proxy has their source. They are kept outside of the
clone, each kit under a key that changes with whatever it is made of, so that a machine which keeps its cache builds
nothing. The optimiser is off: that saves a third of the time, and costs a second at the API server's start.
"""

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
_TOO_OLD: Final = "It takes Go 1.26 or newer (Debian's is older): install it as the Go project describes"
_FLAGS: Final = ("-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w")
# Never another toolchain than the machine's own, and nothing from the clone's history in the binaries.
_GO: Final = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}


@dataclass(frozen=True, slots=True)
class Kit:
    """Programs that one Go module makes."""

    name: str
    module: Path
    packages: tuple[str, ...]
    """The last part of each is the program's name; those that begin with `./` are in the module."""

    @property
    def programs(self) -> tuple[str, ...]:
        """The names of its programs."""
        return tuple(package.rpartition("/")[2] for package in self.packages)

    def directory(self) -> Path:
        """Return where the programs are or belong; raises OSError or CalledProcessError if `go` does not run."""
        go = subprocess.run(("go", "version"), env=_GO, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        digest = hashlib.sha256(go.stdout + " ".join((*_FLAGS, self._versions())).encode())
        mains = (f"{package}/main.go" for package in self.packages if package.startswith("./"))
        for source in ("go.mod", "go.sum", *mains):
            digest.update((self.module / source).read_bytes())
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache) / "rotator-testbed" / f"{self.name}-{digest.hexdigest()[:16]}"

    def there(self) -> bool:
        """Tell whether all programs are built; raises as `directory` does."""
        return all((self.directory() / program).is_file() for program in self.programs)

    def build(self) -> None:
        """Put the programs in place, all or nothing; raises CalledProcessError."""
        target = self.directory()
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch, "made")
            subprocess.run(
                ("go", "build", *_FLAGS[:-1], f"{_FLAGS[-1]} {self._versions()}", "-o", f"{made}/", *self.packages),
                cwd=self.module, env=_GO, stdin=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            made.rename(target)

    def _versions(self) -> str:
        """Return the flags without which the programs call themselves v0.0.0, and tell others nonsense."""
        modules = (self.module / "go.mod").read_text()
        kubernetes = re.search(r"k8s\.io/component-base v0\.(\d+)\.(\d+)", modules)
        helm = re.search(r"helm\.sh/helm/v3 (v\S+)", modules)
        assert kubernetes is not None
        names = {
            "k8s.io/component-base/version.gitVersion": f"v1.{kubernetes[1]}.{kubernetes[2]}",
            "k8s.io/component-base/version.gitMajor": "1",
            "k8s.io/component-base/version.gitMinor": kubernetes[1],
        }
        if helm:
            names["helm.sh/helm/v3/internal/version.version"] = helm[1]
            for place in ("chartutil", "lint/rules"):  # the Kubernetes that it renders charts for
                names[f"helm.sh/helm/v3/pkg/{place}.k8sVersionMajor"] = "1"
                names[f"helm.sh/helm/v3/pkg/{place}.k8sVersionMinor"] = kubernetes[1]
        return " ".join(f"-X {key}={value}" for key, value in names.items())


SERVERS: Final = Kit("kubernetes", HERE, ("./etcd", "./kube-apiserver"))
CLIENTS: Final = Kit("clients", HERE / "clients", ("helm.sh/helm/v3/cmd/helm", "./kubectl"))
_KITS: Final = {kit.name: kit for kit in (SERVERS, CLIENTS)}


def main(*names: str, only_look: bool) -> int:
    """Build what is missing of these kits, or only say what is: at most a line for each, and an exit code."""
    kits = [_KITS[name] for name in names or _KITS]
    try:
        missing = [kit for kit in kits if not kit.there()]
    except (OSError, subprocess.CalledProcessError) as error:
        return _complain(", ".join(program for kit in kits for program in kit.programs), f"no Go ({error}). {_TOO_OLD}")
    if only_look:
        how = "run python -m tests.testbed.kubernetes.build once"
        return max((_complain(", ".join(kit.programs), how) for kit in missing), default=0)
    return max((_provide(kit) for kit in missing), default=0)


def _provide(kit: Kit) -> int:
    programs = ", ".join(kit.programs)
    cache = kit.directory().parent
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kit.there():
            print(f"Building {programs} for the tests (once, some minutes of one core) ...", flush=True)
            started = time.monotonic()
            try:
                kit.build()
            except subprocess.CalledProcessError as error:
                return _complain(programs, f"go build ended with {error.returncode}. {_TOO_OLD}")
            print(f"Built in {time.monotonic() - started:.0f} s.")
    return 0


def _complain(programs: str, text: str) -> int:
    print(f"no {programs} for the tests: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*(name for name in sys.argv[1:] if name != "--there"), only_look="--there" in sys.argv))
