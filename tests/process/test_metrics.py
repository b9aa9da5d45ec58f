"""What Prometheus gets from a running daemon, against what the contract promises."""

import re

import pytest

from rotator.adapters.endpoint.refusals import ENOUGH
from rotator.adapters.metrics.reference import families
from rotator.core.model import HOUR
from tests.process.life import Life, events, rotate, wait_for_generation
from tests.secrets_scan import planted

_LINE = re.compile(r"^([a-z_]+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$", re.MULTILINE)
_DURATION = "rotator_refresh_duration_seconds"


@pytest.mark.parametrize("threshold", [0, 10])
def test_a_real_scrape_shows_what_the_contract_lists(life: Life, threshold: int) -> None:
    """M6: each metric of the page is there, with its labels, and no other; few credentials or a fleet."""
    few, fleet = 0, 2
    listed = families()
    replicated = {"rotator_owner", "rotator_replicas_differ"}
    expected = {family.name for family in listed if family.series[few if threshold else fleet]} - replicated
    labels = {family.name: family.labels for family in listed}
    life.configure(daemon=f'[metrics]\nlisten = "{":".join(map(str, life.metrics_address))}"', credentials="")
    life.configure()
    life.config.write_text(life.config.read_text().replace("[metrics]", f"[metrics]\nfleet_threshold = {threshold}"))
    life.put_pair(age=0)
    with life.daemon() as daemon:
        daemon.wait_until(life.has_good_token, "the token is published")
        scrape = daemon.page("/metrics")
    typed = dict(re.findall(r"^# TYPE (\w+) (\w+)$", scrape, re.MULTILINE))
    assert typed.keys() == expected
    for name, found in _LINE.findall(scrape):
        keys = set(re.findall(r'(\w+)="', found)) - {"le"}
        gone = set() if threshold else {"credential", "sink"}
        assert keys == set(labels[name]) - {"le"} - gone, name


def test_what_is_odd_in_the_answer_to_a_login_is_counted(life: Life) -> None:
    """A1, A39: what is tolerated of a login is counted like that of a refresh."""
    life.configure(credentials="[credentials.home]")
    with life.daemon() as daemon:
        life.server.sandbox.change(odd="form_body")
        life.login()
        for oddity in "form_encoded", "expires_in_text":
            assert daemon.sample("rotator_normalised_fields_total", oddity=oddity) == 1


def test_requests_that_are_not_sent_are_told_from_those_that_are_refused(life: Life) -> None:
    """E1, E2: of a refused client's credentials most are held back; what counts as refused is what the server heard."""
    names = [f"of-{number}" for number in range(4 * ENOUGH)]
    life.configure(credentials="\n".join(f"[credentials.{name}]" for name in names))
    for name in names:
        life.put_pair(age=HOUR, name=name)
    life.server.sandbox.change(client_secret=planted("another-secret"))
    with life.daemon() as daemon:
        daemon.wait_until(lambda: {daemon.shown(name)["standing"] for name in names} == {"refused"}, "all are refused")
        refused, held = (
            sum(daemon.sample("rotator_refresh_attempts_total", credential=name, outcome=outcome) for name in names)
            for outcome in ("refused", "held")
        )
        assert refused == life.books.token_requests["invalid_client"] == daemon.sample(f"{_DURATION}_count")
        assert refused + held == len(names)
        assert held > 0


def test_a_scope_other_than_the_asked_one_shows_for_as_long_as_it_is_granted(life: Life) -> None:
    """A19: the tokens are kept, the log warns once, and a gauge tells which credential it is."""
    life.configure(credentials="[credentials.home]\nscope = 'openid'")
    life.put_pair(age=HOUR)
    life.server.sandbox.change(odd="scope_array", access_lifetime=3600)
    with life.daemon() as daemon:
        wait_for_generation(daemon, 2)
        assert rotate(daemon)["generation"] == 3
        assert daemon.sample("rotator_scope_changed", credential="home") == 1
        assert daemon.sample("rotator_fleet_scopes_changed") == 1
        assert [one["oddity"] for one in events(daemon, "odd_answer")] == ["scope_changed"]
        life.server.sandbox.change(odd="")
        rotate(daemon)
        assert daemon.sample("rotator_scope_changed", credential="home") == 0
