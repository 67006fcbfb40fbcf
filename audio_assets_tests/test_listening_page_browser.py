"""The listening page in a real browser: what is seen, heard, filtered and sent; no text is a command."""

import contextlib
import functools
import http.server
import pathlib
import re
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from audio_assets import schema
from audio_assets.listening import make_page
from audio_assets.storage import ObjectStore
from audio_assets.table import Table
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.browser import find_browser, open_page
from audio_assets_tests.support.rows import at, row, write

pytestmark = pytest.mark.xdist_group("listening page")

HOSTILE = "</script><script>window.hacked = 1</script>\u2028<img src=x onerror='hacked = 2'>\"'`${hacked}"
HOSTILE_FOLDER = "</script><b>&amp;"
WORDS = ("alpha", "bravo", "charlie", "delta")
FAILURE = "corrupt or truncated FLAC: only its first 1.20 s are readable; upload it again"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A source with its table and two pages: `copied` has copies of the audio, `linked` has links to it."""
    folder = tmp_path_factory.mktemp("buc ket")
    store = ObjectStore(folder.as_uri())
    table = Table(store, "tables/audio_table", schema.AUDIO_TABLE)
    (folder / "p225").mkdir()
    for i in range(3):
        (folder / f"p225/{i} #1.flac").write_bytes(flac(0.5, seed=i, rate=48_000))
    listed = {info.key: info for _, page in store.scan() for info in page}
    made = [
        row(
            f"p225/{i} #1.flac",
            ETag=listed[f"p225/{i} #1.flac"].etag,
            Size=listed[f"p225/{i} #1.flac"].size,
            LastModified=listed[f"p225/{i} #1.flac"].last_modified,
            transcribed_text=f" {WORDS[i]} one.",
            avg_logprob=-1.0 + i / 4,
            duration_s=0.5,
            language="en",
        )
        for i in range(3)
    ]
    many = [
        row(
            f"p226/{i:04}.flac",
            transcribed_text=f" {WORDS[i % 4]} number {i}.",
            avg_logprob=-0.001 * i / 10,
            duration_s=1 + i % 7,
            language=("en", "de")[i % 2],
        )
        for i in range(1000)
    ]
    failed = [row(f"p227/{i}.flac", status="failed", error=FAILURE.replace("1.20", str(i))) for i in range(4)]
    hostile = row(
        f"{HOSTILE_FOLDER}/{HOSTILE}",
        transcribed_text=HOSTILE,
        language=HOSTILE,
        whisper_model=HOSTILE,
        avg_logprob=-2.0,
        duration_s=1.0,
    )
    write(table, at("p225"), *made)
    write(table, at("p226", 1), *many)
    write(table, at("p227"), *failed, row("p227/bad.flac", status="failed", error=HOSTILE))
    write(table, at(HOSTILE_FOLDER), hostile)
    make_page(table, store, store, "tables/copied/", audio="copy")
    make_page(table, store, store, "tables/linked/", audio="link")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    program = find_browser()
    if program is None:
        pytest.skip("needs Chromium")
    with open_page(program) as page:
        page.set_default_timeout(20_000)
        yield page


@pytest.fixture
def page(browser: Page, bucket: pathlib.Path) -> Iterator[Page]:
    """The page with copies, opened from the disk."""
    problems: list[str] = []
    listener = lambda error: problems.append(str(error))  # noqa: E731
    browser.on("pageerror", listener)
    browser.goto("about:blank")
    go(browser, url(bucket))
    yield browser
    browser.remove_listener("pageerror", listener)
    assert problems == []


def url(bucket: pathlib.Path, name: str = "copied") -> str:
    return (bucket / "tables" / name / "index.html").as_uri()


def go(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("body.complete")


def shown(page: Page) -> int:
    """How many rows pass the filters, as the page says."""
    said = page.locator("#count").inner_text()
    return int(said.split(" of ")[0].replace(",", ""))


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """Static files of a folder, as a bucket serves them."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_least_sure_comes_first_and_no_text_is_a_command(page: Page):
    first = page.locator(".row").first
    # What shows no line break shows a blank.
    assert re.sub(r"\s", " ", first.locator(".text").inner_text()) == re.sub(r"\s", " ", HOSTILE)
    first.click()
    expect(page.locator(".said")).to_contain_text("</script><script>window.hacked = 1</script>")
    page.evaluate(
        """() => {
          const tag = document.createElement("script");
          tag.textContent = "window.hacked = 3";
          document.body.append(tag);
          document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked = 4'>");
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".rows b b, .rows img, .detail img, #groups img").count() == 0


def test_a_click_on_a_value_filters_rows_and_histograms(page: Page):
    assert shown(page) == 1009
    page.get_by_role("button", name="de 500").click()
    assert shown(page) == 500
    bar = page.get_by_label("Duration", exact=True).get_by_role("button", name=re.compile("^3.00 to")).first
    expect(bar).to_have_attribute("aria-label", re.compile(": 71 of 143 rows$"))
    bar.click()
    assert shown(page) == 71
    page.get_by_role("button", name="Clear filters").click()
    assert shown(page) == 1009


def test_reasons_of_failures_are_counted_whatever_figures_are_in_them(page: Page):
    reasons = page.locator("#reasons .value")
    expect(reasons).to_have_count(2)
    reasons.first.click()
    assert shown(page) == 4
    assert page.locator(".row .text").first.inner_text() == FAILURE.replace("1.20", "0")
    page.get_by_title("Show them").click()
    assert shown(page) == 4


def test_search_finds_words_by_their_beginning_and_phrases(page: Page):
    for query, found in [("Bravo", 251), ("brav 17", 3), ('"number 17"', 11), ("harlie", 0), ("p225", 3)]:
        page.locator("#query").fill(query)
        page.wait_for_timeout(250)
        assert shown(page) == found, query


def test_a_link_shows_somebody_else_the_same(page: Page):
    page.get_by_role("button", name="de 500").click()
    page.locator("#query").fill("delta")
    page.wait_for_timeout(250)
    page.locator(".row").nth(3).click()
    key = page.locator(".detail-head .name").inner_text().replace("\n", "")
    link = page.url
    number = shown(page)
    page.goto("about:blank")
    go(page, link)
    assert shown(page) == number == 250
    assert page.locator(".detail-head .name").inner_text().replace("\n", "") == key
    assert page.locator('.row[aria-selected="true"]').count() == 1


def test_audio_is_played_and_drawn_from_a_disk(page: Page):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_text("alpha one.").click()
    page.wait_for_selector(".wave canvas[style]")
    colours = page.evaluate(
        """() => new Set(document.querySelectorAll(".wave canvas")[1]
             .getContext("2d").getImageData(0, 0, 200, 100).data).size"""
    )
    assert colours > 50
    page.get_by_role("button", name="Play", exact=True).click()
    expect(page.locator(".wave")).to_have_attribute("aria-valuenow", re.compile(r"^0\.[2-5]"))
    assert float(page.locator(".wave").get_attribute("aria-valuemax") or 0) == pytest.approx(0.5, abs=0.01)
    assert {re.match(r"\w+", one)[0] for one in asked} <= {"file", "blob"}  # type: ignore[index]


def test_audio_is_linked_to_where_bucket_and_page_are_served(browser: Page, bucket: pathlib.Path):
    with served(bucket) as address:
        go(browser, f"{address}/tables/linked/index.html")
        browser.get_by_text("charlie one.").click()
        browser.wait_for_selector(".wave canvas[style]")
        expect(browser.locator(".wave")).to_have_attribute("aria-valuemax", "0.50")
        browser.goto("about:blank")


def test_the_page_is_used_by_keyboard_alone(page: Page):
    page.keyboard.press("/")
    page.keyboard.type("alpha")
    page.wait_for_timeout(250)
    page.keyboard.press("Escape")
    page.locator("#rows").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator("#rows").get_attribute("aria-activedescendant") == page.locator(
        '.row[aria-selected="true"]'
    ).get_attribute("id")
    page.keyboard.press("End")
    chosen = page.locator('.row[aria-selected="true"]')
    assert chosen.get_attribute("aria-posinset") == chosen.get_attribute("aria-setsize") == "251"
    page.locator("#query").fill("")
    page.wait_for_timeout(250)
    page.locator("#heatmap").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert shown(page) < 1009
    page.locator("#heatmap").press("Enter")
    assert shown(page) == 1009


def test_only_what_is_seen_has_elements(page: Page):
    assert page.locator(".row").count() < 40
    page.locator("#rows").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
    page.get_by_text("number 0.").wait_for()
    assert page.locator(".row").count() < 40


def test_a_phone_shows_it_without_scrolling_sideways(page: Page):
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.get_by_text("alpha one.").click()
        expect(page.locator(".said")).to_be_visible()
        page.get_by_role("button", name="Close").click()
        expect(page.locator(".said")).to_have_count(0)
        page.locator("summary").click()
        expect(page.get_by_role("button", name="de 500")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    finally:
        page.set_viewport_size({"width": 1600, "height": 1000})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_they_stand_on(page: Page, scheme: str):
    """WCAG 2.2, 1.4.3: a contrast of 4.5, in both schemes."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    ratios = page.evaluate(
        """() => {
          const root = getComputedStyle(document.documentElement);
          const light = (name) => {
            const hex = root.getPropertyValue(`--${name}`).trim().slice(1);
            const parts = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
              .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
          };
          const ratio = (a, b) =>
            (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
          const pairs = [["ink", "surface"], ["ink", "accent-soft"], ["muted", "surface"], ["muted", "paper"],
            ["faint", "surface"], ["accent", "surface"], ["failed", "surface"], ["failed", "failed-soft"],
            ["middle", "surface"], ["muted", "accent-soft"], ["failed", "accent-soft"]];
          return pairs.map(([a, b]) => [`${a} on ${b}`, ratio(a, b)]);
        }"""
    )
    page.emulate_media(color_scheme=None)
    assert [one for one in ratios if one[1] < 4.5] == []
