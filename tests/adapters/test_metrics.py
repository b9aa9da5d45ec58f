"""Metrics: what a scrape shows of events, credentials and the fleet."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from rotator import VERSION
from rotator.adapters.metrics import Metrics
from rotator.adapters.metrics.reference import PAGE, main, page
from rotator.core.model import DAY, Oddity, Reason
from rotator.core.standing import Standing, shifted
from rotator.ports import LeaseView, Notice, Problem, PublishFinished, RefreshFinished, RefreshStarted, SaveFinished
from tests.desk import NOW, OUTPUT, VIEW, DataDesk
from tests.fakes import FixedClock
from tests.needs import needs
from tests.process.rig import PATIENCE

ROOT = Path(__file__).parents[2]
FULL_DISK = Problem(Reason.NO_SPACE, "/var/lib/rotator: no space left; free some")


class Scraper:
    """Reads a `Metrics` like Prometheus does: a value for each name and set of labels."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def scrape(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return every sample of one scrape; a series that is there twice is an error."""
        samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(self.metrics.render()[0].decode()):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in samples
                samples[key] = sample.value
        return samples

    def value(self, name: str, **labels: str) -> float:
        """Return one sample of a new scrape."""
        return self.scrape()[name, frozenset(labels.items())]

    def series(self, name: str) -> list[dict[str, str]]:
        """Return the label sets of a metric."""
        return [dict(labels) for found, labels in self.scrape() if found == name]


def refreshed(
    outcome: str, reason: Reason | None = None, *oddities: Oddity, credential: str = "web"
) -> RefreshFinished:
    """Return the end of a token request that took 0.2 s."""
    return RefreshFinished(credential, outcome, reason, "", 0.2, 5, 0, oddities)


def test_expiry_and_issue_are_instants() -> None:
    """M1, M2, M3, M4: alerts can compute with expiry, issue and last use of both tokens."""
    scraper = Scraper(Metrics(DataDesk(VIEW), 10, FixedClock(NOW)))
    expected = {
        "rotator_access_token_issued_timestamp_seconds": NOW - 600,
        "rotator_access_token_expiry_timestamp_seconds": NOW + 3000,
        "rotator_refresh_token_issued_timestamp_seconds": NOW - 600,
        "rotator_refresh_token_expiry_timestamp_seconds": NOW + 86400 * 30,
        "rotator_next_refresh_timestamp_seconds": NOW + 1800,
        "rotator_last_attempt_timestamp_seconds": NOW - 600,
        "rotator_last_success_timestamp_seconds": NOW - 600,
    }
    assert {name: scraper.value(name, credential="web") for name in expected} == expected


def test_age_is_computed_at_the_scrape() -> None:
    """L8, M3: the age of a token grows between two scrapes though nothing happened."""
    clock = FixedClock(NOW)
    scraper = Scraper(Metrics(DataDesk(VIEW), 10, clock))
    assert scraper.value("rotator_access_token_age_seconds", credential="web") == 600
    clock.at += 45
    assert scraper.value("rotator_access_token_age_seconds", credential="web") == 645
    assert scraper.value("rotator_fleet_access_token_remaining_seconds", fraction="0.0") == 2955


def test_ages_go_by_the_wall_clock_like_the_instants() -> None:
    """M1: instants come as the wall clock shows them, also after that was set back; an age does not mix two clocks."""
    scraper = Scraper(Metrics(DataDesk(shifted(VIEW, -3600)), 10, FixedClock(NOW, offset=-3600)))
    assert scraper.value("rotator_access_token_expiry_timestamp_seconds", credential="web") == NOW + 3000 - 3600
    output = {"credential": "web", "sink": OUTPUT.name}
    assert scraper.value("rotator_output_token_expiry_timestamp_seconds", **output) == NOW + 3000 - 3600
    assert scraper.value("rotator_access_token_age_seconds", credential="web") == 600


def test_what_is_not_known_has_no_series() -> None:
    """M2: an unknown expiry is absent; as a zero it would look long over."""
    view = replace(VIEW, issued_at=None, expires_at=None, refresh_expires_at=None, next_at=None, last_success_at=None)
    scraper = Scraper(Metrics(DataDesk(view), 10, FixedClock(NOW)))
    for name in ("access_token_expiry", "refresh_token_expiry", "next_refresh", "last_success"):
        assert scraper.series(f"rotator_{name}_timestamp_seconds") == []
    assert scraper.series("rotator_access_token_age_seconds") == []
    assert scraper.value("rotator_fleet_refresh_tokens_expired") == 0


@pytest.mark.parametrize("standing", Standing)
def test_exactly_one_state_is_1(standing: Standing) -> None:
    """M6: the state a credential was in before is 0 at the next scrape."""
    desk = DataDesk(VIEW)
    scraper = Scraper(Metrics(desk, 10, FixedClock(NOW)))
    scraper.scrape()
    desk.credentials["web"] = replace(VIEW, standing=standing)
    scrape = scraper.scrape()
    states = {one: scrape["rotator_state", frozenset({"credential": "web", "state": one}.items())] for one in Standing}
    assert states == {one: float(one == standing) for one in Standing}
    assert scraper.value("rotator_fleet_credentials", state=standing) == 1


def test_series_of_a_removed_credential_vanish_at_once() -> None:
    """M6: after a reload the next scrape shows nothing of a credential that is gone, and keeps no count of it."""
    desk = DataDesk(VIEW, replace(VIEW, name="old"))
    metrics = Metrics(desk, 10, FixedClock(NOW))
    metrics.notify(refreshed("granted", credential="old"))
    metrics.notify(PublishFinished("old", OUTPUT.name, None, 5, 0.1, 0))
    assert b'"old"' in metrics.render()[0]
    del desk.credentials["old"]
    assert b'"old"' not in metrics.render()[0]
    metrics.notify(refreshed("granted", credential="old"))  # its last request ended late
    assert b'"old"' not in metrics.render()[0]
    assert Scraper(metrics).value("rotator_generation", credential="web") == 4


def test_counts_of_a_removed_credential_are_forgotten() -> None:
    """M6, M8: a name that comes again after a scrape without it starts from zero; nothing is left over."""
    desk = DataDesk(VIEW)
    metrics = Metrics(desk, 10, FixedClock(NOW))
    scraper = Scraper(metrics)
    metrics.notify(refreshed("granted"))
    assert scraper.value("rotator_refresh_attempts_total", credential="web", outcome="granted") == 1
    del desk.credentials["web"]
    scraper.scrape()
    desk.credentials["web"] = VIEW
    assert scraper.value("rotator_refresh_attempts_total", credential="web", outcome="granted") == 0


def test_every_series_is_there_from_the_start() -> None:
    """A counter that first appears with its first event hides that event from `rate()`."""
    scraper = Scraper(Metrics(DataDesk(VIEW), 10, FixedClock(NOW)))
    before = scraper.scrape()
    counters = {name for name, _ in before if name.endswith(("_total", "_count", "_bucket", "_sum"))}
    metrics = scraper.metrics
    for reason in Reason:
        metrics.notify(refreshed("refused", reason))
        metrics.notify(SaveFinished("web", Problem(reason, "x"), 0.1, holds_new_pair=True))
        metrics.notify(PublishFinished("web", OUTPUT.name, Problem(reason, "x"), 5, 0.1, 1))
    for outcome in ("granted", "refused", "unavailable", "ambiguous", "late", "held"):
        metrics.notify(refreshed(outcome, None, *Oddity))
    metrics.notify(SaveFinished("web", None, 0.1, holds_new_pair=True))
    metrics.notify(PublishFinished("web", OUTPUT.name, None, 5, 0.1, 0))
    for event in ("bug", "clock_suspect"):
        metrics.notify(Notice(event, "something odd", "web", "critical"))
    after = scraper.scrape()
    assert after.keys() == before.keys()
    changed = {name for name, labels in after if after[name, labels] != before[name, labels]}
    untouched = {"rotator_clock_jumps_total", "rotator_config_reloads_total", "process_cpu_seconds_total"}
    assert counters - changed - untouched == set()


def test_attempts_are_counted_by_outcome() -> None:
    """E2: a failure shows at once: as a count, as its reason, and as the last error of its credential."""
    desk = DataDesk(replace(VIEW, failures=2, reason=Reason.INVALID_CLIENT, standing=Standing.REFUSED))
    scraper = Scraper(Metrics(desk, 10, FixedClock(NOW)))
    for event in (
        RefreshStarted("web", "due"),
        refreshed("refused", Reason.INVALID_CLIENT),
        refreshed("ambiguous", Reason.DNS),
    ):
        scraper.metrics.notify(event)
    for outcome, expected in {"refused": 1, "ambiguous": 1, "granted": 0, "unavailable": 0, "late": 0}.items():
        assert scraper.value("rotator_refresh_attempts_total", credential="web", outcome=outcome) == expected
    assert scraper.value("rotator_failures_total", operation="refresh", reason="invalid_client") == 1
    assert scraper.value("rotator_failures_total", operation="save", reason="invalid_client") == 0
    assert scraper.value("rotator_failing", credential="web", reason="invalid_client") == 1
    assert scraper.value("rotator_consecutive_failures", credential="web") == 2


def test_durations_are_histograms() -> None:
    """A duration is counted in its bucket and all wider ones."""
    scraper = Scraper(Metrics(DataDesk(VIEW), 10, FixedClock(NOW)))
    for seconds in (0.0005, 0.2, 7.0):
        scraper.metrics.notify(SaveFinished("web", None, seconds, holds_new_pair=False))
    name = "rotator_save_duration_seconds"
    buckets = {le: scraper.value(f"{name}_bucket", le=le) for le in ("0.0005", "0.1", "0.25", "5.0", "+Inf")}
    assert buckets == {"0.0005": 1, "0.1": 1, "0.25": 2, "5.0": 2, "+Inf": 3}
    assert scraper.value(f"{name}_count") == 3
    assert scraper.value(f"{name}_sum") == pytest.approx(7.2005)


def test_oddities_are_counted_by_kind() -> None:
    """What was tolerated in an answer can be seen."""
    scraper = Scraper(Metrics(DataDesk(VIEW), 10, FixedClock(NOW)))
    scraper.metrics.notify(refreshed("granted", None, Oddity.SCOPE_SHAPE, Oddity.ROTATION_MISSING))
    assert scraper.value("rotator_normalised_fields_total", oddity="scope_shape") == 1
    assert scraper.value("rotator_normalised_fields_total", oddity="form_encoded") == 0


def test_marks_of_credentials_and_outputs() -> None:
    """Unsaved pairs, the fuse, the clock and each output can be alerted on, one by one and for the fleet."""
    output = replace(OUTPUT, current=False, failures=3)
    marked = replace(VIEW, unsaved=True, save_failing=True, fuse_blown=True, clock_suspect=True)
    desk = DataDesk(replace(marked, outputs=(OUTPUT, replace(output, name="b"))))
    desk.credentials["late"] = replace(VIEW, name="late", next_at=NOW - 90)
    scrape = Scraper(Metrics(desk, 10, FixedClock(NOW))).scrape()
    for name in ("pair_unsaved", "fuse_blown", "clock_suspect"):
        assert scrape[f"rotator_{name}", frozenset({("credential", "web")})] == 1
        assert scrape[f"rotator_{name}", frozenset({("credential", "late")})] == 0
    labels = frozenset({("credential", "web"), ("sink", "b")})
    assert scrape["rotator_output_current", labels] == 0
    assert scrape["rotator_output_consecutive_failures", labels] == 3
    fleet = ("unsaved_pairs", "saves_failing", "fuses_blown", "clock_suspects", "outputs_behind", "outputs_failing")
    assert [scrape[f"rotator_fleet_{name}", frozenset()] for name in fleet] == [1, 1, 1, 1, 1, 1]
    assert scrape["rotator_fleet_overdue_seconds", frozenset()] == 90


def test_the_daemons_own_counts() -> None:
    """Clock jumps, reloads, lag and build are shown; a refused reload is an alert."""
    desk = DataDesk(VIEW)
    desk.numbers = replace(
        desk.numbers, clock_jumps_backward=2, reloads_good=3, reloads_bad=1, last_reload_good=False,
        sweep_lag_seconds=1.5, under_way=4,
    )  # fmt: skip
    scraper = Scraper(Metrics(desk, 10, FixedClock(NOW)))
    assert scraper.value("rotator_clock_jumps_total", direction="backward") == 2
    assert scraper.value("rotator_clock_jumps_total", direction="forward") == 0
    assert scraper.value("rotator_config_reloads_total", outcome="success") == 3
    assert scraper.value("rotator_config_reloads_total", outcome="failure") == 1
    assert scraper.value("rotator_config_last_reload_successful") == 0
    assert scraper.value("rotator_sweep_lag_seconds") == 1.5
    assert scraper.value("rotator_requests_under_way") == 4
    assert scraper.value("process_open_fds") > 0
    assert [build["version"] for build in scraper.series("rotator_build_info")] == [VERSION]


def test_a_large_fleet_is_shown_as_a_whole() -> None:
    """Beyond the threshold no series names a credential, and the fleet's distribution takes their place."""
    views = [replace(VIEW, name=f"c{number:03}", expires_at=NOW + number - 2) for number in range(101)]
    metrics = Metrics(DataDesk(*views), 100, FixedClock(NOW))
    metrics.notify(refreshed("granted", credential="c001"))
    metrics.notify(PublishFinished("c001", OUTPUT.name, FULL_DISK, 5, 0.1, 1))
    scraper = Scraper(metrics)
    assert [labels for _, labels in scraper.scrape() if "credential" in dict(labels)] == []
    assert len(scraper.scrape()) < 300
    assert scraper.value("rotator_refresh_attempts_total", outcome="granted") == 1
    assert scraper.value("rotator_publishes_total", outcome="failure") == 1
    assert scraper.value("rotator_fleet_credentials", state="valid") == 101
    left = "rotator_fleet_access_token_remaining_seconds"
    assert [scraper.value(left, fraction=str(part)) for part in (0.0, 0.01, 0.1, 0.5)] == [-2, -1, 8, 48]
    assert scraper.value("rotator_fleet_access_tokens_expired") == 3
    assert scraper.value("rotator_fleet_refresh_tokens_expired") == 0


def test_a_fleet_at_the_threshold_is_shown_one_by_one() -> None:
    """The threshold itself still has a series for each credential; the fleet's are there too."""
    views = [replace(VIEW, name=f"c{number}") for number in range(5)]
    scraper = Scraper(Metrics(DataDesk(*views), 5, FixedClock(NOW)))
    assert len(scraper.series("rotator_generation")) == 5
    assert scraper.value("rotator_fleet_credentials", state="valid") == 5


def test_before_there_is_a_desk() -> None:
    """Observers are made before the daemon: what happens until then is counted and shown later."""
    metrics = Metrics(None, 10, FixedClock(NOW))
    metrics.notify(refreshed("granted"))
    scraper = Scraper(metrics)
    assert scraper.value("rotator_refresh_attempts_total", outcome="granted") == 1
    metrics.set_desk(DataDesk(VIEW))
    assert scraper.value("rotator_refresh_attempts_total", credential="web", outcome="granted") == 1


def test_openmetrics_is_spoken_to_those_who_ask() -> None:
    """The Accept header chooses the format, and both are well-formed with odd names in them."""
    name = 'a "quoted"\\name\n'
    metrics = Metrics(DataDesk(replace(VIEW, name=name, outputs=(replace(OUTPUT, name=name),))), 10, FixedClock(NOW))
    body, content_type = metrics.render("application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.1")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = list(parse_openmetrics(body.decode()))  # type: ignore[no-untyped-call]
    samples = [sample for family in families for sample in family.samples]
    assert [
        one.value for one in samples if one.labels.get("credential") == name and one.name == "rotator_generation"
    ] == [4]
    assert metrics.render()[1] == "text/plain; version=0.0.4; charset=utf-8"
    assert Scraper(metrics).value("rotator_generation", credential=name) == 4


@pytest.mark.parametrize("threshold", [0, 10])
def test_promtool_finds_nothing_to_complain_about(threshold: int) -> None:
    """Names, types and units follow Prometheus's conventions, for few credentials and for a fleet."""
    needs("promtool")
    metrics = Metrics(DataDesk(replace(VIEW, reason=Reason.DNS)), threshold, FixedClock(NOW))
    run = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics.render()[0], capture_output=True, timeout=PATIENCE, check=False
    )
    assert (run.returncode, run.stdout + run.stderr) == (0, b"")


def test_multiprocess_mode_of_the_library_has_no_effect(tmp_path: Path) -> None:
    """M7, M8, M9: with PROMETHEUS_MULTIPROC_DIR set no file is written and the scrape is the same."""
    code = (
        "from tests.adapters.test_metrics import *\n"
        "scraper = Scraper(Metrics(DataDesk(VIEW), 10, FixedClock(NOW)))\n"
        "scraper.metrics.notify(refreshed('granted'))\n"
        "print(scraper.value('rotator_refresh_attempts_total', credential='web', outcome='granted'))\n"
    )
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (run.stdout, run.stderr) == ("1.0\n", "")
    assert list(tmp_path.iterdir()) == []


def test_events_from_many_threads_are_all_counted() -> None:
    """M13: workers count at once while a scrape looks; nothing is lost and nobody waits for ever."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - as the daemon has it

    scraper = Scraper(Metrics(DataDesk(VIEW), 10, FixedClock(NOW)))

    def count() -> None:
        for _ in range(2000):
            scraper.metrics.notify(refreshed("granted"))

    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(count) for _ in range(4)] + [pool.submit(scraper.scrape) for _ in range(5)]
        for future in futures:
            future.result(timeout=PATIENCE)
    assert scraper.value("rotator_refresh_attempts_total", credential="web", outcome="granted") == 8000
    assert scraper.value("rotator_refresh_duration_seconds_count") == 8000


def test_lifetimes_and_validity() -> None:
    """M1, M2: alerts can be relative to each credential's own lifetimes, and need not compare two clocks."""
    desk = DataDesk(replace(VIEW, refresh_life_began_at=NOW - 5 * DAY))
    clock = FixedClock(NOW)
    scraper = Scraper(Metrics(desk, 10, clock))
    assert scraper.value("rotator_access_token_lifetime_seconds", credential="web") == 3600
    assert scraper.value("rotator_refresh_token_lifetime_seconds", credential="web") == 35 * DAY
    assert scraper.value("rotator_access_token_valid", credential="web") == 1
    clock.at += 3000
    assert scraper.value("rotator_access_token_valid", credential="web") == 0
    assert scraper.value("rotator_clock_timestamp_seconds") == NOW + 3000
    desk.credentials["web"] = replace(VIEW, expires_at=None)
    assert scraper.value("rotator_access_token_valid", credential="web") == 0


def test_a_large_fleet_counts_what_the_rules_ask_of_each_credential() -> None:
    """M5: above the threshold the daemon itself counts tokens near their end, by the measure of the alert rules."""
    failing = replace(VIEW, reason=Reason.DNS, standing=Standing.RETRYING)
    stuck = replace(OUTPUT, current=False, failures=2)
    views = {
        "well": VIEW,
        "failing early": failing,
        "failing late": replace(failing, issued_at=NOW - 3061, expires_at=NOW + 539),
        "due late": replace(VIEW, issued_at=NOW - 3061, expires_at=NOW + 539),
        "never asked": replace(VIEW, issued_at=NOW - 3061, expires_at=NOW + 539, next_at=NOW - 61),
        "over": replace(failing, issued_at=NOW - 3601, expires_at=NOW - 1),
        "without": replace(failing, issued_at=None, expires_at=None),
        "opening": replace(VIEW, standing=Standing.STARTING, issued_at=None, expires_at=None),
        "dead": replace(
            failing, standing=Standing.REAUTHORIZATION_REQUIRED, expires_at=NOW - 1, refresh_expires_at=NOW
        ),
        "week": replace(VIEW, refresh_expires_at=NOW + 6 * DAY, refresh_life_began_at=NOW - 24 * DAY),
        "day": replace(VIEW, refresh_expires_at=NOW + DAY, refresh_life_began_at=NOW - 29 * DAY),
        "short and fresh": replace(VIEW, refresh_expires_at=NOW + 1800, refresh_life_began_at=NOW),
        "output early": replace(VIEW, outputs=(stuck,)),
        "output late": replace(VIEW, outputs=(replace(stuck, expires_at=NOW + 539),)),
    }
    scraper = Scraper(
        Metrics(DataDesk(*(replace(view, name=name) for name, view in views.items())), 0, FixedClock(NOW))
    )
    assert scraper.value("rotator_credentials_listed") == 0
    expected = {
        "access_tokens_expiring": 3,
        "credentials_without_token": 2,
        "outputs_expiring": 1,
        "outputs_failing": 2,
    }
    assert {name: scraper.value(f"rotator_fleet_{name}") for name in expected} == expected
    ending = "rotator_fleet_refresh_tokens_expiring"
    assert [scraper.value(ending, within=within) for within in ("7d", "2d")] == [2, 1]


def test_failures_in_a_row_count_as_one_refresh() -> None:
    """E2: a server that is down for an hour fails each refresh once, however often it is tried again."""
    metrics = Metrics(DataDesk(VIEW), 10, FixedClock(NOW))
    for failures, outcome in enumerate(("unavailable", "ambiguous", "refused"), 1):
        metrics.notify(replace(refreshed(outcome, Reason.DNS), failures=failures))
    metrics.notify(replace(refreshed("late", Reason.DNS), failures=1))
    metrics.notify(refreshed("granted"))
    scraper = Scraper(metrics)
    assert [scraper.value("rotator_refreshes_total", outcome=outcome) for outcome in ("success", "failure")] == [1, 1]


def test_a_lease_shows_who_is_the_owner() -> None:
    """Who holds the Lease is told where there are Leases, and nothing where there are none."""
    desk = DataDesk(VIEW)
    scraper = Scraper(Metrics(desk, 10, FixedClock(NOW)))
    assert scraper.series("rotator_owner") == []
    leases = (LeaseView("rotator-0", held=True), LeaseView("rotator-1", held=False, stranger="a"))
    desk.numbers = replace(desk.numbers, leases=leases)
    assert scraper.value("rotator_owner", lease="rotator-0") == 1
    assert scraper.value("rotator_owner", lease="rotator-1") == 0
    assert scraper.value("rotator_replicas_differ", lease="rotator-0") == 0
    assert scraper.value("rotator_replicas_differ", lease="rotator-1") == 1


def test_the_page_of_all_metrics_is_fresh() -> None:
    """The contract says what a scrape shows today."""
    assert (ROOT / PAGE).read_text("utf-8") == page(), "run python -m rotator.adapters.metrics.reference --write"


def test_a_stale_page_is_noticed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command fails on a missing or edited page, names it, and `--write` cures it."""
    monkeypatch.chdir(tmp_path)
    PAGE.parent.mkdir(parents=True)
    assert [main([]), main(["--write"]), main([])] == [1, 0, 0]
    assert capsys.readouterr().err == f"{PAGE} is stale: run python -m rotator.adapters.metrics.reference --write\n"
