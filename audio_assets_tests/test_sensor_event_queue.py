"""Event mode: what S3 tells through SQS leads to the same table as listing; the server really sends it."""

import datetime as dt
import json
import logging
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_assets.digest import Digest
from audio_assets.errors import EventQueueError
from audio_assets.partitions import FolderMinute
from audio_assets.sensor import event_queue, marked_folders, state, tick
from audio_assets.sensor.event_queue import Event, EventQueue, parse_message
from audio_assets.sensor.full_scan import FullScan
from audio_assets.sensor.marked_folders import mark_differing
from audio_assets.sensor.run_requests import FolderContents, Plan
from audio_assets.sensor.state import Cursor, ReportProgress
from audio_assets.source import AudioSource, Span
from audio_assets.storage import ObjectInfo
from audio_assets_tests.support.audio import MINUTE, UPLOADED
from audio_assets_tests.support.places import S3Place
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.sqs import Queue

MINUTE_KEY = "2023-08-24-00:21"
NEW = ObjectInfo("p225/a", "e", 1, UPLOADED)


def record(key: str, kind: str = "ObjectCreated:Put", bucket: str = "b") -> dict[str, Any]:
    return {"eventName": kind, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}


def message(*records: dict[str, Any]) -> str:
    return json.dumps({"Records": records})


# --- messages -------------------------------------------------------------------------------------------


def test_a_notification_says_what_was_created_and_removed():
    body = message(
        record("a/1.flac"),
        record("a/2.flac", "ObjectRemoved:DeleteMarkerCreated"),
        record("a/3.flac", "s3:ObjectCreated:CompleteMultipartUpload"),
        record("a/4.flac", "LifecycleExpiration:Delete"),
        record("a/5.flac", "ObjectTagging:Put"),
    )
    assert parse_message(body) == [
        Event("b", "a/1.flac", False),
        Event("b", "a/2.flac", True),
        Event("b", "a/3.flac", False),
        Event("b", "a/4.flac", True),
    ]


def test_keys_are_decoded():
    [event] = parse_message(message(record("pre+fix%2Fp%2Bq%2F%C3%BC%25.flac")))
    assert event.key == "pre fix/p+q/ü%.flac"


def test_a_notification_that_sns_passes_on_is_read():
    body = json.dumps({"Type": "Notification", "Message": message(record("a/1.flac"))})
    assert parse_message(body) == [Event("b", "a/1.flac", False)]


@pytest.mark.parametrize(("kind", "removed"), [("Object Created", False), ("Object Deleted", True)])
def test_a_notification_of_eventbridge_is_read(kind: str, removed: bool):
    detail = {"bucket": {"name": "b"}, "object": {"key": "a b+c/1.flac"}}
    body = json.dumps({"detail-type": kind, "source": "aws.s3", "detail": detail})
    assert parse_message(body) == [Event("b", "a b+c/1.flac", removed)]


def test_a_test_message_says_nothing():
    assert parse_message('{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}') == []


MALFORMED = ["", "no json", "[]", "null", "{}", '{"Records": 1}', '{"Records": [{}]}', '{"Message": "x"}']


@pytest.mark.parametrize("body", [*MALFORMED, '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {}}]}'])
def test_what_is_no_notification_is_an_error(body: str):
    with pytest.raises(ValueError, match="no notification of S3"):
        parse_message(body)


# --- the cursor -----------------------------------------------------------------------------------------

infos = st.builds(ObjectInfo, st.text(min_size=1), st.text(), st.integers(0), st.just(UPLOADED))
cursors = st.builds(
    Cursor,
    st.just(FullScan((Span("a", None),))) | st.just(FullScan()),
    st.none() | st.floats(0, 1e10),
    st.lists(st.text(), unique=True).map(tuple),
    st.lists(infos, unique_by=lambda o: o.key).map(lambda found: {o.key: o for o in found}),
    st.builds(ReportProgress, st.text(), st.integers(0)),
)


@given(cursors)
def test_what_is_known_between_two_ticks_is_read_back(cursor: Cursor):
    assert Cursor.from_json(cursor.to_json()) == cursor


def test_more_than_a_cursor_should_hold_is_found_by_a_full_scan_instead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marked_folders, "MOST_MARKED", 2)
    nothing = (FolderContents(set(), {}), {}, Plan([], [], [], 0))
    few = Cursor(full_scan_began=1.0, marked=("a", "b"))
    assert mark_differing(few, *nothing, starved=False).marked == ("a", "b")
    many = Cursor(full_scan_began=1.0, marked=("a", "b", "c"))
    assert mark_differing(many, *nothing, starved=False) == Cursor()


@pytest.mark.parametrize(
    ("objects", "starved", "created", "following"),
    [
        (1_000, True, {}, Cursor(full_scan_began=1.0, marked=("p225",))),
        (1_001, True, {}, Cursor()),
        # Its run is on its way, or an event keeps it in sight: a bucket that is busy is not scanned for ever.
        (1_001, False, {}, Cursor(full_scan_began=1.0)),
        (1_001, True, {"p225/a": NEW}, Cursor(full_scan_began=1.0, created={"p225/a": NEW})),
    ],
)
def test_what_waits_in_a_folder_too_large_to_list_is_scanned_again_at_once(
    monkeypatch: pytest.MonkeyPatch, objects: int, starved: bool, created: dict, following: Cursor
):
    monkeypatch.setattr(marked_folders, "LARGE_PAGES", 1)
    partition = FolderMinute("p225", MINUTE)
    contents = FolderContents({"p225"}, {partition: Digest(objects, 7)})
    decided = Plan([], [], [], 0, {"p225"}, {partition.key})
    known = Cursor(full_scan_began=1.0, created=created)
    assert mark_differing(known, contents, {}, decided, starved=starved) == following
    done = {partition.key: str(Digest(objects, 7))}
    after = mark_differing(known, contents, done, Plan([], [], [], 0), starved=starved)
    assert after == Cursor(full_scan_began=1.0)


# --- ticks ----------------------------------------------------------------------------------------------


@pytest.fixture
def place(s3_place: S3Place) -> S3Place:
    return s3_place


@pytest.fixture
def queue(s3_server: str, place: S3Place, project: Project, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """The project in event mode."""
    queue = Queue(place, s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", s3_server)
    monkeypatch.setenv("AUDIO_EVENTS_QUEUE_URL", queue.url)
    project.reload()
    return queue


@pytest.fixture
def settled(queue: Queue, place: S3Place, project: Project) -> None:
    """Two objects are in the table."""
    place.put("p225/a.txt", b"1")
    place.put("p226/b.txt", b"2")
    assert project.catch_up() == 1
    project.tick()
    assert queue.messages == 0


@pytest.fixture
def no_full_scan(settled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing but folders is listed."""

    def fail(*_: object) -> None:
        raise AssertionError("the whole bucket is listed")

    monkeypatch.setattr(AudioSource, "digests", fail)


def rows(project: Project) -> dict[str, int]:
    table = project.table(columns=["Key", "Size"])
    return dict(zip(table["Key"], table["Size"], strict=True))


@pytest.mark.usefixtures("no_full_scan")
def test_what_is_created_overwritten_and_removed_is_followed_without_listing_the_bucket(
    queue: Queue, place: S3Place, project: Project
):
    place.put("p225/new.txt", b"new")
    place.put("p226/b.txt", b"other")
    place.put("p 2+7/ü.txt", b"x")
    assert project.catch_up() == 1
    assert rows(project) == {"p225/a.txt": 1, "p225/new.txt": 3, "p226/b.txt": 5, "p 2+7/ü.txt": 1}
    place.put("p225/new.txt", b"moved", UPLOADED + dt.timedelta(minutes=1))
    place.delete("p226/b.txt")
    assert project.catch_up() == 1
    assert rows(project) == {"p225/a.txt": 1, "p225/new.txt": 5, "p 2+7/ü.txt": 1}
    assert project.tick() == []
    assert f"p226@{MINUTE_KEY}" not in project.partition_keys
    assert queue.messages == 0
    assert json.loads(project.cursor or "").keys() == {"full_scan_began"}


@pytest.mark.usefixtures("no_full_scan")
def test_events_that_come_again_late_or_in_another_order_ask_for_nothing(
    queue: Queue, place: S3Place, project: Project
):
    root = place.prefix.replace(" ", "+")
    created = message(record(f"{root}p225/new.txt", bucket=place.bucket))
    removed = message(record(f"{root}p225/new.txt", "ObjectRemoved:Delete", place.bucket))
    queue.send(removed)
    place.put("p225/new.txt", b"new")
    for body in (created, created, removed):
        queue.send(body)
    assert project.catch_up() == 1
    for body in (removed, created, removed):
        queue.send(body)
    assert project.catch_up() == 0
    project.tick()
    assert queue.messages == 0
    assert rows(project) == {"p225/a.txt": 1, "p225/new.txt": 3, "p226/b.txt": 1}


@pytest.mark.usefixtures("no_full_scan")
def test_messages_that_say_nothing_are_logged_and_removed_and_stop_no_other(
    queue: Queue, place: S3Place, project: Project, caplog: pytest.LogCaptureFixture
):
    for body in filter(None, MALFORMED):
        queue.send(body)
    queue.send('{"Event": "s3:TestEvent"}')
    place.put("p225/new.txt", b"new")
    with caplog.at_level(logging.WARNING):
        assert project.catch_up() == 1
    said = [r.getMessage() for r in caplog.records if r.name == "audio_assets.sensor.event_queue"]
    assert len(said) == len(list(filter(None, MALFORMED)))
    assert all(text.startswith("message ") and "no notification of S3" in text for text in said)
    project.tick()
    assert queue.messages == 0


def test_objects_of_other_places_and_tables_are_not_looked_at(queue: Queue, place: S3Place, project: Project):
    root = place.prefix.replace(" ", "+")
    queue.send(message(record(f"{root}p225/x.txt", bucket="another"), record("p225/x", bucket=place.bucket)))
    queue.send(message(record(f"{root}output_parquet/x/y.parquet", bucket=place.bucket)))
    assert project.tick() == []
    assert "0 partitions in 0 folders" in (project.evaluated.skip_message or "")


@pytest.mark.usefixtures("no_full_scan")
def test_messages_stay_until_the_instance_holds_what_they_led_to(
    queue: Queue, place: S3Place, project: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_queue, "VISIBILITY_TIMEOUT_S", 1)
    before = project.cursor
    place.put("p225/new.txt", b"new")
    with monkeypatch.context() as broken:
        broken.setattr(tick, "plan", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            project.tick()
    assert queue.messages == 1
    time.sleep(1.1)
    # The daemon dies before it records what the tick gave: neither its cursor nor its request.
    assert len(project.tick()) == 1
    project.cursor = before
    time.sleep(1.1)
    [request] = project.tick()
    assert queue.messages == 1
    # Now it is recorded, and the message goes.
    assert project.execute(request).success
    assert project.tick() == []
    # With what the tables' own files led to.
    project.tick()
    assert queue.messages == 0
    assert rows(project) == {"p225/a.txt": 1, "p225/new.txt": 3, "p226/b.txt": 1}


@pytest.mark.usefixtures("settled")
def test_a_message_that_was_lost_is_made_good_by_the_next_full_scan(
    queue: Queue, place: S3Place, project: Project, monkeypatch: pytest.MonkeyPatch
):
    place.put("p225/new.txt", b"new")
    place.delete("p226/b.txt")
    queue.purge()
    assert project.catch_up() == 0
    monkeypatch.setattr(state, "FULL_SCAN_INTERVAL", dt.timedelta(0))
    assert project.catch_up() == 1
    assert rows(project) == {"p225/a.txt": 1, "p225/new.txt": 3}


@pytest.mark.usefixtures("no_full_scan")
def test_a_folder_stays_in_sight_until_its_minute_closes_and_its_run_is_done(
    queue: Queue, place: S3Place, project: Project, monkeypatch: pytest.MonkeyPatch
):
    place.put("p225/now.txt", b"now", dt.datetime.now(dt.UTC))
    assert project.tick() == []
    assert project.tick() == []
    assert queue.messages == 0
    monkeypatch.setenv("SETTLE_SECONDS", "-120")
    monkeypatch.setenv("MAX_RUNS_IN_FLIGHT", "0")
    assert project.tick() == []
    monkeypatch.setenv("MAX_RUNS_IN_FLIGHT", "25")
    # Its run is lost, then comes.
    assert len(project.tick()) == 1
    assert project.catch_up() == 1
    assert rows(project)["p225/now.txt"] == 3
    assert json.loads(project.cursor or "").keys() == {"full_scan_began"}


@pytest.mark.usefixtures("no_full_scan")
def test_a_folder_too_large_to_list_is_looked_at_object_by_object(
    queue: Queue, place: S3Place, project: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(marked_folders, "LARGE_PAGES", 0)
    place.put("p225/new.txt", b"new")
    place.put("p225/later.txt", b"later", UPLOADED + dt.timedelta(minutes=1))
    place.put("p225/gone.txt", b"gone", UPLOADED + dt.timedelta(minutes=2))
    place.delete("p225/gone.txt")
    requests = project.tick()
    assert "p225/new.txt" in (project.cursor or "")
    assert all(project.execute(request).success for request in requests)
    assert project.tick() == []
    assert rows(project) == {"p225/a.txt": 1, "p225/later.txt": 5, "p225/new.txt": 3, "p226/b.txt": 1}
    assert json.loads(project.cursor or "").keys() == {"full_scan_began"}
    assert project.partition_keys == [
        f"p225@{MINUTE_KEY}",
        f"p226@{MINUTE_KEY}",
        "p225@2023-08-24-00:22",
    ]


def test_many_messages_are_read_in_one_tick(queue: Queue, place: S3Place):
    for i in range(25):
        queue.send(message(record(f"p{i}/x.txt")))
    received = EventQueue(queue.url).receive()
    assert {event.key for event in received.events} == {f"p{i}/x.txt" for i in range(25)}
    EventQueue(queue.url).delete(received.receipts)
    assert queue.messages == 0


def test_a_queue_that_is_not_there_fails_the_tick_by_its_settings_name(
    queue: Queue, project: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AUDIO_EVENTS_QUEUE_URL", queue.url + "-gone")
    project.reload()
    with pytest.raises(EventQueueError, match=r"-gone \(AUDIO_EVENTS_QUEUE_URL\)"):
        project.tick()
