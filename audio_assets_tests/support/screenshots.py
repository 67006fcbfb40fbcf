"""The pictures of the documentation: headless Chromium on the UI and the listening page after the demo.

    python -m audio_assets_tests.support.screenshots

writes docs/images/*.png anew. It lays the demo's sample into a temporary folder, and starts the services on
it with an instance of their own. It needs Chromium and what the tests need; the listening page is set in
Inter where that is installed. Look at each picture before you commit it.
"""

import base64
import datetime as dt
import html
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
from audio_assets_tests.support.dagster_dev import PROJECT, DagsterDev, dagster_dev

IMAGES = PROJECT / "docs" / "images"
# Has rows of each status, in the demo's sample.
PARTITION = "p227@2023-08-24-00:24"
# Transitions and spinners end meanwhile.
MILLISECONDS_TO_SETTLE = 3000
# The bucket's path is seen in the pictures.
BUCKET = "demo_bucket"
STRIP_KEY = "p225/one-more.flac"
STRIP_UPLOADED = dt.datetime(2023, 8, 25, 9, 30, tzinfo=dt.UTC)
STRIP_STYLE = """<style>
body { margin: 24px; display: grid; grid-template-columns: 1fr 1fr; gap: 24px; background: #fff }
figure { margin: 0; font: 600 22px Inter, sans-serif }
figcaption { margin-bottom: 8px }
img { width: 100%; border: 1px solid #ccc; border-radius: 6px }
</style>"""


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
            strip(page, dev, bucket, images)


def strip(page: Page, dev: DagsterDev, bucket: pathlib.Path, images: pathlib.Path) -> None:
    """The way of one object, from the bucket to the ear, in four pictures side by side."""
    put = bucket / STRIP_KEY
    shutil.copy(bucket / "p225" / "p225_001_mic1.flac", put)
    # Its minute is over, so that the sensor need not wait for it.
    uploaded = STRIP_UPLOADED.timestamp()
    os.utime(put, (uploaded, uploaded))
    partition = f"p225@{STRIP_UPLOADED:%Y-%m-%d-%H:%M}"
    run = dev.wait_for("run of the sensor", lambda: _succeeded(dev, partition))
    page.set_viewport_size({"width": 1600, "height": 1000})
    page.emulate_media(color_scheme="light")

    def in_bucket() -> None:
        listed = subprocess.run(
            ["ls", "-l", "--time-style=long-iso", *sorted(path.name for path in put.parent.iterdir())],
            capture_output=True,
            text=True,
            check=True,
            cwd=put.parent,
        ).stdout
        said = f"$ cp speech.flac {BUCKET}/{STRIP_KEY}\n$ ls -l {BUCKET}/p225\n{listed}"
        style = "margin:0;padding:40px;background:#16181d;color:#e6e6e6;font:26px/1.5 monospace;height:100vh"
        _blank(page)
        page.set_content(f'<body style="margin:0"><pre style="{style}">{html.escape(said)}</pre>')

    def in_run() -> None:
        page.goto(f"{dev.url}/runs/{run}")
        page.get_by_text("audio_table", exact=True).first.wait_for()

    def in_table() -> None:
        page.goto(f"{dev.url}/assets/audio_table?view=partitions&partition={partition}")
        page.get_by_text("preview", exact=True).first.wait_for()

    def on_page() -> None:
        page.goto(_listening_page(bucket))
        page.wait_for_selector("body.complete")
        page.fill("#query", pathlib.Path(STRIP_KEY).stem)
        page.locator(".row", has_text=STRIP_KEY).click()
        page.locator("#detail", has_text=STRIP_KEY).wait_for()
        page.wait_for_selector(".wave canvas[style]")

    shots = {
        "1. An object lands in the bucket.": in_bucket,
        "2. The sensor starts a run for it.": in_run,
        "3. Its row is in the table.": in_table,
        "4. It is heard, with waveform and text.": on_page,
    }
    cells = []
    for caption, show in shots.items():
        show()
        page.wait_for_timeout(MILLISECONDS_TO_SETTLE)
        picture = base64.b64encode(page.screenshot()).decode()
        cells.append(
            f"<figure><figcaption>{caption}</figcaption><img src='data:image/png;base64,{picture}'></figure>"
        )
    _blank(page)
    page.set_content(STRIP_STYLE + "".join(cells))
    page.wait_for_timeout(MILLISECONDS_TO_SETTLE)
    page.screenshot(path=images / "strip.png", full_page=True)
    print(images / "strip.png")


def _blank(page: Page) -> None:
    """Leave the UI, whose security policy refuses styles within a page."""
    page.goto("about:blank")


def _succeeded(dev: DagsterDev, partition: str) -> str | None:
    """The run that made a partition, once it has."""
    runs = dev.query("{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }")
    for run in runs["runsOrError"]["results"]:
        if run["status"] == "SUCCESS" and partition in {tag["value"] for tag in run["tags"]}:
            return run["runId"]
    return None


def _listening_page(bucket: pathlib.Path) -> str:
    """Make the page, and say where it lies."""
    tables = ObjectStore(f"{bucket.as_uri()}/output_parquet")
    table = Table(tables, "audio_table", schema.AUDIO_TABLE)
    make_page(table, ObjectStore(bucket.as_uri()), tables, "listening_page/")
    return f"{tables.uri}/listening_page/index.html"


def listening_pages(page: Page, bucket: pathlib.Path, images: pathlib.Path) -> None:
    """Pictures of the listening page: on a wide screen in the light, on a phone in the dark."""
    url = _listening_page(bucket)
    sizes = {"listening-page": (1600, 1000, "light"), "listening-page-phone": (390, 844, "dark")}
    for name, (width, height, scheme) in sizes.items():
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(url)
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
