"""Rounds of mishaps against real replicas, a real API server and a strict authorization server.

python -m tests.testbed.kubernetes.chaos --rounds 200 --seed 1

In each round one thing goes wrong at a random moment: a replica is killed, stopped, restarted or cut off, the API
server is restarted, or etcd stands still. In half of the rounds that moment is while a token request is under way. The
authorization server has no grace window and revokes the family of a refresh token that is presented twice, so the
smallest slip costs a credential.

Each round begins with fresh tokens, so it is one mishap. With `--fresh 0` one follows on another, and takeovers add up:
the margin must then hold as many as come in a row.

One loss is nobody's fault, and is counted apart: a replica that is killed after the server rotated and before the
answer was saved takes the answer with it. With `--grace 30` the server forgives for so long, rotator's `replay_window`
says so, and even that costs nothing.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rotator.core.model import TokenSet
from rotator.sandbox.sandbox import Sandbox
from rotator.sandbox.server import SandboxServer
from rotator.sandbox.switches import Switches
from tests.process.rig import wait_until
from tests.secrets_scan import PREFIX as PLANTED
from tests.testbed.kubernetes.monitor import Monitor
from tests.testbed.kubernetes.release import Release, Replica
from tests.testbed.kubernetes.servers import Servers, run_servers

NAMES: Final = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")
LIFETIME: Final = 60.0
_LATENCY: Final = 0.2
_LONGEST: Final = 8.0
FRESH: Final = LIFETIME * 0.7
"""Seconds that each token is good for when the next thing goes wrong: each round begins as the last one did."""
MARGIN: Final = LIFETIME * 0.2
"""Seconds before its end at which a token falls due; a Lease is taken over after 7 to 8."""
_KUBERNETES: Final = """
    lease_duration = "7s"
    timeout = "1s"
"""
_DEFAULTS: Final = """
    connect_timeout = "1s"
    read_timeout = "2s"
    total_timeout = "2500ms"
    refresh.ratio = {ratio:g}
    refresh.jitter = 0.05
    refresh.floor = "1s"
    refresh.backoff_initial = "1s"
    refresh.replay_window = {grace:g}
    refresh.max_calls_per_hour = 3600
"""


@dataclass
class Table:
    """What is told at the end."""

    seed: int
    rounds: Counter[str] = field(default_factory=Counter)
    struck_under_way: int = 0
    answers_killed: int = 0
    forgiven: int = 0
    presented_twice: int = 0
    lost: int = 0
    dead_seconds: float = 0.0
    rotations: int = 0
    takeovers: int = 0
    held_back: int = 0
    gave_way: int = 0
    stood_still: float = 0.0
    seconds: float = 0.0
    story: str = ""
    """How a token came to be dead; empty if none was."""

    @property
    def good(self) -> bool:
        """Whether all promises were kept."""
        return self.presented_twice == self.lost == 0 and self.dead_seconds == 0

    def __str__(self) -> str:
        """Return the table."""
        mishaps = ", ".join(f"{number} {what}" for what, number in sorted(self.rounds.items()))
        rows = (
            ("rounds", f"{self.rounds.total()}: {mishaps}"),
            ("seed, seconds", f"{self.seed}, {self.seconds:.0f}"),
            ("rotations", self.rotations),
            ("mishaps while a request was under way", self.struck_under_way),
            ("takeovers of the Lease", self.takeovers),
            ("requests held back because the Lease was nearly over", self.held_back),
            ("saves that gave way to another replica's", self.gave_way),
            ("answers that died with a killed replica (new login)", self.answers_killed),
            ("requests repeated within the server's grace window", self.forgiven),
            ("refresh tokens presented twice", self.presented_twice),
            ("credentials lost", self.lost),
            ("longest time any replica's file held a dead token", f"{self.dead_seconds:.1f} s"),
            ("longest time the machine itself stood still", f"{self.stood_still:.1f} s"),
        )
        return "\n".join(f"{what:54} {value}" for what, value in rows)


class Chaos:
    """The world that things go wrong in."""

    def __init__(
        self, servers: Servers, release: Release, sandbox: Sandbox, chance: random.Random, fresh: float
    ) -> None:
        self.servers = servers
        self.release = release
        self.sandbox = sandbox
        self.chance = chance
        self.fresh = fresh
        self.table = Table(0)
        self.monitor = Monitor(release, sandbox)
        self.victim = release.replicas[0]

    def begin(self) -> None:
        """Log in everywhere, and wait until every replica's outputs are there."""
        for name in self.release.names:
            self._login(name)
        self.settle()
        self.monitor.start()

    def _login(self, name: str) -> None:
        self.release.adopt(name, json.dumps(self.sandbox.issue(name)))

    def _wait_for_the_moment(self) -> None:
        """Wait for a while, in half of all cases until a token request is under way, and a little longer."""
        if self.chance.random() < 0.5:
            server, deadline = self.sandbox.authorization_server, time.monotonic() + LIFETIME / 4
            while not server.requests_under_way and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(self.chance.uniform(0, _LATENCY * 1.2))
        else:
            time.sleep(self.chance.uniform(0, 2))
        self.table.struck_under_way += self.sandbox.authorization_server.requests_under_way > 0

    def round(self) -> None:
        """Let one thing go wrong at a random moment, put it right, and wait until all is well."""
        kinds = (
            self.kill, self.kill, self.freeze, self.freeze, self.cut, self.pull, self.restart, self.api_server,
            self.etcd,
        )  # fmt: skip
        mishap = self.chance.choice(kinds)
        self.table.rounds[mishap.__name__] += 1
        self.victim = self._victim()
        self._wait_for_the_moment()
        whose = "" if mishap in (self.api_server, self.etcd) else f" of replica {self.victim.number}"
        with self.monitor.noting(f"{mishap.__name__}{whose}"):
            mishap()
        self.settle()

    # -- mishaps -----------------------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL a replica; it starts again after a while, with nothing in memory."""
        victim = self.victim
        victim.kill()
        time.sleep(_LATENCY * 2)  # what the server was about to do is done
        self._mourn()
        time.sleep(self.chance.uniform(0, 2))
        victim.start()

    def restart(self) -> None:
        """SIGTERM a replica, and start it again."""
        victim = self.victim
        assert victim.stop() == 0, victim.log
        victim.start()

    def freeze(self) -> None:
        """SIGSTOP a replica for a while."""
        victim = self.victim
        victim.freeze()
        time.sleep(self._while())
        victim.thaw()

    def cut(self) -> None:
        """Break a replica's connections to the API server off, and refuse new ones for a while."""
        victim = self.victim
        victim.proxy.cut()
        time.sleep(self._while())
        victim.proxy.open()

    def pull(self) -> None:
        """Swallow what a replica and the API server say to each other for a while."""
        victim = self.victim
        victim.proxy.swallow()
        time.sleep(self._while())
        victim.proxy.open()

    def api_server(self) -> None:
        """Kill the API server, and start it again."""
        self.servers.stop_apiserver()
        time.sleep(self.chance.uniform(0, 2))
        self.servers.start_apiserver()

    def etcd(self) -> None:
        """Let etcd stand still: the API server accepts what it cannot carry out."""
        self.servers.freeze_etcd()
        time.sleep(self._while())
        self.servers.thaw_etcd()

    def _victim(self) -> Replica:
        """Choose a replica: most of the time the one that has the Lease."""
        if self.chance.random() < 0.7:
            return self.release.owner(self.chance.choice(self.release.names))
        return self.chance.choice(self.release.replicas)

    def _while(self) -> float:
        return self.chance.uniform(0.1, _LONGEST)

    # -- what becomes of it ------------------------------------------------------------------------

    def _marked(self, name: str) -> bool:
        state = self.release.stored(name)
        return state is not None and state.refresh_started_at is not None

    def _tokens(self, name: str) -> TokenSet | None:
        try:
            state = self.release.stored(name)
        except OSError:
            return None
        return state.tokens if state is not None else None

    def _spent(self, name: str) -> bool:
        """Tell whether the stored refresh token is of no use: the answer that replaced it is not stored."""
        tokens = self._tokens(name)
        return tokens is None or self.sandbox.authorization_server.is_spent(tokens.refresh_token or "")

    def _mourn(self) -> None:
        """Log in anew where the killed replica had the answer, and nobody else: no client can prevent that loss."""
        for name in self.release.names if not self.sandbox.switches.grace_seconds else ():
            if self._spent(name) and self._marked(name):
                self.table.answers_killed += 1
                self.monitor.excused.add(name)
                self._login(name)

    def settle(self) -> None:
        """Wait until every replica is up, every pair stored and fresh, and every output holds the newest token."""
        for replica in self.release.replicas:
            replica.wait_until_up()
        for name in self.release.names:
            try:
                self._wait_until_well(name, 45.0)
            except AssertionError:
                if not self._spent(name):
                    raise
                self.table.lost += 1
                sys.stderr.write(f"{name} is lost\n")
                self.monitor.excused.add(name)
                self._login(name)
                self._wait_until_well(name, 45.0)
            self.monitor.excused.discard(name)

    def _wait_until_well(self, name: str, patience: float) -> None:
        wait_until(lambda: self._is_well(name), f"{name} is well", patience)

    def _is_well(self, name: str) -> bool:
        tokens = self._tokens(name)
        return (
            tokens is not None
            and tokens.expires_at > time.time() + self.fresh
            and not self._spent(name)
            and all(replica.token(name) == tokens.access_token for replica in self.release.replicas)
        )

    def end(self) -> Table:
        """Take stock."""
        self.monitor.end()
        books, table = self.sandbox.books, self.table
        table.dead_seconds, table.stood_still = self.monitor.longest, self.monitor.stood_still
        forgiven = books.replays_in_grace if self.sandbox.switches.grace_seconds else 0
        table.presented_twice, table.forgiven = books.replays_by_user.total() - forgiven, forgiven
        table.story = self.monitor.story(LIFETIME)
        table.rotations = books.refresh_grants
        logs = "".join(replica.log for replica in self.release.replicas)
        table.held_back = logs.count('"reason": "not_owner"')
        table.gave_way = logs.count('"event": "gave_way"')
        table.takeovers = logs.count('"event": "lease_taken"')
        return table


@contextmanager
def world(directory: Path, replicas: int, seed: int, grace: float, fresh: float, margin: float) -> Iterator[Chaos]:
    """Run servers and replicas, everybody logged in, until the end of the block."""
    switches = Switches(
        grace_seconds=grace, access_lifetime=LIFETIME, latency_seconds=_LATENCY, client_secret="", token_prefix=PLANTED
    )
    sandbox = Sandbox(switches=switches, users={"*": "none"})
    with run_servers(directory / "cluster") as servers, SandboxServer(sandbox) as server:
        release = Release(
            directory,
            servers.cluster.namespace(),
            server.url,
            NAMES,
            kubernetes=_KUBERNETES,
            defaults=_DEFAULTS.format(grace=grace, ratio=margin / LIFETIME),
        )
        with release.running(replicas):
            chaos = Chaos(servers, release, sandbox, random.Random(seed), fresh)
            chaos.table.seed = seed
            chaos.begin()
            yield chaos


def run(
    directory: Path, rounds: int, seed: int, replicas: int, grace: float = 0.0, fresh: float = FRESH,
    margin: float = MARGIN,
    say: Callable[[str], object] = lambda _: None,
) -> Table:  # fmt: skip
    """Run so many rounds and return the table."""
    began = time.monotonic()
    with world(directory, replicas, seed, grace, fresh, margin) as chaos:
        for number in range(1, rounds + 1):
            chaos.round()
            say(f"round {number} of {rounds}: {chaos.sandbox.books.refresh_grants} rotations so far")
        table = chaos.end()
        table.seconds = time.monotonic() - began
        return table


def main() -> int:
    """Run the rounds that the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--grace", type=float, default=0.0, help="the server's grace window, in seconds")
    parser.add_argument(
        "--fresh",
        type=float,
        default=FRESH,
        help="seconds of life that each token has before the next mishap; 0: one mishap follows on another",
    )
    parser.add_argument("--margin", type=float, default=MARGIN, help="seconds before its end that a token falls due")
    parser.add_argument("--keep", type=Path, help="an empty directory, to keep logs in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.keep or Path(temporary)
        table = run(
            directory, options.rounds, options.seed, options.replicas, options.grace, options.fresh, options.margin,
            lambda line: sys.stderr.write(f"{line}\n"),
        )  # fmt: skip
    if table.story:
        sys.stderr.write(f"{table.story}\n")
    print(table)  # noqa: T201 - a command
    return 0 if table.good else 1


if __name__ == "__main__":
    sys.exit(main())
