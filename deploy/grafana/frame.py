"""What surrounds the panels: variables, links, annotations, time."""

import json
from collections.abc import Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from deploy.grafana.parts import CREDENTIAL, OVERVIEW, SOURCE

ONLY_INTERVALS: Final = ("auto", "auto_count", "auto_min")
"""Fields that the builder gives to every variable, and that Grafana's schema knows only for intervals."""
_ALL: Final = dashboard.VariableOption(selected=True, text="All", value="$__all")


def blank(title: str, uid: str, description: str, since: str) -> build.Dashboard:
    """Begin a dashboard that shows the time since `since`, such as `now-6h`."""
    board = (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["rotator"])
        .time(since, "now")
        .timezone("browser")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_choice("job", "Job", "label_values(rotator_build_info, job)").multi(True).include_all(True))
        .with_variable(_any("namespace", "Namespace", 'label_values(rotator_build_info{job=~"$job"}, namespace)'))
        .with_variable(
            _any(
                "instance",
                "Instance",
                'label_values(rotator_build_info{job=~"$job", namespace=~"$namespace"}, instance)',
            )
        )
    )
    for link in _links(uid):
        board.link(link)
    return board


def _choice(name: str, label: str, ask: str) -> build.QueryVariable:
    return (
        build.QueryVariable(name)
        .label(label)
        .query({"query": ask, "refId": name, "qryType": 1})
        .datasource(SOURCE)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )


def _any(name: str, label: str, ask: str) -> build.QueryVariable:
    """Make a variable whose "All" also matches a label that is not there."""
    return _choice(name, label, ask).multi(True).include_all(True).all_value(".*").current(_ALL)


def credential_variable() -> build.QueryVariable:
    """Make the variable that names one credential."""
    ask = 'label_values(rotator_generation{job=~"$job", namespace=~"$namespace", instance=~"$instance"}, credential)'
    return _choice("credential", "Credential", ask)


def _links(uid: str) -> Sequence[build.DashboardLink]:
    other, title = (CREDENTIAL, "One credential") if uid == OVERVIEW else (OVERVIEW, "All credentials")
    return (
        build.DashboardLink(title)
        .type(dashboard.DashboardLinkType.LINK)
        .url(f"/d/{other}")
        .icon("dashboard")
        .include_vars(True)
        .keep_time(True),
    )


def annotation(name: str, expr: str, color: str, **how: object) -> dict[str, Any]:
    """Describe an annotation as the Prometheus data source reads it; the builder knows only half of its fields."""
    return {
        "datasource": SOURCE.to_json(),
        "enable": True,
        "expr": expr,
        "iconColor": color,
        "name": name,
        **how,
    }


def written(board: build.Dashboard, annotations: Sequence[dict[str, Any]]) -> str:
    """Return the JSON of a dashboard, its panels numbered in order."""
    document = json.loads(JSONEncoder().encode(board.build()))
    document["annotations"] = {"list": list(annotations)}
    for variable in document["templating"]["list"]:
        for name in ONLY_INTERVALS:
            del variable[name]
    for number, panel in enumerate(document["panels"], 1):
        panel["id"] = number
    return json.dumps(document, indent=2, sort_keys=True) + "\n"
