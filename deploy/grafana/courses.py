"""The courses of the dashboard *Overview*: what happened, how old the tokens are, how the daemons fare."""

from typing import Any, Final

from grafana_foundation_sdk.builders import bargauge
from grafana_foundation_sdk.builders import common as looks
from grafana_foundation_sdk.models import common

from deploy.grafana.panels import durations, lines, listing, timeline
from deploy.grafana.parts import (
    A_MINUTE,
    BLUE,
    BY_THRESHOLD,
    COLOURED,
    EACH,
    FROM_NOW,
    GREEN,
    ORANGE,
    OUTCOMES,
    PURPLE,
    RED,
    SOURCE,
    STATES,
    WHERE,
    YELLOW,
    ZERO_IS_BEST,
    instant,
    json_of,
    once,
    query,
    rows,
    stepped,
    texts,
    thresholds,
)

Panel = Any
"""The builders of the different kinds of panels have no class in common."""

_DAY: Final = 86_400
_RECORDED: Final = 'job=~"$job", namespace=~"$namespace"'
REFRESH_FAILURES: Final = 0.01
WITHOUT_TOKEN: Final = 0.001
_FRACTIONS: Final = {"0.0": "the first", "0.01": "1 %", "0.1": "10 %", "0.5": "half"}
_AGES: Final = (
    ("A", None, 1 / 3, "first third", GREEN),
    ("B", 1 / 3, 2 / 3, "second third", GREEN),
    ("C", 2 / 3, 0.9, "last third", YELLOW),
    ("D", 0.9, 1, "nearly over", ORANGE),
    ("E", 1, None, "over", RED),
)


def courses() -> list[Panel]:
    """Show what happened, in the order in which one asks."""
    return [
        lines(
            "Credentials by state",
            "How many credentials were in which state. All green is as it should be; red ones need a login. A full "
            "disk or a failing output is no state: see below what did not work.",
            query(f"sum by (state) ({once(f'rotator_fleet_credentials{{{WHERE}}}', 'state')}) > 0", "{{state}}"),
            stacked=True,
            colors=STATES,
            decimals=0,
        ),
        lines(
            "Token requests by outcome",
            "Token requests that ended, each minute. Ambiguous: the request may have been carried out though no answer "
            "came. Late: a login came first. Held: not sent, as the client was refused for other credentials.",
            query(
                f"60 * sum by (outcome) (rate(rotator_refresh_attempts_total{{{WHERE}}}[$__rate_interval]))",
                "{{outcome}}",
            ),
            unit=A_MINUTE,
            stacked=True,
            colors=OUTCOMES,
        ),
        lines(
            "What did not work",
            "Failures each minute, by operation and reason (docs/reference/metrics.md lists the reasons).",
            query(
                f"60 * sum by (operation, reason) (rate(rotator_failures_total{{{WHERE}}}[$__rate_interval])) > 0",
                "{{operation}}: {{reason}}",
            ),
            unit=A_MINUTE,
            bars=True,
            stacked=True,
            steps=((None, GREEN), (1, ORANGE)),
            none="Nothing failed.",
        ),
        lines(
            "How fast the error budgets burn",
            "1: as fast as the objectives allow; 14 uses up two percent of a month's budget in an hour. Refreshes: "
            "one in a hundred may fail at first. Tokens: one minute of a thousand may pass without a valid one.",
            *(
                query(f"max({name}1h{{{_RECORDED}}}) / {allowed}", legend, ref=ref)
                for ref, name, allowed, legend in (
                    ("A", "job:rotator_refresh_failures:ratio_rate", REFRESH_FAILURES, "refreshes"),
                    ("B", "job:rotator_credentials_without_token:ratio_avg", WITHOUT_TOKEN, "tokens"),
                )
            ),
            steps=((None, GREEN), (1, ORANGE), (14.4, RED)),
            shows_steps=True,
            colors={"refreshes": BLUE, "tokens": PURPLE},
            none="This needs the recording rules of deploy/prometheus/rules.yaml.",
        ),
    ]


def ages() -> list[Panel]:
    """Show how old the tokens are, and how long they will last."""
    age = once(
        f"rotator_access_token_age_seconds{{{WHERE}}} / on ({EACH}) rotator_access_token_lifetime_seconds{{{WHERE}}}",
        "credential",
    )
    bars = (
        bargauge.Panel()
        .title("Age of access tokens")
        .description(
            "How many access tokens are in which part of their life. A token is refreshed at two thirds unless "
            "configured otherwise, so the lower three are empty while all is well. No data with too many to list each."
        )
        .datasource(SOURCE)
        .unit("short")
        .decimals(0)
        .min(0)
        .thresholds(thresholds(((None, GREEN),)))
        .color_scheme(BY_THRESHOLD)
        .no_value("no data")
        .height(8)
        .span(8)
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .reduce_options(looks.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets([instant(_count(age, low, high), legend, ref=ref) for ref, low, high, legend, _ in _AGES])
    )
    for *_, legend, color in _AGES:
        bars.override_by_name(legend, stepped(((None, GREEN), (1, color))))
    return [
        bars,
        *(
            lines(
                f"Time left of {words}s",
                f"In how long the first {words} ends, and the first percent, tenth and half of them.",
                query(
                    f"min by (fraction) (rotator_fleet_{name}_remaining_seconds{{{WHERE}}}) / {seconds}", "{{fraction}}"
                ),
                unit=f"suffix:{unit}",
                span=8,
                steps=steps,
                shows_steps=True,
                below_zero=True,
                names=_FRACTIONS,
                none="not known",
            )
            for name, words, seconds, unit, steps in (
                ("access_token", "access token", 60, "min", ((None, GREEN),)),
                ("refresh_token", "refresh token", _DAY, "d", ((None, RED), (2, ORANGE), (7, GREEN))),
            )
        ),
    ]


def _count(age: str, low: float | None, high: float | None) -> str:
    """Count the credentials whose age is in a range; 0 only if there are credentials at all."""
    within = age if low is None else f"{age} >= {low:.4g}"
    within = within if high is None else f"({within}) < {high:.4g}"
    return f"count({within}) or 0 * count(rotator_generation{{{WHERE}}})"


def outputs() -> list[Panel]:
    """Show whether tokens get to those who read them."""
    return [
        lines(
            "Outputs brought up to date",
            "Attempts to write outputs and run hooks, each minute.",
            query(f"60 * sum by (outcome) (rate(rotator_publishes_total{{{WHERE}}}[$__rate_interval]))", "{{outcome}}"),
            unit=A_MINUTE,
            stacked=True,
            colors={"success": GREEN, "failure": RED},
        ),
        lines(
            "Outputs behind or failing",
            "Outputs that do not hold the newest token, and those whose last attempt failed.",
            query(f"sum(rotator_fleet_outputs_behind{{{WHERE}}})", "behind"),
            query(f"sum(rotator_fleet_outputs_failing{{{WHERE}}})", "failing", ref="B"),
            steps=ZERO_IS_BEST,
            colors={"behind": YELLOW, "failing": RED},
            decimals=0,
        ),
    ]


def daemons() -> list[Panel]:
    """Show how the daemons themselves fare."""
    return [
        timeline(
            "Owner and followers",
            "Which daemon owned the credentials and refreshed them. In Kubernetes one pod does and the others wait; "
            "on a single machine the daemon always does.",
            query(
                f"max by (namespace, job, instance) (rotator_owner{{{WHERE}}}"
                f" or on (namespace, job, instance) rotator_build_info{{{WHERE}}})",
                "{{namespace}} {{instance}}",
            ),
            mappings=texts({"1": ("owner", GREEN), "0": ("follower", BLUE)}),
            span=12,
            height=5,
        ),
        timeline(
            "Scrapes",
            "Whether each daemon answered.",
            query(f"max by (namespace, job, instance) (up{{{WHERE}}})", "{{namespace}} {{instance}}"),
            mappings=texts({"1": ("up", GREEN), "0": ("down", RED)}),
            span=12,
            height=5,
        ),
        listing(
            "Versions",
            "What runs where, since when, and whether the newest configuration is in force.",
            rows(f"max by (namespace, job, instance, version, python) (rotator_build_info{{{WHERE}}})", ref="Build"),
            rows(f"1000 * max by (namespace, job, instance) (rotator_start_timestamp_seconds{{{WHERE}}})", ref="Start"),
            rows(f"max by (namespace, job, instance) (rotator_config_last_reload_successful{{{WHERE}}})", ref="Config"),
            columns={
                "instance": "Instance",
                "version": "Version",
                "Value #Config": "Configuration",
                "Value #Start": "Started",
                "python": "Python",
                "job": "Job",
            },
            overrides=[
                ("Instance", {"custom.width": 170}),
                ("Version", {"custom.width": 110}),
                (
                    "Configuration",
                    {
                        "mappings": json_of(texts({"1": ("in force", GREEN), "0": ("refused", RED)})),
                        **COLOURED,
                        "custom.width": 120,
                        "custom.align": "left",
                    },
                ),
                ("Started", FROM_NOW),
                ("Python", {"custom.width": 110}),
            ],
            sort="Instance",
            height=7,
        ),
        lines(
            "How late the daemon is",
            "Sweep: how late the look at what is due is. Request: how late the latest token request is. Both are near "
            "zero unless the machine is overloaded or a server hangs.",
            query(f"max(rotator_sweep_lag_seconds{{{WHERE}}})", "sweep"),
            query(f"max(rotator_fleet_overdue_seconds{{{WHERE}}})", "request", ref="B"),
            unit="s",
            height=7,
            steps=((None, GREEN), (5, ORANGE), (60, RED)),
            colors={"sweep": GREEN, "request": ORANGE},
        ),
        durations("refresh", "Time of a token request", "From sending a token request to its end", (5, 20)),
        durations(
            "save",
            "Time to make a state durable",
            "Write, fsync, rename, fsync: a slow or full disk shows here first",
            (0.25, 1),
        ),
        lines(
            "Memory",
            "Resident memory of each daemon.",
            query(f"process_resident_memory_bytes{{{WHERE}}}", "{{instance}}"),
            unit="bytes",
            span=8,
        ),
    ]
