"""One tick without Dagster: what is looked at, what is asked for, what is kept for the next one.

The source is a local folder; what Dagster would have on record is dictionaries.
"""

import dataclasses
import datetime as dt
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence

import pytest

from audio_assets.digest import EMPTY, Digest, digest_partitions
from audio_assets.partitions import FolderMinute
from audio_assets.record import PartitionRecord
from audio_assets.sensor import marked_folders, tick
from audio_assets.sensor.event_queue import Event
from audio_assets.sensor.run_requests import RunLimits, retry_delay
from audio_assets.sensor.state import FULL_SCAN_INTERVAL, Cursor, ReportProgress
from audio_assets.sensor.table_files import TableFiles
from audio_assets.sensor.tick import RunAttempt, TickInputs, TickOutcome, Unfinished
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets_tests.support.audio import MINUTE, UPLOADED
from audio_assets_tests.support.places import LocalPlace

NOW = UPLOADED + dt.timedelta(days=1)
P225 = FolderMinute("p225", MINUTE)
P226 = FolderMinute("p226", MINUTE)


VERSION = "v"


def record(digest: str) -> PartitionRecord:
    return PartitionRecord(digest, "" if digest == str(EMPTY) else VERSION)


@dataclasses.dataclass
class Recorded:
    """What the orchestrator has on record, in dictionaries."""

    by_key: dict[str, str] = dataclasses.field(default_factory=dict)
    unfinished_runs: int = 0
    covered: Collection[str] = ()
    ends: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    asked: list[Collection[str] | None] = dataclasses.field(default_factory=list)

    def records(self, keys: Collection[str] | None = None) -> dict[str, PartitionRecord]:
        self.asked.append(keys)
        return {key: record(digest) for key, digest in self.by_key.items() if keys is None or key in keys}

    def files(self, folders: Collection[str] | None) -> TableFiles:
        """As if every record were true of the table, and a listing gave no more than was asked for."""
        found = (FolderMinute.parse(key) for key, digest in self.by_key.items() if record(digest).version)
        return TableFiles({p.path: VERSION for p in found if folders is None or p.folder in folders})

    def unfinished(self, registered: Sequence[str]) -> Unfinished:
        return Unfinished(self.unfinished_runs, self.covered)

    def tries(self, fingerprints: Sequence[str]) -> dict[str, list[float]]:
        return {fingerprint: self.ends.get(fingerprint, []) for fingerprint in fingerprints}


@dataclasses.dataclass
class Bucket:
    """A folder with two objects in two folders, and what is known of it."""

    place: LocalPlace
    records: Recorded

    @property
    def inputs(self) -> TickInputs:
        source = AudioSource(self.place.store, ObjectStore(f"{self.place.uri}/output_parquet"))
        return TickInputs(
            source=source,
            files=self.records.files,
            inventory=lambda partition: [],
            registered=list(self.records.by_key),
            records=self.records,
            cursor=Cursor(),
            now=NOW,
            stop=lambda: False,
            settle_time=dt.timedelta(seconds=60),
        )

    def tick(self, **changed: object) -> TickOutcome:
        return tick.tick(dataclasses.replace(self.inputs, **changed))  # type: ignore[arg-type]

    def event(self, key: str, *, removed: bool = False) -> Event:
        return Event("local", key, removed)


@pytest.fixture
def bucket(local_place: LocalPlace, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    local_place.put("p225/a.txt")
    local_place.put("p226/b.txt")
    # Events name the bucket that they are of, which a local folder is not.
    monkeypatch.setattr(AudioSource, "key_of", lambda self, bucket, key: key if bucket == "local" else None)
    return Bucket(local_place, Recorded())


def digests(objects: Iterable[ObjectInfo]) -> dict[str, str]:
    return {partition.key: str(digest) for partition, digest in digest_partitions(objects).items()}


@pytest.fixture
def processed(bucket: Bucket) -> Bucket:
    """Both objects are in the table."""
    for folder in ("p225", "p226"):
        for page in bucket.inputs.source.objects(folder):
            bucket.records.by_key |= digests(page)
    return bucket


def ranges(outcome: TickOutcome) -> list[tuple[str, str]]:
    return [(attempt.range.start, attempt.range.end) for attempt in outcome.runs]


def test_a_first_tick_scans_everything_and_asks_for_it(bucket: Bucket):
    outcome = bucket.tick()
    assert outcome.add == [P225.key, P226.key]
    assert outcome.delete == []
    assert ranges(outcome) == [(P225.key, P226.key)]
    assert outcome.cursor == Cursor()
    assert outcome.table is not None
    assert not outcome.idle
    assert outcome.summary == (
        "2 partitions in 2 folders looked at; 2 partitions registered; 1 runs asked for"
    )


def test_the_same_inputs_give_the_same_outcome(bucket: Bucket):
    assert bucket.tick() == bucket.tick()


def test_a_tick_with_nothing_to_do_says_what_it_looked_at(processed: Bucket):
    outcome = processed.tick()
    assert outcome.idle
    assert outcome.summary == "2 partitions in 2 folders looked at; nothing to ask for now"


def test_what_is_gone_is_asked_for_and_then_deleted(processed: Bucket):
    processed.place.delete("p226/b.txt")
    gone = processed.tick()
    assert ranges(gone) == [(P226.key, P226.key)]
    assert gone.delete == []
    processed.records.by_key[P226.key] = str(EMPTY)
    outcome = processed.tick()
    assert outcome.delete == [P226.key]
    assert not outcome.idle
    assert "1 partitions deleted; nothing to ask for now" in outcome.summary


def test_an_open_minute_waits(bucket: Bucket):
    outcome = bucket.tick(now=UPLOADED)
    assert outcome.idle
    assert "2 wait for their minute to close" in outcome.summary


def test_no_more_runs_are_asked_for_than_there_is_room(bucket: Bucket):
    bucket.records.unfinished_runs = RunLimits().runs
    outcome = bucket.tick()
    assert outcome.runs == []
    assert outcome.add == [P225.key, P226.key]
    assert "1 runs wait for others to end, or for their next try" in outcome.summary


def test_what_a_run_covers_is_left_to_it(bucket: Bucket):
    bucket.records.covered = {P225.key}
    assert ranges(bucket.tick()) == [(P226.key, P226.key)]


def test_a_run_without_effect_is_asked_for_again_later_under_another_run_key(bucket: Bucket):
    [first] = bucket.tick().runs
    assert first == RunAttempt(first.range, tries=0)
    bucket.records.ends[first.range.fingerprint] = [NOW.timestamp() - 30, NOW.timestamp()]
    due = NOW + retry_delay(2)
    assert bucket.tick(now=due - dt.timedelta(seconds=1)).runs == []
    [again] = bucket.tick(now=due).runs
    assert again == RunAttempt(first.range, tries=2)
    assert again.run_key != first.run_key


# --- full scans -----------------------------------------------------------------------------------------


def test_without_events_full_scans_follow_one_another(processed: Bucket):
    cursor = processed.tick().cursor
    processed.place.put("p227/c.txt")
    assert ranges(processed.tick(cursor=cursor)) == [("p227@2023-08-24-00:21",) * 2]


def test_a_full_scan_that_is_out_of_time_goes_on_where_it_stopped(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("audio_assets.storage.s3_listing.PAGE", 1)
    outcome = bucket.tick(stop=lambda: True)
    asked = ranges(outcome)
    ticks = 1
    while outcome.cursor.scanning:
        cursor = Cursor.from_json(outcome.cursor.to_json())
        assert cursor == outcome.cursor
        outcome = bucket.tick(cursor=cursor, stop=lambda: True)
        asked += ranges(outcome)
        ticks += 1
    assert ticks > 1
    assert asked == [(P225.key, P225.key), (P226.key, P226.key)]


def test_with_events_a_full_scan_waits_for_its_hour(processed: Bucket):
    outcome = processed.tick(events=[])
    assert outcome.table is not None
    assert outcome.cursor == Cursor(full_scan_began=NOW.timestamp())
    soon = NOW + FULL_SCAN_INTERVAL - dt.timedelta(seconds=1)
    assert not processed.tick(events=[], cursor=outcome.cursor, now=soon).table
    assert processed.tick(events=[], cursor=outcome.cursor, now=NOW + FULL_SCAN_INTERVAL).table is not None


# --- events ---------------------------------------------------------------------------------------------


@pytest.fixture
def scanned() -> Cursor:
    """Of a bucket that sends events, after a full scan."""
    return Cursor(full_scan_began=NOW.timestamp())


def test_a_tick_by_events_looks_at_nothing_but_their_folders(processed: Bucket, scanned: Cursor):
    processed.place.put("p225/new.txt")
    processed.place.put("p226/untold.txt")
    outcome = processed.tick(events=[processed.event("p225/new.txt")], cursor=scanned)
    assert ranges(outcome) == [(P225.key, P225.key)]
    assert processed.records.asked == [{P225.key}]
    assert outcome.summary == "1 partitions in 1 folders looked at; 1 runs asked for"
    # Its folder stays marked until the run has done its work.
    assert outcome.cursor == dataclasses.replace(scanned, marked=("p225",))
    [page] = processed.inputs.source.objects("p225")
    processed.records.by_key |= digests(page)
    outcome = processed.tick(events=[], cursor=outcome.cursor)
    assert outcome.idle
    assert outcome.cursor == scanned


def test_events_of_other_places_mark_nothing(processed: Bucket, scanned: Cursor):
    outcome = processed.tick(events=[Event("another", "p225/x.txt", False)], cursor=scanned)
    assert outcome.summary == "0 partitions in 0 folders looked at; nothing to ask for now"
    assert outcome.cursor == scanned


def test_marked_folders_that_there_is_no_time_for_stay_marked(processed: Bucket, scanned: Cursor):
    events = [processed.event(f"{folder}/x", removed=True) for folder in ("p225", "p226", "p227")]
    outcome = processed.tick(events=events, cursor=scanned, stop=lambda: True)
    assert outcome.cursor == dataclasses.replace(scanned, marked=("p226", "p227"))


def test_a_folder_too_large_to_list_is_looked_at_by_object(
    processed: Bucket, scanned: Cursor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(marked_folders, "LARGE_PAGES", 0)
    [before] = processed.inputs.source.objects("p225")
    processed.place.put("p225/new.txt", b"new")
    events = [processed.event("p225/new.txt"), processed.event("p225/gone.txt")]
    outcome = processed.tick(events=events, cursor=scanned, inventory=lambda partition: before)
    [attempt] = outcome.runs
    assert attempt.range.start == attempt.range.end == P225.key
    assert outcome.cursor.created.keys() == {"p225/new.txt"}
    # Its digest is that of what was made and what was created since.
    [after] = processed.inputs.source.objects("p225")
    processed.records.by_key[P225.key] = str(Digest.of(after))
    done = processed.tick(events=[], cursor=outcome.cursor, inventory=lambda partition: after)
    assert done.idle
    assert done.cursor == scanned


# --- inventory reports ----------------------------------------------------------------------------------


def test_a_report_takes_the_place_of_full_scans(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise AssertionError("the whole bucket is listed")

    monkeypatch.setattr(AudioSource, "digests", fail)
    outcome = bucket.tick(read_report=lambda done, stop: ({P225}, ReportProgress("v", done.files + 1)))
    assert outcome.add == [P225.key]
    assert ranges(outcome) == [(P225.key, P225.key)]
    assert outcome.cursor == Cursor(report=ReportProgress("v", 1))
    assert outcome.summary.startswith("1 partitions read from the inventory report; ")
    # Where there is no report any more, its progress is forgotten, and the bucket is scanned again.
    monkeypatch.undo()
    assert bucket.tick(cursor=outcome.cursor).cursor == Cursor()


def test_with_a_report_the_folders_of_events_are_listed_too(processed: Bucket):
    processed.place.put("p225/new.txt")
    outcome = processed.tick(
        events=[processed.event("p225/new.txt")], read_report=lambda done, stop: (set(), done)
    )
    assert ranges(outcome) == [(P225.key, P225.key)]
    assert outcome.cursor.marked == ("p225",)
    assert outcome.summary == (
        "0 partitions read from the inventory report; 1 partitions in 1 folders looked at; 1 runs asked for"
    )


def test_a_tick_needs_no_dagster():
    code = "import sys; import audio_assets.sensor.tick; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
