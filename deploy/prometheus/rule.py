"""What an alert is made of, and how it is written down."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

RUNBOOKS: Final = "https://example.com/rotator/docs/runbooks"
"""Where the runbooks are read: a copy of docs/runbooks that the people on call can reach."""

Severity = Literal["critical", "warning"]
"""Critical wakes somebody: consumers fail, or will before the morning. A warning can wait for it."""

_EACH_DASHBOARD: Final = "/d/rotator-credential?var-credential={{ $labels.credential }}"
_OVERVIEW_DASHBOARD: Final = "/d/rotator-overview"


@dataclass(frozen=True, slots=True)
class Rule:
    """One expression that may fire, and what it then says."""

    expr: str
    severity: Severity
    summary: str
    hold: str = ""
    """How long it must hold before the alert fires."""
    scope: Literal["credential", "fleet", "daemon"] = "daemon"
    """A credential each; those of a daemon that has too many to list; or everything else."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert: a name, a runbook, and the rules that raise it."""

    name: str
    meaning: str
    """One or two sentences: what is at stake, and the first thing to do."""
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other."""

    name: str
    rules: Sequence[Alert | Record]


def for_each(expr: str, severity: Severity, summary: str, hold: str = "") -> Rule:
    """Make a rule over the series of single credentials."""
    return Rule(expr, severity, "{{ $labels.credential }}: " + summary, hold, "credential")


def for_fleet(count: str, severity: Severity, summary: str, hold: str = "") -> Rule:
    """Make a rule for when there are too many credentials for series of their own. `summary` follows a number."""
    expr = f"{count} > 0\n  and on (job, instance) rotator_credentials_listed == 0"
    return Rule(expr, severity, "{{ $value }} " + summary + " ({{ $labels.instance }})", hold, "fleet")


def asked(metric: str, found: str, otherwise: str = "") -> str:
    """Say, in a summary, what another metric of the same credential shows; `otherwise` if it has no value."""
    names = "{job=%q,instance=%q,credential=%q}"
    question = f'printf "{metric}" $labels.job $labels.instance $labels.credential'.replace("{}", names)
    instead = f"{{{{ else }}}}{otherwise}" if otherwise else ""
    return f"{{{{ with {question} | query }}}}{found}{instead}{{{{ end }}}}"


def ending(word: str) -> str:
    """Say when the access token ends, or ended."""
    return asked(
        "round(rotator_access_token_expiry_timestamp_seconds{})",
        f"its access token {word} at {{{{ . | first | value | humanizeTimestamp }}}}",
        "it has no access token",
    )


END: Final = ending("ends")
WHY: Final = asked("rotator_failing{}", ", because of {{ . | first | label `reason` }}")


def yaml(groups: Sequence[Group], runbooks: str) -> str:
    """Write groups as the YAML of a rule file."""
    return "groups:\n" + "".join(_group(group, runbooks) for group in groups)


def _group(group: Group, runbooks: str) -> str:
    written = (rule for one in group.rules for rule in _rules(one, runbooks))
    return f"  - name: {group.name}\n    rules:\n" + "".join(textwrap.indent(rule, "      ") for rule in written)


def _rules(one: Alert | Record, runbooks: str) -> Iterator[str]:
    if isinstance(one, Record):
        yield f"- record: {one.name}\n{_expr(one.expr)}"
        return
    for rule in one.rules:
        hold = f"  for: {rule.hold}\n" if rule.hold else ""
        labels = {"severity": rule.severity, "scope": rule.scope}
        annotations = {
            "summary": rule.summary,
            "description": one.meaning,
            "runbook_url": f"{runbooks}/{one.name}.md",
            "dashboard": _EACH_DASHBOARD if rule.scope == "credential" else _OVERVIEW_DASHBOARD,
        }
        yield (
            f"- alert: {one.name}\n{_expr(rule.expr)}{hold}"
            f"  labels:\n{_mapping(labels)}  annotations:\n{_mapping(annotations)}"
        )


def _expr(expr: str) -> str:
    return "  expr: |-\n" + textwrap.indent(expr, "    ") + "\n"


def _mapping(texts: Mapping[str, str]) -> str:
    return "".join(f"    {key}: {json.dumps(text, ensure_ascii=False)}\n" for key, text in texts.items())
