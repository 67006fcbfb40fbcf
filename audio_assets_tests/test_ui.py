"""The UI as `make dev` serves it: what it shows, and what a person does in it by clicking.

One set of services for all of it, with sensor and daemon. Objects of the year 2099 are never closed, so the
sensor leaves their partitions to the person who clicks.
"""

import collections
import contextlib
import datetime as dt
import ipaddress
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator

import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page, TimeoutError, expect, sync_playwright

from audio_assets import read_table
from audio_assets.demo.make_sample import SAMPLE
from audio_assets.partitions import FolderMinute
from audio_assets_tests.support.audio import MINUTE
from audio_assets_tests.support.dagster_dev import PATIENCE_SECONDS, DagsterDev, dagster_dev
from audio_assets_tests.support.places import LocalPlace, S3Place

pytestmark = pytest.mark.xdist_group("ui")

# Opens a page of the UI by its path.
Visit = Callable[[str], contextlib.AbstractContextManager[Page]]
# `read_table` on the bucket of these tests.
ReadTable = Callable[..., pd.DataFrame]

CLICK_SECONDS = 10
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
ASSETS = ["s3_inventory", "transcripts", "tokens", "audio_table"]
FUTURE = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
HOSTILE = "Gespräch, 100% [neu] +1"
CLOSED = {
    "p225/p225_001_mic1.flac": MINUTE,
    "p225/p225_002_mic1.flac": MINUTE,
    "p225/speaker-info.txt": MINUTE,
    "p225/p225_003_mic1.flac": MINUTE + dt.timedelta(minutes=1),
    "p226/p226_001_mic1.flac": MINUTE,
    "p227/p227_900_damaged.flac": MINUTE,
}
CLOSED_KEYS = {FolderMinute.of(key, minute).key for key, minute in CLOSED.items()} | {
    FolderMinute(HOSTILE, MINUTE).key
}


# --- a server and a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> LocalPlace:
    place = LocalPlace(tmp_path_factory.mktemp("bucket"))
    for key, minute in CLOSED.items():
        place.put(key, (SAMPLE / key).read_bytes(), minute)
    speech = (SAMPLE / "p228/p228_001_mic1.flac").read_bytes()
    place.put(f"{HOSTILE}/späte Aufnahme 50%.flac", speech, MINUTE)
    for folder in ("later", "broken"):
        place.put(f"{folder}/one.flac", speech, FUTURE)
    return place


@pytest.fixture(scope="module")
def dev(bucket: LocalPlace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    settings = {"AUDIO_SOURCE_URI": bucket.uri, "SETTLE_SECONDS": "0"}
    with dagster_dev(tmp_path_factory.mktemp("ui"), settings) as running:
        yield running


@pytest.fixture
def table(bucket: LocalPlace, monkeypatch: pytest.MonkeyPatch) -> ReadTable:
    monkeypatch.setenv("AUDIO_SOURCE_URI", bucket.uri)
    monkeypatch.delenv("AUDIO_TABLE_URI", raising=False)
    return read_table


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    with sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=found, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, dev: DagsterDev, tmp_path: pathlib.Path) -> Visit:
    """Opens a page of the UI; a failure leaves a screenshot and says where."""

    @contextlib.contextmanager
    def open_page(path: str) -> Iterator[Page]:
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        try:
            page.goto(dev.url + path)
            yield page
        except BaseException as e:
            screenshot = tmp_path / "failure.png"
            page.screenshot(path=screenshot)
            e.add_note(f"the page then: {screenshot}\nthe services said: {dev.log}")
            raise
        finally:
            page.close()

    return open_page


# --- what Dagster knows ---------------------------------------------------------------------------------


def status(dev: DagsterDev, asset: str = "audio_table") -> dict[str, set[str]]:
    """The partition keys of an asset by status, as the UI colours them."""
    found = dev.query(
        """query ($asset: [String!]!) { assetNodeOrError(assetKey: {path: $asset}) { ... on AssetNode {
             assetPartitionStatuses { ... on DefaultPartitionStatuses {
               materializedPartitions failedPartitions materializingPartitions unmaterializedPartitions
        } } } } }""",
        asset=[asset],
    )["assetNodeOrError"]["assetPartitionStatuses"]
    return {name.removesuffix("Partitions"): set(keys) for name, keys in found.items()}


def wait_until_green(dev: DagsterDev, *keys: str) -> None:
    dev.wait_for(f"rows of {keys}", lambda: status(dev)["materialized"] >= set(keys))


def runs(dev: DagsterDev, tag: str, value: str) -> list[dict]:
    found = dev.query(
        """query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results {
             runId status stats { ... on RunStatsSnapshot { materializations } } tags { key value }
        } } } }""",
        filter={"tags": [{"key": tag, "value": value}]},
    )["runsOrError"]["results"]
    return [run | {"tags": {t["key"]: t["value"] for t in run["tags"]}} for run in found]


def messages(dev: DagsterDev, run_id: str) -> list[str]:
    found = dev.query(
        """query ($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
             ... on MessageEvent { message } } } } }""",
        run=run_id,
    )["logsForRun"]["events"]
    return [event.get("message", "") for event in found]


def register(dev: DagsterDev, key: str) -> None:
    dev.query(
        """mutation ($key: String!) { addDynamicPartition(
             partitionsDefName: "folder_minute", partitionKey: $key, repositorySelector: {
               repositoryName: "__repository__", repositoryLocationName: "audio_assets"
           }) { __typename } }""",
        key=key,
    )


def launch(dev: DagsterDev, job: str, assets: list[str] | None = None, key: str | None = None) -> None:
    """Launch a job, or some of its assets for one partition, without their checks."""
    selector: dict[str, object] = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "audio_assets",
        "pipelineName": job,
    }
    if assets:
        selector |= {"assetSelection": [{"path": [name]} for name in assets], "assetCheckSelection": []}
    tags = [{"key": "dagster/partition", "value": key}] if key else []
    dev.query(
        """mutation ($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
             ... on LaunchRunSuccess { run { id } } } }""",
        params={"selector": selector, "executionMetadata": {"tags": tags}},
    )


def wait_for_backfill(dev: DagsterDev) -> list[dict]:
    """The runs of the latest backfill, once those that it has by then have ended well."""

    def ended() -> list[dict]:
        newest = dev.query(
            "{ partitionBackfillsOrError(limit: 1) { ... on PartitionBackfills { results { id } } } }"
        )["partitionBackfillsOrError"]["results"][0]
        found = runs(dev, "dagster/backfill", newest["id"])
        assert not [run for run in found if run["status"] in ("FAILURE", "CANCELED")]
        return found if all(run["status"] == "SUCCESS" for run in found) else []

    return dev.wait_for("successful backfill", ended)


# --- what is switched on --------------------------------------------------------------------------------


def test_sensor_runs_and_pool_is_set(dev: DagsterDev) -> None:
    sensor = dev.query(
        """{ sensorOrError(sensorSelector: { sensorName: "new_s3_keys",
               repositoryName: "__repository__", repositoryLocationName: "audio_assets" })
             { ... on Sensor { description sensorState { status } } } }"""
    )["sensorOrError"]
    assert sensor["sensorState"]["status"] == "RUNNING"
    assert sensor["description"]
    # Dagster makes a pool's slots when the first run is about to use it.
    limits = dev.wait_for(
        "pool",
        lambda: dev.query("{ instance { concurrencyLimits { concurrencyKey limit } } }")["instance"][
            "concurrencyLimits"
        ],
    )
    assert limits == [{"concurrencyKey": "gpu", "limit": 1}]


def test_assets_say_what_they_are(dev: DagsterDev) -> None:
    nodes = dev.query(
        """{ assetNodes { assetKey { path } description groupName kinds pools
             owners { ... on TeamAssetOwner { team } } backfillPolicy { maxPartitionsPerRun }
             metadataEntries { ... on TableSchemaMetadataEntry { schema {
               columns { name type description } } } } } }"""
    )["assetNodes"]
    by_name = {node["assetKey"]["path"][0]: node for node in nodes}
    assert set(by_name) == set(ASSETS)
    for node in nodes:
        assert node["groupName"] == "audio"
        assert node["owners"] == [{"team": "speech"}]
        assert node["description"]
        assert "parquet" in node["kinds"]
        assert node["backfillPolicy"]["maxPartitionsPerRun"] > 1
        [schema] = [entry["schema"] for entry in node["metadataEntries"] if "schema" in entry]
        assert all(c["type"] and c["description"] for c in schema["columns"])
        assert {"Key", "ETag"} <= {c["name"] for c in schema["columns"]}
    pools = {name: node["pools"] for name, node in by_name.items()}
    assert pools == {"s3_inventory": [], "transcripts": ["gpu"], "tokens": ["gpu"], "audio_table": []}


def test_asset_graph_shows_all_assets_at_once(visit: Visit) -> None:
    with visit("/asset-groups") as page:
        for name in (*ASSETS, "S3", "PyTorch", "whisper"):
            expect(page.locator("foreignObject").get_by_text(name, exact=True).first).to_be_visible()
        # No dialogue of a first visit lies over it.
        expect(page.get_by_role("dialog")).to_have_count(0)


# --- without any click ----------------------------------------------------------------------------------


def test_sensor_fills_the_table_by_itself(dev: DagsterDev, table: ReadTable) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    rows = table()
    assert set(rows["Key"]) == {*CLOSED, f"{HOSTILE}/späte Aufnahme 50%.flac"}
    assert collections.Counter(rows["status"]) == {"ok": 5, "not_flac": 1, "failed": 1}
    # One range of partitions, one run.
    assert len(runs(dev, "dagster/sensor_name", "new_s3_keys")) == 1


def test_each_partition_has_row_count_and_preview(dev: DagsterDev, table: ReadTable) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    found = dev.query(
        """{ assetNodeOrError(assetKey: { path: ["audio_table"] }) { ... on AssetNode {
             assetMaterializations(limit: 100) { partition metadataEntries { label
               ... on IntMetadataEntry { intValue } ... on MarkdownMetadataEntry { mdStr } } } } } }"""
    )["assetNodeOrError"]["assetMaterializations"]
    entries = {
        m["partition"]: {entry["label"]: entry for entry in m["metadataEntries"]} for m in reversed(found)
    }
    first = entries[FolderMinute("p225", MINUTE).key]
    assert first["dagster/partition_row_count"]["intValue"] == 3
    assert "p225/p225_002_mic1.flac" in first["preview"]["mdStr"]
    assert entries[FolderMinute("p227", MINUTE).key]["failed"]["intValue"] == 1


def test_an_uploaded_file_reaches_the_table_by_itself(
    dev: DagsterDev, bucket: LocalPlace, table: ReadTable
) -> None:
    late = "p226/p226_002_mic1.flac"
    wait_until_green(dev, *CLOSED_KEYS)
    bucket.put(late, (SAMPLE / late).read_bytes(), MINUTE)
    [row] = dev.wait_for(
        f"row of {late}", lambda: table("p226").set_index("Key").filter([late], axis=0).to_dict("records")
    )
    assert row["status"] == "ok"
    assert row["transcribed_text"]
    assert len(row["tokenized_info"]) >= 20


def test_failed_objects_are_tried_again_by_launching_one_job(dev: DagsterDev, table: ReadTable) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    failed = FolderMinute("p227", MINUTE).key
    launch(dev, "retry_failed_objects")

    def backfill() -> list[dict]:
        asked = (
            "{ partitionBackfillsOrError(limit: 1) { ... on PartitionBackfills { results { id title } } } }"
        )
        found = dev.query(asked)["partitionBackfillsOrError"]["results"]
        return [b for b in found if b["title"] == "retry_failed_objects"]

    dev.wait_for("backfill", backfill)
    [run] = wait_for_backfill(dev)
    ends = [run["tags"][f"dagster/asset_partition_range_{end}"] for end in ("start", "end")]
    assert ends == [failed, failed]
    assert list(table("p227")["status"]) == ["failed"]


def test_dotenv_points_all_of_it_at_a_bucket_on_s3(
    s3_place: S3Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "p225/p225_001_mic1.flac"
    s3_place.put(key, (SAMPLE / key).read_bytes(), MINUTE)
    tables = f"s3://{s3_place.bucket}/tables"
    (tmp_path / ".env").write_text(
        f"""
        AUDIO_SOURCE_URI="{s3_place.uri}"
        AUDIO_TABLE_URI={tables}
        AWS_ENDPOINT_URL_S3={os.environ["AWS_ENDPOINT_URL_S3"]}
        AWS_ACCESS_KEY_ID=somebody
        AWS_SECRET_ACCESS_KEY=secret
        AWS_DEFAULT_REGION=us-east-1
        """
    )
    with dagster_dev(tmp_path, {}) as dev:
        wait_until_green(dev, FolderMinute("p225", MINUTE).key)
    monkeypatch.setenv("AUDIO_TABLE_URI", tables)
    assert list(read_table()["Key"]) == [key]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens where")
def test_every_server_listens_to_this_machine_alone(dev: DagsterDev) -> None:
    listening = dev.listening()
    assert int(dev.url.rpartition(":")[2]) in {port for _, port in listening}
    assert {ipaddress.ip_address(address).is_loopback for address, _ in listening} == {True}


# --- by clicking ----------------------------------------------------------------------------------------


def test_one_partition_materialised_by_clicking_turns_green(
    dev: DagsterDev, visit: Visit, table: ReadTable
) -> None:
    key = FolderMinute("later", FUTURE).key
    register(dev, key)
    with visit("/asset-groups") as page:
        page.get_by_role("button", name="Materialize all").click()
        select_partitions(page, key)
        click_launch(page, "Launch 1 run")
        page.goto(f"{dev.url}/assets/audio_table?view=partitions")
        page.wait_for_function(
            """(selector) => {
                 const dot = document.querySelector(selector);
                 const colour = dot && getComputedStyle(dot).backgroundColor.match(/\\d+/g);
                 return colour && colour[1] > 1.5 * colour[0] && colour[1] > 1.2 * colour[2];
               }""",
            arg=f'[data-tooltip="{key}"] + div',
        )
        page.get_by_text(key).first.click()
        expect(page.get_by_text("Materialized", exact=True).first).to_be_visible()
        expect(page.get_by_text("later/one.flac")).to_be_visible()
    assert list(table("later")["status"]) == ["ok"]


def test_what_is_typed_into_the_partition_box_is_what_gets_launched(dev: DagsterDev, visit: Visit) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    wanted = [FolderMinute("p225", MINUTE + dt.timedelta(minutes=m)).key for m in range(2)]
    with visit("/asset-groups") as page:
        page.get_by_role("button", name="Materialize all").click()
        select_partitions(page, "p225@2023-08", matches=2)
        click_launch(page, "Launch backfill")
    [run] = wait_for_backfill(dev)
    assert [run["tags"][f"dagster/asset_partition_range_{end}"] for end in ("start", "end")] == wanted
    assert run["stats"]["materializations"] == len(wanted) * len(ASSETS)


def test_a_backfill_of_everything_is_one_run_with_one_model_load(
    dev: DagsterDev, bucket: LocalPlace, visit: Visit
) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    # Rows that exist are reused, so without this no model would be needed at all.
    shutil.rmtree(bucket.folder / "output_parquet" / "transcripts")
    with visit("/asset-groups") as page:
        page.get_by_role("button", name="Materialize all").click()
        launch_button = page.get_by_role("button", name="Launch backfill")
        click_until(page.get_by_role("button", name="All", exact=True), launch_button)
        click_launch(page, "Launch backfill")
    [run] = wait_for_backfill(dev)
    assert run["stats"]["materializations"] >= len(CLOSED_KEYS) * len(ASSETS)
    assert len([m for m in messages(dev, run["runId"]) if re.match("Loading Whisper", m)]) == 1


def test_failed_partitions_are_found_and_mended_by_clicking(
    dev: DagsterDev, visit: Visit, table: ReadTable
) -> None:
    key = FolderMinute("broken", FUTURE).key
    register(dev, key)
    # There is nothing yet that the table could be made from.
    launch(dev, "__ASSET_JOB", ["audio_table"], key)
    dev.wait_for(f"failure of {key}", lambda: status(dev)["failed"] == {key})
    with visit("/asset-groups") as page:
        page.get_by_role("button", name="Materialize all").click()
        launch_button = page.get_by_role("button", name="Launch 1 run")
        click_until(page.get_by_role("button", name="Failed", exact=True), launch_button)
        click_launch(page, "Launch 1 run")
    wait_until_green(dev, key)
    assert not status(dev)["failed"]
    assert list(table("broken")["status"]) == ["ok"]


def select_partitions(page: Page, typed: str, matches: int = 1) -> None:
    """Type into the partition box of the dialogue and take all that it then offers."""
    box = page.get_by_placeholder("Filter partitions")
    click_until(page.locator('[class*="tagSelectorContainer"]'), box)
    box.fill(typed)
    page.get_by_text(f"Select all ({matches})").click()
    page.keyboard.press("Escape")


def click_until(control: Locator, shown: Locator) -> None:
    """Click until something shows: a dialogue that is still loading is drawn anew and forgets a click."""
    for _ in range(PATIENCE_SECONDS // CLICK_SECONDS):
        control.click()
        with contextlib.suppress(TimeoutError):
            return shown.first.wait_for(timeout=CLICK_SECONDS * 1000)
    raise AssertionError(f"{shown} does not show after {PATIENCE_SECONDS} s of clicking {control}")


def click_launch(page: Page, label: str) -> None:
    page.get_by_role("button", name=label).click()
    # The dialogue stays until the server has answered; whoever leaves earlier launches nothing.
    expect(page.get_by_role("dialog")).to_have_count(0)
