"""From what the desk knows to metrics. Instants are those of the wall clock, in seconds, as the desk gives them."""

import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from rotator import VERSION
from rotator.core.standing import CredentialView, OutputView, Standing
from rotator.ports import Counts

_View = CredentialView
_INSTANTS: Final[tuple[tuple[str, str, Callable[[_View], float | None]], ...]] = (
    ("access_token_issued", "When the access token was issued.", lambda view: view.issued_at),
    ("access_token_expiry", "When the access token is over.", lambda view: view.expires_at),
    ("refresh_token_issued", "When the refresh token was issued.", lambda view: view.refresh_issued_at),
    ("refresh_token_expiry", "When the refresh token is over, if known.", lambda view: view.refresh_expires_at),
    ("next_refresh", "When the next token request is due.", lambda view: view.next_at),
    ("last_attempt", "When the last token request was sent.", lambda view: view.last_attempt_at),
    ("last_success", "When the last token set was received.", lambda view: view.last_success_at),
)
_NUMBERS: Final[tuple[tuple[str, str, Callable[[_View], float]], ...]] = (
    ("consecutive_failures", "Failed token requests since the last that was granted.", lambda view: view.failures),
    ("generation", "How often the token set was replaced.", lambda view: view.generation),
    ("clock_suspect", "1 if the state was saved later than the clock shows now.", lambda view: view.clock_suspect),
    ("fuse_blown", "1 if token requests came too thick.", lambda view: view.fuse_blown),
    ("pair_unsaved", "1 if only memory holds the newest token set.", lambda view: view.unsaved),
)
_OUTPUT_INSTANTS: Final[tuple[tuple[str, str, Callable[[OutputView], float | None]], ...]] = (
    ("delivered", "When the output was last brought up to date.", lambda output: output.delivered_at),
    ("token_expiry", "When the access token that the output holds is over.", lambda output: output.expires_at),
)
_OUTPUT_NUMBERS: Final[tuple[tuple[str, str, Callable[[OutputView], float]], ...]] = (
    ("current", "1 if the output holds the newest token.", lambda output: output.current),
    ("consecutive_failures", "Failed attempts since the output was last up to date.", lambda output: output.failures),
)


def build_metrics() -> Metric:
    """Tell which rotator this is."""
    build = {"version": VERSION, "python": platform.python_version()}
    return InfoMetricFamily("rotator_build", "The running rotator.", value=build)


def daemon_metrics(counts: Counts) -> Iterator[Metric]:
    """Present what the daemon counts itself."""
    jumps = CounterMetricFamily("rotator_clock_jumps", "Times the wall clock was set.", labels=["direction"])
    jumps.add_metric(["forward"], counts.clock_jumps_forward)
    jumps.add_metric(["backward"], counts.clock_jumps_backward)
    yield jumps
    reloads = CounterMetricFamily(
        "rotator_config_reloads", "Times the configuration was read anew.", labels=["outcome"]
    )
    reloads.add_metric(["success"], counts.reloads_good)
    reloads.add_metric(["failure"], counts.reloads_bad)
    yield reloads
    for name, text, value in (
        ("config_last_reload_successful", "1 if the newest configuration is in force.", counts.last_reload_good),
        (
            "config_last_reload_timestamp_seconds",
            "When the configuration was last read.",
            counts.last_reload_at,
        ),
        ("start_timestamp_seconds", "When this daemon started.", counts.started_at),
        ("sweep_lag_seconds", "How late the look at what is due is.", counts.sweep_lag_seconds),
        ("requests_under_way", "Credentials being worked on now.", counts.under_way),
    ):
        yield GaugeMetricFamily(f"rotator_{name}", text, float(value))


def credential_metrics(shown: Sequence[CredentialView], now: float) -> Iterator[Metric]:
    """Present each credential. What is not known, an expiry for instance, has no series."""
    for name, text, instant in _INSTANTS:
        family = GaugeMetricFamily(f"rotator_{name}_timestamp_seconds", text, labels=["credential"])
        for view in shown:
            at = instant(view)
            if at is not None:
                family.add_metric([view.name], at)
        yield family
    age = GaugeMetricFamily("rotator_access_token_age_seconds", "Age of the access token now.", labels=["credential"])
    for view in shown:
        if view.issued_at is not None:
            age.add_metric([view.name], now - view.issued_at)
    yield age
    for name, text, number in _NUMBERS:
        family = GaugeMetricFamily(f"rotator_{name}", text, labels=["credential"])
        for view in shown:
            family.add_metric([view.name], number(view))
        yield family
    yield from _states(shown)
    yield from _outputs(shown)


def _states(shown: Sequence[CredentialView]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "rotator_state", "1 for the state it is in, 0 for all others.", labels=["credential", "state"]
    )
    failing = GaugeMetricFamily(
        "rotator_failing", "1 for the reason of the last failure.", labels=["credential", "reason"]
    )
    for view in shown:
        for standing in Standing:
            state.add_metric([view.name, standing], view.standing == standing)
        if view.reason is not None:
            failing.add_metric([view.name, view.reason], 1)
    yield state
    yield failing


def _outputs(shown: Sequence[CredentialView]) -> Iterator[Metric]:
    labels = ["credential", "sink"]
    for name, text, instant in _OUTPUT_INSTANTS:
        family = GaugeMetricFamily(f"rotator_output_{name}_timestamp_seconds", text, labels=labels)
        for view in shown:
            for output in view.outputs:
                at = instant(output)
                if at is not None:
                    family.add_metric([view.name, output.name], at)
        yield family
    for name, text, number in _OUTPUT_NUMBERS:
        family = GaugeMetricFamily(f"rotator_output_{name}", text, labels=labels)
        for view in shown:
            for output in view.outputs:
                family.add_metric([view.name, output.name], number(output))
        yield family
