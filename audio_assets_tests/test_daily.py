"""The daily copy of a table: it holds what the minute files hold, and is read only where it does."""

import datetime as dt
import itertools
import pathlib
import tempfile
import urllib.parse

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_assets import daily_compaction, daily_read, schema
from audio_assets.daily import DailyTable, file_digest, total
from audio_assets.daily_compaction import compact
from audio_assets.errors import ConflictError, StorageError
from audio_assets.partitions import FolderMinute, day_of, day_path
from audio_assets.read import daily_copy, read_batches, read_rows
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectStore
from audio_assets.table import Table, with_partition_columns
from audio_assets_tests.support.audio import MINUTE
from audio_assets_tests.support.places import LocalPlace, Place
from audio_assets_tests.support.rows import at, row, rows, write

DAY = MINUTE.date()
FOLDERS = ("0225", "p226", "a/b %", "x" * 300)


@pytest.fixture
def table(local_place: LocalPlace) -> Table:
    return Table(local_place.store, "tables/audio_table", schema.AUDIO_TABLE)


@pytest.fixture(autouse=True)
def small_days_are_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day's file is read however few its minutes are."""
    monkeypatch.setattr(daily_read, "MINUTES_WORTH_A_DAY", 1)


def fill(table: Table, folders: int = 3, minutes: int = 4, days: int = 1) -> None:
    for folder, minute, day in itertools.product(range(folders), range(minutes), range(days)):
        made = (row(f"p{folder}/{day}-{minute}-{i}.flac", Size=i) for i in range(3))
        write(table, at(f"p{folder}", minute + 1440 * day), *made)


def compact_all(table: Table) -> None:
    for day in {p.minute.date() for p in table.partitions()} | set(daily_copy(table).days()):
        compact(daily_copy(table), table, day, table.partitions)


def by_minutes(table: Table, partitions: list[FolderMinute]) -> pa.Table:
    """The rows of partitions in their order, each read from its own file."""
    columns = table.columns()
    found = [(p, table.read(p).rows) for p in partitions]
    parts = [with_partition_columns(some, p).select(columns.names) for p, some in found if some is not None]
    return pa.concat_tables([columns.empty_table(), *parts])


def by_days(table: Table) -> pa.Table:
    """All rows day by day, as pyarrow alone reads the daily copy."""
    copy = daily_copy(table)
    day = pa.schema([table.columns().field(schema.DAY_COLUMN)])
    path = urllib.parse.unquote(copy.uri.removeprefix("file://"))
    if not pathlib.Path(path).exists():
        return table.columns().empty_table()
    found = ds.dataset(path, partitioning=ds.partitioning(day, flavor="hive"), schema=table.columns())
    return found.to_table().cast(table.columns())


def minute_files_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the minute files that are read from now on."""
    read: list[str] = []
    read_latest = ObjectStore.read_latest

    def reading(self: ObjectStore, key: str) -> tuple[bytes, str] | None:
        read.append(key)
        return read_latest(self, key)

    monkeypatch.setattr(ObjectStore, "read_latest", reading)
    return read


# --- whatever becomes of the minutes --------------------------------------------------------------------

partitions = st.builds(
    at, st.sampled_from(FOLDERS), st.sampled_from([0, 1, 2, 1437, 1438, 1440, 1500, 2 * 1440 + 7])
)
changes = st.lists(st.tuples(partitions, st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=12)


def change(table: Table, changed: list[tuple[FolderMinute, int, int]]) -> None:
    """Give partitions so many rows of a value each; those without rows lose their file."""
    for partition, count, value in changed:
        made = [row(f"{partition.folder}/{i}.flac", Size=value) for i in range(count)]
        table.replace(partition, rows(*made), table.read(partition))


@given(st.lists(changes, min_size=1, max_size=3))
@settings(max_examples=10)
def test_the_daily_copy_equals_the_minutes_after_any_changes(
    rounds: list[list[tuple[FolderMinute, int, int]]],
):
    with tempfile.TemporaryDirectory() as folder:
        table = Table(ObjectStore(f"file://{folder}"), "audio_table", schema.AUDIO_TABLE)
        for changed in rounds:
            change(table, changed)
            compact_all(table)
            in_order = sorted(table.partitions(), key=lambda p: (p.minute.date(), p))
            assert by_days(table).equals(by_minutes(table, in_order))
            assert set(daily_copy(table).days()) == {p.minute.date() for p in in_order}


@pytest.mark.filterwarnings("ignore:.*has no folder")
@given(
    changes,
    changes,
    st.none() | st.lists(st.sampled_from(FOLDERS), unique=True, min_size=1),
    st.none() | st.sampled_from([-1, 0, 1, 2, 1437, 1440, 1441, 2900]),
    st.none() | st.sampled_from([0, 1, 2, 1437, 1438, 1440, 1501, 2887, 2888]),
    st.sampled_from([None, ds.field("Size") > 4, ds.field("FolderName") == "p226"]),
)
@settings(max_examples=25)
def test_every_slice_is_what_the_minutes_hold_though_some_changed_since(
    before: list[tuple[FolderMinute, int, int]],
    after: list[tuple[FolderMinute, int, int]],
    folders: list[str] | None,
    first: int | None,
    last: int | None,
    condition: ds.Expression | None,
):
    start = None if first is None else MINUTE + dt.timedelta(minutes=first)
    end = None if last is None else MINUTE + dt.timedelta(minutes=last)
    with tempfile.TemporaryDirectory() as folder:
        table = Table(ObjectStore(f"file://{folder}"), "audio_table", schema.AUDIO_TABLE)
        change(table, before)
        compact_all(table)
        change(table, after)

        wanted = [p for one in folders or [None] for p in table.partitions(one, start, end)]
        expected = by_minutes(table, wanted)
        expected = expected if condition is None else expected.filter(condition)
        assert read_rows(table, folders, start, end, filter=condition).equals(expected)
        columns = ["Size", "Key"]
        found = read_rows(table, folders, start, end, columns, filter=condition)
        assert found.equals(expected.select(columns))
        batches = read_batches(table, folders, start, end, filter=condition).read_all()
        assert sorted(map(str, batches.to_pylist())) == sorted(map(str, expected.to_pylist()))


# --- which copy is read ---------------------------------------------------------------------------------


def test_a_fresh_day_is_read_from_its_file_alone(place: Place, monkeypatch: pytest.MonkeyPatch):
    table = Table(place.store, "tables/audio_table", schema.AUDIO_TABLE)
    fill(table)
    compact_all(table)
    expected = by_minutes(table, table.partitions())
    read = minute_files_read(monkeypatch)
    assert read_rows(table).equals(expected)
    assert read_rows(table, "p1").equals(expected.filter(ds.field("FolderName") == "p1"))
    assert read == []


def test_a_folder_that_changed_is_read_from_its_minutes_and_the_others_from_the_day(
    table: Table, monkeypatch: pytest.MonkeyPatch
):
    fill(table)
    compact_all(table)
    write(table, at("p1", 2), row("p1/other.flac", Size=77))
    read = minute_files_read(monkeypatch)
    assert read_rows(table)["Size"].to_pylist().count(77) == 1
    assert sorted(read) == [table.path(at("p1", minute)) for minute in range(4)]


def test_a_day_that_is_replaced_while_it_is_read_is_read_from_its_minutes(
    table: Table, monkeypatch: pytest.MonkeyPatch
):
    fill(table)
    compact_all(table)
    plan = daily_read.plan

    def then_compact(*given: object) -> daily_read.Plan:
        planned = plan(*given)  # type: ignore[arg-type]
        assert planned.days
        write(table, at("p1", 2), row("p1/other.flac", Size=77))
        compact_all(table)
        return planned

    monkeypatch.setattr(daily_read, "plan", then_compact)
    expected = by_minutes(table, table.partitions()).num_rows - 2
    assert len(read_rows(table)) == expected
    assert read_batches(table).read_all().num_rows == expected


def test_a_day_that_is_replaced_after_its_first_rows_were_read_says_so(
    table: Table, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(daily_compaction, "ROW_GROUP_ROWS", 6)
    fill(table, minutes=10)
    compact_all(table)
    batches = iter(read_batches(table))
    next(batches)
    write(table, at("p1", 2), row("p1/other.flac"))
    compact_all(table)
    with pytest.raises(
        StorageError, match=r"was deleted or overwritten after it was listed; .* read the slice"
    ):
        list(batches)


def test_few_minutes_of_a_day_are_read_from_their_own_files(table: Table, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(daily_read, "MINUTES_WORTH_A_DAY", 3)
    fill(table)
    compact_all(table)
    read = minute_files_read(monkeypatch)
    read_rows(table, "p1", MINUTE, MINUTE + dt.timedelta(minutes=2))
    assert len(read) == 2


def test_a_file_that_is_no_parquet_file_is_named(table: Table):
    fill(table)
    table.store.replace(daily_copy(table).path(DAY), b"no Parquet file at all", None)
    with pytest.raises(StorageError, match=r"audio_table_2023-08-24\.parquet is no Parquet file"):
        read_rows(table)


def test_a_day_that_others_have_written_is_not_believed(table: Table):
    fill(table)
    found = by_minutes(table, table.partitions()).slice(0, 1).drop([schema.DAY_COLUMN])
    sink = pa.BufferOutputStream()
    pq.write_table(found, sink)
    table.store.replace(daily_copy(table).path(DAY), sink.getvalue().to_pybytes(), None)
    assert len(read_rows(table)) == 36


def test_a_batch_at_a_time_holds_little_of_a_large_day(table: Table, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(daily_compaction, "ROW_GROUP_ROWS", 6)
    fill(table, minutes=10)
    compact_all(table)
    sizes = [batch.num_rows for batch in read_batches(table)]
    assert sum(sizes) == 90
    assert max(sizes) <= 6


# --- the files ------------------------------------------------------------------------------------------


def test_a_day_is_one_file_sorted_by_folder_and_time_with_statistics_and_page_index(
    table: Table, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(daily_compaction, "ROW_GROUP_ROWS", 9)
    fill(table, days=2)
    compact_all(table)
    copy = daily_copy(table)
    assert sorted(copy.files()) == [day_path(DAY), day_path(DAY + dt.timedelta(days=1))]
    found = table.store.read_latest(copy.path(DAY))
    assert found is not None
    file = pq.ParquetFile(pa.BufferReader(found[0]))
    assert file.metadata.num_row_groups == 4
    assert file.schema_arrow.names == schema.of_day(table.schema).names
    for at_ in range(4):
        group = file.metadata.row_group(at_)
        assert [column.column_index for column in group.sorting_columns] == [4, 5, 6]
        for number in range(group.num_columns):
            column = group.column(number)
            assert column.compression == "ZSTD"
            assert column.has_offset_index
        assert group.column(4).has_column_index
        assert group.column(4).statistics.min <= group.column(4).statistics.max
    order = list(zip(*(file.read()[n].to_pylist() for n in file.schema_arrow.names[4:7]), strict=True))
    assert order == sorted(order)


def test_row_groups_are_bounded_in_bytes_though_one_minute_is_larger(
    table: Table, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(daily_compaction, "ROW_GROUP_BYTES", 20_000)
    write(table, at("p1"), *(row(f"p1/{i}.flac", tokenized_info=[1] * 500) for i in range(100)))
    compacted = compact(daily_copy(table), table, DAY, table.partitions)
    assert compacted.row_groups >= 5
    assert compacted.rows == {"ok": 100}
    assert by_days(table).equals(by_minutes(table, table.partitions()))


def test_a_day_says_what_it_was_made_from_and_what_it_holds(table: Table):
    write(table, at("p1"), row("p1/a.flac", duration_s=1.5), row("p1/b.flac", status="failed"))
    write(table, at("p2"), row("p2/a.txt", status="not_flac"))
    made = compact(daily_copy(table), table, DAY, table.partitions)
    assert made.rows == {"ok": 1, "failed": 1, "not_flac": 1}
    assert (made.duration_s, made.folders, made.minutes, made.row_groups) == (1.5, 2, 2, 1)
    assert made.digest == total(file_digest(path, version) for path, version in table.files())
    [(day, info)] = daily_copy(table).days().items()
    assert (day, info.etag, info.size) == (DAY, made.version, made.size)
    assert set(daily_copy(table).open(day, info).made_from) == {"p1", "p2"}


def test_a_day_whose_rows_are_all_gone_has_no_file(place: Place):
    table = Table(place.store, "tables/audio_table", schema.AUDIO_TABLE)
    write(table, at("p1"), row("p1/a.flac"))
    compact_all(table)
    assert daily_copy(table).days()
    write(table, at("p1"))
    made = compact(daily_copy(table), table, DAY, lambda: [at("p1")])
    assert (made.version, made.rows) == ("", {})
    assert daily_copy(table).files() == {}
    # Nor is one made where there never was one.
    assert compact(daily_copy(table), table, DAY, table.partitions).version == ""


def test_of_two_compactions_the_one_that_looked_later_writes_last(place: Place):
    table = Table(place.store, "tables/audio_table", schema.AUDIO_TABLE)
    fill(table, folders=1)
    copy = daily_copy(table)
    looks: list[int] = []

    def look() -> list[FolderMinute]:
        looks.append(1)
        if len(looks) == 1:
            # Another run is quicker, and sees what this one has not seen.
            seen = table.partitions()
            write(table, at("p9"), row("p9/late.flac"))
            compact(copy, table, DAY, table.partitions)
            return seen
        return table.partitions()

    compact(copy, table, DAY, look)
    assert len(looks) == 2
    assert read_rows(table, "p9")["Key"].to_pylist() == ["p9/late.flac"]
    assert copy.open(DAY, copy.days()[DAY]).rows == 13


def test_a_day_that_others_keep_replacing_is_given_up(table: Table):
    fill(table, folders=1)
    copy = daily_copy(table)
    sizes = itertools.count()

    def look() -> list[FolderMinute]:
        write(table, at("p8"), row("p8/a.flac", Size=next(sizes)))
        compact(copy, table, DAY, table.partitions)
        return [at("p0")]

    with pytest.raises(ConflictError, match=r"other runs keep replacing .* of 2023-08-24"):
        compact(copy, table, DAY, look)


def test_a_source_that_holds_the_tables_does_not_hold_their_daily_copy(local_place: LocalPlace):
    tables = ObjectStore(f"{local_place.uri}/tables")
    table = Table(tables, "audio_table", schema.AUDIO_TABLE)
    fill(table, folders=1)
    compact_all(table)
    local_place.put("p1/a.flac")
    for source in (
        AudioSource(local_place.store, tables),
        AudioSource(local_place.store, ObjectStore("file:///x")),
    ):
        found, _ = source.digests(source.spans())
        assert [p.folder for p in found] == ["p1"]
    with pytest.raises(ValueError, match="lies in the table audio_table_daily"):
        AudioSource(ObjectStore(f"{tables.uri}/audio_table_daily"), tables)


@pytest.mark.parametrize(
    "path",
    [
        "LastModifiedDate=2023-08-24/audio_table_2023-08-25.parquet",
        "LastModifiedDate=2023-08-24/other.parquet",
        "LastModifiedDate=2023-02-30/audio_table_2023-02-30.parquet",
        "LastModifiedDate=2023-08-24/sub/audio_table_2023-08-24.parquet",
    ],
)
def test_what_lies_beside_a_days_file_is_none(path: str):
    assert day_of(path) is None
    assert day_of(f"a/b/{day_path(DAY)}") == DAY


def test_a_daily_copy_that_is_not_there_has_no_files(local_place: LocalPlace):
    assert DailyTable(local_place.store, "none_daily", schema.of_day(schema.AUDIO_TABLE)).files() == {}


# --- other readers --------------------------------------------------------------------------------------


def test_other_readers_give_every_folder_its_name_and_every_column_its_type(local_place: LocalPlace):
    table = Table(local_place.store, "audio_table", schema.AUDIO_TABLE)
    names = [*FOLDERS, "0", "true", "null", "", "...", "a=b", "star*", "__HIVE_DEFAULT_PARTITION__"]
    for at_, name in enumerate(names):
        write(table, at(name, at_), row(f"{name}/x.flac", tokenized_info=[1, -2]))
    compact_all(table)
    folder = urllib.parse.unquote(daily_copy(table).uri.removeprefix("file://"))
    shown = {p.folder for p in table.partitions()}
    found = {
        "pandas": pd.read_parquet(folder),
        "Polars": pl.scan_parquet(folder).collect(),
        "DuckDB": duckdb.sql(f"SELECT * FROM read_parquet('{folder}/**/*.parquet')"),
    }
    assert set(found["pandas"]["FolderName"]) == shown
    assert set(found["Polars"]["FolderName"]) == shown
    assert {name for (name,) in found["DuckDB"].select("FolderName").fetchall()} == shown
    # pyarrow takes the day for text unless it is told; the others read a date.
    assert set(found["pandas"][schema.DAY_COLUMN]) == {"2023-08-24"}
    assert found["Polars"].schema[schema.DAY_COLUMN] == pl.Date
    types = dict(zip(found["DuckDB"].columns, map(str, found["DuckDB"].types), strict=True))
    assert (types[schema.DAY_COLUMN], types["LastModifiedHour"]) == ("DATE", "INTEGER")
    assert by_days(table).column_names == table.columns().names
