"""The script of faults: everything that the alerts are about happens to a real daemon, and is mended again.

Each scene ends when what it is about is seen by Prometheus; whoever plays the script looks around then.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.process.rig import CLIENT_SECRET, DaemonProcess, wait_until
from tests.secrets_scan import planted
from tests.testbed.prometheus.pods import FOLLOWER, LEADER, Pods, run_pods
from tests.testbed.prometheus.server import SCRAPE_SECONDS, Prometheus, Target, run_prometheus
from tests.testbed.prometheus.town import EVERYBODY, FIRST, LATER, Town, new_town

RULES: Final = Path(__file__).parents[3] / "deploy" / "prometheus" / "rules.yaml"
MACHINE: Final = {"job": "rotator", "instance": "vm-1"}
_AT_ODDS: Final = {"RotatorNoLeader", "RotatorReplicasDiffer"}
PODS: Final = {"job": "iot/rotator", "namespace": "iot"}
"""The labels of a scrape of a machine, and those that a scrape of pods has beside pod and instance."""


LASTING: Final = {"RotatorAvailabilityBudgetBurning", "RotatorRefreshBudgetBurning", "RotatorRotationMissing"}
Wanted = Mapping[str, set[str] | None]
"""Alerts, and the credentials that each is about; None: whichever."""
TROUBLE: Final[Wanted] = {
    "RotatorAccessTokenExpired": {"lost", "outage", "refused"},
    "RotatorAccessTokenExpiring": {"lost", "outage", "refused"},
    "RotatorAmbiguousAnswer": {"lost"},
    "RotatorAvailabilityBudgetBurning": set(),
    "RotatorClockSuspect": set(),
    "RotatorFuseBlown": {"eager"},
    "RotatorLoginRequired": {"new"},
    "RotatorOutputExpiring": {"blocked"},
    "RotatorPublishFailing": {"blocked"},
    "RotatorReauthorizationRequired": {"revoked"},
    "RotatorRefreshRefused": {"refused"},
    "RotatorRefreshTokenExpiring": {"aged", "old"},
    "RotatorRefreshTokenExpiringSoon": {"old"},
    "RotatorStateUnreadable": {"damaged"},
}
CLOCK: Final[Wanted] = {"RotatorClockSuspect": set()}
"""Fires for an hour after a start with a state from the future."""


def hurried() -> str:
    """Return the rules with each minute of `for:` made a second. Nothing else is changed."""
    return re.sub(r"^( +for: \d+)m$", r"\1s", RULES.read_text(), flags=re.MULTILINE)


@dataclass(slots=True)
class Stage:
    """What is on stage: the installation, its daemon, and Prometheus watching."""

    town: Town
    prometheus: Prometheus
    pods: Pods
    began_at: float
    daemon: DaemonProcess
    fired: set[str] = field(default_factory=set)
    """The names of all alerts that were seen to fire so far."""

    def firing(self) -> dict[str, set[str]]:
        """Return the alerts that fire about the machine: of each, the credentials; empty if it names none."""
        found: dict[str, set[str]] = {}
        for labels in self.prometheus.alerts():
            self.fired.add(labels["alertname"])
            if labels.get("job") == MACHINE["job"]:
                found.setdefault(labels["alertname"], set()).update(filter(None, [labels.get("credential")]))
        return found

    def wait(self, wanted: Wanted, *, others: bool = False) -> None:
        """Wait until these alerts fire, each about these credentials, and none else, unless `others` may.

        Those that look back over hours (`LASTING`) may fire at any time after the trouble.
        """

        def met() -> bool:
            firing = self.firing()
            if not all(name in firing and names in (None, firing[name]) for name, names in wanted.items()):
                return False
            return others or firing.keys() - wanted.keys() <= LASTING

        try:
            wait_until(met, f"firing: {wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}\nbut: {self.firing()}\n{self.daemon.log[-3000:]}") from None

    def wait_scraped(self) -> None:
        """Wait until Prometheus has seen, and judged, how things are now."""
        now = time.time()
        wait_until(
            lambda: all(series["value"][1] and float(series["value"][1]) > now for series in self._scraped()),
            "two scrapes",
        )

    def _scraped(self) -> list[dict[str, list[str]]]:
        return self.prometheus.instant(f"timestamp(up) - {2 * SCRAPE_SECONDS}")

    def reload(self, outcome: str) -> None:
        """Have the daemon read its configuration."""
        before = self.daemon.sample("rotator_config_reloads_total", outcome=outcome)
        os.kill(self.daemon.pid, signal.SIGHUP)
        self.daemon.wait_until(
            lambda: self.daemon.sample("rotator_config_reloads_total", outcome=outcome) > before, "a reload"
        )


Scene = Callable[[Stage], None]


def well(stage: Stage) -> None:
    """Every credential has been refreshed twice."""
    stage.daemon.wait_until(
        lambda: all(stage.daemon.shown(name)["generation"] > 2 for name in FIRST), "all are refreshed twice"
    )
    stage.wait({})


def trouble(stage: Stage) -> None:
    """Each credential but one gets its own trouble."""
    town = stage.town
    for name in ("outage", "fast"):
        town.servers[name].stop()
    town.switch("lost", fault="after:503")
    town.switch("refused", client_secret=planted("another-secret"))
    town.servers["revoked"].sandbox.revoke()
    town.block()
    town.configure((*FIRST, *LATER))
    stage.reload("success")
    stage.wait(TROUBLE)


def mended(stage: Stage) -> None:
    """What heals by itself has healed, and somebody has logged in where that was needed."""
    town = stage.town
    for name in ("outage", "fast"):
        town.servers[name].start()
    town.switch("lost", fault="")
    town.switch("refused", client_secret=CLIENT_SECRET)
    town.unblock()
    (town.rig.directory / "out" / "blocked").mkdir()
    town.configure((*FIRST, *LATER), is_fused=False)
    stage.reload("success")
    for name in ("lost", "revoked", "new", "damaged", "aged", "old"):
        town.rig.login(name)
    stage.wait(CLOCK)


def full_disk(stage: Stage) -> None:
    """The disk is full, and nothing is refreshed, however late; then it fills up while a new pair is on its way."""
    stage.town.fill_disk()
    stage.town.configure(EVERYBODY, is_fused=False)
    stage.reload("success")
    stage.wait(
        {"RotatorSaveFailing": set(), "RotatorAccessTokenExpired": None, "RotatorRefreshOverdue": set()}, others=True
    )
    stage.town.switch("home", latency_seconds=30.0)
    stage.town.make_room()
    stage.daemon.wait_until(lambda: stage.daemon.shown("home")["refreshing"], "a request")
    stage.town.fill_disk()
    stage.town.switch("home", latency_seconds=0.0)
    stage.wait({"RotatorPairUnsaved": None, "RotatorSaveFailing": set()}, others=True)


def room_again(stage: Stage) -> None:
    """There is room on the disk."""
    stage.town.make_room()
    stage.wait(CLOCK)


def bad_configuration(stage: Stage) -> None:
    """A new configuration is refused, and no pod holds the Lease; who held it last has other credentials."""
    stage.town.configure(EVERYBODY, is_fused=False, is_broken=True)
    stage.pods.led, stage.pods.differ = False, True
    stage.reload("failure")
    stage.wait({**CLOCK, "RotatorConfigReloadFailed": set()})
    wait_until(lambda: _AT_ODDS.issubset(alert["alertname"] for alert in stage.prometheus.alerts()), "no leader")


def good_configuration(stage: Stage) -> None:
    """The configuration is put right, and a pod holds the Lease again."""
    stage.town.configure(EVERYBODY, is_fused=False)
    stage.pods.led, stage.pods.differ = True, False
    stage.reload("success")
    stage.wait(CLOCK)
    wait_until(lambda: _AT_ODDS.isdisjoint(alert["alertname"] for alert in stage.prometheus.alerts()), "a leader")


def shaky_servers(stage: Stage) -> None:
    """Each server fails once, and one has stopped replacing refresh tokens."""
    for server in stage.town.servers.values():
        server.sandbox.script(["503"])
    stage.town.switch("home", rotation=False)
    stage.wait({"RotatorRefreshBudgetBurning": set(), "RotatorRotationMissing": set()}, others=True)
    stage.town.switch("home", rotation=True)
    left = [server.sandbox for name, server in stage.town.servers.items() if name not in {"fast", "eager"}]
    stage.daemon.wait_until(
        lambda: (
            not any(sandbox.script_left for sandbox in left)
            and all(shown["reason"] is None for shown in stage.daemon.get("/v1/status")["credentials"])
        ),
        "the failures are over",
    )
    stage.wait(CLOCK)


def gone(stage: Stage) -> None:
    """The daemon has ended."""
    assert stage.daemon.stop() == 0
    stage.wait({"RotatorAbsent": set()})


def back(stage: Stage) -> None:
    """It was started again, on the same state."""
    stage.wait({})


SCENES: Final[tuple[Scene, ...]] = (
    well, trouble, mended, full_disk, room_again, bad_configuration, good_configuration,
    shaky_servers, gone,
)  # fmt: skip
"""All that one daemon lives through; `back` is played by its successor."""


@contextmanager
def staged(directory: Path, rules: str) -> Iterator[Stage]:
    """Set the stage: the daemon runs and is scraped, as a machine and as a pod beside a follower."""
    with new_town(directory) as town, run_pods(town.rig.metrics_address) as pods:
        host, port = town.rig.metrics_address
        targets = [
            Target(f"{host}:{port}", MACHINE),
            Target(pods.address, {**PODS, "pod": "rotator-0", "instance": "10.0.0.7:9774"}, LEADER),
            Target(pods.address, {**PODS, "pod": "rotator-1", "instance": "10.0.0.8:9774"}, FOLLOWER),
        ]
        with run_prometheus(directory, targets, rules) as prometheus, town.daemon() as daemon:
            yield Stage(town, prometheus, pods, time.time(), daemon)


def play(directory: Path, rules: str, look: Callable[[str, Stage], None]) -> None:
    """Play all scenes; look around at the end of each, with its name."""
    with staged(directory, rules) as stage:
        for scene in SCENES:
            scene(stage)
            stage.wait_scraped()
            look(scene.__name__, stage)
        with stage.town.daemon() as stage.daemon:
            back(stage)
            stage.wait_scraped()
            look(back.__name__, stage)
