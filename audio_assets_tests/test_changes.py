"""Every kind of change in a bucket on S3: the table follows it, and nothing is done twice.

A change is made, the sensor ticks and its runs are executed until it is content. Then the table has exactly
the bucket's objects, in the folders and minutes where they lie, and each clip was computed once for each
place and content that it had.
"""

import collections
import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterator

import boto3
import dagster as dg
import pytest
from dagster._core.storage.tags import RUN_KEY_TAG

from audio_assets.partitions import FolderMinute
from audio_assets.source import AudioSource
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.places import S3Place
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.sqs import Queue

pytestmark = pytest.mark.parametrize("place", ["s3"], indirect=True)

FLACS = [flac(0.1, seed) for seed in range(4)]
LATER = UPLOADED + dt.timedelta(minutes=5)


@dataclasses.dataclass
class Bucket:
    """A bucket on S3, and the project that looks at it.

    Attributes:
        followed: called whenever the table has followed the bucket.
        queue: that the bucket tells of its changes, None where it is listed.
    """

    project: Project
    followed: Callable[[], None]
    queue: Queue | None

    @property
    def place(self) -> S3Place:
        assert isinstance(self.project.place, S3Place)
        return self.project.place

    def put(self, key: str, content: int = 0, uploaded: dt.datetime = UPLOADED) -> None:
        self.place.put(key, FLACS[content], uploaded)

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.place.delete(key)

    def tell(self, key: str, event: str) -> None:
        """Send the message that S3 sends, where the test server sends none."""
        if self.queue is not None:
            about = {"bucket": {"name": self.place.bucket}, "object": {"key": self.place.prefix + key}}
            self.queue.send(json.dumps({"Records": [{"eventName": event, "s3": about}]}))

    @property
    def objects(self) -> dict[str, tuple[str, str]]:
        """ETag and partition of each object, by key."""
        pages = boto3.client("s3").get_paginator("list_objects_v2")
        found = {}
        for page in pages.paginate(Bucket=self.place.bucket, Prefix=self.place.prefix):
            for listed in page.get("Contents", []):
                key = listed["Key"].removeprefix(self.place.prefix)
                if not key.startswith("output_parquet/"):
                    partition = FolderMinute.of(key, listed["LastModified"])
                    found[key] = listed["ETag"].strip('"'), partition.key
        return found

    @property
    def rows(self) -> dict[str, tuple[str, str]]:
        """ETag and partition of each row, by key."""
        table = self.project.table()
        assert table["Key"].is_unique
        minutes = [
            dt.datetime.combine(day, dt.time(hour, minute), dt.UTC)
            for day, hour, minute in zip(
                *(table[f"LastModified{name}"] for name in ("Date", "Hour", "Minute")), strict=True
            )
        ]
        partitions = map(FolderMinute, table["FolderName"], minutes)
        return {
            key: (etag, partition.key)
            for key, etag, partition in zip(table["Key"], table["ETag"], partitions, strict=True)
        }

    def computed(self) -> collections.Counter[str]:
        """Clips that were transcribed by folder, since the instance was made."""
        found = self.project.instance.fetch_materializations(dg.AssetKey("transcripts"), limit=1000).records
        clips: collections.Counter[str] = collections.Counter()
        for record in found:
            folder = FolderMinute.parse(record.partition_key or "").folder
            made = record.asset_materialization
            computed = made.metadata["clips_computed"].value if made else 0
            assert isinstance(computed, int)
            clips[folder] += computed
        return clips

    def follow(self) -> dict[str, int]:
        """Let the table follow the bucket; gives the clips that were computed for it, by folder."""
        before = self.computed()
        self.project.catch_up()
        assert self.rows == self.objects
        assert self.project.tick() == []
        self.followed()
        return dict(self.computed() - before)


@pytest.fixture(params=["listing", "events"])
def bucket(
    request: pytest.FixtureRequest, s3_server: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bucket]:
    """A bucket that each tick lists, or that tells of its changes once it has been listed."""
    # What is said in noise makes no difference here, and to find its language takes as long again.
    monkeypatch.setenv("WHISPER_LANGUAGE", "en")
    project.reload()
    if request.param == "listing":
        yield Bucket(project, lambda: None, None)
        return

    def fail(*_: object) -> None:
        raise AssertionError("the whole bucket is listed")

    assert isinstance(project.place, S3Place)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", s3_server)
    queue = Queue(project.place, s3_server)
    monkeypatch.setenv("AUDIO_EVENTS_QUEUE_URL", queue.url)
    project.reload()
    yield Bucket(project, lambda: monkeypatch.setattr(AudioSource, "digests", fail), queue)


# Where it makes no difference how the sensor learns of a change.
listed = pytest.mark.parametrize("bucket", ["listing"], indirect=True)


# --- objects come, change and go ------------------------------------------------------------------------

State = dict[str, tuple[int, int]]
"""The objects of a folder: by name their content, and their seconds since `UPLOADED`."""


@dataclasses.dataclass(frozen=True)
class Change:
    """What a folder holds, one state after another, and how many clips each state costs."""

    states: list[State]
    clips: list[int]


A = (0, 0)
B = (1, 0)
CHANGES = {
    "an object in a second that was looked at": Change(
        [{"a": A, "b": B}, {"a": A, "aa": (2, 0), "b": B}], [2, 1]
    ),
    "an object in an earlier minute": Change([{"a": A}, {"a": A, "b": (1, -600)}], [1, 1]),
    "the same bytes in the same minute": Change([{"a": A}, {"a": (0, 20)}], [1, 0]),
    "the same bytes in another minute": Change([{"a": A, "b": B}, {"a": (0, 300), "b": B}], [2, 1]),
    "other bytes in the same minute": Change([{"a": A, "b": B}, {"a": (2, 0), "b": B}], [2, 1]),
    "other bytes in a later minute": Change([{"a": A, "b": B}, {"a": (2, 300), "b": B}], [2, 1]),
    "other bytes in an earlier minute": Change([{"a": A, "b": B}, {"a": (2, -300), "b": B}], [2, 1]),
    "two objects swap their bytes": Change([{"a": A, "b": B}, {"a": B, "b": A}], [2, 2]),
    "two objects swap their minutes": Change([{"a": A, "b": (1, 300)}, {"a": (0, 300), "b": B}], [2, 2]),
    "a deleted object": Change([{"a": A, "b": B}, {"b": B}], [2, 0]),
    "a deleted folder": Change([{"a": A, "b": (1, 60), "c/d": B}, {}], [3, 0]),
    "gone and back as it was": Change([{"a": A, "b": B}, {"b": B}, {"a": A, "b": B}], [2, 0, 1]),
    "gone and back, all of it": Change([{"a": A}, {}, {"a": A}], [1, 0, 1]),
    "there and back again": Change([{"a": A}, {"a": (0, 300)}, {"a": A}], [1, 1, 1]),
    "nothing happens": Change([{"a": A}], [1]),
}


def test_the_table_follows_every_change_and_computes_no_clip_twice(bucket: Bucket):
    now: dict[str, State] = {name: {} for name in CHANGES}
    for step in range(3):
        expected = {}
        for name, change in CHANGES.items():
            if step >= len(change.states):
                continue
            state = change.states[step]
            for key in now[name].keys() - state.keys():
                bucket.delete(f"{name}/{key}.flac")
            for key, (content, seconds) in state.items():
                if now[name].get(key) != (content, seconds):
                    bucket.put(f"{name}/{key}.flac", content, UPLOADED + dt.timedelta(seconds=seconds))
            now[name] = state
            expected[name] = change.clips[step]
        clips = collections.Counter(bucket.follow())
        clips["a deleted folder"] += clips.pop("a deleted folder/c", 0)
        assert {name: clips[name] for name in expected} == expected
        assert (+clips).keys() <= expected.keys()
    folders = {FolderMinute.parse(key).folder for key in bucket.project.partition_keys}
    assert folders == CHANGES.keys() - {"a deleted folder"}


# --- times that deceive ---------------------------------------------------------------------------------


def test_a_multipart_upload_that_appears_with_the_time_at_which_it_began(bucket: Bucket):
    bucket.put("p225/a.flac", 0)
    bucket.put("p225/later.flac", 1, LATER)
    bucket.follow()
    where = {"Bucket": bucket.place.bucket, "Key": f"{bucket.place.prefix}p225/large.flac"}
    s3 = boto3.client("s3")
    upload = {**where, "UploadId": s3.create_multipart_upload(**where)["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=FLACS[2])
    s3.complete_multipart_upload(
        **upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    )
    stored = bucket.place.backend.get_object(where["Bucket"], where["Key"])
    assert stored is not None
    assert "-1" in stored.etag
    stored.last_modified = UPLOADED.replace(tzinfo=None)
    assert bucket.follow() == {"p225": 1}


@listed
def test_objects_dated_in_the_future(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    ahead = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=30)
    bucket.put("p225/a.flac", 0)
    bucket.put("p225/ahead.flac", 1, ahead)
    assert bucket.project.catch_up() == 1
    assert set(bucket.rows) == {"p225/a.flac"}
    # What passes is time; here it is the settings that move on.
    monkeypatch.setenv("SETTLE_SECONDS", "-7200")
    assert bucket.follow() == {"p225": 1}
    bucket.put("p225/ahead2.flac", 2, ahead)
    assert bucket.follow() == {"p225": 1}


# --- between looking and doing --------------------------------------------------------------------------


def test_objects_that_come_change_and_go_between_the_listing_and_the_run(bucket: Bucket):
    bucket.put("p225/a.flac", 0)
    bucket.put("p225/b.flac", 1)
    bucket.put("p226/c.flac", 1)
    [request] = bucket.project.tick()
    bucket.put("p225/a.flac", 2)
    bucket.delete("p225/b.flac")
    bucket.put("p225/d.flac", 3)
    bucket.put("p225/e.flac", 3, LATER)
    assert bucket.project.execute(request).success
    # The run found the bucket as it was by then; only what it did not cover is left.
    assert bucket.computed().total() == 3
    assert bucket.follow() == {"p225": 1}


def test_two_daemons_that_tick_at_once(bucket: Bucket):
    bucket.put("p225/a.flac", 0)
    bucket.put("p225/b.flac", 1, LATER)
    bucket.put("p226/c.flac", 2)
    project = bucket.project
    cursor = project.cursor
    first = project.tick()
    project.cursor = cursor
    second = project.tick()
    executed = 0
    for request in [*first, *second]:
        # So does Dagster, for each sensor.
        if not project.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: request.run_key or ""})):
            assert project.execute(request).success
            executed += 1
    assert (len(first), len(second), executed) == (1, 1, 1)
    assert bucket.computed().total() == 3
    assert bucket.follow() == {}


@listed
def test_two_daemons_that_see_different_buckets(bucket: Bucket):
    bucket.put("p225/a.flac", 0)
    project = bucket.project
    cursor = project.cursor
    first = project.tick()
    bucket.put("p225/b.flac", 1)
    bucket.put("p226/c.flac", 2)
    project.cursor = cursor
    second = project.tick()
    assert first[0].run_key != second[0].run_key
    for request in [*second, *first]:
        assert project.execute(request).success
    assert bucket.computed().total() == 3
    assert bucket.follow() == {}


# --- a bucket with versions -----------------------------------------------------------------------------


def test_a_bucket_that_keeps_versions(bucket: Bucket):
    bucket.place.backend.put_bucket_versioning(bucket.place.bucket, "Enabled")
    bucket.put("p225/a.flac", 0)
    bucket.put("p225/b.flac", 1)
    bucket.put("p225/a.flac", 2, LATER)
    assert bucket.follow() == {"p225": 2}
    bucket.delete("p225/a.flac")
    bucket.tell("p225/a.flac", "ObjectRemoved:DeleteMarkerCreated")
    assert bucket.follow() == {}
    assert set(bucket.objects) == {"p225/b.flac"}
    # Without its delete marker, the newest version counts again.
    listed = boto3.client("s3").list_object_versions(Bucket=bucket.place.bucket, Prefix=bucket.place.prefix)
    # Files of the tables, which lie in the bucket too, have been deleted as well.
    [marker] = [found for found in listed["DeleteMarkers"] if found["Key"].endswith("p225/a.flac")]
    bucket.place.backend.delete_object(bucket.place.bucket, marker["Key"], marker["VersionId"])
    bucket.tell("p225/a.flac", "ObjectRemoved:Delete")
    assert bucket.follow() == {"p225": 1}
    assert set(bucket.objects) == {"p225/a.flac", "p225/b.flac"}
