"""`python -m tests.page.pictures DIRECTORY`: what the status page looks like, to be looked at before a release.

Both themes, laptop and phone, 1, 100 and 10,000 credentials, each state there is, and the pages of some.
"""

import sys
from itertools import product
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import sync_playwright

from tests.adapters.site import served
from tests.desk import DataDesk
from tests.page.conftest import launch
from tests.page.fleet import each_state, fleet
from tests.page.site import page_app

_THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
_SIZES: Final = {"laptop": (1366, 768), "phone": (390, 844)}
_FLEETS: Final = {"one": fleet(1), "states": each_state(), "hundred": fleet(100), "ten-thousand": fleet(10_000)}
_ALONE: Final = ("household-eindhoven", "household-leiden", "household-nijmegen", "lan-gateway")


def main(directory: Path) -> None:
    """Draw everything into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for fleet_name, views in _FLEETS.items():
            with served(page_app(DataDesk(*views))) as site:
                pages = {fleet_name: ""}
                if fleet_name == "states":
                    pages |= {name: f"credentials/{name}" for name in _ALONE}
                for (name, path), theme, (size, (width, height)) in product(pages.items(), _THEMES, _SIZES.items()):
                    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                    page.goto(f"http://127.0.0.1:{site.port}/{path}")
                    page.screenshot(path=directory / f"{name}-{theme}-{size}.png", full_page=len(views) < 20)
                    page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
