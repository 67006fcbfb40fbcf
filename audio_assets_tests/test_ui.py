"""The UI as `make dev` serves it: what it shows, and what a person does in it by clicking.

One set of services, one browser page for all of it, with sensor and daemon. `.env` points them at a bucket on
S3. Objects of the year 2099 are never closed, so the sensor leaves their partitions to the person who clicks.
"""

import collections
import contextlib
import datetime as dt
import ipaddress
import re
import sys
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from audio_assets import read_table
from audio_assets.defs.check_rules import CHECKS
from audio_assets.demo.make_sample import SAMPLE
from audio_assets.partitions import FolderMinute, shortened_key
from audio_assets_tests.support.audio import MINUTE
from audio_assets_tests.support.browser import (
    click_launch,
    click_until,
    find_browser,
    materialize_button,
    open_page,
    select_partitions,
)
from audio_assets_tests.support.dagster_dev import DagsterDev, dagster_dev
from audio_assets_tests.support.places import S3Place

pytestmark = pytest.mark.xdist_group("ui")

# Opens a page of the UI by its path.
Visit = Callable[[str], contextlib.AbstractContextManager[Page]]

ASSETS = ["s3_inventory", "transcripts", "tokens", "audio_table"]
BUCKET = "bucket-of-the-ui"
FUTURE = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
ONE_MINUTE = dt.timedelta(minutes=1)
LATE = "p226/p226_002_mic1.flac"
HOSTILE = "Gespräch, 100% [neu] +1"
CLOSED = {
    "p225/p225_001_mic1.flac": MINUTE,
    "p225/p225_002_mic1.flac": MINUTE,
    "p225/speaker-info.txt": MINUTE,
    "p225/p225_003_mic1.flac": MINUTE + ONE_MINUTE,
    "p226/p226_001_mic1.flac": MINUTE,
    "p227/p227_900_damaged.flac": MINUTE,
}
CLOSED_KEYS = {FolderMinute.of(key, minute).key for key, minute in CLOSED.items()} | {
    FolderMinute(HOSTILE, MINUTE).key
}


# --- a server and a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(s3_server: str) -> Iterator[S3Place]:
    """The bucket; `read_table` reads its table, whose settings are in the environment as in `.env`."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in s3_settings(s3_server).items():
            monkeypatch.setenv(name, value)
        place = S3Place(BUCKET)
        place.backend.create_bucket(place.bucket, "us-east-1")
        for key, minute in CLOSED.items():
            place.put(key, (SAMPLE / key).read_bytes(), minute)
        speech = (SAMPLE / "p228/p228_001_mic1.flac").read_bytes()
        place.put(f"{HOSTILE}/späte Aufnahme 50%.flac", speech, MINUTE)
        for folder in ("later", "broken", "missing"):
            place.put(f"{folder}/one.flac", speech, FUTURE)
        place.put("missing/two.flac", speech, FUTURE + ONE_MINUTE)
        yield place


def s3_settings(server: str) -> dict[str, str]:
    return {
        "AUDIO_SOURCE_URI": S3Place(BUCKET).uri,
        "AUDIO_TABLE_URI": f"s3://{BUCKET}/tables",
        "SETTLE_SECONDS": "0",
        "AWS_ENDPOINT_URL_S3": server,
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture(scope="module")
def dev(bucket: S3Place, s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    folder = tmp_path_factory.mktemp("ui")
    lines = [f'{name}="{value}"' for name, value in s3_settings(s3_server).items()]
    (folder / ".env").write_text("\n".join(lines))
    with dagster_dev(folder, {}) as running:
        yield running


@pytest.fixture(scope="module")
def only_page() -> Iterator[Page]:
    found = find_browser()
    if found is None:
        pytest.skip("no browser is installed")
    with open_page(found) as page:
        yield page


@pytest.fixture(scope="module")
def visit(only_page: Page, dev: DagsterDev, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """Opens a page of the UI; a failure leaves a screenshot and says where."""

    @contextlib.contextmanager
    def visiting(path: str) -> Iterator[Page]:
        try:
            only_page.goto(dev.url + path)
            yield only_page
        except BaseException as e:
            screenshot = tmp_path_factory.mktemp("failure") / "page.png"
            only_page.screenshot(path=screenshot)
            e.add_note(f"the page then: {screenshot}\nthe services said: {dev.log}")
            raise
        finally:
            # A page of the UI asks the server for news and draws, whether or not somebody looks.
            only_page.goto("about:blank")

    return visiting


@pytest.fixture(scope="module")
def backfills(dev: DagsterDev, bucket: S3Place, visit: Visit) -> dict[str, str]:
    """Backfills by name, launched side by side: the daemon that makes their runs looks every 30 s.

    And an upload, which the sensor finds meanwhile.
    """
    wait_until_green(dev, *CLOSED_KEYS)
    bucket.put(LATE, (SAMPLE / LATE).read_bytes(), MINUTE)
    # A test that ran before this fixture may have launched one of its own.
    before = newest_backfills(dev)
    job = launch(dev, "retry_failed_objects")
    with visit("/assets/audio_table") as page:
        materialize_button(page).click()
        select_partitions(page, "p225@2023-08", matches=2)
        click_launch(page, "Launch backfill")
    wait_for_run(dev, job)
    launched = [backfill for backfill in newest_backfills(dev) if backfill not in before]
    assert len(launched) == 2
    return {backfill["title"] or "typed": backfill["id"] for backfill in launched}


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


def launch(dev: DagsterDev, job: str, assets: list[str] | None = None, key: str | None = None) -> str:
    """Launch a job, or some of its assets for one partition, without their checks; gives the run's id."""
    selector: dict[str, object] = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "audio_assets",
        "pipelineName": job,
    }
    if assets:
        selector |= {"assetSelection": [{"path": [name]} for name in assets], "assetCheckSelection": []}
    tags = [{"key": "dagster/partition", "value": key}] if key else []
    launched = dev.query(
        """mutation ($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
             ... on LaunchRunSuccess { run { id } } } }""",
        params={"selector": selector, "executionMetadata": {"tags": tags}},
    )
    return launched["launchPipelineExecution"]["run"]["id"]


def newest_backfills(dev: DagsterDev) -> list[dict[str, str]]:
    return dev.query(
        "{ partitionBackfillsOrError(limit: 10) { ... on PartitionBackfills { results { id title } } } }"
    )["partitionBackfillsOrError"]["results"]


def wait_for_backfill(dev: DagsterDev, backfill: str) -> list[dict]:
    """The runs of a backfill, once those that it has by then have ended well."""

    def ended() -> list[dict]:
        found = runs(dev, "dagster/backfill", backfill)
        assert not [run for run in found if run["status"] in ("FAILURE", "CANCELED")]
        return found if all(run["status"] == "SUCCESS" for run in found) else []

    return dev.wait_for("successful backfill", ended)


def wait_for_run(dev: DagsterDev, run_id: str, wanted: str = "SUCCESS") -> None:
    """Wait until a run has ended, which has to be as wanted."""

    def ended() -> str | None:
        found = dev.query(
            "query ($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }", run=run_id
        )["runOrError"]["status"]
        return found if found in ("SUCCESS", "FAILURE", "CANCELED") else None

    assert dev.wait_for(f"end of run {run_id}", ended) == wanted, messages(dev, run_id)


def launched(page: Page) -> str:
    """The id of the run of which the UI says at its lower edge that it was launched."""
    link = page.get_by_role("link", name="View", exact=True).last
    return (link.get_attribute("href") or "").rpartition("/")[2]


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
    assert set(by_name) == {*ASSETS, "audio_table_daily", "training_shards", "listening_page"}
    for name in ("audio_table_daily", "training_shards", "listening_page"):
        assert by_name[name]["description"]
    for node in (by_name[name] for name in ASSETS):
        assert node["groupName"] == "audio"
        assert node["owners"] == [{"team": "speech"}]
        assert node["description"]
        assert "parquet" in node["kinds"]
        assert node["backfillPolicy"]["maxPartitionsPerRun"] > 1
        [schema] = [entry["schema"] for entry in node["metadataEntries"] if "schema" in entry]
        assert all(c["type"] and c["description"] for c in schema["columns"])
        assert {"Key", "ETag"} <= {c["name"] for c in schema["columns"]}
    pools = {name: by_name[name]["pools"] for name in ASSETS}
    assert pools == {"s3_inventory": [], "transcripts": ["gpu"], "tokens": ["gpu"], "audio_table": []}


def test_asset_graph_shows_all_assets_at_once(visit: Visit) -> None:
    with visit("/asset-groups") as page:
        for name in (*ASSETS, "audio_table_daily", "training_shards", "listening_page"):
            expect(page.locator("foreignObject").get_by_text(name, exact=True).first).to_be_visible()
        # No dialogue of a first visit lies over it.
        expect(page.get_by_role("dialog")).to_have_count(0)


# --- without any click ----------------------------------------------------------------------------------


def test_sensor_fills_the_table_on_the_s3_of_dotenv_by_itself(dev: DagsterDev) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    rows = read_table()
    assert set(rows["Key"]) == {*CLOSED, f"{HOSTILE}/späte Aufnahme 50%.flac"}
    assert collections.Counter(rows["status"]) == {"ok": 5, "not_flac": 1, "failed": 1}
    # One range of partitions, one run, which says what it covers.
    [run] = runs(dev, "dagster/sensor_name", "new_s3_keys")
    assert run["tags"]["partitions"] == str(len(CLOSED_KEYS))
    assert {run["tags"][end] for end in ("first", "last")} <= set(map(shortened_key, CLOSED_KEYS))


@pytest.mark.usefixtures("backfills")
def test_the_list_of_runs_shows_which_partitions_a_run_covers(dev: DagsterDev, visit: Visit) -> None:
    [run, *_] = [
        run for run in runs(dev, "dagster/sensor_name", "new_s3_keys") if "partitions" in run["tags"]
    ]
    with visit("/runs") as page:
        for name in ("partitions", "first", "last"):
            tag = page.get_by_text(f"{name}: {run['tags'][name]}").first
            expect(tag).to_be_visible()
            # The column cuts off what is longer than it is wide.
            box = tag.bounding_box()
            column = page.locator("[class*=runTagsWrapper]").first.locator("xpath=..").bounding_box()
            assert box
            assert column
            assert box["x"] + box["width"] <= column["x"] + column["width"]
        # Of one partition, Dagster itself shows which.
        expect(
            page.get_by_text(f"partition: {FolderMinute('p226', MINUTE).key}", exact=True).first
        ).to_be_visible()
        expect(page.get_by_text("audio_assets/")).to_have_count(0)


@pytest.mark.usefixtures("backfills")
def test_an_uploaded_file_reaches_the_table_by_itself(dev: DagsterDev) -> None:
    [row] = dev.wait_for(
        f"row of {LATE}",
        lambda: read_table("p226").set_index("Key").filter([LATE], axis=0).to_dict("records"),
    )
    assert row["status"] == "ok"
    assert row["transcribed_text"]
    assert len(row["tokenized_info"]) >= 20


def test_failed_objects_are_tried_again_by_launching_one_job(
    dev: DagsterDev, backfills: dict[str, str]
) -> None:
    failed = FolderMinute("p227", MINUTE).key
    [run] = wait_for_backfill(dev, backfills["retry_failed_objects"])
    ends = [run["tags"][f"dagster/asset_partition_range_{end}"] for end in ("start", "end")]
    assert ends == [failed, failed]
    assert list(read_table("p227")["status"]) == ["failed"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens where")
def test_every_server_listens_to_this_machine_alone(dev: DagsterDev) -> None:
    listening = dev.listening()
    assert int(dev.url.rpartition(":")[2]) in {port for _, port in listening}
    assert {ipaddress.ip_address(address).is_loopback for address, _ in listening} == {True}


# --- what the pages show --------------------------------------------------------------------------------


def test_first_page_shows_the_runs(dev: DagsterDev, visit: Visit) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    with visit("/") as page:
        expect(page.get_by_role("link", name="process_audio").first).to_be_visible()


def test_a_partition_says_what_is_in_it_and_why_objects_failed(dev: DagsterDev, visit: Visit) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    key = FolderMinute("p227", MINUTE).key
    with visit("/assets") as page:
        page.get_by_role("link", name="audio_table").first.click()
        page.get_by_role("link", name="Partitions").or_(page.get_by_role("tab", name="Partitions")).click()
        page.get_by_text(key, exact=True).first.click()
        metadata = page.locator("table", has_text="dagster/partition_row_count").first
        expect(metadata).to_be_visible()
        names = [row.split("\t")[0].split("\n")[0] for row in metadata.inner_text().splitlines() if row]
        shown = [name for name in names if re.fullmatch(r"[a-z_/]+", name)]
        assert shown[:3] == ["ok", "failed", "not_flac"]
        # Neither a reason nor the preview is cut at the right edge.
        [reason] = read_table("p227")["error"]
        for text in (reason, "avg_logprob", "seconds"):
            box = page.get_by_text(text).first.bounding_box()
            assert box
            assert box["x"] + box["width"] < 1600
        assert metadata.evaluate("e => e.getBoundingClientRect().right") <= 1600
        assert metadata.evaluate("e => e.parentElement.scrollWidth - e.parentElement.clientWidth") <= 1


# --- by clicking ----------------------------------------------------------------------------------------


def test_a_partition_is_materialised_from_the_graph_and_again_from_its_own_page(
    dev: DagsterDev, visit: Visit
) -> None:
    key = FolderMinute("later", FUTURE).key
    register(dev, key)
    with visit("/asset-groups") as page:
        page.get_by_role("button", name="Materialize all").click()
        select_partitions(page, key)
        # The day of the partition and the page have partitions of their own or none.
        click_launch(page, "Launch backfill")
    wait_until_green(dev, key)
    with visit("/assets/audio_table?view=partitions") as page:
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
        expect(page.get_by_text("one.flac", exact=True)).to_be_visible()
        assert list(read_table("later")["status"]) == ["ok"]
        materialize_button(page).click()
        dialogue = page.get_by_role("dialog")
        # The key in one piece: the dialogue takes some characters for its own syntax.
        expect(dialogue.get_by_text(key, exact=True)).to_be_attached()
        expect(dialogue.get_by_text("1 partition", exact=True)).to_be_visible()
        expect(dialogue.get_by_role("button", name="Launch 1 run")).to_be_enabled()
        click_launch(page, "Launch 1 run")
        run = launched(page)
    wait_for_run(dev, run)


def test_what_is_typed_into_the_box_on_an_assets_page_is_what_gets_launched(
    dev: DagsterDev, backfills: dict[str, str]
) -> None:
    wanted = [FolderMinute("p225", MINUTE + dt.timedelta(minutes=m)).key for m in range(2)]
    [run] = wait_for_backfill(dev, backfills["typed"])
    assert [run["tags"][f"dagster/asset_partition_range_{end}"] for end in ("start", "end")] == wanted
    assert run["stats"]["materializations"] == len(wanted)


def test_a_backfill_of_everything_is_one_run_with_one_model_load(dev: DagsterDev, visit: Visit) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    # Rows that exist are reused: without these two partitions no model would be needed at all.
    missing = [FolderMinute("missing", minute).key for minute in (FUTURE, FUTURE + ONE_MINUTE)]
    for key in missing:
        register(dev, key)
    with visit("/asset-groups") as page:
        page.get_by_role("button", name="Materialize all").click()
        launch_button = page.get_by_role("button", name="Launch backfill")
        click_until(page.get_by_role("button", name="All", exact=True), launch_button)
        click_launch(page, "Launch backfill")
    [run] = wait_for_backfill(dev, newest_backfills(dev)[0]["id"])
    assert run["stats"]["materializations"] >= len([*CLOSED_KEYS, *missing]) * len(ASSETS)
    assert len([m for m in messages(dev, run["runId"]) if re.match("Loading Whisper", m)]) == 1
    assert list(read_table("missing")["status"]) == ["ok", "ok"]


def test_a_failed_run_says_what_to_fix_and_failed_partitions_are_mended_by_clicking(
    dev: DagsterDev, visit: Visit
) -> None:
    key = FolderMinute("broken", FUTURE).key
    register(dev, key)
    # There is nothing yet that the table could be made from.
    run = launch(dev, "__ASSET_JOB", ["audio_table"], key)
    dev.wait_for(f"failure of {key}", lambda: status(dev)["failed"] == {key})
    with visit(f"/runs/{run}") as page:
        page.get_by_text("Errored (1)").wait_for()
        trace = page.get_by_text("Stack Trace:").first.bounding_box()
        sentence = page.get_by_text(f"{key} has no s3_inventory; materialise that first").first.bounding_box()
        assert trace
        assert sentence
        assert sentence["y"] < trace["y"]
    # Of all assets at once, the dialogue knows the failed partitions of the first one alone.
    with visit("/locations/audio_assets/jobs/process_audio") as page:
        page.get_by_role("button", name="Materialize all").click()
        launch_button = page.get_by_role("button", name="Launch 1 run")
        click_until(page.get_by_role("button", name="Failed", exact=True), launch_button)
        click_launch(page, "Launch 1 run")
    wait_until_green(dev, key)
    assert not status(dev)["failed"]
    assert list(read_table("broken")["status"]) == ["ok"]


def test_the_job_is_launched_for_a_partition_from_its_launchpad(dev: DagsterDev, visit: Visit) -> None:
    key = FolderMinute("p226", MINUTE).key
    wait_until_green(dev, *CLOSED_KEYS)
    with visit("/locations/audio_assets/jobs/process_audio/playground") as page:
        # The configuration arrives late, and all is drawn anew then.
        expect(page.get_by_text("No missing config")).to_be_visible()
        choice = page.get_by_role("menuitem", name=key).or_(page.get_by_role("option", name=key))
        click_until(page.get_by_placeholder("Partition"), choice)
        choice.first.click()
        expect(page.get_by_text(f"partition: {key}")).to_be_visible()
        click_until(page.get_by_role("button", name="Launch Run"), page.get_by_text("Preparing ("))
        expect(page).to_have_url(re.compile(r"/runs/[0-9a-f-]{36}"))
        run = page.url.rpartition("/runs/")[2][:36]
    wait_for_run(dev, run)
    assert run in [found["runId"] for found in runs(dev, "dagster/partition", key)]


def test_the_sensors_tick_is_previewed_by_clicking(visit: Visit) -> None:
    with visit("/locations/audio_assets/sensors/new_s3_keys") as page:
        page.get_by_role("button", name="Preview tick result").click()
        dialogue = page.get_by_role("dialog")
        dialogue.get_by_role("button", name="Continue").click()
        expect(dialogue.get_by_text(re.compile(r"\d+ partitions in \d+ folders looked at"))).to_be_visible()


def test_all_checks_are_executed_by_clicking(dev: DagsterDev, visit: Visit) -> None:
    wait_until_green(dev, *CLOSED_KEYS)
    with visit("/assets/audio_table?view=checks") as page:
        page.get_by_role("button", name="Execute all").click()
        run = launched(page)
    wait_for_run(dev, run)
    with visit("/assets/audio_table?view=checks") as page:
        for name in CHECKS:
            # One object of six is damaged.
            result = "Failed" if name == "failed_rows" else "Succeeded"
            row = page.locator("div", has_text=re.compile(f"^({name})+{result}$"))
            expect(row.first).to_be_visible()
