"""Pictures of dashboards as a person sees them: Grafana's own components in headless Chromium, real answers.

Claim no more than that: no Grafana server is involved.
"""

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Route, sync_playwright

from tests.testbed.drawing.workshop import bundle
from tests.testbed.prometheus.boards import Board

_PAGE: Final = (
    "<!doctype html><meta charset=utf-8><link rel=stylesheet href=bundle.css>"
    "<div id=root></div><script type=module src=bundle.js></script>"
)
DESK: Final = (1920, 1080)
PHONE: Final = (390, 844)
"""Width and height of a screen in pixels."""


def recorded(board: Board) -> dict[str, Any]:
    """Ask everything that a dashboard asks, and return all that is needed to draw it later."""
    marks = [
        {"at": at, "color": annotation["iconColor"]}
        for annotation, asked in zip(board.document["annotations"]["list"], board.annotations(), strict=True)
        for series in asked.answer
        for at in _instants(series["values"], is_instant=annotation.get("useValueForTime", False))
        if board.start <= at <= board.end
    ]
    return {
        "dashboard": board.document,
        "answers": {asked.key: asked.answer for asked in board.asked()},
        "annotations": marks,
        "start": board.start,
        "end": board.end,
        "step": board.step,
        "chosen": {name: board.values[name] for name in board.options},
    }


def _instants(values: list[Any], *, is_instant: bool) -> set[float]:
    """Return where the marks of a series stand: at its values in milliseconds, or where it begins."""
    return {float(value) / 1000 for _, value in values} if is_instant else {values[0][0]}


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of drawing one dashboard."""

    empty: set[str]
    """Titles of panels that have nothing to show."""
    failed: dict[str, str]
    """Titles of panels that could not be drawn, and why."""
    errors: list[str]
    """What the page complained about."""
    text: str
    """What can be read on it."""


class Easel:
    """A browser that draws."""

    def __init__(self, browser: Browser, script: Path) -> None:
        self._browser = browser
        self._script = script

    def draw(self, record: dict[str, Any], picture: Path, size: tuple[int, int] = DESK) -> Drawn:
        """Draw what was recorded on a screen of this size, all of it, however long."""
        errors: list[str] = []
        page = self._browser.new_page(viewport={"width": size[0], "height": size[1]})
        try:
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.route("**/*", self._serve)  # nothing else is reached
            page.clock.set_fixed_time(record["end"])  # "a minute ago" is said of that instant
            page.add_init_script(f"window.DRAWING = {json.dumps(record)}")
            page.goto("http://drawing.invalid/")
            while not errors and page.query_selector("body[data-drawn]") is None:
                page.wait_for_timeout(50)
            page.wait_for_timeout(300)  # the canvases are drawn in a later frame
            page.screenshot(path=picture, full_page=True)
            empty = page.eval_on_selector_all("[data-empty=true]", "all => all.map(one => one.dataset.title)")
            failed = page.eval_on_selector_all(
                ".failed", "all => all.map(one => [one.closest('.panel').dataset.title, one.textContent])"
            )
            text = page.inner_text("body")
        finally:
            page.close()
        return Drawn(set(empty), dict(failed), errors, text)

    def _serve(self, route: Route) -> None:
        match route.request.url.rpartition("/")[2]:
            case "":
                route.fulfill(body=_PAGE, content_type="text/html")
            case "bundle.js":
                route.fulfill(path=self._script)
            case "bundle.css":
                route.fulfill(path=self._script.with_suffix(".css"))
            case _:
                route.abort()


@contextmanager
def easel(directory: Path) -> Generator[Easel]:
    """Prepare everything for drawing; `directory` takes what is only needed meanwhile."""
    script = bundle(directory)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        try:
            yield Easel(browser, script)
        finally:
            browser.close()
