"""Listing the source: complete, side by side, resumable at any key, without the tables."""

import pathlib
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_assets import schema
from audio_assets import source as source_module
from audio_assets.digest import digest_partitions
from audio_assets.errors import StorageError
from audio_assets.partitions import folder_of
from audio_assets.source import AudioSource, Span, meets
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets_tests.support.listed_keys import ListedKeys, infos, keys, source_of, stop_after
from audio_assets_tests.support.places import LocalPlace, Place, S3Place

points = st.sets(st.text("ab-./ ", min_size=1, max_size=4), max_size=4)


def spans_between(points: set[str]) -> list[Span]:
    ends = sorted(points)
    return [Span(after, until) for after, until in zip(["", *ends], [*ends, None], strict=True)]


@given(keys)
def test_every_object_is_digested_in_its_partition(keys: set[str]):
    source = source_of(keys)
    assert source.digests(source.spans()) == (digest_partitions(infos(keys)), [])


@given(keys, points)
def test_the_digests_of_parts_sum_to_that_of_the_whole(keys: set[str], points: set[str]):
    assert source_of(keys).digests(spans_between(points)) == (digest_partitions(infos(keys)), [])


@given(keys, st.integers(0, 4))
def test_a_listing_that_is_stopped_goes_on_where_it_was(keys: set[str], pages: int):
    source = source_of(keys)
    found, left = source.digests(source.spans(), stop_after(pages))
    calls = 1
    while left:
        assert left == sorted(left, key=lambda span: span.after)
        more, left = source.digests(left, stop_after(pages))
        for partition, digest in more.items():
            found[partition] = found[partition] + digest if partition in found else digest
        calls += 1
        assert calls <= len(keys) + 1
    assert found == digest_partitions(infos(keys))


def test_a_long_listing_is_cut_between_folders_and_nothing_is_listed_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source_module, "PAGES_PER_TURN", 1)
    keys = {f"p{folder:02}/{name}" for folder in range(40) for name in range(5)}
    source = source_of(keys)
    assert source.digests(source.spans()) == (digest_partitions(infos(keys)), [])
    scanned = sorted(source.store.scanned, key=lambda span: span[0])  # type: ignore[attr-defined]
    assert len({until for _, until in scanned}) > 2


def test_spans_are_listed_side_by_side_but_never_too_many():
    wanted = source_module.SIDE_BY_SIDE
    running = 0
    most = 0
    lock = threading.Lock()
    together = threading.Barrier(wanted)

    class Meeting(ListedKeys):
        def scan(self, after: str, until: str | None) -> Iterator[tuple[str, list[ObjectInfo]]]:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            together.wait(timeout=60)
            yield from super().scan(after, until)
            with lock:
                running -= 1

    store = Meeting({f"{i:02}/x" for i in range(wanted * 2)})
    ends = {f"{i:02}/~" for i in range(wanted * 2 - 1)}
    found, _ = AudioSource(store, store).digests(spans_between(ends))  # type: ignore[arg-type]
    assert (len(found), most) == (wanted * 2, wanted)


@given(keys, points, st.data())
def test_a_folder_has_been_listed_whole_when_no_span_is_left_that_meets_it(
    keys: set[str], points: set[str], data: st.DataObject
):
    spans = [span for span in spans_between(points) if data.draw(st.booleans())]
    for key in keys:
        if any(span.after < key and (span.until is None or key <= span.until) for span in spans):
            assert meets(spans, folder_of(key))
    assert not meets([], ".")
    assert not meets([Span("a/", "b/ ")], "c")
    assert not meets([Span("b/ ", None)], "a")


def test_a_real_store_is_listed(place: Place):
    keys = {"a/1.flac", "a/b/2.flac", "a-b/3.flac", "top.flac"} | (
        {"a//4.flac", "/5.flac", "./6.flac"} if isinstance(place, S3Place) else set()
    )
    for key in keys:
        place.put(key)
    source = AudioSource(place.store, ObjectStore(f"{place.uri}/output_parquet"))
    found, left = source.digests(source.spans())
    assert {p.folder: digest.count for p, digest in found.items()} == dict.fromkeys(map(folder_of, keys), 1)
    assert left == []
    for folder in map(folder_of, keys):
        assert [folder_of(o.key) for page in source.objects(folder) for o in page] == [folder]


def test_tables_inside_the_source_are_no_audio(place: Place):
    for key in (
        "p225/a.flac",
        "output/parquet/audio_table/x.parquet",
        "output/b.flac",
        "output/parquet2/c.flac",
    ):
        place.put(key)
    source = AudioSource(place.store, ObjectStore(f"{place.uri}/output/parquet"))
    assert sorted(p.folder for p in source.digests(source.spans())[0]) == [
        "output",
        "output/parquet2",
        "p225",
    ]
    assert [o.key for page in source.objects("output") for o in page] == ["output/b.flac"]
    assert list(source.objects("output/parquet/audio_table")) == []


def test_tables_of_the_last_character_there_is_are_no_audio_either(place: Place):
    last = "\U0010ffff"
    for key in (f"out/{last * 60}", f"out/{last}/{last}", f"out{last}/a.flac", f"{last}/b.flac"):
        place.put(key, b"x")
    source = AudioSource(place.store, ObjectStore(f"{place.uri}/out"))
    assert {p.folder for p in source.digests(source.spans())[0]} == {f"out{last}", last}


def test_events_and_listings_agree_on_what_is_an_object(s3_place: S3Place):
    source = AudioSource(s3_place.store, ObjectStore(f"{s3_place.uri}/out"))
    for key in ("full/", "full/a.flac", "alone/", "a//b"):
        s3_place.put(key, b"x")
        assert source.key_of(s3_place.bucket, s3_place.prefix + key) == key
    for mark in ("", "empty/"):
        s3_place.put(mark, b"")
    found = source.digests(source.spans())[0]
    assert {p.folder: digest.count for p, digest in found.items()} == {"full": 2, "alone": 1, "a/": 1}
    assert [o.key for page in source.objects("full") for o in page] == ["full/", "full/a.flac"]
    # An event does not say whether an object is empty; what it names is looked for.
    assert source.key_of(s3_place.bucket, f"{s3_place.prefix}empty/") == "empty/"
    assert source.store.find("empty/") is None
    for outside in (s3_place.prefix, f"{s3_place.prefix}out/audio_table/x.parquet", "elsewhere/a.flac"):
        assert source.key_of(s3_place.bucket, outside) is None
    assert source.key_of("another", f"{s3_place.prefix}full/a.flac") is None


@pytest.mark.parametrize("table", schema.TABLES)
@pytest.mark.parametrize("below", ["", "/FolderName=p225"])
def test_a_source_within_a_table_is_refused_by_the_settings_names(place: Place, table: str, below: str):
    source = ObjectStore(f"{place.uri}/{table}{below}", name="AUDIO_SOURCE_URI")
    said = (
        rf"AUDIO_SOURCE_URI \(.*/{table}{below}\) lies in the table {table} of AUDIO_TABLE_URI \(.*\); name"
    )
    with pytest.raises(ValueError, match=said):
        AudioSource(source, ObjectStore(place.uri, name="AUDIO_TABLE_URI"))


def test_a_source_beside_the_tables_is_listed(place: Place):
    place.put("audio_table2/p225/a.flac", b"x")
    source = AudioSource(ObjectStore(f"{place.uri}/audio_table2"), place.store)
    assert [p.folder for p in source.digests(source.spans())[0]] == ["p225"]


def test_tables_elsewhere_hide_nothing(local_place: LocalPlace, tmp_path: pathlib.Path):
    local_place.put("output_parquet/a.flac")
    source = AudioSource(local_place.store, ObjectStore((tmp_path / "tables").as_uri()))
    assert [p.folder for p in source.digests(source.spans())[0]] == ["output_parquet"]


def test_tables_right_in_the_source_are_refused_by_the_settings_name(place: Place):
    store = ObjectStore(place.uri, name="AUDIO_SOURCE_URI")
    with pytest.raises(ValueError, match=r"AUDIO_TABLE_URI \(.*\) is AUDIO_SOURCE_URI \(.*\); give"):
        AudioSource(store, ObjectStore(place.uri + "/", name="AUDIO_TABLE_URI"))


def test_a_source_that_is_not_there_is_named_with_its_setting():
    store = ObjectStore("file:///no/such/bucket", name="AUDIO_SOURCE_URI")
    source = AudioSource(store, ObjectStore("file:///no/such/tables"))
    with pytest.raises(StorageError, match=r"file:///no/such/bucket does not exist.*AUDIO_SOURCE_URI"):
        source.digests(source.spans())
