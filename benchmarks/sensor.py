"""How long a tick of the sensor takes, and how much memory, by the size of the bucket.

    python -m benchmarks.sensor
    python -m benchmarks.sensor --sizes 10000000 --layouts "folders of 100" --put 100    # half an hour
    python -m benchmarks.sensor --sizes --partitions 100000 --storage postgres

A canned S3 server answers at S3's page size. First sight: a fresh instance, until the sensor has scanned the
whole bucket once. Steady state: the instance holds the records of runs over all partitions, 100 objects are
new. Each ticks in a process of its own, as the code server does, and its peak memory is that process's. Then
the UI's partition queries, as its own JavaScript asks them, by a webserver on an instance of 100,000
partitions, on SQLite or Postgres. Writes benchmarks/results/sensor.json.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from unittest import mock

import boto3
import dagster as dg
import obstore

from audio_assets.cluster.local_cluster import free_port
from audio_assets.defs.internals.partition_statuses import (
    keep_partition_statuses,
    refresh_partition_statuses,
)
from audio_assets.defs.partitions import ASSETS
from audio_assets.partitions import FolderMinute
from audio_assets.sensor.state import Cursor
from audio_assets_tests.support.postgres import Server, postgres
from benchmarks.canned_s3 import Shape, canned_s3, canned_store, tables_store
from benchmarks.seeded import FOLDER_MINUTE, new_home, put_tables, seed

RESULTS = pathlib.Path(__file__).with_name("results") / "sensor.json"
SIZES = (10_000, 100_000, 1_000_000)
NEW = 100
ROUNDS = 5
# What the partitions' tab and the launch dialogue of an asset ask (PartitionHealthQuery of the UI) ...
HEALTH = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { id
  partitionKeysByDimension { name type partitionKeys } assetPartitionStatuses {
  ... on DefaultPartitionStatuses { materializedPartitions materializingPartitions failedPartitions }
  } } } }"""
STATUSES = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { id
  assetPartitionStatuses { ... on DefaultPartitionStatuses {
  materializedPartitions materializingPartitions failedPartitions } } } } }"""
KEYS = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { id
  partitionKeysByDimension { name type partitionKeys } } } }"""
# ... and what the asset graph asks every few seconds (AssetGraphLiveQuery, its costly part).
GRAPH = """query ($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys, loadMaterializations: true) { id
  assetMaterializations(limit: 1) { timestamp runId } assetObservations(limit: 1) { timestamp runId }
  partitionStats { numMaterialized numMaterializing numPartitions numFailed } } }"""


# --- ticks ----------------------------------------------------------------------------------------------


def tick_in_this_process(shape: Shape, scans: int, put: int) -> None:
    """Tick, and print what each tick took, as JSON.

    Args:
        scans: how often to let the sensor scan the whole bucket.
        put: how many objects to PUT then; further ticks go on until no event waits in the queue.
    """
    from audio_assets.definitions import defs

    repository = defs().get_repository_def()
    sensor = repository.get_sensor_def("new_s3_keys")
    ticks: list[dict[str, float]] = []
    cursor: str | None = None
    scanned = 0
    with dg.DagsterInstance.get() as instance:
        while scanned < scans or (put and waiting_events()):
            started = time.perf_counter()
            cpu = time.process_time()
            with dg.build_sensor_context(
                instance=instance,
                instance_ref=instance.get_ref(),
                cursor=cursor,
                repository_def=repository,
                resources=repository.get_top_level_resources(),
            ) as context:
                evaluated = sensor.evaluate_tick(context)
            seconds = time.perf_counter() - started
            cursor = evaluated.cursor
            added = 0
            for request in evaluated.dynamic_partitions_requests or []:
                assert isinstance(request, dg.AddDynamicPartitionsRequest), "nothing is gone"
                instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
                added += len(request.partition_keys)
            registering = time.perf_counter() - started - seconds
            runs = evaluated.run_requests or []
            ticks.append(
                {"seconds": seconds, "registering": registering, "added": added, "runs": len(runs)}
                | {"cpu_s": time.process_time() - cpu, "scan": scanned, "peak_mb": peak_memory_mb()}
            )
            scanned += not Cursor.from_json(cursor).scanning
            if scanned == scans and put and ticks[-1]["scan"] < scans:
                put_new_objects(shape, put)
    print(json.dumps({"ticks": ticks, "peak_mb": peak_memory_mb(), "cursor": len(cursor or "")}))


def peak_memory_mb() -> float:
    # Not getrusage: its maximum is inherited from the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def waiting_events() -> int:
    """Messages in the queue that nobody has read."""
    url = os.environ["AUDIO_EVENTS_QUEUE_URL"]
    said = boto3.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return int(said["Attributes"]["ApproximateNumberOfMessages"])


def ticks(home: pathlib.Path, settings: dict[str, str], shape: Shape, scans: int, put: int = 0) -> dict:
    """What the ticks of a fresh process take."""
    numbers = (shape.objects, shape.per_folder, shape.per_minute, scans, put)
    command = [sys.executable, "-m", "benchmarks.sensor", "--tick", *map(str, numbers)]
    environment = os.environ | settings | {"DAGSTER_HOME": str(home)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def put_new_objects(shape: Shape, count: int) -> None:
    """PUT objects, as far as possible each into another folder."""
    store = canned_store(os.environ["AWS_ENDPOINT_URL"])
    for i in range(count):
        folder = i * shape.folders // count
        obstore.put(store, f"{shape.folder(folder)}new{i:06}.txt", b"new")


def measure_listing(objects: int, per_folder: int, per_minute: int) -> dict:
    """First sight and steady state of one bucket."""
    shape = Shape(objects, per_folder, per_minute)
    with tempfile.TemporaryDirectory() as folder, canned_s3(shape) as settings:
        home = new_home(pathlib.Path(folder))
        figures: dict = {"objects": objects, "folders": shape.folders}
        figures["first sight"] = ticks(home, settings, shape, 1)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            figures["partitions"] = seed(instance, shape)
        put_tables(tables_store(settings["AWS_ENDPOINT_URL"]), shape)
        with mock.patch.dict(os.environ, settings):
            put_new_objects(shape, NEW)
        # The minute of the new objects counts as closed although it is not over.
        settings |= {"SETTLE_SECONDS": "-120"}
        figures["steady state"] = ticks(home, settings, shape, 1)
        # Nothing but the new objects: the seeded records are like those of real runs.
        for tick in figures["steady state"]["ticks"]:
            assert tick["added"] <= NEW, tick
            assert tick["runs"] <= 2, tick
        assert any(tick["added"] for tick in figures["steady state"]["ticks"])
    return figures


def measure_events(objects: int, per_folder: int, per_minute: int, put: int) -> dict:
    """`put` new objects that events tell of, after a first full scan of a bucket that is in the table."""
    shape = Shape(objects, per_folder, per_minute)
    with tempfile.TemporaryDirectory() as folder, canned_s3(shape) as settings:
        home = new_home(pathlib.Path(folder))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            partitions = seed(instance, shape)
        put_tables(tables_store(settings["AWS_ENDPOINT_URL"]), shape)
        queue = f"{settings['AWS_ENDPOINT_URL']}/1/queue"
        settings |= {"SETTLE_SECONDS": "-120", "AUDIO_EVENTS_QUEUE_URL": queue}
        told = ticks(home, settings, shape, 1, put)
        after = [tick for tick in told["ticks"] if tick["scan"] >= 1]
        assert after
        assert sum(tick["added"] for tick in after) >= 1
    figures = {"objects": objects, "partitions": partitions, "put": put}
    return figures | {"peak_mb": told["peak_mb"], "events": after}


# --- the UI's queries -----------------------------------------------------------------------------------


@contextlib.contextmanager
def webserver(home: pathlib.Path) -> Iterator[tuple[str, int]]:
    """A webserver on an instance; gives the URL of its GraphQL, and its process."""
    port = free_port("127.0.0.1")
    command = (
        "-m",
        "dagster_webserver",
        "-m",
        "audio_assets.definitions",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    )
    with (home / "webserver.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command], env=os.environ | {"DAGSTER_HOME": str(home)}, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}/graphql"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                if ask(url, "{ assetNodes { id } }")["assetNodes"]:
                    break
            time.sleep(0.5)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def ask(url: str, query: str, **variables: object) -> dict:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        answer = json.load(response)
    assert not answer.get("errors"), answer["errors"]
    return answer["data"]


def processor_time(pid: int) -> float:
    """Seconds that a process has computed for."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pass_a_minute(instance: dg.DagsterInstance) -> None:
    """Materialise the last partition, and register another."""
    registered = instance.get_dynamic_partitions(FOLDER_MINUTE)
    for asset in ASSETS:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=registered[-1]))
    new = [FolderMinute(f"new{len(registered)}", dt.datetime(2025, 1, 1, tzinfo=dt.UTC)).key]
    keep_partition_statuses(instance, registered, add=new)
    instance.add_dynamic_partitions(FOLDER_MINUTE, new)


def measure_ui(partitions: int, server: Server | None) -> dict:
    """Seconds of the UI's queries and of the webserver's processor for them.

    Dagster caches each asset's statuses: so each query is asked with nothing cached, then as the first one
    ever after ticks that had nothing else to do, then each time after what a minute brings (the last new
    partition has been materialised, the sensor registers another), then with nothing new.

    Args:
        server: the Postgres that stores the instance; None for SQLite.
    """
    shape = Shape(partitions, per_folder=100, per_minute=1)
    key = {"path": ["audio_table"]}
    keys = [{"path": [name.path[0]]} for name in ASSETS]
    queries = {
        "partition keys": (KEYS, {"key": key}),
        "partition statuses": (STATUSES, {"key": key}),
        "both, as the partitions' tab asks": (HEALTH, {"key": key}),
        "asset graph": (GRAPH, {"keys": keys}),
    }
    figures: dict = {"partitions": partitions, "load": os.getloadavg()[0], "queries": {}}
    with tempfile.TemporaryDirectory() as folder:
        home = new_home(pathlib.Path(folder), server)
        with dg.DagsterInstance.from_config(str(home)) as instance, contextlib.ExitStack() as stack:
            seed(instance, shape)
            url, process = stack.enter_context(webserver(home))

            def taken(query: str, variables: dict) -> tuple[float, float]:
                started = time.perf_counter()
                cpu = processor_time(process)
                answer = ask(url, query, **variables)
                seconds = time.perf_counter() - started, processor_time(process) - cpu
                said = json.dumps(answer)
                count = len(instance.get_dynamic_partitions(FOLDER_MINUTE))
                assert f'"numPartitions": {count}' in said or len(said) > 20 * partitions
                return seconds

            for name, (query, variables) in queries.items():
                instance.wipe_asset_cached_status(ASSETS)
                uncounted = taken(query, variables)
                instance.wipe_asset_cached_status(ASSETS)
                for _ in ASSETS:
                    refresh_partition_statuses(instance)
                first = taken(query, variables)
                after: list[tuple[float, float]] = []
                then: list[tuple[float, float]] = []
                for _ in range(ROUNDS):
                    pass_a_minute(instance)
                    after.append(taken(query, variables))
                    then.append(taken(query, variables))
                medians = {
                    state: [statistics.median(column) for column in zip(*rows, strict=True)]
                    for state, rows in {"new partition": after, "then": then}.items()
                }
                figures["queries"][name] = {"uncounted": uncounted, "first": first, **medians}
                print(name, figures["queries"][name], flush=True)
    return figures


# --- all of it ------------------------------------------------------------------------------------------


def listing_case(objects: int, layout: str) -> dict[str, int]:
    if layout == "folders of 100":
        return {"objects": objects, "per_folder": 100, "per_minute": 100}
    return {"objects": objects, "per_folder": objects, "per_minute": 100}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--layouts", nargs="+", default=["folders of 100", "one folder"])
    parser.add_argument("--partitions", type=int, default=100_000, help="for the UI's queries; 0 for none")
    parser.add_argument(
        "--storage", choices=["sqlite", "postgres"], default="sqlite", help="of the instance that the UI asks"
    )
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--put", type=int, nargs="*", default=[NEW, 20_000], help="objects told by events")
    parser.add_argument("--tick", type=int, nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tick:
        tick_in_this_process(Shape(*args.tick[:3]), *args.tick[3:])
        return

    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    for objects in args.sizes:
        for layout in args.layouts:
            name = f"{objects}, {layout}"
            results[name] = measure_listing(**listing_case(objects, layout))
            save(results, args.results)
            print(name, results[name], flush=True)
            for put in args.put:
                results[f"{name}, {put} events"] = measure_events(**listing_case(objects, layout), put=put)
                save(results, args.results)
                print(name, put, results[f"{name}, {put} events"], flush=True)
    if args.partitions and args.storage == "postgres":
        with postgres() as server:
            results["UI on Postgres"] = measure_ui(args.partitions, server)
    elif args.partitions:
        results["UI"] = measure_ui(args.partitions, None)
    save(results, args.results)


def save(results: dict, path: pathlib.Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
