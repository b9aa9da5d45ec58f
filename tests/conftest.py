"""For every test: a time zone per worker, and no planted secret in any log or output."""

import os
import signal
import time
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.secrets_scan import secrets_in, secrets_in_records

# The fixtures `cluster` and `namespace`: a Kubernetes API server, started when a test first asks for it.
pytest_plugins = ["tests.testbed.kubernetes.shared"]

# D7: no test may lean on the machine's time zone, so each worker has another one.
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Europe/Amsterdam")

_worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
if _worker:
    os.environ["TZ"] = ZONES[int(_worker) % len(ZONES)]
    time.tzset()

# Whoever runs the suite in the background or by nohup has it ignore signals, and its children would inherit that.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# A slow machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Let `-n auto` start a worker for each processor, and at least one for each time zone."""
    return max(len(ZONES), len(os.sched_getaffinity(0)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose standard output or error, or its children's, shows a planted secret."""
    report = yield
    if report.passed and not item.get_closest_marker("shows_secrets"):
        for title, text in report.sections:
            found = secrets_in(text)
            if found and title.endswith(call.when):
                report.outcome = "failed"
                report.longrepr = f"{title} shows secrets: {found}"
    return report


@pytest.fixture(autouse=True)
def _no_secret_is_logged(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Generator[None]:
    """Fail a test in whose log records, at any level, a planted secret stands."""
    yield
    if not request.node.get_closest_marker("shows_secrets"):
        found = secrets_in_records(caplog.get_records("setup") + caplog.get_records("call"))
        assert not found, f"log records show secrets: {found}"
