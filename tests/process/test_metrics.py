"""What Prometheus gets from a running daemon, against what the contract promises."""

import re

import pytest

from rotator.adapters.metrics.reference import families
from tests.process.life import Life

_LINE = re.compile(r"^([a-z_]+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$", re.MULTILINE)


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
