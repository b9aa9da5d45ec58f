"""The files that are made from code, and what they are to hold."""

import textwrap
from pathlib import Path
from typing import Final

from deploy.prometheus.daemon import DAEMON, OUTPUTS
from deploy.prometheus.objectives import BURNING, RECORDS
from deploy.prometheus.rule import RUNBOOKS, Alert, Group, yaml
from deploy.prometheus.tokens import TOKENS

ALERTS: Final[tuple[Alert, ...]] = (*TOKENS, *OUTPUTS, *DAEMON, *BURNING)
GROUPS: Final = (
    Group("rotator-tokens", TOKENS),
    Group("rotator-outputs", OUTPUTS),
    Group("rotator-daemon", DAEMON),
    Group("rotator-objectives", (*RECORDS, *BURNING)),
)
RULES: Final = Path("deploy/prometheus/rules.yaml")
CHART: Final = Path("deploy/helm/rotator/files/rules.yaml")  # a chart cannot reach out of its directory
KUBERNETES: Final = Path("deploy/kubernetes/monitoring/prometheusrule.yaml")
INDEX: Final = Path("docs/runbooks/README.md")

_MADE: Final = """\
# Made by `python -m deploy.prometheus`: change the rules there, not here.
# To read the runbooks elsewhere: `python -m deploy.prometheus URL`, or replace {runbooks}
# in this file. `severity` is critical (wakes somebody) or warning (can wait for the morning).
"""
_HEADER: Final = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: rotator
  labels:
    app.kubernetes.io/name: rotator
spec:
"""
_INDEX: Final = """\
# Runbooks

One for each alert of [rules.yaml](../../deploy/prometheus/rules.yaml), for somebody on call who has never seen rotator.
This list is made by `python -m deploy.prometheus`; [how early each comes](../reference/alerts.md) was measured.

rotator keeps OAuth access tokens fresh and writes them to its *outputs*, files or Kubernetes Secrets, from which other
programs, the *consumers*, take them. An access token lives minutes to hours; rotator renews it by itself, with a
refresh token, which lives days. When that ends or is revoked, a person must log in. Everything starts with

    rotator status                                        # on the machine, as root
    kubectl -n NAMESPACE exec POD -- rotator status       # in Kubernetes; POD and NAMESPACE are labels of the alert

It names each credential's state, when both tokens end, the last error in words, and the cure. Of several replicas only
the one that refreshes a credential knows why it cannot; the others name that one under *next*. The log has the rest:
`journalctl -u rotator`, or `kubectl -n NAMESPACE logs -l app.kubernetes.io/name=rotator --tail=-1`. A pod has no
`curl`: where a runbook uses it, run `kubectl -n NAMESPACE port-forward POD 9774` beside it.

| alert | severity | what it says |
| --- | --- | --- |
"""


def files(runbooks: str = RUNBOOKS) -> dict[Path, str]:
    """Return the text of each file, its path below the project's directory."""
    made = _MADE.format(runbooks=runbooks)
    rules = yaml(GROUPS, runbooks)
    return {
        RULES: made + rules,
        CHART: made + rules,
        KUBERNETES: made + _HEADER + textwrap.indent(rules, "  "),
        INDEX: _INDEX + "".join(_row(alert) for alert in ALERTS),
    }


def _row(alert: Alert) -> str:
    severities = "/".join(dict.fromkeys(rule.severity for rule in alert.rules))
    return f"| [{alert.name}]({alert.name}.md) | {severities} | {alert.meaning} |\n"
