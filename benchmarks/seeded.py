"""An instance that has processed a whole bucket, made in a minute instead of days.

One small run is executed for real; its records (events, tags, asset keys, the run itself) are then copied for
every partition of the bucket, with that partition's key and digest, straight into the instance's database.
What the sensor and the UI read is what real runs of 100 partitions would have left, but for
the paths and row counts in the metadata.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator

import dagster as dg
import obstore
import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster_postgres import PostgresEventLogStorage
from obstore.store import S3Store

from audio_assets.digest import Digest
from audio_assets.partitions import FolderMinute
from audio_assets.record import PartitionRecord
from audio_assets.storage import ObjectInfo
from audio_assets_tests.support.postgres import Server, instance_yaml
from benchmarks.canned_s3 import Shape

FOLDER_MINUTE = "folder_minute"
RUN = 100
"""Partitions of a run, as the sensor asks for them by default."""
TABLES = ("s3_inventory", "transcripts", "tokens", "audio_table")
FILE = b"x"
VERSION = hashlib.md5(FILE).hexdigest()


@dataclasses.dataclass(frozen=True)
class Template:
    """A home whose instance has executed one run of `process_audio`, of one partition."""

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


def new_home(folder: pathlib.Path, server: Server | None = None) -> pathlib.Path:
    """A DAGSTER_HOME as `make` makes it, or one with an empty database of a Postgres server."""
    home = folder / "home"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(instance_yaml(server))
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
    with dg.DagsterInstance.from_config(str(home)) as instance, index_of(instance).connect() as db:
        [key] = instance.get_dynamic_partitions(FOLDER_MINUTE)
        query = "SELECT value FROM asset_event_tags JOIN event_logs ON event_id = event_logs.id WHERE"
        # The daily copy was made as well, of which nothing is copied.
        condition = "dagster_event_type = 'ASSET_OBSERVATION' AND partition = :key"
        [said] = db.execute(sa.text(f"{query} {condition}"), {"key": key}).scalars()
    record = PartitionRecord.from_json(said)
    return Template(home, key, record.digest, record.version)


def index_of(instance: dg.DagsterInstance) -> sa.Engine:
    """The database with the events of assets. It may be many GB, and is written in one transaction."""
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        return sa.create_engine(f"sqlite:///{storage.path_for_shard('index')}", poolclass=sa.NullPool)
    assert isinstance(storage, PostgresEventLogStorage)
    return sa.create_engine(storage.postgres_url, poolclass=sa.NullPool)


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
            [run] = small.get_runs(dg.RunsFilter(job_name="process_audio"))
            assert run.job_snapshot_id
            assert run.execution_plan_snapshot_id
            instance.run_storage.add_job_snapshot(small.get_job_snapshot(run.job_snapshot_id))
            plan = small.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
            instance.run_storage.add_execution_plan_snapshot(plan)
            with index_of(small).connect() as db:
                one = _Records.of(db, made.key)
    rows: list[dict[str, object]] = []
    run_id = ""
    for number, (key, digest) in enumerate(partitions(shape)):
        if number % RUN == 0:
            run_id = str(uuid.uuid4())
            instance.add_run(run._replace(run_id=run_id))
        rows.append({"number": number, "partition": key, "digest": digest, "run_id": run_id})
    with index_of(instance).begin() as db:
        for table, values in ((_PARTS, rows), (_EVENTS, one.events), (_TAGS, one.tags)):
            table.create(db)
            db.execute(table.insert(), values)
        _copy(db, made, run.run_id, len(one.events))
        _name_last_materialisations(db, one)
    return len(rows)


_EVENT_COLUMNS = ("dagster_event_type", "timestamp", "step_key", "asset_key")
_TAG_COLUMNS = ("asset_key", "key", "event_timestamp")
_KEY_COLUMNS = ("asset_key", "last_materialization", "last_run_id", "last_materialization_timestamp", "tags")


def _temporary(name: str, *columns: str) -> sa.Table:
    # Times are copied as texts, which both databases take.
    described = [sa.Column(c, sa.BigInteger if c in ("number", "nth") else sa.Text) for c in columns]
    return sa.Table(name, sa.MetaData(), *described, prefixes=["TEMPORARY"])


_PARTS = _temporary("parts", "number", "partition", "digest", "run_id")
_EVENTS = _temporary("copied_events", "nth", "event", *_EVENT_COLUMNS)
_TAGS = _temporary("copied_tags", "nth", "value", *_TAG_COLUMNS)


@dataclasses.dataclass(frozen=True)
class _Records:
    """What one run has left of its one partition, in rows; `nth` tells its events apart."""

    events: list[dict[str, object]]
    tags: list[dict[str, object]]
    keys: list[dict[str, object]]

    @classmethod
    def of(cls, db: sa.Connection, partition: str) -> "_Records":
        def rows(query: str) -> list[dict[str, object]]:
            return [dict(row) for row in db.execute(sa.text(query), {"partition": partition}).mappings()]

        events = rows(
            f"SELECT id, row_number() OVER (ORDER BY id) AS nth, event, {', '.join(_EVENT_COLUMNS)}"
            " FROM event_logs WHERE partition = :partition"
        )
        nth = {event.pop("id"): event["nth"] for event in events}
        tags = rows(f"SELECT event_id, value, {', '.join(_TAG_COLUMNS)} FROM asset_event_tags")
        tags = [tag | {"nth": nth[of]} for tag in tags if (of := tag.pop("event_id")) in nth]
        return cls(events, tags, rows(f"SELECT {', '.join(_KEY_COLUMNS)} FROM asset_keys"))


def _copy(db: sa.Connection, made: Template, run_id: str, events: int) -> None:
    """Events and tags for each of the parts, in SQL that SQLite and Postgres share."""
    time = "CAST({} AS TIMESTAMP)" if db.dialect.name == "postgresql" else "{}"
    before = db.execute(sa.text("SELECT coalesce(max(id), 0) FROM event_logs")).scalar_one()
    new_id = f"{before} + number * {events} + nth"
    for statement in (
        f"""INSERT INTO dynamic_partitions (partitions_def_name, partition)
            SELECT '{FOLDER_MINUTE}', partition FROM parts WHERE true ORDER BY number
            ON CONFLICT DO NOTHING""",
        f"""INSERT INTO event_logs (id, run_id, partition, event, {", ".join(_EVENT_COLUMNS)})
            SELECT {new_id}, parts.run_id, parts.partition,
                replace(replace(replace(event, '{made.key}', parts.partition),
                    '{made.digest}', digest), '{run_id}', parts.run_id),
                dagster_event_type, {time.format("timestamp")}, step_key, asset_key
            FROM parts CROSS JOIN copied_events""",
        f"""INSERT INTO asset_event_tags (event_id, value, {", ".join(_TAG_COLUMNS)})
            SELECT {new_id},
                replace(replace(value, '{made.digest}', digest), '{made.version}', '{VERSION}'),
                asset_key, key, {time.format("event_timestamp")}
            FROM parts CROSS JOIN copied_tags""",
    ):
        db.exec_driver_sql(statement)
    if db.dialect.name == "postgresql":
        db.exec_driver_sql("SELECT setval('event_logs_id_seq', (SELECT max(id) FROM event_logs))")
        # As autovacuum does in time.
        db.exec_driver_sql("ANALYZE")


def _name_last_materialisations(db: sa.Connection, one: _Records) -> None:
    """What each asset's last materialisation was, as the storage notes it with each event."""
    query = (
        "SELECT asset_key, max(id) AS id FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
    )
    last = {row.asset_key: row.id for row in db.execute(sa.text(f"{query} GROUP BY asset_key"))}
    new = ", ".join(f"{column} = excluded.{column}" for column in _KEY_COLUMNS)
    values = ", ".join(f":{column}" for column in _KEY_COLUMNS)
    # Of the daily copy no event is copied.
    for row in (row for row in one.keys if row["asset_key"] in last):
        said = json.loads(str(row["last_materialization"])) | {"storage_id": last[row["asset_key"]]}
        db.execute(
            sa.text(
                f"INSERT INTO asset_keys ({', '.join(_KEY_COLUMNS)}) VALUES ({values})"
                f" ON CONFLICT (asset_key) DO UPDATE SET {new}"
            ),
            row | {"last_materialization": json.dumps(said)},
        )
