"""The pictures of the documentation: headless Chromium on the UI and the listening page after the demo.

    python -m audio_assets_tests.support.screenshots

writes docs/images/*.png anew. It lays the demo's sample into a temporary folder, and starts the services on
it with an instance of their own. It needs Chromium and what the tests need; the listening page is set in
Inter where that is installed. Look at each picture before you commit it.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable

from playwright.sync_api import Page, expect

from audio_assets import schema
from audio_assets.defs.check_rules import CHECKS
from audio_assets.listening import make_page
from audio_assets.storage import ObjectStore
from audio_assets.table import Table
from audio_assets_tests.support.browser import find_browser, materialize_button, open_page
from audio_assets_tests.support.dagster_dev import PROJECT, dagster_dev

IMAGES = PROJECT / "docs" / "images"
# Has rows of each status, in the demo's sample.
PARTITION = "p227@2023-08-24-00:24"
# Transitions and spinners end meanwhile.
MILLISECONDS_TO_SETTLE = 3000
# The bucket's path is seen in the pictures.
BUCKET = "demo_bucket"


def asset_graph(page: Page) -> None:
    """All assets at once, as a visitor first sees them."""
    page.locator('a[href="/asset-groups"]').first.click()
    for name in ("s3_inventory", "training_shards"):
        expect(page.locator("foreignObject").get_by_text(name, exact=True).first).to_be_visible()


def checks(page: Page) -> None:
    """The results of all checks, as the demo leaves them; that of failed rows with the reasons."""
    _open_audio_table(page, "Checks")
    expect(page.get_by_text("Succeeded")).to_have_count(len(CHECKS))
    page.get_by_text("failed_rows", exact=True).first.click()
    page.get_by_text("reasons", exact=True).first.wait_for()


def audio_table(page: Page) -> None:
    """What a partition says of its file."""
    _open_audio_table(page, "Partitions")
    page.get_by_text(PARTITION, exact=True).first.click()
    page.get_by_text("preview", exact=True).first.wait_for()


def partitions(page: Page) -> None:
    """The dialogue that materialises partitions, with a filter typed into it."""
    materialize_button(page).click()
    dialogue = page.get_by_role("dialog")
    dialogue.locator('[class*="tagSelectorContainer"]').last.click()
    page.get_by_placeholder("Filter partitions").fill("p225@2023-08")
    page.get_by_text("Select all (3)").hover()


PICTURES: dict[str, Callable[[Page], None]] = {
    # In this order: the graph counts the checks that have been executed.
    "checks": checks,
    "asset-graph": asset_graph,
    "audio-table": audio_table,
    "partitions": partitions,
}


def _open_audio_table(page: Page, tab: str) -> None:
    page.get_by_role("link", name="Catalog").click()
    page.get_by_role("link", name="audio_table").first.click()
    page.get_by_role("tab", name=tab).or_(page.get_by_role("link", name=tab, exact=True)).first.click()


def main(program: str, images: pathlib.Path) -> None:
    """Take all pictures.

    Args:
        program: the browser.
        images: the folder that they go to.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        home = folder / "home"
        home.mkdir()
        shutil.copy(PROJECT / "dagster.yaml", home)
        bucket = folder / BUCKET
        demo = "import pathlib, sys; from audio_assets.demo.__main__ import main;"
        demo += "sys.exit(main(pathlib.Path(sys.argv[1])))"
        subprocess.run(
            [sys.executable, "-c", demo, str(bucket)],
            check=True,
            cwd=PROJECT,
            env=os.environ | {"DAGSTER_HOME": str(home)},
        )
        services = dagster_dev(folder, {"AUDIO_SOURCE_URI": bucket.as_uri()}, home)
        with services as dev, open_page(program) as page:
            page.goto(dev.url)
            for name, show in PICTURES.items():
                show(page)
                page.wait_for_timeout(MILLISECONDS_TO_SETTLE)
                page.screenshot(path=images / f"{name}.png")
                print(images / f"{name}.png")
            listening_pages(page, bucket, images)


def listening_pages(page: Page, bucket: pathlib.Path, images: pathlib.Path) -> None:
    """Pictures of the listening page: on a wide screen in the light, on a phone in the dark."""
    tables = ObjectStore(f"{bucket.as_uri()}/output_parquet")
    table = Table(tables, "audio_table", schema.AUDIO_TABLE)
    make_page(table, ObjectStore(bucket.as_uri()), tables, "listening_page/")
    sizes = {"listening-page": (1600, 1000, "light"), "listening-page-phone": (390, 844, "dark")}
    for name, (width, height, scheme) in sizes.items():
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(f"{tables.uri}/listening_page/index.html")
        page.wait_for_selector("body.complete")
        page.locator(".row").nth(3).click()
        page.wait_for_selector(".wave canvas[style]")
        page.wait_for_timeout(MILLISECONDS_TO_SETTLE)
        page.screenshot(path=images / f"{name}.png")
        print(images / f"{name}.png")


if __name__ == "__main__":
    found = find_browser()
    if found is None:
        sys.exit("Install Chromium first (no chromium, chromium-browser or google-chrome is on the PATH)")
    main(found, IMAGES)
