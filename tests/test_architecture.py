"""The picture in docs/architecture.md is true."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_picture_shows_the_layers_that_are_enforced() -> None:
    """The layers drawn in docs/architecture.md are those that the import rules enforce."""
    picture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.search(r"```layers\n(.*?)```", picture, re.DOTALL)
    assert drawn is not None
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = rules["tool"]["importlinter"]["contracts"]
    enforced = next(rule["layers"] for rule in contracts if rule.get("exhaustive"))
    assert drawn[1].split("\n")[:-1] == [re.sub(r"[()]", "", layer) for layer in enforced]


def test_every_file_that_the_picture_in_the_readme_names_is_there() -> None:
    """A module named in the README's picture exists."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    picture = readme.split("```")[1]
    for name in re.findall(r"\b(?:core/)?\w+\.py\b", picture):
        assert (ROOT / "rotator" / name).is_file(), name
