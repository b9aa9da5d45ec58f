"""The dashboard *Credential*: the life of one credential, for whoever wants to know what happened to it."""

from typing import Any, Final

from grafana_foundation_sdk.models import common

from deploy.grafana import frame
from deploy.grafana.panels import durations, figure, lines, listing, timeline
from deploy.grafana.parts import (
    A_MINUTE,
    COLOURED,
    CREDENTIAL,
    FROM_NOW,
    GREEN,
    ORANGE,
    OUTCOMES,
    RED,
    STATES,
    WHERE,
    YELLOW,
    ZERO_IS_GOOD,
    instant,
    json_of,
    named,
    plain,
    query,
    rows,
    texts,
)

_DAY: Final = 86_400
_ONE: Final = f'{WHERE}, credential="$credential"'


def credential() -> str:
    """Return the dashboard's JSON."""
    board = frame.blank(
        "rotator / Credential", CREDENTIAL, "The life of one credential: its tokens, retries and outputs.", "now-3h"
    ).with_variable(frame.credential_variable())
    for panel in (*_figures(), _sawtooth(), _states(), *_attempts(), *_outputs()):
        board.with_panel(panel)
    return frame.written(board, _annotations())


def _annotations() -> list[dict[str, Any]]:
    return [
        frame.annotation(
            "Generations",
            # The instant at which each generation was issued; the generation itself comes in as a label.
            f"(1000 * max(rotator_access_token_issued_timestamp_seconds{{{_ONE}}}))"
            f' * on () group_right () count_values("generation", rotator_generation{{{_ONE}}})',
            GREEN,
            useValueForTime=True,
            titleFormat="Generation {{generation}}",
            textFormat="a new token set was received",
        ),
        frame.annotation(
            "Alerts",
            'ALERTS{alertname=~"Rotator.*", alertstate="firing", credential="$credential", job=~"$job|"}',
            RED,
            titleFormat="{{alertname}}",
            textFormat="{{severity}}",
        ),
    ]


def _figures() -> list[Any]:
    state = figure(
        "State",
        "How its grant stands, in one word. Green runs by itself; yellow to orange heals or may need somebody; red "
        "waits for a login. A full disk and failing outputs are told beside it.",
        instant(f"max by (state) (rotator_state{{{_ONE}}} == 1)", "{{state}}"),
        background=True,
        none="unknown",
    ).text_mode(common.BigValueTextMode.NAME)
    for each, color in STATES.items():
        state.override_by_name(each, named(plain(each), color))
    return [
        state,
        figure(
            "Access ends in",
            "Time until the access token is over; below zero it is over. While no daemon answers, what was known last.",
            instant(f"max(last_over_time(rotator_access_token_expiry_timestamp_seconds{{{_ONE}}}[$__range])) - time()"),
            unit="s",
            steps=((None, RED), (0, GREEN)),
            decimals=0,
            none="no token",
        ),
        figure(
            "Refresh ends in",
            "Time until the refresh token is over; from then on only a login helps. Not known if neither the server "
            "nor the configuration says so.",
            instant(
                f"max(last_over_time(rotator_refresh_token_expiry_timestamp_seconds{{{_ONE}}}[$__range])) - time()"
            ),
            unit="s",
            steps=((None, RED), (2 * _DAY, ORANGE), (7 * _DAY, GREEN)),
            decimals=0,
            none="not known",
        ),
        figure(
            "Next request in",
            "Time until the next token request is due. Below zero: it is late, or under way.",
            instant(f"max(rotator_next_refresh_timestamp_seconds{{{_ONE}}}) - time()"),
            unit="s",
            steps=((None, ORANGE), (-60, GREEN)),
            decimals=0,
            none="none known",
        ),
        figure(
            "Last failure",
            "Why the last token request failed, if the last one did (docs/reference/metrics.md lists the reasons).",
            instant(f"max by (reason) (rotator_failing{{{_ONE}}})", "{{reason}}"),
            steps=((None, ORANGE),),
            none="none",
        ).text_mode(common.BigValueTextMode.NAME),
        figure(
            "Outputs failing",
            "Its outputs and hooks whose last attempt failed; the table below names them.",
            instant(
                f"count(rotator_output_consecutive_failures{{{_ONE}}} > 0) or 0 * max(rotator_generation{{{_ONE}}})"
            ),
            steps=ZERO_IS_GOOD,
        ),
        figure(
            "Generation",
            "How often the token set was replaced since the first login.",
            instant(f"max(rotator_generation{{{_ONE}}})"),
            decimals=0,
        ),
        figure(
            "Unsaved",
            "Whether only the memory of the daemon holds the newest pair. Then make room on the disk, do not restart.",
            instant(f"max(rotator_pair_unsaved{{{_ONE}}})"),
            steps=ZERO_IS_GOOD,
        ).mappings(texts({"0": ("no", GREEN), "1": ("yes", RED)})),
    ]


def _sawtooth() -> Any:
    issued = f"max(rotator_access_token_issued_timestamp_seconds{{{_ONE}}})"
    lifetime = f"max(rotator_access_token_lifetime_seconds{{{_ONE}}})"
    return lines(
        "Age of the access token",
        "The age grows from zero and falls back when a new token comes: it should touch the due line and never the "
        "lifetime. Each vertical line is a new generation.",
        query(f"max(rotator_access_token_age_seconds{{{_ONE}}}) / 60", "age"),
        # While retrying or waiting for a login the next request may be far off, and would dwarf everything.
        query(
            f"(max(rotator_next_refresh_timestamp_seconds{{{_ONE}}}) - {issued} <= 1.5 * {lifetime}) / 60",
            "next request",
            ref="B",
        ),
        query(f"{lifetime} / 60", "lifetime", ref="C"),
        unit="suffix:min",
        span=24,
        height=9,
        colors={"age": GREEN, "next request": ORANGE, "lifetime": RED},
        none="no access token",
    )


def _states() -> Any:
    return timeline(
        "States",
        "In which state it was, and when.",
        query(f"max by (state) (rotator_state{{{_ONE}}} == 1)", "{{state}}"),
        mappings=texts({"1": ("in this state", None)}),
        colors=STATES,
    )


def _attempts() -> list[Any]:
    return [
        lines(
            "Token requests by outcome",
            "Token requests that ended, each minute. Ambiguous: it may have been carried out though no answer came. "
            "Held: not sent, as the client was refused for other credentials.",
            query(
                f"60 * sum by (outcome) (rate(rotator_refresh_attempts_total{{{_ONE}}}[$__rate_interval]))",
                "{{outcome}}",
            ),
            unit=A_MINUTE,
            bars=True,
            stacked=True,
            colors=OUTCOMES,
        ),
        lines(
            "Retries",
            "Failures in a row: it grows with each failed request and falls to zero with the next granted one.",
            query(f"max(rotator_consecutive_failures{{{_ONE}}})", "failures in a row"),
            steps=((None, GREEN), (1, YELLOW), (5, RED)),
            colors={"failures in a row": ORANGE},
            decimals=0,
        ),
        timeline(
            "Why it failed",
            "The reason of the last failure, for as long as it was the last.",
            query(f"max by (reason) (rotator_failing{{{_ONE}}})", "{{reason}}"),
            mappings=texts({"1": ("the reason", ORANGE)}),
            span=12,
            height=8,
            none="Nothing failed.",
        ),
        durations(
            "refresh",
            "Time of a token request",
            "From sending a token request to its end, for all credentials of this daemon together",
            (5, 20),
            span=12,
        ),
    ]


def _outputs() -> list[Any]:
    return [
        listing(
            "Outputs and hooks",
            "Each output: whether it holds the newest token, when it was written, until when its token is good.",
            rows(f"max by (sink) (rotator_output_current{{{_ONE}}})", ref="Current"),
            rows(f"1000 * max by (sink) (rotator_output_delivered_timestamp_seconds{{{_ONE}}})", ref="Written"),
            rows(f"1000 * max by (sink) (rotator_output_token_expiry_timestamp_seconds{{{_ONE}}})", ref="Ends"),
            rows(f"max by (sink) (rotator_output_consecutive_failures{{{_ONE}}})", ref="Failures"),
            columns={
                "sink": "Output",
                "Value #Current": "Holds the newest",
                "Value #Failures": "Failures in a row",
                "Value #Written": "Written",
                "Value #Ends": "Its token ends",
            },
            overrides=[
                (
                    "Holds the newest",
                    {
                        "mappings": json_of(texts({"1": ("yes", GREEN), "0": ("no", RED)})),
                        **COLOURED,
                        "custom.width": 150,
                        "custom.align": "left",
                    },
                ),
                ("Failures in a row", {"custom.width": 150, "custom.align": "left"}),
                ("Written", FROM_NOW),
                ("Its token ends", FROM_NOW),
            ],
            sort="Output",
            none="No output of it is known.",
        ),
        lines(
            "Outputs brought up to date",
            "Attempts to write outputs and run hooks, each minute.",
            query(
                f"60 * sum by (outcome) (rate(rotator_publishes_total{{{_ONE}}}[$__rate_interval]))",
                "{{outcome}}",
            ),
            unit=A_MINUTE,
            bars=True,
            stacked=True,
            colors={"success": GREEN, "failure": RED},
        ),
    ]
