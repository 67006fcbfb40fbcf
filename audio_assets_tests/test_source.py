"""The walk over the source's folders: complete, in one order, resumable, without the tables."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_assets.partitions import folder_of
from audio_assets.source import AudioSource, folder_order
from audio_assets.storage import Folder, ObjectInfo, ObjectStore, StorageError
from audio_assets_tests.conftest import UPLOADED, LocalPlace, Place, S3Place


class ListedKeys:
    """A store that is nothing but its keys, listed level by level as S3 does."""

    def __init__(self, keys: set[str]) -> None:
        self.keys, self.listed, self._lock = keys, [], threading.Lock()

    def relative(self, _: object) -> None:
        return None

    def list_folder(self, prefix: str) -> Folder:
        with self._lock:
            self.listed.append(prefix)
        below = {k.removeprefix(prefix) for k in self.keys if k.startswith(prefix)}
        folders = {rest.partition("/")[0] for rest in below if "/" in rest}
        here = [ObjectInfo(prefix + rest, "e", 1, UPLOADED) for rest in below if rest and "/" not in rest]
        return Folder([prefix + name for name in folders], here)


def source_of(keys: set[str]) -> AudioSource:
    store = ListedKeys(keys)
    return AudioSource(store, store)  # type: ignore[arg-type]


# Characters around the slash, which sorts between - and 0, and names that are prefixes of each other.
keys = st.sets(
    st.text("ab-./ ", min_size=1, max_size=7).filter(lambda key: not key.endswith("/")), max_size=12
)


@given(keys)
def test_the_walk_meets_every_object_once_in_its_folder(keys: set[str]):
    met = [(folder, o.key) for folder, objects in source_of(keys).folders() for o in objects]
    assert sorted(met) == sorted((folder_of(key), key) for key in keys)


@given(keys)
def test_folders_come_in_their_order(keys: set[str]):
    folders = [folder for folder, _ in source_of(keys).folders()]
    assert folders == sorted(set(folders), key=folder_order)
    assert folders[0] == "."


@given(keys, st.data())
def test_a_walk_goes_on_behind_any_folder(keys: set[str], data: st.DataObject):
    folders = [folder for folder, _ in source_of(keys).folders()]
    stopped = data.draw(st.integers(0, len(folders) - 1))
    rest = [folder for folder, _ in source_of(keys).folders(after=folders[stopped])]
    assert rest == folders[stopped + 1 :]


def test_a_walk_that_goes_on_lists_no_subtree_again_that_lies_behind_it():
    source = source_of({"a/x/1", "a/y/2", "b/z/3", "c/4"})
    assert [folder for folder, _ in source.folders(after="b")] == ["b/z", "c"]
    assert not [prefix for prefix in source.store.listed if prefix.startswith("a/")]  # type: ignore[attr-defined]


def test_very_deep_folders_are_walked():
    depth = 1_000
    folders = list(source_of({"a/" * depth + "x"}).folders())
    assert len(folders) == depth + 1
    assert len(folders[-1][1]) == 1


def test_a_real_store_is_walked(place: Place):
    found = {"a/1.flac", "a/b/2.flac", "a-b/3.flac", "top.flac"} | (
        {"a//4.flac", "/5.flac", "./6.flac"} if isinstance(place, S3Place) else set()
    )
    for key in found:
        place.put(key)
    source = AudioSource(place.store, ObjectStore(f"{place.uri}/output_parquet"))
    walked = dict(source.folders())
    assert {o.key for objects in walked.values() for o in objects} == found
    for folder, objects in walked.items():
        assert {folder_of(o.key) for o in objects} <= {folder}
        assert [o.key for o in source.objects(folder)] == [o.key for o in objects]


def test_tables_inside_the_source_are_no_audio(place: Place):
    for key in (
        "p225/a.flac",
        "output/parquet/audio_table/x.parquet",
        "output/b.flac",
        "output/parquet2/c.flac",
    ):
        place.put(key)
    source = AudioSource(place.store, ObjectStore(f"{place.uri}/output/parquet"))
    walked = dict(source.folders())
    assert sorted(walked) == [".", "output", "output/parquet2", "p225"]
    assert [o.key for o in walked["output"]] == ["output/b.flac"]


def test_tables_elsewhere_hide_nothing(local_place: LocalPlace, tmp_path):
    local_place.put("output_parquet/a.flac")
    source = AudioSource(local_place.store, ObjectStore((tmp_path / "tables").as_uri()))
    assert "output_parquet" in dict(source.folders())


def test_tables_right_in_the_source_are_refused_by_the_settings_name(place: Place):
    with pytest.raises(ValueError, match="AUDIO_TABLE_URI is AUDIO_SOURCE_URI"):
        AudioSource(place.store, ObjectStore(place.uri + "/"))


def test_a_source_that_is_not_there_is_named_with_its_setting():
    source = AudioSource(ObjectStore("file:///no/such/bucket"), ObjectStore("file:///no/such/tables"))
    with pytest.raises(StorageError, match=r"file:///no/such/bucket does not exist.*AUDIO_SOURCE_URI"):
        list(source.folders())
