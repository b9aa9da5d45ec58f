"""A browser for the tests of the status page, and what must hold of every visit."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Request, expect, sync_playwright

from tests.needs import needs
from tests.process.rig import PATIENCE

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_NOTE_VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) =>
        violations.push(`${event.effectiveDirective}: ${event.blockedURI}`));
"""
Visit = Callable[..., Page]
expect.set_options(timeout=1000 * PATIENCE)


def launch(playwright: Playwright) -> Browser:
    """Start Debian's Chromium."""
    return playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_ARGUMENTS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, one for each worker."""
    needs("chromium")
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open a page: `visit(address, color_scheme="dark", …)`. At the end nothing may have been amiss with it.

    Nobody but the page's own server was asked, the content security policy stopped nothing, and the console is empty.
    """
    contexts: list[BrowserContext] = []
    pages: list[Page] = []
    amiss: list[str] = []

    def note_stranger(request: Request) -> None:
        if not request.url.startswith("http://127.0.0.1:"):
            amiss.append(request.url)

    def visit(address: str, *, clock: bool = False, patient: bool = True, **settings: Any) -> Page:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.add_init_script(_NOTE_VIOLATIONS)
        page.on("request", note_stranger)
        if patient:
            page.on("console", lambda message: amiss.append(message.text))
        page.on("pageerror", lambda error: amiss.append(str(error)))
        if clock:
            page.clock.install()
        page.goto(address)
        if settings.get("java_script_enabled", True):
            pages.append(page)
        return page

    yield visit
    for page in pages:
        amiss += page.evaluate("violations")
    for context in contexts:
        context.close()
    assert amiss == []
