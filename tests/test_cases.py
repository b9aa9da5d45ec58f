"""Every known fault of neighbouring programs is a test that names it, or a decision on why it cannot occur."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The faults by group: A odd answers, B rotation, C concurrency, D clock, E retries, F HTTP client, G files,
# H Kubernetes, I systemd, J secrets in logs, K configuration, L scheduling, M metrics.
CASES = {
    "A": "1 2 3 4 5 6 7 8 10 11 12 13 14 16 17 18 19 20 21 22 23 24 25 27 28 29 31 32 34 35 37 39 40 44 45 46",
    "B": "1 2 3 4 5 6 7 8 9 10 12 13 15 16 17 18 19 20 21 23 24 25 26 28 29 30 31 32 33",
    "C": "1 2 3 4 5 6 7 8 9 10 12 13 14 15 19 20 21 22 23 24 26 27",
    "D": "1 2 5 6 7 9 10",
    "E": "1 2 3 4 6 9 11 12 13 14 15 16 18 20 21 23 24",
    "F": "1 2 3 5 6 7 8 9 10 11 12 13 14 15 19 20",
    "G": "1 2 3 5 6 7 8 9 10 11 12 14 16 17 18 19 20",
    "H": "1 2 3 4 5 7 9 10 11 12 13 14 15 16 17 18 19 20 21 22 24 25 26",
    "I": "1 2 3 5 6 8 9 10 11",
    "J": "2 3 5 6",
    "K": "1 2 3 4 6 7 8",
    "L": "1 2 3 4 7 8 9 10 11",
    "M": "1 2 3 4 5 6 7 8 9 10 11 12 13 14",
}
_ID = re.compile(r"\b([A-M])(\d+)(?: to (?:[A-M])?(\d+))?\b")


def _ids_in(text: str) -> set[str]:
    """Read case ids out of a text: `A1`, and ranges such as `L9 to L11`."""
    found = set()
    for group, first, last in _ID.findall(text):
        found |= {f"{group}{number}" for number in range(int(first), int(last or first) + 1)}
    return found


def _named_by_tests() -> set[str]:
    """Collect the ids in the docstrings of tests, and in the ids and names of their parameters."""
    found = set()
    for path in ROOT.glob("tests/**/test_*.py"):
        if path == Path(__file__):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                found |= _ids_in(ast.get_docstring(node) or "")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _ID.match(node.value):
                found |= _ids_in(node.value)  # a parameter's id: "A13 negative"
    return found


@pytest.mark.parametrize("group", CASES)
def test_every_case_of_the_group_is_tested_or_decided(group: str) -> None:
    """Each case id of the group stands in a test, or in a decision that says why it cannot occur."""
    decided = set().union(
        *(_ids_in(path.read_text(encoding="utf-8")) for path in (ROOT / "docs" / "decisions").glob("0*.md"))
    )
    wanted = {f"{group}{number}" for number in CASES[group].split()}
    assert sorted(wanted - _named_by_tests() - decided, key=lambda name: int(name[1:])) == []
