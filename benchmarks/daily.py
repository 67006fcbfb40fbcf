"""How much faster a slice is read from the daily copy than from the minute files.

    python -m benchmarks.daily
    python -m benchmarks.daily --sizes 330 --stores disk --rounds 1    # half a minute

The same rows on a disk and on a canned S3 server in a process of its own, which answers each request after
30 ms; Amazon says 100 to 200 ms to the first byte of a small object ("Best practices design patterns:
optimizing Amazon S3 performance"). A day, a folder and everything with all columns, and a day's texts without
its tokens, by pyarrow, Polars, DuckDB and `read_table`: medians of three readings, after one that is not
counted. Each reader works in a process of its own, and is ended after a while. DuckDB reads S3 by obstore, an
object as a whole, because its httpfs is a download. Takes about half an hour. Writes
benchmarks/results/daily.json.
"""

import argparse
import dataclasses
import datetime as dt
import functools
import importlib
import io
import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from obstore.fsspec import FsspecStore

from audio_assets import daily_read, schema
from audio_assets.daily_compaction import compact
from audio_assets.partitions import FolderMinute
from audio_assets.read import daily_copy, read_rows
from audio_assets.storage import ObjectStore
from audio_assets.table import THREADS, Table
from benchmarks.canned_s3 import Shape, canned_s3

RESULTS = pathlib.Path(__file__).with_name("results") / "daily.json"
FIRST = dt.datetime(2023, 8, 24, tzinfo=dt.UTC)
FOLDER = "p001"
BODIES = 20
S3_DELAY_S = 0.03
COPIES = ("days", "minutes")
DAY_COLUMN = schema.PARTITION_SCHEMA.field(schema.DAY_COLUMN)


@dataclasses.dataclass(frozen=True)
class Slice:
    """What is read: of the first day or of all, of one folder or of all; no columns for all."""

    day: bool = False
    folder: bool = False
    columns: tuple[str, ...] = ()


SLICES = {
    "a day": Slice(day=True),
    "a day's texts": Slice(
        day=True, columns=("Key", "transcribed_text", "avg_logprob", "duration_s", "status")
    ),
    "a folder": Slice(folder=True),
    "everything": Slice(),
}


@dataclasses.dataclass(frozen=True)
class Size:
    """So many partitions: folders, each with audio in some minutes of some days."""

    folders: int
    minutes: int
    days: int
    rows: int

    def partitions(self) -> list[FolderMinute]:
        return [
            FolderMinute(f"p{folder:03}", FIRST + dt.timedelta(days=day, minutes=minute))
            for folder in range(self.folders)
            for day in range(self.days)
            for minute in range(self.minutes)
        ]


# As many as VCTK has, and as many as two days of a busy bucket have.
SIZES = {330: Size(110, 3, 1, 40), 20_000: Size(100, 100, 2, 8)}


# --- the rows -------------------------------------------------------------------------------------------


def body(seed: int, rows: int) -> bytes:
    """A minute file of rows with 20 to 1,000 tokens each."""
    rng = random.Random(seed)
    made = [
        {
            "Key": f"p001/p001_{seed:03}_{i:03}.flac",
            "ETag": f"{rng.getrandbits(128):032x}",
            "Size": rng.randrange(100_000),
            "LastModified": FIRST,
            "transcribed_text": " ".join(rng.choices(["set", "green", "by", "one", "soon", "now"], k=9)),
            "tokenized_info": [rng.randrange(1024) for _ in range(rng.randint(20, 1000))],
            "language": "en",
            "avg_logprob": -rng.random(),
            "duration_s": 5 * rng.random(),
            "whisper_model": "whisper tiny",
            "tokeniser": "simulated",
            "status": "ok",
        }
        for i in range(rows)
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(made, schema.AUDIO_TABLE), sink, compression="zstd")
    return sink.getvalue()


def table_at(uri: str) -> Table:
    return Table(ObjectStore(uri), "audio_table", schema.AUDIO_TABLE)


def write(table: Table, size: Size) -> None:
    """Write all minute files, whose bodies are a few that repeat."""
    bodies = [body(seed, size.rows) for seed in range(BODIES)]
    if table.store.uri.startswith("file://"):
        # Without waiting for the disk at each file.
        root = pathlib.Path(table.uri.removeprefix("file://"))
        for at, partition in enumerate(size.partitions()):
            path = root / partition.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bodies[at % BODIES])
        return
    with ThreadPoolExecutor(THREADS) as pool:
        list(
            pool.map(
                lambda item: table.store.replace(table.path(item[1]), bodies[item[0] % BODIES], None),
                enumerate(size.partitions()),
            )
        )


# --- a process of its own: one reader, or the compaction ------------------------------------------------


def _filesystem(uri: str) -> tuple[Any, str]:
    """pyarrow's filesystem and the path there."""
    import pyarrow.fs

    if uri.startswith("file://"):
        return pyarrow.fs.LocalFileSystem(), uri.removeprefix("file://")
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    return pyarrow.fs.S3FileSystem(endpoint_override=endpoint, scheme="http"), uri.removeprefix("s3://")


def _pyarrow(uri: str, copy: str, wanted: Slice) -> int:
    filesystem, path = _filesystem(uri)
    columns = schema.PARTITION_SCHEMA if copy == "minutes" else pa.schema([DAY_COLUMN])
    partitioning = ds.partitioning(columns, flavor="hive")
    found = ds.dataset(path, filesystem=filesystem, partitioning=partitioning)
    condition = None
    if wanted.day:
        condition = ds.field(schema.DAY_COLUMN) == FIRST.date()
    if wanted.folder:
        condition = ds.field("FolderName") == FOLDER
    return len(found.to_table(list(wanted.columns) or None, filter=condition))


def _polars(uri: str, copy: str, wanted: Slice) -> int:
    import polars as pl

    minutes = {
        "FolderName": pl.String,
        "LastModifiedDate": pl.Date,
        "LastModifiedHour": pl.Int32,
        "LastModifiedMinute": pl.Int32,
    }
    hive = minutes if copy == "minutes" else {"LastModifiedDate": pl.Date}
    options: dict[str, Any] = {}
    path = uri.removeprefix("file://")
    if uri.startswith("s3://"):
        path = f"{uri}/"
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        options["storage_options"] = {"aws_endpoint_url": endpoint, "aws_allow_http": "true"}
    scan = pl.scan_parquet(path, hive_schema=hive, **options)
    if wanted.day:
        scan = scan.filter(pl.col("LastModifiedDate") == FIRST.date())
    if wanted.folder:
        scan = scan.filter(pl.col("FolderName") == FOLDER)
    if wanted.columns:
        scan = scan.select(wanted.columns)
    return scan.collect().height


class _S3ForDuckDB(FsspecStore):
    """obstore's file system as DuckDB needs it: patterns with the protocol, and objects as a whole, because
    its own files answer in parts."""

    def glob(self, path: str, *args: Any, **kwargs: Any) -> list[str]:
        return [f"s3://{found}" for found in super().glob(path.removeprefix("s3://"), *args, **kwargs)]

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        body: Any = self.cat_file(path)
        return io.BytesIO(body)


@functools.cache
def _duckdb_connection() -> Any:
    import duckdb

    connection = duckdb.connect()
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        options: Any = {"config": {"endpoint": endpoint}, "client_options": {"allow_http": True}}
        connection.register_filesystem(_S3ForDuckDB("s3", **options))
    return connection


def _duckdb(uri: str, copy: str, wanted: Slice) -> int:
    types = "'LastModifiedDate': DATE"
    if copy == "minutes":
        types += ", 'FolderName': VARCHAR, 'LastModifiedHour': INTEGER, 'LastModifiedMinute': INTEGER"
    where = ""
    if wanted.day:
        where = f"WHERE LastModifiedDate = DATE '{FIRST.date()}'"
    if wanted.folder:
        where = f"WHERE FolderName = '{FOLDER}'"
    columns = ", ".join(wanted.columns) or "*"
    path = uri.removeprefix("file://")
    files = f"read_parquet('{path}/**/*.parquet', hive_partitioning = true, hive_types = {{{types}}})"
    relation = _duckdb_connection().sql(f"SELECT {columns} FROM {files} {where}")
    return relation.to_arrow_table().num_rows


def _read_table(uri: str, copy: str, wanted: Slice) -> int:
    # By a number that no day reaches, the minute files alone are read.
    daily_read.MINUTES_WORTH_A_DAY = 8 if copy == "days" else sys.maxsize
    table = table_at(uri.rpartition("/")[0])
    end = FIRST + dt.timedelta(days=1)
    arguments: dict[str, Any] = {"columns": wanted.columns or None}
    if wanted.day:
        arguments |= {"start": FIRST, "end": end}
    if wanted.folder:
        arguments |= {"folder": FOLDER}
    return len(read_rows(table, **arguments))


READERS: dict[str, Callable[[str, str, Slice], int]] = {
    "pyarrow": _pyarrow,
    "Polars": _polars,
    "DuckDB": _duckdb,
    "`read_table`": _read_table,
}


IMPORTED = {"pyarrow": ["pyarrow.fs"], "Polars": ["polars"], "DuckDB": ["duckdb"]}
"""What is not measured."""


def read(reader: str, uri: str, copy: str, rounds: int) -> None:
    """Print a line for each slice as it is read."""
    # `read_table` chooses the copy itself.
    path = f"{uri}/audio_table" + ("_daily" if copy == "days" and reader != "`read_table`" else "")
    for module in IMPORTED.get(reader, ()):
        importlib.import_module(module)
    # The first reading starts threads and fills the disk's cache.
    READERS[reader](path, copy, SLICES["a folder"])
    for name, wanted in SLICES.items():
        taken = [timed(functools.partial(READERS[reader], path, copy, wanted)) for _ in range(rounds)]
        wall, cpu = (statistics.median(one[at] for one in taken) for at in (1, 2))
        print(json.dumps([name, {"rows": taken[0][0], "wall_s": wall, "cpu_s": cpu}]), flush=True)


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a function gives, and what it takes: seconds, and seconds of this process's CPU."""
    wall = time.perf_counter()
    cpu = time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def compact_days(uri: str, days: int) -> None:
    """Compact all days and print what the first of them took."""
    table = table_at(uri)
    partitions = list(table.partitions())
    for day in range(days):
        date = (FIRST + dt.timedelta(days=day)).date()
        made, wall, cpu = timed(lambda date=date: compact(daily_copy(table), table, date, lambda: partitions))
        if not day:
            found = {"minutes": made.minutes, "rows": made.rows.total(), "file_mb": made.size / 1e6}
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps(found | {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak}), flush=True)


# --- all of it ------------------------------------------------------------------------------------------


def lines_of(arguments: Iterable[str], seconds: float) -> list[Any]:
    """What a process of this module prints, until it ends or is ended."""
    command = [sys.executable, "-m", "benchmarks.daily", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    end = threading.Timer(seconds, process.kill)
    end.start()
    assert process.stdout is not None
    lines = [json.loads(line) for line in process.stdout]
    process.wait()
    end.cancel()
    return lines


def measure(results: dict[str, Any], store: str, uri: str, partitions: int, args: argparse.Namespace) -> None:
    size = SIZES[partitions]
    about = {"store": store, "partitions": partitions}
    write(table_at(uri), size)
    [made] = lines_of(["--compact", str(size.days), "--uri", uri], 600)
    results["compactions"].append(about | made)
    print(about, made, flush=True)
    for reader in READERS:
        taken = {
            copy: dict(
                lines_of(
                    ["--reader", reader, "--copy", copy, "--uri", uri, "--rounds", str(args.rounds)], args.cap
                )
            )
            for copy in COPIES
        }
        for slice_ in SLICES:
            nothing = {"rows": None, "wall_s": None, "cpu_s": None}
            got = {copy: taken[copy].get(slice_, nothing) for copy in COPIES}
            counts = {one["rows"] for one in got.values()} - {None}
            if len(counts) > 1:
                raise RuntimeError(f"{reader} reads {counts} rows of {slice_}")
            results["reads"].append(about | {"reader": reader, "slice": slice_, "cap_s": args.cap} | got)
        print(reader, taken, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--stores", nargs="+", choices=("disk", "S3"), default=["disk", "S3"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cap", type=float, default=90.0, help="seconds that a reader has for all slices")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    for name in ("--reader", "--copy", "--uri"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--compact", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compact:
        compact_days(args.uri, args.compact)
        return
    if args.reader:
        read(args.reader, args.uri, args.copy, args.rounds)
        return
    results: dict[str, Any] = {
        "command": "python -m benchmarks.daily",
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "pyarrow": pa.__version__},
        "settings": {"rounds": args.rounds, "cap_s": args.cap},
        "compactions": [],
        "reads": [],
    }
    for partitions in args.sizes:
        if "disk" in args.stores:
            with tempfile.TemporaryDirectory() as folder:
                measure(results, "disk", f"file://{folder}", partitions, args)
        if "S3" in args.stores:
            with canned_s3(Shape(0, 1), S3_DELAY_S) as environment:
                os.environ |= {name: text for name, text in environment.items() if name.startswith("AWS_")}
                measure(results, "S3", "s3://tables/tables", partitions, args)
    args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
