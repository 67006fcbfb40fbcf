"""The store's client against each fault on its own, passing and lasting."""

import datetime as dt
import json
import pathlib
import random
import re
import threading
import time

import pytest

from audio_assets.errors import ConflictError, ObjectRefusedError, StorageError
from audio_assets.storage import ObjectInfo, ObjectStore, RetryPolicy
from audio_assets.storage.types import WRITE_PROBE
from audio_assets_tests.support.faulty_server import FAULTS, FaultyServer, Plan
from audio_assets_tests.support.places import S3Place

BODY = bytes(range(256)) * 8
# As few as show the difference between what passes and what lasts; a busy machine answers later than in 1 s.
TWICE = RetryPolicy(attempts=2, stall_s=2.0)


@pytest.fixture
def store(bucket: S3Place) -> ObjectStore:
    return ObjectStore(bucket.uri, retries=TWICE)


def once(method: str, part: str, fault: str) -> Plan:
    return Plan(always={(method, part): fault}, times=1)


def listed(bucket: S3Place, key: str = "a.flac") -> ObjectInfo:
    bucket.put(key, BODY)
    [found] = [o for _, page in bucket.store.scan() for o in page if o.key == key]
    return found


# --- what passes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a.flac", "odd//a.flac"])
def test_a_read_outlives_every_fault_and_says_what_it_met(
    faulty: FaultyServer, bucket: S3Place, store: ObjectStore, key: str
):
    info = listed(bucket, key)
    for fault in FAULTS["GET"]:
        met: list[str] = []
        faulty.plan = once("GET", "a.flac", fault)
        assert store.read(info, met.append) == BODY, fault
        assert len(met) == 1, fault


def test_a_table_file_outlives_every_fault(faulty: FaultyServer, store: ObjectStore):
    store.replace("x.parquet", BODY, None)
    for fault in FAULTS["GET"]:
        faulty.plan = once("GET", "x.parquet", fault)
        assert (store.read_latest("x.parquet") or (b"", ""))[0] == BODY, fault
        assert faulty.plan.injected["GET", fault] == 1


def test_a_write_outlives_every_fault_also_where_only_its_answer_was_lost(
    faulty: FaultyServer, store: ObjectStore
):
    for i, fault in enumerate(FAULTS["PUT"]):
        key = f"{i}.parquet"
        version = None
        for body in (BODY, BODY[::-1]):
            faulty.plan = once("PUT", key, fault)
            store.replace(key, body, version)
            assert faulty.plan.injected["PUT", fault] == 1
            found, version = store.read_latest(key) or (b"", "")
            assert found == body, fault


def test_a_deletion_outlives_every_fault_also_where_only_its_answer_was_lost(
    faulty: FaultyServer, store: ObjectStore
):
    for fault in FAULTS["DELETE"]:
        version = store.replace("x.parquet", BODY, None)
        faulty.plan = once("DELETE", "x.parquet", fault)
        store.delete("x.parquet", version)
        assert faulty.plan.injected["DELETE", fault] == 1
        assert store.read_latest("x.parquet") is None, fault


@pytest.mark.parametrize("fault", [fault for fault in FAULTS["GET"] if fault != "damaged"])
def test_a_stream_goes_on_where_it_broke(
    faulty: FaultyServer, bucket: S3Place, store: ObjectStore, fault: str
):
    body = random.Random(0).randbytes(5_000_000)
    bucket.put("a.parquet", body)
    faulty.plan = once("GET", "a.parquet", fault)
    pieces = list(store.stream("a.parquet"))
    assert b"".join(pieces) == body
    assert len(pieces) > 1
    assert faulty.plan.injected["GET", fault] == 1


def test_a_stream_of_a_file_that_is_replaced_meanwhile_fails_by_name(
    faulty: FaultyServer, bucket: S3Place, store: ObjectStore
):
    bucket.put("a.parquet", bytes(5_000_000))
    faulty.plan = once("GET", "a.parquet", "truncated")
    pieces = store.stream("a.parquet")
    next(pieces)
    bucket.put("a.parquet", b"another")
    with pytest.raises(StorageError, match=r"cannot read s3://.+/a\.parquet: "):
        list(pieces)


@pytest.mark.parametrize("folder", ["a/", "a//"])
def test_listings_outlive_every_fault(faulty: FaultyServer, bucket: S3Place, store: ObjectStore, folder: str):
    # From a key with an empty name on, it is boto3 that lists.
    keys = [f"{folder}{i}.flac" for i in range(3)]
    for key in keys:
        bucket.put(key, b"x")
    for fault in FAULTS["LIST"]:
        faulty.plan = once("LIST", bucket.bucket, fault)
        assert [o.key for _, page in store.scan(folder) for o in page] == keys, fault
        assert faulty.plan.injected["LIST", fault] == 1


def test_listings_of_tables_outlive_every_fault(faulty: FaultyServer, bucket: S3Place, store: ObjectStore):
    keys = [f"a/{i}.parquet" for i in range(3)]
    for key in keys:
        bucket.put(key, b"x")
    for fault in FAULTS["LIST"]:
        faulty.plan = once("LIST", bucket.bucket, fault)
        assert [key for key, _ in store.list_files("a/")] == keys, fault
        assert faulty.plan.injected["LIST", fault] == 1


def test_a_listing_that_fails_in_the_middle_goes_on_there(faulty: FaultyServer, bucket: S3Place):
    # The server takes a second for a thousand objects where the machine is busy, which is no stall.
    store = ObjectStore(bucket.uri, retries=RetryPolicy(attempts=2, stall_s=60.0))
    keys = [f"a/{i:04}.flac" for i in range(1_001)]
    for key in keys:
        bucket.put(key)
    faulty.plan = Plan(always={("LIST", "continuation-token"): "500"}, times=1)
    assert [key for key, _ in store.list_files("a/")] == keys
    assert faulty.plan.injected.total() == 1


@pytest.mark.parametrize("fault", ["reset before", "500"])
def test_a_file_that_another_run_replaced_is_not_deleted_however_often_it_is_tried(
    faulty: FaultyServer, store: ObjectStore, fault: str
):
    version = store.replace("x.parquet", b"old", None)
    newer = store.replace("x.parquet", b"newer", version)
    faulty.plan = once("DELETE", "x.parquet", fault)
    with pytest.raises(ConflictError, match=r"x\.parquet was replaced by another run"):
        store.delete("x.parquet", version)
    assert store.read_latest("x.parquet") == (b"newer", newer)


@pytest.mark.parametrize("fault", ["reset after", "stall after"])
def test_a_write_that_another_run_overtook_is_a_conflict_although_its_answer_was_lost(
    faulty: FaultyServer, store: ObjectStore, fault: str
):
    store.replace("x.parquet", b"old", None)
    _, version = store.read_latest("x.parquet") or (b"", "")
    store.replace("x.parquet", b"newer", version)
    faulty.plan = once("PUT", "x.parquet", fault)
    with pytest.raises(ConflictError, match=r"x\.parquet was replaced by another run"):
        store.replace("x.parquet", BODY, version)
    assert (store.read_latest("x.parquet") or (b"", ""))[0] == b"newer"


def test_credentials_are_renewed_before_they_expire(
    faulty: FaultyServer, bucket: S3Place, store: ObjectStore, credentials: pathlib.Path
):
    info = listed(bucket)
    met: list[str] = []
    issued = json.loads(credentials.read_text())
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=9)
    credentials.write_text(json.dumps(issued | {"Expiration": soon.isoformat()}))
    store = ObjectStore(bucket.uri, retries=TWICE)
    assert store.read(info, met.append) == BODY
    # The store goes on taking the old token for as long as it is valid; whoever asks should be early.
    faulty.issue_token(expire=False)
    time.sleep(0.2)
    assert store.read(info, met.append) == BODY
    assert faulty.token in faulty.tokens
    assert met == []


def test_credentials_that_are_half_written_when_they_are_fetched_are_fetched_again(
    faulty: FaultyServer, bucket: S3Place, credentials: pathlib.Path
):
    info = listed(bucket)
    store = ObjectStore(bucket.uri, retries=RetryPolicy(attempts=10, stall_s=1.0))
    faulty.issue_token()
    issued = credentials.read_text()
    credentials.write_text(issued[: len(issued) // 2])
    writer = threading.Timer(0.3, credentials.write_text, [issued])
    writer.start()
    assert store.read(info) == BODY
    writer.join()


@pytest.mark.parametrize("fault", FAULTS["PUT"])
def test_whether_writes_are_conditional_is_learnt_under_every_fault(
    faulty: FaultyServer, bucket: S3Place, store: ObjectStore, fault: str
):
    faulty.plan = once("PUT", WRITE_PROBE, fault)
    assert store.conditional_writes
    assert faulty.plan.injected["PUT", fault] == 1
    assert store.read_latest(WRITE_PROBE) is not None


# --- what lasts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "asked"),
    [("500", 2), ("503", 2), ("reset before", 2), ("stall before", 2), ("stall amid", 2), ("denied", 1)],
)
def test_a_listing_that_keeps_failing_is_asked_for_no_oftener_than_it_should(
    faulty: FaultyServer, bucket: S3Place, store: ObjectStore, fault: str, asked: int
):
    # Each of them may last for as long as a stall.
    bucket.put("a/1.flac", b"x")
    for listing in (store.scan(), store.scan_folder("a/"), store.list_files("a/")):
        faulty.plan = Plan(always={("LIST", bucket.bucket): fault})
        with pytest.raises(StorageError, match=f"cannot list {re.escape(bucket.uri)}"):
            list(listing)
        assert faulty.plan.injected["LIST", fault] == asked


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "InternalError: We encountered an internal error (2 attempts)"),
        ("503", "SlowDown: Please reduce your request rate (2 attempts)"),
        ("reset before", "(2 attempts)"),
        ("stall amid", "(2 attempts)"),
        ("truncated", "(2 attempts)"),
        ("damaged", "came with other bytes than its ETag stands for (2 attempts)"),
        ("denied", "mend AWS_PROFILE or AWS_ACCESS_KEY_ID and its like, or what they may do there"),
        ("archived", "not valid for the object's storage class; restore it from the archive"),
    ],
)
def test_a_read_that_keeps_failing_names_object_and_reason(
    faulty: FaultyServer, bucket: S3Place, store: ObjectStore, fault: str, reason: str
):
    info = listed(bucket)
    faulty.plan = Plan(always={("GET", "a.flac"): fault})
    with pytest.raises(
        StorageError, match=f"cannot read {re.escape(bucket.uri)}/a.flac: .*{re.escape(reason)}$"
    ):
        store.read(info)


@pytest.mark.parametrize("fault", ["500", "reset after", "stall before", "damaged", "denied"])
def test_a_write_that_keeps_failing_names_the_file(faulty: FaultyServer, store: ObjectStore, fault: str):
    faulty.plan = Plan(always={("PUT", "x.parquet"): fault})
    with pytest.raises(StorageError, match=f"cannot write {re.escape(store.uri)}/x.parquet: "):
        store.replace("x.parquet", BODY, None)


def test_a_deletion_that_is_denied_names_the_file(faulty: FaultyServer, store: ObjectStore):
    version = store.replace("x.parquet", BODY, None)
    faulty.plan = Plan(always={("DELETE", "x.parquet"): "denied"})
    with pytest.raises(StorageError, match=f"cannot delete {re.escape(store.uri)}/x.parquet: AccessDenied"):
        store.delete("x.parquet", version)


def test_what_is_denied_is_asked_for_once(faulty: FaultyServer, bucket: S3Place, store: ObjectStore):
    info = listed(bucket)
    faulty.plan = Plan(always={("GET", "a.flac"): "denied"})
    with pytest.raises(StorageError, match="AccessDenied"):
        store.read(info)
    assert faulty.plan.injected["GET", "denied"] == 1


@pytest.mark.parametrize(
    ("fault", "of_the_object"),
    [("archived", True), ("denied", True), ("500", False), ("unknown account", False)],
)
def test_what_is_refused_of_one_object_is_told_from_what_concerns_all(
    faulty: FaultyServer, bucket: S3Place, store: ObjectStore, fault: str, of_the_object: bool
):
    info = listed(bucket)
    faulty.plan = Plan(always={("GET", "a.flac"): fault})
    with pytest.raises(StorageError) as error:
        store.read(info)
    assert isinstance(error.value, ObjectRefusedError) == of_the_object


def test_credentials_that_nobody_renews_are_reported_at_once(
    faulty: FaultyServer, bucket: S3Place, monkeypatch: pytest.MonkeyPatch
):
    info = listed(bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "long ago")
    with pytest.raises(
        StorageError, match=r"a\.flac: ExpiredToken: The provided token has expired; mend AWS_"
    ):
        ObjectStore(bucket.uri).read(info)


# --- ETags ----------------------------------------------------------------------------------------------


def test_an_etag_that_is_no_md5_costs_one_second_read_once(
    faulty: FaultyServer, bucket: S3Place, store: ObjectStore
):
    # As under SSE-KMS: 32 hexadecimal digits, and yet no MD5.
    for key in ("a.flac", "b.flac"):
        bucket.put(key, BODY)
        stored = bucket.backend.get_object(bucket.bucket, bucket.prefix + key)
        assert stored
        stored._etag = "0" * 32
    met: list[str] = []
    assert [store.read(info, met.append) for _, page in store.scan() for info in page] == [BODY, BODY]
    assert len(met) == 1
