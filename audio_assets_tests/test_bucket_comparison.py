"""Bucket against table, object by object and by digest."""

import datetime as dt
import pathlib

import hypothesis
import hypothesis.strategies as st
import pytest

from audio_assets import bucket_comparison, schema
from audio_assets.bucket_comparison import UnderWay, differing, look_again, partition_files
from audio_assets.digest import Digest
from audio_assets.partitions import FolderMinute
from audio_assets.rows import inventory_rows
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectStore
from audio_assets.table import Table
from audio_assets_tests.support.audio import MINUTE
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.rows import at, row, write

NOTHING = UnderWay(MINUTE + dt.timedelta(days=1), ())


@pytest.fixture
def place(tmp_path: pathlib.Path) -> LocalPlace:
    (tmp_path / "source").mkdir()
    return LocalPlace(tmp_path / "source")


@pytest.fixture
def source(place: LocalPlace, tmp_path: pathlib.Path) -> AudioSource:
    return AudioSource(place.store, ObjectStore((tmp_path / "out").as_uri()))


@pytest.fixture
def table(source: AudioSource) -> Table:
    return Table(source.tables, "audio_table", schema.AUDIO_TABLE)


def made_right(source: AudioSource, table: Table, *partitions: FolderMinute) -> None:
    """Write the rows that some partitions should have."""
    for partition in partitions:
        objects = [o for page in source.objects(partition.folder) for o in page]
        here = [o for o in objects if FolderMinute.of(o.key, o.last_modified) == partition]
        write(table, partition, *(r | {"status": "ok"} for r in inventory_rows(here).to_pylist()))


def test_files_are_those_of_partitions_in_order_hidden_or_strays():
    late = at("p225", 1)
    early = at("p225")
    paths = [
        late.path,
        early.path,
        early.path + ".crc",
        early.path.replace("p225_", "p226_"),
        "notes.txt",
        "_SUCCESS",
        ".hidden.parquet",
        "_delta_log/0.parquet",
        early.path.rpartition("/")[0] + "/.0a.tmp",
    ]
    partitions, strays = partition_files(paths)
    assert partitions == [early, late]
    assert strays.first == [paths[2], paths[3], "notes.txt"]


def test_partitions_differ_that_only_one_side_has_or_that_have_another_digest(
    table: Table, monkeypatch: pytest.MonkeyPatch
):
    same = Digest(1, 7)
    listed = {at("a"): same, at("b"): same, at("c"): same}
    made = {at("a"): str(same), at("b"): str(Digest(1, 8)), at("d"): str(Digest()), at("e"): ""}
    assert differing(listed, made, table) == [at("b"), at("c"), at("d"), at("e")]
    assert differing({}, {}, table) == []
    # A file without rows, of no objects, is no fault where it cannot be deleted safely.
    monkeypatch.setattr(Table, "keeps_empty_files", True)
    assert differing(listed, made, table) == [at("b"), at("c"), at("e")]


@pytest.mark.parametrize(
    ("under_way", "made", "waits"),
    [
        (UnderWay(MINUTE, ()), True, False),
        (UnderWay(MINUTE - dt.timedelta(minutes=1), ()), True, True),
        (UnderWay(MINUTE, (at("p225").key,)), True, True),
        (UnderWay(MINUTE, (at("p226").key,)), True, False),
        (UnderWay(MINUTE, (), full=True), True, False),
        (UnderWay(MINUTE, (), full=True), False, True),
    ],
)
def test_a_partition_waits_for_its_minute_for_its_run_or_for_room(
    under_way: UnderWay, made: bool, waits: bool
):
    assert under_way.waits(at("p225"), made=made) is waits


def test_what_is_right_by_now_is_no_difference(place: LocalPlace, source: AudioSource, table: Table):
    place.put("p225/a.flac", b"a", MINUTE)
    made_right(source, table, at("p225"))
    assert look_again(source, table, [at("p225"), at("gone")], NOTHING).wrong == {}


@pytest.mark.parametrize("by_object", [100, 0])
def test_each_partition_that_differs_is_found_by_object_and_by_digest(
    place: LocalPlace, source: AudioSource, table: Table, by_object: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bucket_comparison, "PARTITIONS_BY_OBJECT", by_object)
    for folder in ("changed", "lost", "made", "surplus"):
        place.put(f"{folder}/a.flac", b"a", MINUTE)
        place.put(f"{folder}/b.flac", b"b", MINUTE)
        made_right(source, table, at(folder))
    place.put("changed/a.flac", b"longer", MINUTE)
    place.put("lost/c.flac", b"c", MINUTE)
    place.delete("surplus/a.flac")
    write(table, at("no objects"), row("no objects/a.flac"))
    looked_at = [at(name) for name in ("changed", "gone", "lost", "made", "no objects", "surplus")]
    found = look_again(source, table, looked_at, NOTHING)
    assert list(found.wrong) == [p for p in looked_at if p.folder not in ("made", "gone")]
    named = [f"{o['Key']}: {o['what']}" for o in found.objects.first]
    assert (
        named
        == [
            "changed/a.flac: its row is of an older version",
            "lost/c.flac: it has no row",
            "no objects/a.flac: there is no such object",
            "surplus/a.flac: there is no such object",
        ][: by_object and 4]
    )


def test_of_a_folder_some_partitions_are_looked_at_by_object_and_the_others_by_digest(
    place: LocalPlace, source: AudioSource, table: Table, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bucket_comparison, "PARTITIONS_BY_OBJECT", 2)
    minutes = [at("p225", i) for i in range(5)]
    for i, partition in enumerate(minutes):
        place.put(f"p225/{i}.flac", b"a", partition.minute)
    made_right(source, table, minutes[0], minutes[3])
    found = look_again(source, table, minutes, NOTHING)
    assert list(found.wrong) == [minutes[1], minutes[2], minutes[4]]
    assert [o["Key"] for o in found.objects.first] == ["p225/1.flac"]


def test_the_row_of_an_object_that_was_overwritten_waits_for_the_other_minute(
    place: LocalPlace, source: AudioSource, table: Table
):
    place.put("p225/a.flac", b"a", MINUTE)
    place.put("p225/b.flac", b"a", MINUTE)
    made_right(source, table, at("p225"))
    place.put("p225/a.flac", b"longer", at("p225", 9).minute)
    found = look_again(source, table, [at("p225")], UnderWay(at("p225", 8).minute, ()))
    assert (found.wrong, found.waiting) == ({}, 1)
    found = look_again(source, table, [at("p225")], UnderWay(at("p225", 9).minute, ()))
    assert [o["what"] for o in found.objects.first] == [f"it is in {at('p225', 9).key} now"]
    assert found.waiting == 0


@hypothesis.settings(max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    listed=st.sets(st.sampled_from("abcdef")),
    made=st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=8),
)
def test_a_partition_is_found_wrong_exactly_where_brute_force_finds_it_wrong(
    tmp_path_factory: pytest.TempPathFactory, listed: set[str], made: list[tuple[str, bool]]
):
    place = LocalPlace(tmp_path_factory.mktemp("source"))
    source = AudioSource(place.store, ObjectStore(tmp_path_factory.mktemp("out").as_uri()))
    table = Table(source.tables, "audio_table", schema.AUDIO_TABLE)
    for name in listed:
        place.put(f"p/{name}.flac", name.encode(), MINUTE)
    etags = {o.key: (o.etag, o.size) for page in source.objects("p") for o in page}
    wanted = [row(f"p/{name}.flac", ETag="older" if old else "") for name, old in made]
    for r in wanted:
        r["ETag"] = r["ETag"] or etags.get(r["Key"], ("none", 0))[0]
    write(table, at("p"), *wanted)
    right = sorted((f"p/{name}.flac", etags[f"p/{name}.flac"][0]) for name in listed) == sorted(
        (r["Key"], r["ETag"]) for r in wanted
    )
    found = look_again(source, table, [at("p")], NOTHING)
    assert bool(found.wrong) is not right
