"""What a partition costs beside its audio: requests to S3, records of the instance, time of the processor.

A bucket is processed for real, with objects that are no audio: what is counted is the work around the engine.
Requests are told apart by two buckets, of few and of many objects in a partition.
"""

import collections
import contextlib
import datetime as dt
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import dagster as dg
import sqlalchemy as sa

from audio_assets.defs.partitions import FOLDER_MINUTE
from audio_assets.settings import PROJECT
from audio_assets_tests.support.environment import NO_AWS_FILES
from audio_assets_tests.support.faulty_server import FaultyServer, Plan
from audio_assets_tests.support.places import LocalPlace, Place, S3Place
from audio_assets_tests.support.postgres import Server, postgres
from audio_assets_tests.support.project import Project
from benchmarks.canned_s3 import Shape
from benchmarks.seeded import index_of, new_home, seed

FEW = 2
MANY = 6
PARTITIONS = 6
SEEDED = 5_000
READS = ("GET", "HEAD")
WRITES = ("PUT", "DELETE")
UPLOADED = dt.datetime(2023, 8, 24, tzinfo=dt.UTC)
SAMPLE = next((PROJECT / "audio_assets" / "demo" / "sample").rglob("*_001_*.flac"))


def measure() -> dict[str, Any]:
    """The results file's content."""
    with tempfile.TemporaryDirectory() as name, postgres() as server:
        folder = pathlib.Path(name)
        few = requests(folder, PARTITIONS, FEW)
        many = requests(folder, PARTITIONS, MANY)
        more = requests(folder, 3 * PARTITIONS, FEW)
        extra_objects = PARTITIONS * (MANY - FEW)
        extra_partitions = 2 * PARTITIONS

        def per_object(*methods: str) -> float:
            return sum(many[method] - few[method] for method in methods) / extra_objects

        def per_partition(*methods: str) -> float:
            of_objects = FEW * extra_partitions * per_object(*methods)
            return (sum(more[method] - few[method] for method in methods) - of_objects) / extra_partitions

        sqlite_kb, records = stored(new_home(folder / "SQLite"))
        postgres_kb, _ = stored(new_home(folder / "Postgres", server))
        return {
            "command": "python -m benchmarks.capacity --measure",
            "machine": {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
            "partition": {
                "gets_per_object": round(per_object(*READS), 2),
                "gets_per_partition": round(per_partition(*READS), 2),
                "puts_per_partition": round(per_partition(*WRITES), 2),
                "lists_per_partition": round(per_partition("LIST"), 2),
                "records": round(records, 1),
                "sqlite_kb": round(sqlite_kb, 1),
                "postgres_kb": round(postgres_kb, 1),
                "cpu_s": round(processor_time(folder, server), 3),
            },
        }


def requests(folder: pathlib.Path, partitions: int, objects: int) -> collections.Counter[str]:
    """What one run over a new bucket asks an S3 server for, by method; ticks do not count."""
    credentials = folder / "issued.json"
    config = folder / "aws_config"
    config.write_text(f"[default]\nregion = us-east-1\ncredential_process = cat '{credentials}'\n")
    with FaultyServer(credentials).running() as server:
        environment = NO_AWS_FILES | {"AWS_CONFIG_FILE": str(config), "AWS_ENDPOINT_URL_S3": server.url}
        with mock.patch.dict(os.environ, environment):
            place = S3Place(f"bucket-{partitions}-{objects}")
            place.backend.create_bucket(place.bucket, "us-east-1")
            with project(place, new_home(folder / place.bucket), partitions, objects) as made:
                [request] = made.tick()
                server.plan = plan = Plan()
                assert made.execute(request).success
    asked: collections.Counter[str] = collections.Counter()
    for (method, _), count in plan.asked.items():
        asked[method] += count
    return asked


def processor_time(folder: pathlib.Path, server: Server) -> float:
    """Seconds for each partition of the process of a run, on Postgres, without audio and without S3."""
    taken = {}
    for partitions in (20, 100):
        place = LocalPlace(folder / f"bucket of {partitions}")
        home = new_home(folder / f"home of {partitions}", server)
        with project(place, home, partitions, 1, suffix="txt") as made:
            [request] = made.tick()
            before = time.process_time()
            assert made.execute(request).success
            taken[partitions] = time.process_time() - before
    return (taken[100] - taken[20]) / 80


@contextlib.contextmanager
def project(
    place: Place, home: pathlib.Path, partitions: int, objects: int, suffix: str = "flac"
) -> Iterator[Project]:
    """The project on a bucket whose objects are the same clip."""
    for partition in range(partitions):
        for number in range(objects):
            uploaded = UPLOADED + dt.timedelta(minutes=partition)
            place.put(f"p225/{partition}-{number}.{suffix}", SAMPLE.read_bytes(), uploaded)
    with (
        mock.patch.dict(os.environ, {"AUDIO_SOURCE_URI": place.uri}),
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        yield Project(place, instance)


def stored(home: pathlib.Path) -> tuple[float, float]:
    """Kilobytes that an instance takes for each partition, and its events of each."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_dynamic_partitions(FOLDER_MINUTE)
        empty = size(instance, home)
        seed(instance, Shape(SEEDED, per_folder=100, per_minute=1))
        with index_of(instance).connect() as db:
            events = db.execute(sa.text("SELECT count(*) FROM event_logs")).scalar_one()
        return (size(instance, home) - empty) / 1000 / SEEDED, events / SEEDED


def size(instance: dg.DagsterInstance, home: pathlib.Path) -> float:
    """Bytes of an instance's databases."""
    with index_of(instance).connect() as db:
        if db.dialect.name == "postgresql":
            return db.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()
    return sum(path.stat().st_size for path in home.rglob("*.db*"))
