"""An instance that has processed a whole bucket, made in a minute instead of days.

One small run is executed for real; its records (events, tags, asset keys, the run itself) are then copied for
every partition of the bucket, with that partition's key and digest, straight into the instance's database.
What the sensor and the UI read is what real runs of 100 partitions would have left, but for
the paths and row counts in the metadata.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator

import dagster as dg
import obstore
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from obstore.store import S3Store

from audio_assets.digest import Digest
from audio_assets.partitions import FolderMinute
from audio_assets.record import PartitionRecord
from audio_assets.sensor.run_requests import RunLimits
from audio_assets.storage import ObjectInfo
from benchmarks.canned_s3 import Shape

PROJECT = pathlib.Path(__file__).parents[1]
FOLDER_MINUTE = "folder_minute"
TABLES = ("s3_inventory", "transcripts", "tokens", "audio_table")
FILE = b"x"
VERSION = hashlib.md5(FILE).hexdigest()


@dataclasses.dataclass(frozen=True)
class Template:
    """A home whose instance has executed one run of one partition."""

    home: pathlib.Path
    key: str
    digest: str
    version: str


def partitions(shape: Shape) -> Iterator[tuple[str, str]]:
    """The partition keys of a bucket and their digests, in the sensor's order."""
    for first in range(0, shape.objects, shape.per_folder):
        end = min(shape.objects, first + shape.per_folder)
        for start in range(first, end, shape.per_minute):
            numbers = range(start, min(end, start + shape.per_minute))
            modified = shape.modified(start)
            objects = [ObjectInfo(shape.key(n), shape.etag(n), 0, modified) for n in numbers]
            yield FolderMinute.of(objects[0].key, modified).key, str(Digest.of(objects))


def new_home(folder: pathlib.Path) -> pathlib.Path:
    """A DAGSTER_HOME as `make` makes it."""
    home = folder / "home"
    home.mkdir(parents=True)
    shutil.copy(PROJECT / "dagster.yaml", home)
    return home


def template(folder: pathlib.Path) -> Template:
    """Execute the one real run, in a process of its own."""
    home = new_home(folder)
    bucket = folder / "bucket"
    (bucket / "TEMPLATE").mkdir(parents=True)
    (bucket / "TEMPLATE" / "a.txt").write_text("x")
    os.utime(bucket / "TEMPLATE" / "a.txt", (0, 0))
    settings = {"DAGSTER_HOME": str(home), "AUDIO_SOURCE_URI": bucket.as_uri()}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIO_")}
    command = [sys.executable, "-m", "audio_assets.cli", "sync", bucket.as_uri()]
    subprocess.run(command, env=environment | settings, check=True, capture_output=True)
    with dg.DagsterInstance.from_config(str(home)) as instance, _index(instance) as db:
        [key] = instance.get_dynamic_partitions(FOLDER_MINUTE)
        query = "SELECT value FROM asset_event_tags JOIN event_logs ON event_id = event_logs.id WHERE"
        [[said]] = db.execute(f"{query} dagster_event_type = 'ASSET_OBSERVATION'").fetchall()
    record = PartitionRecord.from_json(said)
    return Template(home, key, record.digest, record.version)


def _index_path(instance: dg.DagsterInstance) -> str:
    assert isinstance(instance.event_log_storage, SqliteEventLogStorage)
    return instance.event_log_storage.path_for_shard("index")


def _index(instance: dg.DagsterInstance) -> sqlite3.Connection:
    # The file, not the storage's connection: it may be many GB, and is written in one transaction.
    return sqlite3.connect(_index_path(instance))


def put_tables(store: S3Store, shape: Shape) -> None:
    """PUT a file for each partition into each table, as a listing shows them; all hold the same bytes."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        paths = (
            f"{table}/{FolderMinute.parse(key).path}" for key, _ in partitions(shape) for table in TABLES
        )
        for _ in pool.map(lambda path: obstore.put(store, path, FILE), paths):
            pass


def seed(instance: dg.DagsterInstance, shape: Shape) -> int:
    """Copy the records of one run for every partition of the bucket; gives the number of partitions."""
    with tempfile.TemporaryDirectory() as folder:
        made = template(pathlib.Path(folder))
        with dg.DagsterInstance.from_config(str(made.home)) as small:
            [run] = small.get_runs()
            assert run.job_snapshot_id
            assert run.execution_plan_snapshot_id
            instance.run_storage.add_job_snapshot(small.get_job_snapshot(run.job_snapshot_id))
            plan = small.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
            instance.run_storage.add_execution_plan_snapshot(plan)
            source = _index_path(small)
        rows: list[tuple[int, str, str, str]] = []
        run_id = ""
        for number, (key, digest) in enumerate(partitions(shape)):
            if number % RunLimits().partitions == 0:
                run_id = str(uuid.uuid4())
                instance.add_run(run._replace(run_id=run_id))
            rows.append((number, key, digest, run_id))
        with _index(instance) as db:
            db.execute("ATTACH ? AS small", [source])
            db.executescript("CREATE TEMP TABLE parts (number, partition, digest, run_id);")
            db.executemany("INSERT INTO parts VALUES (?, ?, ?, ?)", rows)
            db.executescript(f"""
                BEGIN;
                CREATE TEMP TABLE copied AS
                    SELECT *, row_number() OVER (ORDER BY id) AS nth FROM small.event_logs
                    WHERE partition = '{made.key}';
                CREATE TEMP TABLE size AS SELECT count(*) AS events,
                    (SELECT coalesce(max(id), 0) FROM event_logs) AS before FROM copied;
                INSERT OR IGNORE INTO dynamic_partitions (partitions_def_name, partition)
                    SELECT '{FOLDER_MINUTE}', partition FROM parts ORDER BY number;
                INSERT INTO event_logs
                    (id, run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
                    SELECT before + number * events + nth, parts.run_id,
                        replace(replace(replace(event, '{made.key}', parts.partition),
                            '{made.digest}', digest), '{run.run_id}', parts.run_id),
                        dagster_event_type, timestamp, step_key, asset_key, parts.partition
                    FROM parts CROSS JOIN copied CROSS JOIN size;
                INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
                    SELECT before + number * events + nth, tags.asset_key, key,
                        replace(replace(value, '{made.digest}', digest), '{made.version}', '{VERSION}'),
                        event_timestamp
                    FROM parts CROSS JOIN copied CROSS JOIN size
                    JOIN small.asset_event_tags AS tags ON tags.event_id = copied.id;
                CREATE TEMP TABLE last AS SELECT max(id) AS id, asset_key FROM event_logs
                    WHERE dagster_event_type = 'ASSET_MATERIALIZATION' GROUP BY asset_key;
                INSERT OR REPLACE INTO asset_keys
                    (asset_key, last_materialization, last_run_id, last_materialization_timestamp, tags)
                    SELECT asset_key, json_set(last_materialization, '$.storage_id', last.id),
                        last_run_id, last_materialization_timestamp, tags
                    FROM small.asset_keys JOIN last USING (asset_key);
                COMMIT;
            """)
    return len(rows)
