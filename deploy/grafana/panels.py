"""The kinds of panels, each with the settings that all of its kind share."""

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import common as looks
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.dashboard import FieldColorModeId

from deploy.grafana.parts import (
    BY_THRESHOLD,
    GREEN,
    NEUTRAL,
    ORANGE,
    PLAIN,
    RED,
    SOURCE,
    WHERE,
    Steps,
    named,
    plain,
    query,
    thresholds,
)

Override = tuple[str, Mapping[str, Any]]


def figure(
    title: str,
    description: str,
    *targets: prometheus.Dataquery,
    unit: str = "short",
    steps: Steps = NEUTRAL,
    span: int = 3,
    none: str = "no data",
    decimals: int | None = None,
    background: bool = False,
    graph: bool = False,
) -> stat.Panel:
    """Show the newest value, large. `graph`: with its course behind it; `background`: coloured as a whole."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .thresholds(thresholds(steps))
        .color_scheme(BY_THRESHOLD)
        .no_value(none)
        .height(3)
        .span(span)
        .reduce_options(looks.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(common.BigValueColorMode.BACKGROUND_SOLID if background else common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA if graph else common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.VALUE)
        .justify_mode(common.BigValueJustifyMode.CENTER)
    )
    if decimals is not None:
        panel.decimals(decimals)
    for target in targets:
        panel.with_target(target)
    return panel


def lines(
    title: str,
    description: str,
    *targets: prometheus.Dataquery,
    unit: str = "short",
    steps: Steps = PLAIN,
    shows_steps: bool = False,
    span: int = 12,
    height: int = 8,
    bars: bool = False,
    stacked: bool = False,
    colors: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    below_zero: bool = False,
    none: str = "no data",
    decimals: int | None = None,
) -> timeseries.Panel:
    """Draw courses over time. `colors`: those of series with a fixed meaning, by name; `names`: better names."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .thresholds(thresholds(steps))
        .color_scheme(build.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .no_value(none)
        .height(height)
        .span(span)
        .line_width(0 if bars or stacked else 2)  # of a stacked course without height, the line would still show
        .fill_opacity(80 if bars else 70 if stacked else 0)
        .draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        .show_points(common.VisibilityMode.NEVER if stacked else common.VisibilityMode.AUTO)
        .point_size(4)
        .tooltip(looks.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .legend(
            looks.VizLegendOptions()
            .show_legend(True)
            .placement(common.LegendPlacement.BOTTOM)
            .display_mode(common.LegendDisplayMode.LIST)
            .calcs([])
        )
    )
    if below_zero:
        panel.axis_soft_min(0)
    else:
        panel.min(0)
    if decimals is not None:
        panel.decimals(decimals).axis_soft_max(1)
    if stacked:
        panel.stacking(looks.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if shows_steps:
        panel.thresholds_style(looks.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    for name, color in (colors or {}).items():
        panel.override_by_name(name, named(plain(name), color))
    for name, shown in (names or {}).items():
        panel.override_by_name(name, named(shown))
    for target in targets:
        panel.with_target(target)
    return panel


def durations(
    what: str, title: str, description: str, bounds: tuple[float, float], *, span: int = 8, height: int = 8
) -> timeseries.Panel:
    """Draw how long something takes. `bounds`: seconds from which that is slow, and far too slow."""
    bucket = f"rotator_{what}_duration_seconds_bucket"
    return lines(
        title,
        f"{description}: half of them, and all but one in a hundred, were quicker.",
        *(
            query(
                f"histogram_quantile({share}, sum by (le) (rate({bucket}{{{WHERE}}}[$__rate_interval])))",
                legend,
                ref=ref,
            )
            for ref, share, legend in (("A", 0.5, "half"), ("B", 0.99, "99 %"))
        ),
        unit="s",
        span=span,
        height=height,
        steps=((None, GREEN), (bounds[0], ORANGE), (bounds[1], RED)),
        colors={"half": GREEN, "99 %": ORANGE},
        none="There were none.",
    )


def listing(
    title: str,
    description: str,
    *targets: prometheus.Dataquery,
    columns: Mapping[str, str],
    overrides: Sequence[Override],
    sort: str,
    descending: bool = False,
    span: int = 12,
    height: int = 8,
    none: str = "no data",
) -> table.Panel:
    """Show a table: the series of all queries, joined on the labels they share.

    `columns`: from label (or `Value #A`, the value of query A) to heading, in order; all others are left out.
    `overrides`: by heading, properties.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("short")
        .thresholds(thresholds(PLAIN))
        .color_scheme(BY_THRESHOLD)
        .no_value(none)
        .height(height)
        .span(span)
        .filterable(True)
        .cell_height(common.TableCellHeight.SM)
        .sort_by([looks.TableSortByFieldState().display_name(sort).desc(descending)])
        .with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={
                    "indexByName": {name: index for index, name in enumerate(columns)},
                    "renameByName": dict(columns),
                    "includeByName": dict.fromkeys(columns, True),
                    "excludeByName": {},
                },
            )
        )
    )
    for heading in columns.values():  # the text for "no rows at all" would stand in each cell without a value
        panel.override_by_name(heading, [dashboard.DynamicConfigValue(id_val="noValue", value="-")])
    for heading, properties in overrides:
        values = [dashboard.DynamicConfigValue(id_val=key, value=value) for key, value in properties.items()]
        panel.override_by_name(heading, values)
    for target in targets:
        panel.with_target(target)
    return panel


def timeline(
    title: str,
    description: str,
    target: prometheus.Dataquery,
    *,
    mappings: list[dashboard.ValueMapping],
    colors: Mapping[str, str] | None = None,
    steps: Steps = PLAIN,
    span: int = 24,
    height: int = 6,
    none: str = "no data",
) -> statetimeline.Panel:
    """Draw a bar for each series for as long as it had a value."""
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("short")
        .thresholds(thresholds(steps))
        .mappings(mappings)
        .color_scheme(BY_THRESHOLD)
        .no_value(none)
        .height(height)
        .span(span)
        .show_value(common.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(90)
        .line_width(0)
        .legend(looks.VizLegendOptions().show_legend(False))
        .with_target(target)
    )
    for name, color in (colors or {}).items():
        panel.override_by_name(name, named(plain(name), color))
    return panel
