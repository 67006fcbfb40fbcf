"""How fast the listening page is with 100,000 rows, in headless Chromium.

    python -m benchmarks.listening_page

Writes a table of made-up rows in many partitions, makes its page, opens it from the disk, and drives it as
somebody would. Writes benchmarks/results/listening_page.json. Needs Chromium.
"""

import argparse
import datetime as dt
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time
from typing import Any

import pyarrow as pa
from playwright.sync_api import CDPSession, Page

from audio_assets import schema
from audio_assets.listening import make_page
from audio_assets.partitions import FolderMinute
from audio_assets.storage import ObjectStore
from audio_assets.table import Snapshot, Table
from audio_assets_tests.support.browser import find_browser, open_page

RESULTS = pathlib.Path(__file__).with_name("results") / "listening_page.json"
# Words of one to eight letters, as speech has them.
WORDS = ["".join(random.Random(i).choices("etaoinshrdlu", k=1 + i % 8)) for i in range(400)]
FIRST_DAY = dt.datetime(2024, 1, 1, 8, tzinfo=dt.UTC)
DAYS = 60
FOLDERS = 110


def partition_of_rows(folder: str, minute: dt.datetime, count: int, rng: random.Random) -> pa.Table:
    """Rows as speech of several languages would give them, a few of them failed."""
    rows = []
    for i in range(count):
        words = rng.choices(WORDS, k=rng.randint(3, 24))
        failed = rng.random() < 0.01
        text = None if failed else " " + " ".join(words).capitalize() + "."
        rows.append(
            {
                "Key": f"{folder}/{folder}_{minute:%m%d%H%M}_{i:03}.flac",
                "ETag": "0",
                "Size": rng.randint(50_000, 400_000),
                "LastModified": minute + dt.timedelta(seconds=rng.randrange(60)),
                "transcribed_text": text,
                "language": None if failed else rng.choices(("en", "de", "fr", "es"), (80, 10, 6, 4))[0],
                "avg_logprob": None if failed else -min(3.0, rng.gammavariate(1.6, 0.2)),
                "no_speech_prob": None if failed else rng.random() ** 6,
                "compression_ratio": None if failed else rng.uniform(0.7, 2.4),
                "temperature": None if failed else 0.0,
                "duration_s": None if failed else len(words) * rng.uniform(0.25, 0.5),
                "sample_rate_hz": None if failed else 48_000,
                "channels": None if failed else 1,
                "whisper_model": "turbo",
                "tokeniser": "simulated",
                "status": schema.FAILED if failed else schema.OK,
                "error": f"corrupt or truncated FLAC: only its first {i / 10:.2f} s are readable"
                if failed
                else None,
            }
        )
    return pa.Table.from_pylist(rows, schema.AUDIO_TABLE)


def write_table(folder: pathlib.Path, rows: int, partitions: int) -> Table:
    table = Table(ObjectStore(folder.as_uri()), "audio_table", schema.AUDIO_TABLE)
    rng = random.Random(1)
    for i in range(partitions):
        minute = FIRST_DAY + dt.timedelta(days=rng.randrange(DAYS), minutes=i % 600)
        partition = FolderMinute(f"p{225 + i % FOLDERS}", minute)
        made = partition_of_rows(partition.folder, minute, rows // partitions, rng)
        table.replace(partition, made, Snapshot(None, None))
    return table


def opened(page: Page, url: str) -> dict[str, float]:
    """Milliseconds from the start of navigation, as the browser counts them."""
    page.goto("about:blank")
    page.goto(url)
    page.wait_for_selector("body.complete")
    return page.evaluate(
        """() => {
          const at = (entries) => entries.length ? entries[entries.length - 1].startTime : null;
          return {
            first_paint: at(performance.getEntriesByName("first-contentful-paint")),
            charts: at(performance.getEntriesByName("listening-page-ready")),
            complete: at(performance.getEntriesByName("listening-page-complete")),
          };
        }"""
    )


def cpu_ms(metrics: CDPSession) -> float:
    """CPU time of the page's thread so far: what else the machine does is not in it."""
    found = {one["name"]: one["value"] for one in metrics.send("Performance.getMetrics")["metrics"]}
    return 1000 * found["TaskDuration"]


FILTER = """async (act) => {
  const started = performance.now();
  (new Function(act))();
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - started;
}"""
"""From the click until the frame that shows its effect has been drawn."""

ACTS = {
    "a bar of a histogram": "document.querySelectorAll('.bars')[0].children[4].click()",
    "a value": "document.querySelector('.value.failed').click()",
    "search in words": (
        "listeningPage.filters.find('e ta nos');"
        " document.getElementById('sort').dispatchEvent(new Event('change'))"
    ),
    "another order": (
        "const s = document.getElementById('sort'); s.selectedIndex = (s.selectedIndex + 1) % s.length;"
        " s.dispatchEvent(new Event('change'))"
    ),
    "all filters off": "document.getElementById('clear').click()",
}


def measure(page: Page, url: str, rounds: int) -> dict[str, Any]:
    """Medians of some rounds; the first opening, which finds nothing in a cache, is one of them."""
    metrics = page.context.new_cdp_session(page)
    metrics.send("Performance.enable", {"timeDomain": "threadTicks"})
    opening = [opened(page, url) for _ in range(rounds)]
    filters = {}
    for name, act in ACTS.items():
        taken = []
        cpu = []
        for _ in range(rounds):
            before = cpu_ms(metrics)
            taken.append(page.evaluate(FILTER, act))
            cpu.append(cpu_ms(metrics) - before)
            page.evaluate(FILTER, ACTS["all filters off"])
        filters[name] = {"median_ms": statistics.median(taken), "cpu_ms": statistics.median(cpu)}
    return {
        "load": os.getloadavg()[0],
        "opening_ms": {name: statistics.median(one[name] for one in opening) for name in opening[0]},
        "filter_ms": filters,
        "elements": page.evaluate("document.querySelectorAll('*').length"),
        "heap_mb": page.evaluate("performance.memory.usedJSHeapSize / 1e6"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", help="a folder for table and page, which then stay")
    args = parser.parse_args()
    program = find_browser()
    if program is None:
        sys.exit("Install Chromium first (no chromium, chromium-browser or google-chrome is on the PATH)")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.keep or temporary)
        there = Table(ObjectStore(folder.as_uri()), "audio_table", schema.AUDIO_TABLE)
        table = (
            there
            if folder.exists() and there.partitions()
            else write_table(folder, args.rows, args.partitions)
        )
        started = time.process_time()
        made = make_page(table, ObjectStore((folder / "source").as_uri()), table.store, "page/")
        cpu_s = time.process_time() - started
        with open_page(program) as page:
            found = measure(page, (folder / "page" / "index.html").as_uri(), args.rounds)
            version = page.context.browser.version if page.context.browser else ""
    results = {
        "command": "python -m benchmarks.listening_page",
        "settings": vars(args) | {"keep": None},
        "browser": f"headless Chromium {version}",
        "page": {"rows": made.rows, "files": made.files, "megabytes": made.size / 1e6, "cpu_s": cpu_s},
        **found,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
