"""From what the desk knows to metrics. Instants are those of the wall clock, in seconds, as the desk gives them."""

import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from rotator import VERSION
from rotator.core.standing import CredentialView, OutputView, Standing
from rotator.ports import Counts

_View = CredentialView
# By name without `rotator_`. What is not known, an expiry for instance, has no series.
_CREDENTIAL: Final[tuple[tuple[str, str, Callable[[_View, float], float | None]], ...]] = (
    ("access_token_issued_timestamp_seconds", "When the access token was issued.", lambda view, _: view.issued_at),
    ("access_token_expiry_timestamp_seconds", "When the access token is over.", lambda view, _: view.expires_at),
    (
        "access_token_lifetime_seconds",
        "How long the access token lives, from issue to expiry.",
        lambda view, _: _between(view.issued_at, view.expires_at),
    ),
    ("access_token_age_seconds", "Age of the access token now.", lambda view, now: _between(view.issued_at, now)),
    (
        "access_token_valid",
        "1 if there is an access token that is not over.",
        lambda view, now: view.expires_at is not None and view.expires_at > now,
    ),
    (
        "refresh_token_issued_timestamp_seconds",
        "When the refresh token was issued.",
        lambda view, _: view.refresh_issued_at,
    ),
    (
        "refresh_token_expiry_timestamp_seconds",
        "When the refresh token is over, if known.",
        lambda view, _: view.refresh_expires_at,
    ),
    (
        "refresh_token_lifetime_seconds",
        "How long the refresh token lives, if known: until its expiry, and since that is known.",
        lambda view, _: _between(view.refresh_life_began_at, view.refresh_expires_at),
    ),
    (
        "next_refresh_timestamp_seconds",
        "When the next token request is due, retries included.",
        lambda view, _: view.next_at,
    ),
    ("last_attempt_timestamp_seconds", "When the last token request was sent.", lambda view, _: view.last_attempt_at),
    ("last_success_timestamp_seconds", "When the last token set was received.", lambda view, _: view.last_success_at),
    (
        "consecutive_failures",
        "Failed token requests since the last that was granted.",
        lambda view, _: view.failures,
    ),
    ("generation", "How often the token set was replaced.", lambda view, _: view.generation),
    (
        "clock_suspect",
        "1 if the state was saved later than the clock shows now.",
        lambda view, _: view.clock_suspect,
    ),
    ("fuse_blown", "1 if token requests came too thick.", lambda view, _: view.fuse_blown),
    ("scope_changed", "1 if another scope was granted than asked for.", lambda view, _: view.scope_changed),
    ("pair_unsaved", "1 if only memory holds the newest token set.", lambda view, _: view.unsaved),
)
_OUTPUT: Final[tuple[tuple[str, str, Callable[[OutputView], float | None]], ...]] = (
    (
        "delivered_timestamp_seconds",
        "When the output was last brought up to date.",
        lambda output: output.delivered_at,
    ),
    (
        "token_expiry_timestamp_seconds",
        "When the access token that the output holds is over.",
        lambda output: output.expires_at,
    ),
    ("current", "1 if the output holds the newest token.", lambda output: output.current),
    (
        "consecutive_failures",
        "Failed attempts since the output was last up to date.",
        lambda output: output.failures,
    ),
)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


def build_metrics() -> Metric:
    """Tell which rotator this is."""
    build = {"version": VERSION, "python": platform.python_version()}
    return InfoMetricFamily("rotator_build", "The running rotator.", value=build)


def daemon_metrics(counts: Counts, now: float, *, listed: bool) -> Iterator[Metric]:
    """Present what the daemon counts itself. `now`: what its wall clock shows; `listed`: each credential is shown."""
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
        ("clock_timestamp_seconds", "What the daemon's wall clock shows.", now),
        ("credentials_listed", "1 if each credential has series of its own, 0 if there are too many.", listed),
    ):
        yield GaugeMetricFamily(f"rotator_{name}", text, float(value))
    if counts.leases:
        text = "1 if this process holds the Lease and refreshes, 0 if it stands by; absent without Leases."
        owner = GaugeMetricFamily("rotator_owner", text, labels=["lease"])
        text = "1 if the holder of the Lease has long had other credentials than this process: some nobody refreshes."
        differ = GaugeMetricFamily("rotator_replicas_differ", text, labels=["lease"])
        for lease in counts.leases:
            owner.add_metric([lease.name], float(lease.held))
            differ.add_metric([lease.name], float(bool(lease.stranger)))
        yield owner
        yield differ


def credential_metrics(shown: Sequence[CredentialView], now: float) -> Iterator[Metric]:
    """Present each credential and its outputs."""
    for name, text, number in _CREDENTIAL:
        family = GaugeMetricFamily(f"rotator_{name}", text, labels=["credential"])
        for view in shown:
            value = number(view, now)
            if value is not None:
                family.add_metric([view.name], value)
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
    for name, text, number in _OUTPUT:
        family = GaugeMetricFamily(f"rotator_output_{name}", text, labels=["credential", "sink"])
        for view in shown:
            for output in view.outputs:
                value = number(output)
                if value is not None:
                    family.add_metric([view.name, output.name], value)
        yield family
