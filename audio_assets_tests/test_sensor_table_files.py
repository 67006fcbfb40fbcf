"""What a tick sees of the tables: records hold only as far as the files bear them out."""

import dataclasses

import pytest

from audio_assets import schema
from audio_assets.partitions import FolderMinute
from audio_assets.record import PartitionRecord
from audio_assets.sensor.table_files import FOLDERS_ONE_BY_ONE, UNKNOWN, TableFiles
from audio_assets.storage import ObjectStore
from audio_assets.table import Snapshot, Table
from audio_assets_tests.support.audio import MINUTE
from audio_assets_tests.support.places import Place

P225 = FolderMinute("p225", MINUTE)
P226 = FolderMinute("p226", MINUTE)
LONG = FolderMinute("x" * 400, MINUTE)
RECORD = PartitionRecord("1-00000000000000ff", "v1", ok=1)


def digests(files: TableFiles, *keys: str, folders: set[str] | None = None, **records: PartitionRecord):
    return files.digests({FolderMinute(f, MINUTE).key: r for f, r in records.items()}, keys, folders)


def test_a_record_holds_for_the_version_that_is_there():
    files = TableFiles({P225.path: "v1"})
    assert digests(files, p225=RECORD) == {P225.key: RECORD.digest}


def test_a_record_of_another_version_says_nothing():
    files = TableFiles({P225.path: "v2"})
    assert digests(files, p225=RECORD) == {P225.key: UNKNOWN}


def test_a_record_of_a_file_that_is_gone_says_nothing():
    assert digests(TableFiles({}), p225=RECORD) == {}


def test_a_file_without_a_record_is_known_to_be_there():
    files = TableFiles({P225.path: "v1", P226.path: "v1"})
    assert digests(files, P225.key) == {P225.key: UNKNOWN, P226.key: UNKNOWN}
    assert digests(files, P225.key, folders={"p225"}) == {P225.key: UNKNOWN}


def test_a_partition_without_objects_is_recorded_without_a_file():
    empty = PartitionRecord("0-0000000000000000", "")
    assert digests(TableFiles({}), p225=empty) == {P225.key: empty.digest}
    assert digests(TableFiles({P225.path: "v1"}), p225=empty) == {P225.key: UNKNOWN}


def test_a_partition_that_lacks_a_file_in_some_table_is_made_again():
    files = TableFiles({}, {P225.path})
    assert digests(files, p225=RECORD) == {P225.key: UNKNOWN}
    assert digests(files) == {P225.key: UNKNOWN}


def test_what_is_no_partition_key_or_no_partitions_file_is_passed_over():
    assert digests(TableFiles({"README.md": "v", "FolderName=a/x.parquet": "v"}), "made up") == {}


@pytest.fixture
def tables(place: Place) -> list[Table]:
    store = ObjectStore(place.uri)
    names = ("audio_table", "s3_inventory", "transcripts", "tokens")
    # The same small schema for all of them: only names and versions matter here.
    return [Table(store, name, schema.INVENTORY) for name in names]


def write(table: Table, partition: FolderMinute) -> str:
    row = {"Key": f"{partition.folder}/a.txt", "ETag": "e", "Size": 1, "LastModified": MINUTE}
    rows = schema.INVENTORY.empty_table().from_pylist([row], schema.INVENTORY)
    return table.replace(partition, rows, Snapshot(None, None))


def test_the_tables_are_listed(tables: list[Table]):
    written = {p.path: [write(table, p) for table in tables] for p in (P225, P226)}
    versions = {path: of_each_table[0] for path, of_each_table in written.items()}
    assert TableFiles.read(tables[0], tables[1:], None) == TableFiles(versions)
    some = TableFiles.read(tables[0], tables[1:], {"p225"})
    assert some == TableFiles({P225.path: versions[P225.path]})
    many = {"p225", *map(str, range(FOLDERS_ONE_BY_ONE))}
    assert TableFiles.read(tables[0], tables[1:], many) == TableFiles(versions)


@pytest.mark.parametrize("lacking", range(4))
def test_a_partition_with_a_file_in_some_tables_only_is_incomplete(tables: list[Table], lacking: int):
    for table in [t for i, t in enumerate(tables) if i != lacking]:
        write(table, P225)
    assert TableFiles.read(tables[0], tables[1:], None) == TableFiles({}, {P225.path})


def test_places_that_are_not_there_yet_have_no_files(place: Place):
    tables = [Table(ObjectStore(f"{place.uri}/new"), n, schema.INVENTORY) for n in ("audio_table", "b")]
    assert TableFiles.read(tables[0], tables[1:], None) == TableFiles({})


def test_a_shortened_folder_is_known_by_the_rows_of_its_file(tables: list[Table]):
    for table in tables:
        write(table, LONG)
    files = TableFiles.read(tables[0], tables[1:], None)
    assert digests(files) == {LONG.key: UNKNOWN}
    assert digests(dataclasses.replace(files, full_name=pytest.fail), LONG.key) == {LONG.key: UNKNOWN}
