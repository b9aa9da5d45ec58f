"""Two service level objectives, and alerts on how fast their error budgets burn (decision 0015)."""

from typing import Final

from deploy.prometheus.rule import Alert, Record, Rule, Severity

REFRESH_FAILURES: Final = 0.01
"""Of a hundred refreshes one may fail at first, over 30 days."""
WITHOUT_TOKEN: Final = 0.001
"""Of a thousand minutes of a credential one may pass without a valid access token, over 30 days."""

# Long window, short window, how many times as fast as allowed: 2, 5, 10 and 10 % of the 30 days' budget.
_BURNS: Final = (("1h", "5m", 14.4), ("6h", "30m", 6), ("1d", "2h", 3), ("3d", "6h", 1))
_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
_REFRESH: Final = "job:rotator_refresh_failures:ratio"
_TOKEN: Final = "job:rotator_credentials_without_token:ratio"
_NOT_COUNTED: Final = "login_required|reauthorization_required|starting|state_unreadable"
_FEW: Final = 10
"""Fewer failures than this within the long window say nothing of a rate."""

RECORDS: Final = (
    *(
        Record(
            f"{_REFRESH}_rate{window}",
            f'sum by (job, namespace) (rate(rotator_refreshes_total{{outcome="failure"}}[{window}]))\n'
            f"  / (sum by (job, namespace) (rate(rotator_refreshes_total[{window}])) > 0)",
        )
        for window in _WINDOWS
    ),
    Record(
        _TOKEN,
        "sum by (job, namespace) (rotator_fleet_credentials_without_token)\n"
        "  / (sum by (job, namespace)\n"
        f'    (rotator_fleet_credentials{{state!~"{_NOT_COUNTED}"}}) > 0)',
    ),
    *(Record(f"{_TOKEN}_avg{window}", f"avg_over_time({_TOKEN}[{window}])") for window in _WINDOWS),
)


def _burning(ratio: str, allowed: float, burns: tuple[tuple[str, str, float], ...], more: str = "") -> str:
    return "\nor\n".join(
        f"  {ratio}{long} > {factor} * {allowed} and {ratio}{short} > {factor} * {allowed}{more.format(long=long)}"
        for long, short, factor in burns
    ).strip()


def _token_rule(severity: Severity, burns: tuple[tuple[str, str, float], ...]) -> Rule:
    return Rule(
        _burning(f"{_TOKEN}_avg", WITHOUT_TOKEN, burns),
        severity,
        "{{ $value | humanizePercentage }} of the credentials of {{ $labels.job }} are without a valid access token",
    )


BURNING: Final = (
    Alert(
        "RotatorRefreshBudgetBurning",
        "So many refreshes fail that more than one in a hundred will have failed in 30 days. Nothing is lost yet: "
        "look at the reasons before access tokens end.",
        (
            Rule(
                _burning(
                    f"{_REFRESH}_rate",
                    REFRESH_FAILURES,
                    _BURNS,
                    "\n    and sum by (job, namespace)"
                    f' (increase(rotator_refreshes_total{{{{outcome="failure"}}}}[{{long}}])) >= {_FEW}',
                ),
                "warning",
                "{{ $value | humanizePercentage }} of the refreshes of {{ $labels.job }} fail",
            ),
        ),
    ),
    Alert(
        "RotatorAvailabilityBudgetBurning",
        "Credentials are without a valid access token for longer than the objective of 99.9 % allows, those that need "
        "a login not counted.",
        (_token_rule("critical", _BURNS[:2]), _token_rule("warning", _BURNS[2:])),
    ),
)
