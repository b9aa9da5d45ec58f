"""The dashboard *Overview*: is a token in danger, which, why, until when? From the top, ever less urgent.

The figures and courses come from the fleet's series, which are there however many credentials there are; the tables
name credentials and are empty beyond `metrics.fleet_threshold`.
"""

from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as build

from deploy.grafana import frame
from deploy.grafana.courses import ages, courses, daemons, outputs
from deploy.grafana.panels import figure, listing
from deploy.grafana.parts import (
    BLUE,
    COLOURED,
    CREDENTIAL,
    EACH,
    FROM_NOW,
    GREEN,
    ORANGE,
    OVERVIEW,
    RED,
    STATE_WORDS,
    WHERE,
    ZERO_IS_GOOD,
    instant,
    json_of,
    once,
    rows,
    texts,
)

_DAY: Final = 86_400
_NEEDS_SOMEBODY: Final = "reauthorization_required|login_required|state_unreadable|refused|suspect"
_NOT_WELL: Final = " or ".join(
    (
        f'rotator_state{{{WHERE}, state!~"valid|starting"}} == 1',
        f"rotator_failing{{{WHERE}}}",
        f"rotator_pair_unsaved{{{WHERE}}} == 1",
        f"rotator_clock_suspect{{{WHERE}}} == 1",
        f"rotator_fuse_blown{{{WHERE}}} == 1",
        f"rotator_output_consecutive_failures{{{WHERE}}} > 0",
    )
)
_OF_THOSE: Final = f" and on ({EACH}) ({_NOT_WELL})"
_TO_CREDENTIAL: Final = {
    "title": "Show ${__value.raw}",
    "url": f"/d/{CREDENTIAL}?${{datasource:queryparam}}&var-job=${{__data.fields.Job}}"
    "&${namespace:queryparam}&${instance:queryparam}&var-credential=${__value.raw}&${__url_time_range}",
}
_QUIET: Final = {"custom.width": 110}
_SEVERITIES: Final = texts({"critical": ("critical", RED), "warning": ("warning", ORANGE), "info": ("info", BLUE)})


def overview(runbooks: str) -> str:
    """Return the dashboard's JSON; `runbooks`: where those are read to which alerts lead."""
    board = frame.blank(
        "rotator / Overview", OVERVIEW, "All credentials of rotator: who is in danger, why, until when.", "now-6h"
    )
    for panel in (*_figures(), *_urgent(runbooks), *courses(), *ages(), *outputs()):
        board.with_panel(panel)
    board.with_row(build.Row("Daemons"))
    for panel in daemons():
        board.with_panel(panel)
    return frame.written(board, _annotations())


def _annotations() -> list[dict[str, Any]]:
    return [
        frame.annotation(
            "Starts",
            f"rotator_start_timestamp_seconds{{{WHERE}}} * 1000",
            BLUE,
            useValueForTime=True,
            titleFormat="rotator started",
            textFormat="{{instance}}",
        )
    ]


def _figures() -> list[Any]:
    left = (
        f'min(rotator_fleet_{{what}}_remaining_seconds{{{{{WHERE}, fraction="0.0"}}}})'
        f" or min(last_over_time(rotator_{{what}}_expiry_timestamp_seconds{{{{{WHERE}}}}}[$__range])) - time()"
    )
    needy = once(f'rotator_fleet_credentials{{{WHERE}, state=~"{_NEEDS_SOMEBODY}"}}', "state")
    return [
        figure(
            "Need somebody",
            "Credentials that will not get well by themselves: they wait for a login, a client secret or a repair. "
            "The table below names them and the runbook of the alert says what to do.",
            instant(f"sum({needy})"),
            steps=ZERO_IS_GOOD,
            background=True,
        ),
        figure(
            "Access tokens over",
            "Credentials whose access token has expired: their readers are being refused now.",
            instant(f"sum({once(f'rotator_fleet_access_tokens_expired{{{WHERE}}}')})"),
            steps=ZERO_IS_GOOD,
            background=True,
        ),
        figure(
            "First access end",
            "Time until the first access token is over; below zero, one is over. While no daemon answers, what was "
            "known last.",
            instant(left.format(what="access_token")),
            unit="s",
            steps=((None, RED), (0, ORANGE), (300, GREEN)),
            decimals=0,
        ),
        figure(
            "First refresh end",
            "Time until the first refresh token is over: from then on only a login helps. Orange a week, red two days "
            "ahead. While no daemon answers, what was known last.",
            instant(left.format(what="refresh_token")),
            unit="s",
            steps=((None, RED), (2 * _DAY, ORANGE), (7 * _DAY, GREEN)),
            decimals=0,
            none="not known",
        ),
        figure(
            "Refresh success",
            "Refreshes that went well, as a share of all in the time range shown; the failures of one credential in "
            "a row count as one. The objective is 99 %.",
            instant(
                f'sum(increase(rotator_refreshes_total{{{WHERE}, outcome="success"}}[$__range]))'
                f" / (sum(increase(rotator_refreshes_total{{{WHERE}}}[$__range])) > 0)"
            ),
            unit="percentunit",
            steps=((None, RED), (0.9, ORANGE), (0.99, GREEN)),
            decimals=1,
            none="no refreshes",
        ),
        figure(
            "Outputs failing",
            "Outputs and hooks whose last attempt failed: readers may still see the token before.",
            instant(f"sum(rotator_fleet_outputs_failing{{{WHERE}}})"),
            steps=ZERO_IS_GOOD,
        ),
        figure(
            "Unsaved pairs",
            "Token sets that only the memory of the daemon holds. If it ends now they are lost: do not restart it, "
            "make room on the disk.",
            instant(f"sum(rotator_fleet_unsaved_pairs{{{WHERE}}})"),
            steps=ZERO_IS_GOOD,
        ),
        figure(
            "Daemons up",
            "Share of the daemons that answered their last scrape.",
            instant(f"avg(up{{{WHERE}}})"),
            unit="percentunit",
            steps=((None, RED), (1, GREEN)),
            none="none",
        ),
    ]


def _urgent(runbooks: str) -> list[Any]:
    to_runbook = {"title": "What to do", "url": f"{runbooks}/${{__value.raw}}.md", "targetBlank": True}
    labels = 'alertname=~"Rotator.*", job=~"$job|", namespace=~"$namespace|", instance=~"$instance|"'
    return [
        listing(
            "Alerts",
            "Alerts of rotator that are firing, or pending: their condition holds, but not yet for long enough. The "
            "name leads to the runbook.",
            rows(f"1000 * ALERTS_FOR_STATE{{{labels}}} * ignoring (alertstate) group_right () ALERTS{{{labels}}}"),
            columns={
                "alertname": "Alert",  # these two are what a phone has room for
                "credential": "Credential",
                "severity": "Severity",
                "alertstate": "State",
                "Value": "Since",
                "job": "Job",
                "instance": "Instance",
            },
            overrides=[
                ("Severity", {"mappings": json_of(_SEVERITIES), **COLOURED, "custom.width": 85}),
                ("Credential", {"links": [_TO_CREDENTIAL], "custom.width": 140}),
                ("Alert", {"links": [to_runbook], "custom.width": 260}),
                ("State", {"custom.width": 80}),
                ("Since", FROM_NOW),
                ("Job", _QUIET),
            ],
            sort="Severity",
            height=10,
            none="No alert is pending or firing.",
        ),
        listing(
            "Credentials that are not well",
            "Every credential whose state, last request, save, clock or output is not as it should be; the first to "
            "end on top. The name leads to its life; docs/reference/metrics.md explains the reasons.",
            rows(f"max by ({EACH}, state) (rotator_state{{{WHERE}}} == 1)" + _OF_THOSE, ref="State"),
            rows(f"max by ({EACH}, reason) (rotator_failing{{{WHERE}}})", ref="Why"),
            rows(f"count by ({EACH}) (rotator_output_consecutive_failures{{{WHERE}}} > 0)", ref="Outputs"),
            *(
                rows(f"1000 * max by ({EACH}) (rotator_{name}_timestamp_seconds{{{WHERE}}})" + _OF_THOSE, ref=ref)
                for ref, name in (
                    ("Access", "access_token_expiry"),
                    ("Refresh", "refresh_token_expiry"),
                    ("Next", "next_refresh"),
                )
            ),
            columns={
                "credential": "Credential",
                "state": "State",
                "reason": "Why",
                "Value #Access": "Access ends",
                "Value #Refresh": "Refresh ends",
                "Value #Next": "Next request",
                "Value #Outputs": "Outputs failing",
                "job": "Job",
                "instance": "Instance",
            },
            overrides=[
                ("Credential", {"links": [_TO_CREDENTIAL], "custom.width": 135}),
                ("State", {"mappings": json_of(STATE_WORDS), **COLOURED}),
                ("Why", {"custom.width": 135}),
                ("Access ends", FROM_NOW),
                ("Refresh ends", FROM_NOW),
                ("Next request", FROM_NOW),
                ("Outputs failing", {"custom.width": 115, "custom.align": "left"}),
                ("Job", _QUIET),
            ],
            sort="Access ends",
            height=10,
            none="None is known, or there are too many to list each: the figures count them.",
        ),
    ]


def _of_those() -> str:
    return f" and on ({EACH}) ({_NOT_WELL})"
