"""What panels are made of: queries, thresholds, colours, words. One look, one vocabulary.

No query says `or vector(0)`: where nothing is scraped, a panel must not show a reassuring zero.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import FieldColorModeId
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from rotator.core.standing import Standing

OVERVIEW: Final = "rotator-overview"
CREDENTIAL: Final = "rotator-credential"
"""The uids: what links name, and what an import keeps."""

SOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
WHERE: Final = 'job=~"$job", namespace=~"$namespace", instance=~"$instance"'
"""Which daemons. Under systemd there is no namespace; its variable's "All" matches that too."""

_REPLICAS: Final = f"on (namespace, job, instance) rotator_owner{{{WHERE}}}"


def once(expr: str, *labels: str) -> str:
    """Count replicas that share Leases as one, for each of them shows all credentials; machines have their own."""
    by = ", ".join(("namespace", "job", *labels))
    return f"(max by ({by}) ({expr} and {_REPLICAS}) or {expr} unless {_REPLICAS})"


EACH: Final = "namespace, job, instance, credential"
"""The labels by which tables tell credentials apart."""
COLOURED: Final = {"custom.cellOptions": {"type": "color-text"}, "custom.width": 180}
FROM_NOW: Final = {"unit": "dateTimeFromNow", "custom.width": 135, "custom.align": "left"}
"""How cells show a word with a colour, and an instant in milliseconds."""

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = "green", "yellow", "orange", "red", "blue", "purple", "text"
STATES: Final[Mapping[str, str]] = {
    Standing.VALID: GREEN,
    Standing.STARTING: BLUE,
    Standing.RETRYING: YELLOW,
    Standing.AMBIGUOUS: PURPLE,
    Standing.REFUSED: ORANGE,
    Standing.SUSPECT: "dark-orange",
    Standing.REAUTHORIZATION_REQUIRED: RED,
    Standing.LOGIN_REQUIRED: "light-red",
    Standing.STATE_UNREADABLE: "semi-dark-red",
}
"""Green runs by itself, yellow to orange may need somebody, red does."""
OUTCOMES: Final = {
    "granted": GREEN,
    "refused": RED,
    "held": ORANGE,
    "unavailable": YELLOW,
    "ambiguous": PURPLE,
    "late": BLUE,
}

A_MINUTE: Final = "suffix:/min"
"""The unit of rates."""

Steps = Sequence[tuple[float | None, str]]
ZERO_IS_GOOD: Final[Steps] = ((None, GREEN), (1, RED))
ZERO_IS_BEST: Final[Steps] = ((None, GREEN), (1, ORANGE))
NEUTRAL: Final[Steps] = ((None, GREY),)
PLAIN: Final[Steps] = ((None, GREEN),)


def query(expr: str, legend: str = "__auto", *, ref: str = "A") -> prometheus.Dataquery:
    """Ask for the whole time range."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(ref).datasource(SOURCE).range()


def instant(expr: str, legend: str = "__auto", *, ref: str = "A") -> prometheus.Dataquery:
    """Ask for the end of the time range."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(ref).datasource(SOURCE).instant()


def rows(expr: str, *, ref: str = "A") -> prometheus.Dataquery:
    """Ask for the end of the time range, a row for each series."""
    return instant(expr, ref=ref).format(PromQueryFormat.TABLE)


BY_THRESHOLD: Final = build.FieldColor().mode(FieldColorModeId.THRESHOLDS)


def thresholds(steps: Steps) -> build.ThresholdsConfig:
    """Colour values from a bound upward; the first has none."""
    return build.ThresholdsConfig().steps([dashboard.Threshold(value, color) for value, color in steps])


def stepped(steps: Steps) -> list[dashboard.DynamicConfigValue]:
    """Colour one series by bounds of its own."""
    return [dashboard.DynamicConfigValue(id_val="thresholds", value=thresholds(steps).build().to_json())]


def texts(words: Mapping[str, tuple[str, str | None]]) -> list[dashboard.ValueMapping]:
    """Show values as words in a colour."""
    options = {
        value: dashboard.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(words.items())
    }
    return [dashboard.ValueMap(options=options)]


def plain(word: str) -> str:
    """Return one of rotator's words as people write it."""
    return word.replace("_", " ")


def json_of(mappings: Sequence[dashboard.ValueMapping]) -> list[object]:
    """Write mappings for the properties of an override, which are not typed."""
    return [mapping.to_json() for mapping in mappings]


STATE_WORDS: Final = texts({state: (plain(state), color) for state, color in STATES.items()})


def named(shown: str, color: str | None = None) -> list[dashboard.DynamicConfigValue]:
    """Show a series by this name, and in this colour."""
    name = dashboard.DynamicConfigValue(id_val="displayName", value=shown)
    if color is None:
        return [name]
    return [name, dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})]
