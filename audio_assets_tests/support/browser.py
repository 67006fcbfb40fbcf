"""Headless Chromium on the UI, as its tests and the pictures of the documentation see it."""

import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Locator, Page, TimeoutError, expect, sync_playwright

from audio_assets_tests.support.dagster_dev import PATIENCE_SECONDS

CLICK_SECONDS = 10
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


def find_browser() -> str | None:
    """The program, None where none of `BROWSERS` is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextlib.contextmanager
def open_page(program: str) -> Iterator[Page]:
    """An empty page of 1600 x 1000. All that follow on it find the UI's files in its cache."""
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=program, args=QUIET)
        page = chromium.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        yield page
        chromium.close()


def click_until(control: Locator, shown: Locator) -> None:
    """Click until something shows: a dialogue that is still loading is drawn anew and forgets a click."""
    for _ in range(PATIENCE_SECONDS // CLICK_SECONDS):
        control.click()
        with contextlib.suppress(TimeoutError):
            return shown.first.wait_for(timeout=CLICK_SECONDS * 1000)
    raise AssertionError(f"{shown} does not show after {PATIENCE_SECONDS} s of clicking {control}")


def materialize_button(page: Page) -> Locator:
    """The one on top of an asset's page."""
    return page.get_by_role("button", name="Materialize…").first


def select_partitions(page: Page, typed: str, matches: int = 1) -> None:
    """Type into the partition box of the dialogue and take all that it then offers."""
    box = page.get_by_placeholder("Filter partitions")
    click_until(page.locator('[class*="tagSelectorContainer"]').last, box)
    box.fill(typed)
    page.get_by_text(f"Select all ({matches})").click()
    page.keyboard.press("Escape")


def click_launch(page: Page, label: str) -> None:
    """Launch from the dialogue; it stays until the server has answered, and earlier nothing is launched."""
    page.get_by_role("dialog").get_by_role("button", name=label).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
