"""The object store, on a local folder and on S3."""

import concurrent.futures
import datetime as dt
import errno
import fcntl
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse

import obstore
import pytest
from obstore.store import LocalStore

from audio_assets.errors import (
    ConflictError,
    ObjectChangedError,
    ObjectNameError,
    ObjectRefusedError,
    StorageError,
)
from audio_assets.storage import Backend, ObjectInfo, ObjectStore, RetryPolicy, s3_listing
from audio_assets.storage.s3 import S3Backend
from audio_assets.storage.types import BackendOptions
from audio_assets_tests.support.audio import UPLOADED
from audio_assets_tests.support.places import LocalPlace, Place, S3Place

HOSTILE_KEYS = [
    *("p225/a.flac", "sp ace/b c.flac", " lead and trail /x .flac", "n/e/s/t/ed.flac", "..../x...flac"),
    *("a|b,c[d]*?.flac", "ünï/日本.flac", "😀/😀.flac", "50%/%41+.flac", "x+y/z=1&2.flac"),
    *("#h?q/a;b@c:d!e$f'g(h).flac", '~t/^c`{}"<>\\.flac', "nel\x85 \u2028/\ufffd.flac", ".hidden/_x.flac"),
    *("take#1", "take#12/x.flac#3", "p225/back\\xff.flac", "control\x01\x1f/\x07b.flac", "tab\there.flac"),
    "del\x7f/x.flac",
]
# The server of the tests takes no other request for a name with a line in it.
KEYS_OF_A_DISK_ALONE = ["new\nline.flac"]
# A local disk takes these by other names or not at all.
KEYS_OF_S3_ALONE = [
    *("a//b.flac", "a///b.flac", "/lead.flac", "./dot.flac", "x/./y.flac", "up/../up.flac"),
    *("slash//", "slash//x.flac", "full/", "full/x.flac", "full.1/", "full.1/x.flac", "alone/"),
]


def scanned(store: ObjectStore, after: str = "", until: str | None = None) -> list[ObjectInfo]:
    return [o for _, page in store.scan(after, until) for o in page]


def in_folder(store: ObjectStore, prefix: str = "") -> list[str]:
    return [o.key for page in store.scan_folder(prefix) for o in page]


# --- listing ------------------------------------------------------------------------------------------


def test_a_listing_says_key_etag_size_and_time(place: Place):
    place.put("p225/a.flac", b"four")
    [found] = scanned(place.store)
    assert (found.key, found.size, found.last_modified) == ("p225/a.flac", 4, UPLOADED)
    assert found.etag
    assert '"' not in found.etag


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_a_folder_is_listed_without_the_folders_in_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, page: int
):
    monkeypatch.setattr(s3_listing, "PAGE", page)
    for key in ("top.flac", "a/1.flac", "a/b/2.flac", "a/b/3.flac", "a/b0.flac", "a/c/d/4.flac", "a/e.flac"):
        place.put(key, b"x")
    assert in_folder(place.store) == ["top.flac"]
    assert sorted(in_folder(place.store, "a/")) == ["a/1.flac", "a/b0.flac", "a/e.flac"]
    assert sorted(in_folder(place.store, "a/b/")) == ["a/b/2.flac", "a/b/3.flac"]
    assert in_folder(place.store, "a/c/") == []
    assert in_folder(place.store, "nothing/here/") == []


def test_every_name_is_listed_and_read(place: Place):
    keys = HOSTILE_KEYS + (KEYS_OF_S3_ALONE if isinstance(place, S3Place) else KEYS_OF_A_DISK_ALONE)
    for key in keys:
        place.put(key, key.encode())
    found = {o.key: o for o in scanned(place.store)}
    assert found.keys() == set(keys)
    for key, info in found.items():
        assert (info.size, info.last_modified.tzinfo) == (len(key.encode()), dt.UTC)
        assert place.store.read(info) == key.encode()
        assert key in in_folder(place.store, key[: key.rfind("/") + 1])


@pytest.mark.parametrize("prefix", ["", "in/"])
@pytest.mark.parametrize("page", [3, 1000])
def test_a_scan_gives_the_keys_between_any_two_in_order(
    s3_place: S3Place, monkeypatch: pytest.MonkeyPatch, prefix: str, page: int
):
    monkeypatch.setattr(s3_listing, "PAGE", page)
    s3_place.prefix = prefix
    # Around the slash, which sorts between . and 0; an empty object and one that marks a folder of its name.
    keys = [
        "!first",
        "-",
        "/lead",
        "0",
        "a",
        "a-b/1",
        "a/1",
        "a/2",
        "a//odd",
        "a0",
        "b/ 1",
        "b/\t1",
        "d.flac/",
        "d.flac/1",
        "e/",
        "é/1",
        "😀",
    ]
    for key in [*keys, "a/", "c/"]:
        s3_place.put(key, b"" if key in ("a", "a/", "a/2", "c/") else b"x")
    keys.sort()
    assert [o.key for o in scanned(s3_place.store)] == keys
    for after in ["", "a/", *keys]:
        for until in (None, "a/ ", "b/ ", keys[7]):
            expected = [key for key in keys if key > after and (until is None or key <= until)]
            assert [o.key for o in scanned(s3_place.store, after, until)] == expected


def test_a_local_scan_gives_the_keys_between_any_two_in_order(local_place: LocalPlace):
    keys = sorted(["-", "a-b/1", "a/1", "a/2", "a/b/c/3", "a0", "b/ 1", "é/1", "😀"])
    for key in keys:
        local_place.put(key)
    for after in ["", "a/", *keys]:
        for until in (None, "a/ ", *keys):
            expected = [key for key in keys if key > after and (until is None or key <= until)]
            assert [o.key for o in scanned(local_place.store, after, until)] == expected


def test_more_objects_than_one_page_holds_are_listed(s3_place: S3Place):
    keys = [f"p225/{i:04}.flac" for i in range(1_001)]
    for key in keys:
        s3_place.put(key, b"x")
    assert in_folder(s3_place.store, "p225/") == keys
    assert s3_place.all_keys("p225/") == keys
    assert [len(page) for _, page in s3_place.store.scan()] == [1_000, 1]
    # A name that only the slower client takes.
    s3_place.put("p225//odd.flac")
    assert in_folder(s3_place.store, "p225/") == keys
    assert [o.key for o in scanned(s3_place.store)] == ["p225//odd.flac", *keys]


def test_folders_are_where_a_scan_may_be_cut(s3_place: S3Place):
    for key in ("a/b/1", "a/c/2", "a/d/3", "z/4"):
        s3_place.put(key)
    cuts = s3_place.store.cuts
    assert cuts("", None) == ["a/", "z/"]
    assert cuts("a/b/1", None) == ["z/"]
    assert cuts("a/b/1", "z/") == ["a/c/", "a/d/"]
    assert cuts("a/b/1", "a/d/") == ["a/c/"]
    assert cuts("z/0", None) == []


def test_empty_objects_that_mark_a_folder_are_no_objects(s3_place: S3Place):
    s3_place.put("p225/")
    s3_place.put("p225/a.flac")
    assert [o.key for o in scanned(s3_place.store)] == ["p225/a.flac"]
    assert in_folder(s3_place.store, "p225/") == ["p225/a.flac"]


@pytest.mark.parametrize("page", [1, 1000])
def test_an_object_with_content_may_be_called_like_a_folder(
    s3_place: S3Place, monkeypatch: pytest.MonkeyPatch, page: int
):
    monkeypatch.setattr(s3_listing, "PAGE", page)
    keys = ["alone/", "b.flac/", "b.flac/1.flac", "b.flac/c/", "b.flac/c/2.flac", "d/3.flac"]
    for key in keys:
        s3_place.put(key, b"x")
    for mark in ("", "d/", "empty/"):
        s3_place.put(mark, b"")
    store = s3_place.store
    assert [o.key for o in scanned(store)] == keys
    assert in_folder(store, "alone/") == ["alone/"]
    assert in_folder(store, "b.flac/") == ["b.flac/", "b.flac/1.flac"]
    assert in_folder(store, "b.flac/c/") == ["b.flac/c/", "b.flac/c/2.flac"]
    assert in_folder(store, "d/") == ["d/3.flac"]
    assert in_folder(store, "empty/") == []
    for key in (*keys, "", "d/", "empty/"):
        found = store.find(key)
        assert (found.key if found else None) == (key if key in keys else None)


def test_a_listing_of_a_folder_goes_on_behind_the_object_that_is_called_like_it(s3_place: S3Place):
    for key in ("p/", "p/1.flac"):
        s3_place.put(key, b"x")
    backend = S3Backend(s3_place.uri, BackendOptions())
    assert [o.key for _, page in backend.scan_folder("p/", "p/") for o in page] == ["p/1.flac"]


LAST_CHARACTER = "\U0010ffff"


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_names_of_the_last_character_there_is_are_listed(
    place: Place, monkeypatch: pytest.MonkeyPatch, page: int
):
    monkeypatch.setattr(s3_listing, "PAGE", page)
    # As many as a name on a disk may have.
    most = LAST_CHARACTER * 63
    long = "x" * 200
    keys = sorted(
        [
            *("p/a/1.flac", "p/2.flac", f"p/{most}", f"p/{most}/{most}", f"p/{LAST_CHARACTER}.flac"),
            *(
                f"{most}/{most}",
                f"{most}/a.flac",
                f"{LAST_CHARACTER}x",
                f"{long}/{most}/1",
                f"{long}/{most}/2",
            ),
        ]
        if isinstance(place, S3Place)
        else [f"p/{most}/{most}", f"{most}/{most}", "p/2.flac", f"{long}/{most}/1", f"{LAST_CHARACTER}x"]
    )
    for key in keys:
        place.put(key, b"x")
    assert [o.key for o in scanned(place.store)] == keys
    assert place.all_keys() == keys
    for folder in {key[: key.rfind("/") + 1] for key in keys} | {""}:
        here = [key for key in keys if key.startswith(folder) and "/" not in key.removeprefix(folder)]
        assert in_folder(place.store, folder) == here
        assert place.all_keys(folder) == [key for key in keys if key.startswith(folder)]


def test_an_empty_folder_has_no_objects(local_place: LocalPlace):
    (local_place.folder / "p225").mkdir()
    assert scanned(local_place.store) == []
    assert in_folder(local_place.store, "p225/") == []


@pytest.fixture
def odd_names(local_place: LocalPlace) -> list[str]:
    """The keys of files some of whose names are not UTF-8, in order; they lie in the local place."""
    root = os.fsencode(local_place.folder)
    for path in (
        *(b"p/a.flac", b"p/latin\xff.flac", b"p/z.flac", b"odd\xe9/x.flac", b"odd\xe9/deep/y.flac"),
        # Names whose text another file has for a name.
        *(b"q/\xff.flac", b"q/\\xff.flac", b"q\xc3/1", b"q\\xc3/1"),
    ):
        os.makedirs(os.path.dirname(root + b"/" + path), exist_ok=True)
        with open(root + b"/" + path, "wb") as file:
            file.write(path)
    return sorted(
        [
            *("p/a.flac", r"p/latin\xff.flac", "p/z.flac", r"odd\xe9/x.flac", r"odd\xe9/deep/y.flac"),
            *(r"q/\\xff.flac", r"q/\xff.flac", r"q\\xc3/1", r"q\xc3/1"),
        ]
    )


def test_names_that_are_not_utf8_are_listed_as_what_their_bytes_look_like(
    local_place: LocalPlace, odd_names: list[str]
):
    store = local_place.store
    assert [o.key for o in scanned(store)] == odd_names
    assert local_place.all_keys() == odd_names
    for after in odd_names:
        assert [o.key for o in scanned(store, after)] == [key for key in odd_names if key > after]
        assert [o.key for o in scanned(store, "", after)] == [key for key in odd_names if key <= after]
        found = store.find(after)
        assert found
        assert found.key == after
    assert in_folder(store, "odd\\xe9/") == ["odd\\xe9/x.flac"]
    assert local_place.all_keys("odd\\xe9/") == ["odd\\xe9/deep/y.flac", "odd\\xe9/x.flac"]


def test_names_that_are_not_utf8_are_refused_with_what_to_do(local_place: LocalPlace, odd_names: list[str]):
    read = {}
    refused = []
    for info in scanned(local_place.store):
        try:
            read[info.key] = local_place.store.read(info).decode()
        except ObjectRefusedError:
            refused.append(info)
    assert read == {key: key for key in ("p/a.flac", "p/z.flac", r"q/\xff.flac", r"q\xc3/1")}
    assert [info.key for info in refused] == [key for key in odd_names if key not in read]
    for info in refused:
        with pytest.raises(
            ObjectNameError, match=f"/{re.escape(info.key)}: its name is not UTF-8; rename the file$"
        ):
            local_place.store.read(info)
    [renamed] = [info for info in refused if info.key == r"p/latin\xff.flac"]
    root = os.fsencode(local_place.folder)
    os.rename(root + b"/p/latin\xff.flac", root + b"/p/latin.flac")
    with pytest.raises(ObjectChangedError):
        local_place.store.read(renamed)
    [now] = [info for info in scanned(local_place.store) if info.key == "p/latin.flac"]
    assert local_place.store.read(now) == b"p/latin\xff.flac"


@pytest.mark.parametrize("name", [b"caf\xe9", "ü".encode()])
def test_the_file_systems_encoding_does_not_matter(tmp_path: pathlib.Path, name: bytes):
    root = os.fsencode(tmp_path) + b"/" + name
    os.mkdir(root)
    with open(root + "/日.flac".encode(), "wb") as file:
        file.write(b"x")
    code = r"""if True:
        import sys
        from audio_assets.storage import ObjectStore
        assert sys.getfilesystemencoding() == "ascii"
        store = ObjectStore(sys.argv[1])
        [(_, [found])] = store.scan()
        assert found.key == "\u65e5.flac", ascii(found.key)
        assert store.read(found) == b"x"
        version = store.replace("t/\u65e5.parquet", b"1", None)
        assert store.read_latest("t/\u65e5.parquet") == (b"1", version)
        assert list(store.list_files("t/")) == [("t/\u65e5.parquet", version)]
        store.delete("t/\u65e5.parquet", version)"""
    environment = {"PYTHONPATH": os.getcwd(), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for uri in (f"file://{urllib.parse.quote(root)}".encode(), b"file://" + root):
        subprocess.run([sys.executable, "-c", code, uri], env=environment, check=True)
    assert os.listdir(root) == ["/日.flac".encode()[1:]]


def test_local_objects_have_the_etag_and_time_that_obstore_gives(local_place: LocalPlace):
    # Rows know their objects by it: another one would have them all computed anew.
    for i, modified_ns in enumerate([0, 1, 999, 1_000, 1_692_836_460_123_456_789, 2**31 * 10**9, -1_500]):
        local_place.put(f"p225/{i}.flac", b"x" * i)
        os.utime(local_place.folder / f"p225/{i}.flac", ns=(0, modified_ns))
    found = scanned(local_place.store)
    listed = obstore.list_with_delimiter(LocalStore(local_place.folder), "p225")["objects"]
    expected = [
        ObjectInfo(o["path"], (o["e_tag"] or "").strip('"'), o["size"], o["last_modified"]) for o in listed
    ]
    assert len(found) == 7
    assert found == sorted(expected)


def test_links_are_followed_but_never_back_to_where_they_lie(local_place: LocalPlace, tmp_path: pathlib.Path):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "a.flac").write_bytes(b"x")
    (tmp_path / "elsewhere" / "deep" / "b.flac").write_bytes(b"x")
    root = local_place.folder
    local_place.put("p/c.flac")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "file.flac").symlink_to(tmp_path / "elsewhere" / "a.flac")
    (root / "nowhere.flac").symlink_to(tmp_path / "nothing")
    (root / "itself").symlink_to(root / "itself")
    (root / "p" / "here").symlink_to(root / "p")
    (root / "p" / "up").symlink_to(root)
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "elsewhere")
    expected = ["file.flac", "folder/a.flac", "folder/deep/b.flac", "p/c.flac"]
    assert [o.key for o in scanned(local_place.store)] == expected
    assert local_place.all_keys() == expected
    assert in_folder(local_place.store) == ["file.flac"]
    assert local_place.store.read(scanned(local_place.store)[0]) == b"x"


def test_what_is_no_file_is_no_object(local_place: LocalPlace):
    os.mkfifo(local_place.folder / "pipe.flac")
    local_place.put("a.flac")
    assert [o.key for o in scanned(local_place.store)] == ["a.flac"]


def test_what_vanishes_while_it_is_listed_is_passed_over(local_place: LocalPlace):
    for key in ("a/1", "b/2", "c/3"):
        local_place.put(key)
    pages = local_place.store.scan()
    assert [o.key for o in next(pages)[1]] == ["a/1"]
    shutil.rmtree(local_place.folder / "b")
    assert [o.key for _, page in pages for o in page] == ["c/3"]


def test_a_folder_that_may_not_be_listed_is_named(local_place: LocalPlace, monkeypatch: pytest.MonkeyPatch):
    local_place.put("a/b/1")

    def scandir(path: bytes) -> object:
        if path.endswith(b"/b"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path)

    # Whoever runs the tests may be root, who may list everything.
    real = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match=r"cannot list .*/a/b/: Permission denied$"):
        scanned(local_place.store)


def test_a_missing_folder_is_named():
    store = ObjectStore("file:///no/such/folder")
    with pytest.raises(StorageError, match="file:///no/such/folder does not exist"):
        scanned(store)


def test_a_missing_bucket_is_named(s3: str):
    store = ObjectStore("s3://no-such-bucket/prefix")
    with pytest.raises(StorageError, match=r"cannot list s3://no-such-bucket/prefix/: .*NoSuchBucket"):
        scanned(store)
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/prefix/k: NoSuchBucket"):
        store.replace("k", b"", None)


def test_a_prefix_with_a_folder_without_a_name_is_refused_by_its_settings_name():
    with pytest.raises(ValueError, match=r"s3://b/a//c' is no location; .* single / .*\(AUDIO_TABLE_URI\)$"):
        ObjectStore("s3://b/a//c", name="AUDIO_TABLE_URI")


@pytest.mark.parametrize("uri", ["", "/tmp/x", "s3://", "file://", "http://host/x", "file://host/x", "p225"])
def test_what_is_no_location_says_how_one_reads(uri: str):
    with pytest.raises(ValueError, match="s3://bucket/prefix or file:///folder"):
        ObjectStore(uri)


def test_uris_are_percent_encoded_as_uris_are(tmp_path: pathlib.Path):
    folder = tmp_path / "50% of #1? ü"
    folder.mkdir()
    (folder / "a.flac").write_bytes(b"x")
    assert [o.key for o in scanned(ObjectStore(folder.as_uri()))] == ["a.flac"]


def test_a_store_knows_where_another_lies_inside_it(tmp_path: pathlib.Path, s3: str):
    outer = ObjectStore(tmp_path.as_uri())
    assert outer.relative(ObjectStore(f"{tmp_path.as_uri()}/a/b/")) == "a/b/"
    assert outer.relative(ObjectStore(f"{tmp_path.as_uri()}/x/../a%20b")) == "a b/"
    assert outer.relative(ObjectStore(f"{tmp_path.as_uri()}-else/a")) is None
    assert outer.relative(outer) == ""
    assert outer.relative(ObjectStore("s3://bucket/a")) is None
    assert ObjectStore("s3://bucket").relative(ObjectStore("s3://bucket/out put")) == "out put/"
    assert ObjectStore("s3://bucket/a").relative(ObjectStore("s3://bucket/ab")) is None


# --- reading --------------------------------------------------------------------------------------------


def test_an_object_that_is_listed_without_the_slash_at_its_end_is_told_by_its_name(s3_place: S3Place):
    s3_place.put("p225/x.flac/", b"abc")
    [(_, [listed])] = s3_place.store.scan()
    with pytest.raises(ObjectNameError, match=r"x\.flac/: its key ends in a slash, .*; rename the object"):
        s3_place.store.read(listed)
    s3_place.put("p225/x.flac", b"abc")
    assert s3_place.store.read(listed) == b"abc"
    s3_place.put("p225/x.flac", b"other")
    with pytest.raises(ObjectChangedError):
        s3_place.store.read(listed)


@pytest.mark.parametrize("key", ["p225/a.flac", "p225//a.flac"])
def test_only_the_listed_version_is_read(place: Place, key: str):
    if "//" in key and isinstance(place, LocalPlace):
        pytest.skip("a local disk has no such name")
    place.put(key, b"old")
    [listed] = scanned(place.store)
    place.put(key, b"new", UPLOADED + dt.timedelta(seconds=1))
    with pytest.raises(ObjectChangedError, match="deleted or overwritten after it was listed"):
        place.store.read(listed)
    place.delete(key)
    with pytest.raises(ObjectChangedError, match="deleted or overwritten after it was listed"):
        place.store.read(listed)


def test_an_object_that_comes_short_is_an_error(place: Place):
    place.put("a.flac", b"four")
    [listed] = scanned(place.store)
    store = ObjectStore(place.uri, retries=RetryPolicy(attempts=2))
    with pytest.raises(StorageError, match=r"cannot read .*a\.flac: came with 4 bytes instead of 5"):
        store.read(listed._replace(size=5))


def test_reading_the_latest_of_nothing_gives_none(place: Place):
    assert place.store.read_latest("nothing/here.parquet") is None
    assert ObjectStore(f"{place.uri}/not/yet").read_latest("nothing/here.parquet") is None
    assert list(ObjectStore(f"{place.uri}/not/yet").list_files("nothing/")) == []


# --- replacing ------------------------------------------------------------------------------------------


def test_a_file_is_replaced_by_whoever_read_its_newest_version(place: Place):
    key = "t/FolderName=a%2Fb ü/x.parquet"
    place.store.replace(key, b"1", None)
    body, version = place.store.read_latest(key) or (b"", "")
    assert body == b"1"
    place.store.replace(key, b"2", version)
    assert (place.store.read_latest(key) or (b"", ""))[0] == b"2"
    assert place.all_keys("t/") == [key]


def test_a_file_that_changed_since_it_was_read_is_left_alone(place: Place):
    store = place.store
    store.replace("x.parquet", b"1", None)
    _, version = store.read_latest("x.parquet") or (b"", "")
    store.replace("x.parquet", b"2", version)
    for stale in (version, None):
        with pytest.raises(ConflictError, match=r"x\.parquet was replaced by another run"):
            store.replace("x.parquet", b"3", stale)
    assert (store.read_latest("x.parquet") or (b"", ""))[0] == b"2"
    place.delete("x.parquet")
    with pytest.raises(ConflictError):
        store.replace("x.parquet", b"3", version)
    assert store.read_latest("x.parquet") is None


@pytest.mark.parametrize("exists", [False, True])
def test_of_writers_that_race_exactly_one_wins(place: Place, exists: bool):
    version = None
    if exists:
        place.store.replace("x.parquet", b"old", None)
        _, version = place.store.read_latest("x.parquet") or (b"", "")

    def write(writer: int) -> int | None:
        try:
            place.store.replace("x.parquet", str(writer).encode(), version)
        except ConflictError:
            return None
        return writer

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        winners = [w for w in pool.map(write, range(16)) if w is not None]
    assert len(winners) == 1
    assert (place.store.read_latest("x.parquet") or (b"", ""))[0] == str(winners[0]).encode()


def test_a_deleted_file_leaves_no_empty_folder_and_never_the_store_itself(local_place: LocalPlace):
    store = local_place.store
    kept = store.replace("t/FolderName=a/x.parquet", b"1", None)
    gone = store.replace("t/FolderName=b/minute=1/y.parquet", b"1", None)
    (local_place.folder / "t/FolderName=b/minute=1/.dead.tmp").write_bytes(
        b"left by a writer that was killed"
    )
    store.delete("t/FolderName=b/minute=1/y.parquet", gone)
    assert [path.name for path in (local_place.folder / "t").iterdir()] == ["FolderName=a"]
    store.delete("t/FolderName=a/x.parquet", kept)
    assert list(local_place.folder.iterdir()) == []
    # As if the deletion had ended before the directories were removed.
    (local_place.folder / "t/FolderName=a").mkdir(parents=True)
    store.delete("t/FolderName=a/x.parquet", kept)
    assert list(local_place.folder.iterdir()) == []


def test_nothing_is_deleted_outside_of_the_store(local_place: LocalPlace, tmp_path: pathlib.Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"1")
    (local_place.folder / "link").symlink_to(outside)
    version = ObjectStore(outside.as_uri()).find("x")
    assert version
    for key in ("link/x", "../outside/x"):
        with pytest.raises(StorageError, match=r"lies outside by a link|its name leads elsewhere"):
            local_place.store.delete(key, version.etag)
    assert (outside / "x").exists()


def test_writers_and_deleters_of_files_in_one_folder_do_not_lose_each_others_files(local_place: LocalPlace):
    # The folder comes and goes with its only file, which each of them may have in hand at that moment.
    def write_and_delete(worker: int) -> int:
        store = ObjectStore(local_place.uri)
        done = 0
        for i in range(60):
            key = f"t/{'deep/' * (worker % 3)}{worker}.parquet"
            body = f"{worker} {i}".encode()
            version = store.replace(key, body, None)
            done += store.read_latest(key) == (body, version)
            store.delete(key, version)
        return done

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert list(pool.map(write_and_delete, range(6))) == [60] * 6
    assert list(local_place.folder.iterdir()) == []


def test_who_waited_for_a_folder_that_was_removed_waits_for_the_new_one(local_place: LocalPlace):
    # A lock on the old one would let it write beside whoever holds the lock of the new one.
    folder = local_place.folder / "t"

    def lock() -> int:
        folder.mkdir()
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        return handle

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        old = lock()
        writing = pool.submit(local_place.store.replace, "t/x.parquet", b"1", None)
        assert not concurrent.futures.wait([writing], timeout=0.5).done
        folder.rmdir()
        new = lock()
        os.close(old)
        assert not concurrent.futures.wait([writing], timeout=0.5).done
        os.close(new)
        version = writing.result(timeout=60)
    assert local_place.store.read_latest("t/x.parquet") == (b"1", version)


def test_a_killed_writer_leaves_the_old_file_and_no_lock_or_litter(local_place: LocalPlace):
    store = local_place.store
    store.replace("t/x.parquet", b"old", None)
    # Stops between the temporary file and its final name, where a machine that loses power may stop.
    code = """if True:
        import os, sys
        from audio_assets.storage import ObjectStore
        def stop(_):
            print("writing", flush=True)
            while True: pass
        os.fsync = stop
        store = ObjectStore(sys.argv[1])
        store.replace("t/x.parquet", b"new", store.read_latest("t/x.parquet")[1])"""
    writer = subprocess.Popen(
        [sys.executable, "-c", code, local_place.uri], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout
    assert writer.stdout.readline() == "writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    folder = local_place.folder / "t"
    assert len(list(folder.iterdir())) == 2
    body, version = store.read_latest("t/x.parquet") or (b"", "")
    assert body == b"old"
    store.replace("t/x.parquet", b"newer", version)
    assert [path.name for path in folder.iterdir()] == ["x.parquet"]


def test_a_file_that_cannot_be_written_is_named(local_place: LocalPlace):
    local_place.put("t", b"a file where a folder is wanted")
    with pytest.raises(StorageError, match=r"cannot write .*t/x\.parquet"):
        local_place.store.replace("t/x.parquet", b"", None)


# --- files larger than memory, and parts of them --------------------------------------------------------


def test_a_file_is_replaced_by_a_local_one_in_the_version_that_was_read(place: Place, tmp_path: pathlib.Path):
    path = tmp_path / "large"
    path.write_bytes(b"one" * 1000)
    first = place.store.replace_by_file("day/x.parquet", str(path), None)
    assert place.store.read_latest("day/x.parquet") == (b"one" * 1000, first)
    path.write_bytes(b"two")
    second = place.store.replace_by_file("day/x.parquet", str(path), first)
    assert dict(place.store.list_files("day/")) == {"day/x.parquet": second}
    path.write_bytes(b"three")
    for version in (first, None):
        with pytest.raises(ConflictError, match="was replaced by another run meanwhile"):
            place.store.replace_by_file("day/x.parquet", str(path), version)
    assert place.store.read_latest("day/x.parquet") == (b"two", second)


def test_a_lost_answer_to_a_write_of_a_file_is_no_conflict(
    place: Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "large"
    path.write_bytes(b"one")
    backend = place.store._backend
    put_file = backend.put_file

    def lost(key: str, path: str, version: str | None) -> str:
        put_file(key, path, version)
        return put_file(key, path, version)

    monkeypatch.setattr(backend, "put_file", lost)
    version = place.store.replace_by_file("x", str(path), None)
    assert place.store.read_latest("x") == (b"one", version)


def test_a_backend_without_ways_of_its_own_takes_files_and_gives_parts(
    local_place: LocalPlace, tmp_path: pathlib.Path
):
    backend = local_place.store._backend
    path = tmp_path / "large"
    path.write_bytes(b"0123456789")
    version = Backend.put_file(backend, "x", str(path), None)
    assert Backend.read_range(backend, "x", version, 2, 5) == b"234"


def test_a_part_of_an_object_is_read_in_the_version_that_was_listed(place: Place):
    place.put("a.flac", b"0123456789")
    [info] = scanned(place.store)
    assert place.store.read_range(info, 2, 5) == b"234"
    assert place.store.read_range(info, 0, 10) == b"0123456789"
    place.put("a.flac", b"9876543210!")
    with pytest.raises(ObjectChangedError, match=r"a\.flac was deleted or overwritten after it was listed"):
        place.store.read_range(info, 2, 5)
    place.delete("a.flac")
    with pytest.raises(ObjectChangedError):
        place.store.read_range(info, 2, 5)
