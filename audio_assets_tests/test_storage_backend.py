"""What every store must do, and a new store plugged in from outside: `memory://name`, a dictionary.

The backend below is all that it takes. Nothing in the package knows of it.
"""

import dataclasses
import datetime as dt
import itertools
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pytest

from audio_assets.digest import digest_partitions
from audio_assets.errors import ConflictError, ObjectChangedError, ObjectRefusedError, StorageError
from audio_assets.partitions import FolderMinute
from audio_assets.source import AudioSource
from audio_assets.storage import BACKENDS, Backend, ObjectInfo, ObjectStore, RetryPolicy
from audio_assets.storage.types import BackendOptions, Failure, Streamed
from audio_assets.table import Table
from audio_assets_tests.support.audio import UPLOADED
from audio_assets_tests.support.places import Place


class Stored(NamedTuple):
    body: bytes
    version: str
    uploaded: dt.datetime


BUCKETS: dict[str, dict[str, Stored]] = {}
"""What lies in memory, by bucket and key."""

_versions = itertools.count()
_lock = threading.Lock()


class MemoryBackend(Backend):
    """`memory://bucket/prefix`. Fails with what is put in `failures`, a request each, before it answers."""

    def __init__(self, uri: str, options: BackendOptions) -> None:
        bucket, _, prefix = uri.partition("://")[2].partition("/")
        self.uri = uri
        self.failures: list[Exception] = []
        self.renewed = 0
        self._bucket = BUCKETS.setdefault(bucket, {})
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def root(self) -> str:
        return self.uri

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop()

    def scan(self, after: str, until: str | None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        inside = {key.removeprefix(self._prefix): s for key, s in self._bucket.items() if self._has(key)}
        for key in sorted(key for key in inside if key > after and (until is None or key <= until)):
            self._fail()
            found = inside[key]
            yield key, [ObjectInfo(key, found.version, len(found.body), found.uploaded)]

    def _has(self, key: str) -> bool:
        return key.startswith(self._prefix)

    def scan_folder(self, folder: str, after: str) -> Iterator[tuple[str, list[ObjectInfo]]]:
        for reached, page in self.scan(max(folder, after), f"{folder}\U0010ffff"):
            yield reached, [o for o in page if "/" not in o.key[len(folder) :]]

    def read(self, key: str, etag: str) -> bytes:
        self._fail()
        found = self._bucket.get(self._prefix + key)
        if found is None or found.version != etag:
            raise ObjectChangedError
        return found.body

    def read_latest(self, key: str) -> tuple[bytes, str] | None:
        self._fail()
        found = self._bucket.get(self._prefix + key)
        return None if found is None else (found.body, found.version)

    def stream(self, key: str, offset: int, version: str | None) -> Streamed:
        found = self._bucket[self._prefix + key]
        return Streamed(found.version, len(found.body), self._pieces(found.body[offset:]))

    def _pieces(self, body: bytes) -> Iterator[bytes]:
        for at in range(0, len(body), 2):
            self._fail()
            yield body[at : at + 2]

    def put(self, key: str, body: bytes, version: str | None) -> str:
        self._fail()
        with _lock:
            found = self._bucket.get(self._prefix + key)
            if version != (found.version if found else None):
                raise ConflictError
            made = Stored(body, str(next(_versions)), UPLOADED)
            self._bucket[self._prefix + key] = made
        return made.version

    def delete(self, key: str, version: str) -> None:
        self._fail()
        with _lock:
            found = self._bucket.get(self._prefix + key)
            if found and found.version != version:
                raise ConflictError
            self._bucket.pop(self._prefix + key, None)

    def has_conditional_writes(self) -> bool:
        return True

    def failure(self, error: Exception) -> Failure:
        known = {ConnectionError: Failure.PASSING, PermissionError: Failure.ONE_OBJECT}
        return known.get(type(error), Failure.EXPIRED if "expired" in str(error) else Failure.LASTING)

    def renew_credentials(self, since: float) -> bool:
        self.renewed += 1
        return True


@dataclasses.dataclass
class MemoryPlace(Place):
    name: str
    objects: dict[str, Stored]

    @property
    def uri(self) -> str:
        return f"memory://{self.name}"

    def put(self, key: str, body: bytes = b"", uploaded: dt.datetime = UPLOADED) -> None:
        self.objects[key] = Stored(body, str(next(_versions)), uploaded)

    def delete(self, key: str) -> None:
        del self.objects[key]


@pytest.fixture
def memory_place(monkeypatch: pytest.MonkeyPatch) -> MemoryPlace:
    monkeypatch.setitem(BACKENDS, "memory", MemoryBackend)
    BUCKETS.clear()
    return MemoryPlace("bucket", BUCKETS.setdefault("bucket", {}))


@pytest.fixture
def backend(memory_place: MemoryPlace, monkeypatch: pytest.MonkeyPatch) -> MemoryBackend:
    """The one backend behind all stores of the place, and no pause between its attempts."""
    opened = MemoryBackend(memory_place.uri, BackendOptions())
    monkeypatch.setitem(BACKENDS, "memory", lambda uri, options: opened)
    monkeypatch.setattr(RetryPolicy, "pause", lambda policy, failures: 0.0)
    return opened


# --- what every store does ------------------------------------------------------------------------------


@pytest.fixture(params=["local", "s3", "memory"])
def any_place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(f"{request.param}_place")


KEYS = sorted(["-", "a-b/1", "a/1", "a/2", "a/b/c/3", "a0", "b/ 1", "é/1", "😀"])


def test_objects_are_listed_in_key_order_from_any_key_on(any_place: Place):
    for key in KEYS:
        any_place.put(key, b"x")
    for after in ("", "a/", "a/1", "a/1~", "b", "é/1", "😀"):
        for until in (None, "a/", "a/2", "zzz"):
            pages = list(any_place.store.scan(after, until))
            expected = [key for key in KEYS if key > after and (until is None or key <= until)]
            assert [o.key for _, page in pages for o in page] == expected
            assert all(o.key <= reached for reached, page in pages for o in page)


def test_a_folder_is_listed_alone_and_its_keys_with_all_below(any_place: Place):
    for key in KEYS:
        any_place.put(key, b"x")
    store = any_place.store
    assert [o.key for page in store.scan_folder("a/") for o in page] == ["a/1", "a/2"]
    assert [o.key for page in store.scan_folder() for o in page] == ["-", "a0", "😀"]
    assert any_place.all_keys("a/") == ["a/1", "a/2", "a/b/c/3"]
    assert any_place.all_keys() == KEYS
    assert any_place.all_keys("nothing/here/") == []


def test_places_to_cut_a_scan_lie_between_its_keys(any_place: Place):
    for key in KEYS:
        any_place.put(key, b"x")
    found = any_place.store.cuts("a/1", "b/")
    assert found == sorted(found)
    assert all("a/1" < cut < "b/" for cut in found)


def test_one_object_is_found_as_it_is_listed(any_place: Place):
    any_place.put("a/b.flac", b"four")
    [listed] = [o for _, page in any_place.store.scan() for o in page]
    assert any_place.store.find("a/b.flac") == listed
    assert (listed.size, listed.last_modified) == (4, UPLOADED)
    assert any_place.store.find("a/b") is None
    assert any_place.store.find("a/c.flac") is None


def test_an_object_is_read_in_the_version_that_was_listed_or_not_at_all(any_place: Place):
    any_place.put("a.flac", b"old")
    [listed] = [o for _, page in any_place.store.scan() for o in page]
    assert any_place.store.read(listed) == b"old"
    any_place.put("a.flac", b"new", UPLOADED + dt.timedelta(seconds=1))
    with pytest.raises(ObjectChangedError, match=f"after it was listed with ETag {listed.etag}"):
        any_place.store.read(listed)
    any_place.delete("a.flac")
    with pytest.raises(ObjectChangedError, match="deleted or overwritten"):
        any_place.store.read(listed)


def test_a_file_that_is_missing_is_none(any_place: Place):
    assert any_place.store.read_latest("nothing/here.parquet") is None
    assert ObjectStore(f"{any_place.uri}/not/yet").read_latest("x.parquet") is None
    assert list(ObjectStore(f"{any_place.uri}/not/yet").list_files("x/")) == []


def test_a_replacement_is_fenced_by_the_version_that_was_read(any_place: Place):
    store = any_place.store
    assert store.conditional_writes
    store.replace("t/x.parquet", b"1", None)
    body, version = store.read_latest("t/x.parquet") or (b"", "")
    assert body == b"1"
    store.replace("t/x.parquet", b"2", version)
    for stale in (version, None):
        with pytest.raises(ConflictError, match=r"t/x\.parquet was replaced by another run"):
            store.replace("t/x.parquet", b"3", stale)
    # The same bytes are there already: whoever wrote them, nothing is lost.
    store.replace("t/x.parquet", b"2", version)
    assert (store.read_latest("t/x.parquet") or (b"", ""))[0] == b"2"
    any_place.delete("t/x.parquet")
    with pytest.raises(ConflictError):
        store.replace("t/x.parquet", b"3", version)


def test_a_file_has_one_version_however_it_is_asked_for(any_place: Place):
    store = any_place.store
    # The second one is larger than what clients like to send in one piece.
    for body in (b"1", bytes(6_000_000)):
        before = store.read_latest("t/x.parquet")
        version = store.replace("t/x.parquet", body, before[1] if before else None)
        assert '"' not in version
        assert store.read_latest("t/x.parquet") == (body, version)
        assert list(store.list_files("t/")) == [("t/x.parquet", version)]
        found = store.find("t/x.parquet")
        assert found
        assert found.etag == version


def test_a_deletion_is_fenced_by_the_version_that_was_read(any_place: Place):
    store = any_place.store
    stale = store.replace("t/x.parquet", b"1", None)
    version = store.replace("t/x.parquet", b"2", stale)
    with pytest.raises(ConflictError, match=r"t/x\.parquet was replaced by another run"):
        store.delete("t/x.parquet", stale)
    assert store.read_latest("t/x.parquet") == (b"2", version)
    store.delete("t/x.parquet", version)
    assert store.read_latest("t/x.parquet") is None
    # Another run was faster: nothing is left to do.
    store.delete("t/x.parquet", version)
    ObjectStore(f"{any_place.uri}/not/yet").delete("t/x.parquet", version)
    store.replace("t/x.parquet", b"3", None)


def test_a_file_is_streamed_whole(any_place: Place):
    any_place.put("report.csv", b"five!" * 1_000)
    assert b"".join(any_place.store.stream("report.csv")) == b"five!" * 1_000
    any_place.put("empty.csv", b"")
    assert b"".join(any_place.store.stream("empty.csv")) == b""
    with pytest.raises(StorageError, match=r"cannot read .*/nothing\.csv"):
        list(any_place.store.stream("nothing.csv"))


def test_a_place_knows_what_lies_inside_it(any_place: Place):
    assert any_place.store.relative(ObjectStore(f"{any_place.uri}/out/put")) == "out/put/"
    assert any_place.store.relative(ObjectStore(any_place.uri)) == ""
    assert any_place.store.relative(ObjectStore(f"{any_place.uri}2")) is None


def test_audio_is_listed_without_the_tables_inside(any_place: Place):
    for key in ("a/1.flac", "a/2.flac", "b/c/3.flac", "out/audio_table/x.parquet", "out2/4.flac"):
        any_place.put(key, b"x")
    source = AudioSource(any_place.store, ObjectStore(f"{any_place.uri}/out"))
    audio = [o for _, page in any_place.store.scan() for o in page if not o.key.startswith("out/")]
    assert len(audio) == 4
    assert source.digests(source.spans()) == (digest_partitions(audio), [])


def test_a_table_is_written_fenced_and_read(any_place: Place):
    table = Table(ObjectStore(f"{any_place.uri}/tables"), "names", pa.schema([("Key", pa.string())]))
    partition = FolderMinute.of("p225/a.flac", UPLOADED)
    empty = table.read(partition)
    assert (empty.rows, list(table.partitions())) == (None, [])
    rows = pa.table({"Key": ["p225/a.flac", "p225/b.flac"]})
    assert table.replace(partition, rows, empty)
    with pytest.raises(ConflictError):
        table.replace(partition, rows.slice(1), empty)
    found = table.read(partition).rows
    assert found is not None
    assert found.to_pylist() == rows.to_pylist()
    assert table.partitions("p225") == [partition]


# --- what is done about a failure, as the backend says --------------------------------------------------


def test_what_may_pass_is_tried_again_and_told(memory_place: MemoryPlace, backend: MemoryBackend):
    memory_place.put("a.flac", b"four")
    [listed] = [o for _, page in memory_place.store.scan() for o in page]
    met: list[str] = []
    backend.failures = [ConnectionError("broken pipe")] * 2
    assert memory_place.store.read(listed, met.append) == b"four"
    assert met == ["broken pipe"] * 2
    backend.failures = [ConnectionError("broken pipe")] * 3
    store = ObjectStore(memory_place.uri, name="AUDIO_SOURCE_URI", retries=RetryPolicy(attempts=3))
    with pytest.raises(StorageError, match=r"a\.flac: broken pipe \(3 attempts\) \(AUDIO_SOURCE_URI\)$"):
        store.read(listed)


def test_a_listing_or_stream_that_breaks_goes_on_at_what_it_reached(
    memory_place: MemoryPlace, backend: MemoryBackend
):
    keys = ["a/1", "a/2", "a/b/3"]
    for key in keys:
        memory_place.put(key, b"a longer text")
    store = ObjectStore(memory_place.uri, retries=RetryPolicy(attempts=2))
    for listing, expected in (
        ((o.key for _, page in store.scan() for o in page), keys),
        ((key for key, _ in store.list_files("a/")), keys),
        ((o.key for page in store.scan_folder("a/") for o in page), keys[:2]),
    ):
        found: list[str] = []
        for key in listing:
            found.append(key)
            backend.failures = [ConnectionError("broken pipe")]
        assert found == expected
    pieces: list[bytes] = []
    for piece in store.stream("a/1"):
        pieces.append(piece)
        backend.failures = [ConnectionError("broken pipe")]
    assert b"".join(pieces) == b"a longer text"


def test_expired_credentials_are_renewed(memory_place: MemoryPlace, backend: MemoryBackend):
    memory_place.put("x", b"1")
    backend.failures = [RuntimeError("token expired")]
    assert memory_place.store.read_latest("x") is not None
    assert backend.renewed == 1


def test_an_object_that_is_refused_is_told_from_a_store_that_fails(
    memory_place: MemoryPlace, backend: MemoryBackend
):
    memory_place.put("a.flac", b"four")
    store = ObjectStore(memory_place.uri, name="AUDIO_SOURCE_URI")
    [listed] = [o for _, page in store.scan() for o in page]
    backend.failures = [PermissionError("not yours")]
    # It becomes the error of a row, which no setting is to blame for.
    with pytest.raises(ObjectRefusedError, match=r"cannot read memory://bucket/a\.flac: not yours$"):
        store.read(listed)
    backend.failures = [RuntimeError("no such account")]
    with pytest.raises(StorageError, match=r"no such account \(AUDIO_SOURCE_URI\)$") as error:
        store.read(listed)
    assert not isinstance(error.value, ObjectRefusedError)
    # Only an object that was listed can be refused alone.
    backend.failures = [PermissionError("not yours")]
    with pytest.raises(StorageError, match=r"not yours \(AUDIO_SOURCE_URI\)$") as error:
        store.replace("x.parquet", b"1", None)
    assert not isinstance(error.value, ObjectRefusedError)


def test_a_lost_answer_to_a_write_that_took_effect_is_no_conflict(
    memory_place: MemoryPlace, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
):
    put = backend.put

    def put_and_lose_the_answer(key: str, body: bytes, version: str | None) -> str:
        put(key, body, version)
        raise ConnectionError("broken pipe")

    monkeypatch.setattr(backend, "put", put_and_lose_the_answer)
    version = memory_place.store.replace("x.parquet", b"1", None)
    assert memory_place.store.read_latest("x.parquet") == (b"1", version)


def test_a_server_that_finds_no_version_in_a_deleted_file_reports_no_conflict(
    memory_place: MemoryPlace, backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
):
    delete = backend.delete
    version = memory_place.store.replace("x.parquet", b"1", None)

    def delete_and_lose_the_answer(key: str, version: str) -> None:
        if key not in memory_place.objects:
            raise ConflictError
        delete(key, version)
        raise ConnectionError("broken pipe")

    monkeypatch.setattr(backend, "delete", delete_and_lose_the_answer)
    memory_place.store.delete("x.parquet", version)
    assert memory_place.objects == {}


# --- schemes --------------------------------------------------------------------------------------------


def test_a_scheme_that_nobody_knows_is_refused_with_those_that_are_known(memory_place: MemoryPlace):
    with pytest.raises(ValueError, match=r"'gs://b' is no location; .*schemes: file, memory, s3\) \(NAME\)$"):
        ObjectStore("gs://b", name="NAME")
