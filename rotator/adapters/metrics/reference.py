"""Makes the page of all metrics from real scrapes: what the page promises is what Prometheus gets to see.

`python -m rotator.adapters.metrics.reference` tells whether the page is fresh, `--write` writes it.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from prometheus_client.metrics_core import Metric

from rotator.adapters.metrics import Metrics
from rotator.adapters.metrics.tally import OUTCOMES
from rotator.core.model import HOUR, Oddity, Reason
from rotator.core.standing import CredentialView, OutputView, Standing
from rotator.ports import Counts, Desk, LeaseView

PAGE: Final = Path("docs/reference/metrics.md")
FLEETS: Final = (1, 1_000, 100_000)
_THRESHOLD: Final = 2000  # the configuration's default of `metrics.fleet_threshold`
_SECTIONS: Final = {
    "Daemon": "What the daemon counts for itself and for all credentials together.",
    "Fleet": "What holds of all credentials together. Always there; above the threshold, all there is to alert on.",
    "Credential": """\
Series for each credential, gone above the threshold; `rotator_refresh_attempts_total` then has no `credential`. What is
not known has no series. Instants are seconds since the epoch, UTC.""",
    "Output": """\
Series for each output and hook of a credential: `sink` is the output's path or the hook's name. Gone above the
threshold; `rotator_publishes_total` then has neither `credential` nor `sink`.""",
    "Process": "What the kernel says of the process.",
}
_STATES: Final = {
    Standing.VALID: "all is well",
    Standing.RETRYING: "the last request did not get through; it is tried again by itself",
    Standing.AMBIGUOUS: "a request was sent and its answer lost: the server may have replaced the refresh token",
    Standing.REFUSED: "the server refuses for another reason than the grant, the client secret for instance",
    Standing.SUSPECT: "the server refused the grant; it is asked once more before that is believed",
    Standing.REAUTHORIZATION_REQUIRED: "the grant is dead: a person must log in",
    Standing.LOGIN_REQUIRED: "there never was a token: a person must log in",
    Standing.STATE_UNREADABLE: "the stored state cannot be read",
    Standing.STARTING: "not opened yet",
}
_OUTCOMES: Final = {
    "granted": "new tokens came",
    "refused": "the server said no",
    "unavailable": "nothing was done, or nothing was reached",
    "ambiguous": "sent, and no telling whether it was carried out",
    "late": "answered after a login had replaced the tokens",
    "held": "not sent: the server has just refused others of the same client",
}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as Prometheus sees it."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
    series: tuple[int, ...]
    """How many there are for each of `FLEETS`."""

    @property
    def section(self) -> str:
        """Return the title it belongs under."""
        if self.name.startswith("process_"):
            return "Process"
        if self.name.startswith("rotator_fleet_"):
            return "Fleet"
        return "Output" if "sink" in self.labels else "Credential" if "credential" in self.labels else "Daemon"


class _Desk:
    """Credentials of which everything is known and nothing works: the most series there can be."""

    def __init__(self, size: int) -> None:
        self._size = size

    def views(self) -> Iterator[CredentialView]:
        output = OutputView("/run/token", False, False, 1, 1.0, HOUR, 1, Reason.NO_SPACE, "")  # noqa: FBT003 - a row
        for number in range(self._size):
            yield CredentialView(
                name=f"c{number}", grant="refresh_token", standing=Standing.RETRYING, generation=1, issued_at=1.0,
                expires_at=HOUR, refresh_issued_at=1.0, refresh_expires_at=HOUR, refresh_life_began_at=1.0,
                next_at=1.0, next_why="", last_attempt_at=1.0, last_success_at=1.0, failures=1, reason=Reason.DNS,
                text="", clock_suspect=False, fuse_blown=False, refreshing=False, unsaved=False,
                access_token_fingerprint="", refresh_token_fingerprint="", outputs=(output,),
            )  # fmt: skip

    def counts(self) -> Counts:
        leases = (LeaseView("rotator", held=True),)
        return Counts(0.0, 0.0, 0, 0, 0, 0, 0, last_reload_good=True, last_reload_at=0.0, leases=leases)


class _Noon:
    def now(self) -> float:
        return HOUR

    def wall(self, instant: float) -> float:
        return instant


def scraped(size: int) -> list[Metric]:
    """Return what one scrape shows of so many credentials with one output each."""
    return Metrics(cast("Desk", _Desk(size)), _THRESHOLD, _Noon()).families()


def families() -> list[Family]:
    """Return every metric there can be, in the order of a scrape."""
    scrapes = [{family.name: family for family in scraped(size)} for size in FLEETS]
    return [
        _family(family, tuple(len(scrape[name].samples) if name in scrape else 0 for scrape in scrapes))
        for name, family in scrapes[0].items()
    ]


def _family(family: Metric, series: tuple[int, ...]) -> Family:
    samples = family.samples
    counter = family.type == "counter"
    name = samples[0].name if counter or family.type == "info" else family.name
    return Family(name, family.type, _unit(name), tuple(samples[0].labels), family.documentation, series)


def _unit(name: str) -> str:
    if name.endswith("_timestamp_seconds") or name == "process_start_time_seconds":
        return "instant"
    return next((unit for unit in ("seconds", "bytes") if unit in name), "")


def page() -> str:
    """Return the page in Markdown."""
    found = families()
    parts = [_introduction(found)]
    for title, about in _SECTIONS.items():
        rows = [_row(family) for family in found if family.section == title]
        head = "| metric | type | unit | labels | meaning | series |\n| --- | --- | --- | --- | --- | --- |"
        parts.append(f"## {title}\n\n{about}\n\n{head}\n" + "\n".join(rows) + "\n")
    parts.append(_label_values())
    return "\n".join(parts)


def _introduction(found: Sequence[Family]) -> str:
    totals = [sum(family.series[place] for family in found) for place in range(len(FLEETS))]
    sizes, series = (" / ".join(f"{number:,}" for number in numbers) for numbers in (FLEETS, totals))
    return f"""\
# Metrics

This page is made from real scrapes: `python -m rotator.adapters.metrics.reference --write`.

`/metrics` is served at `metrics.listen` (127.0.0.1:9774), in the text format, or as OpenMetrics to those who ask for
it. There are no exemplars and no native histograms: [decision 0015](../decisions/0015-what-is-measured-and-alerted.md).

*Series* tells how many there are with {sizes} credentials of one output each, histogram buckets
included; in all {series}. With more credentials than `metrics.fleet_threshold` ({_THRESHOLD:,} unless
configured) the series of single credentials and outputs disappear, and those of the fleet tell how many are in which
trouble. Labels are names from the configuration and the values below, never a secret. A name, a type or a label changes
only with a line in the changelog.
"""


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels if label != "le")
    series = " / ".join(f"{count:,}" for count in family.series)
    meaning = family.meaning.replace("|", "\\|")
    return f"| `{family.name}` | {family.kind} | {family.unit} | {labels} | {meaning} | {series} |"


def _label_values() -> str:
    rows = [
        *(f"| `state` | `{state}` | {_STATES[state]} |" for state in Standing),
        *(f"| `outcome` of requests | `{outcome}` | {_OUTCOMES[outcome]} |" for outcome in OUTCOMES),
        "| `outcome` of everything else | `success`, `failure` | |",
        "| `operation` | `refresh`, `save`, `publish` | where it failed |",
        "| `direction` | `forward`, `backward` | where the wall clock went |",
        "| `fraction` | `0.0`, `0.01`, `0.1`, `0.5` | the first, one in a hundred, one in ten, half |",
        "| `within` | `7d`, `2d` | before the refresh token's end |",
        f"| `reason` | {', '.join(f'`{reason}`' for reason in Reason)} | why it failed; the log has it in words |",
        f"| `oddity` | {', '.join(f'`{oddity}`' for oddity in Oddity)} | what was tolerated in an answer |",
    ]
    return "## Label values\n\n| label | value | meaning |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or return 1 if it is stale. Run in the project's top directory."""
    text = page()
    if arguments == ["--write"]:
        PAGE.write_text(text, "utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text("utf-8") == text:
        return 0
    sys.stderr.write(f"{PAGE} is stale: run python -m rotator.adapters.metrics.reference --write\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
