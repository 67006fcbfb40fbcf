"""Runs of the same partitions at once, and runs beside which the bucket changes.

What comes of it is what comes of one after the other. Only an object that changes between being listed and
being read is a failed row that says so, until the sensor asks again.
"""

import datetime as dt
import io
import pathlib
import random
import time
from collections.abc import Callable

import dagster as dg
import pyarrow.parquet as pq
import pytest

from audio_assets.defs.records import UNFINISHED
from audio_assets.sensor import tick
from audio_assets_tests.support.audio import UPLOADED
from audio_assets_tests.support.faulty_bucket import SAMPLE, fill, new_bucket, table_files
from audio_assets_tests.support.places import S3Place
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.run_process import settings, start

# Beside test_kills.py, whose processes are started from the same one.
pytestmark = pytest.mark.xdist_group("processes of runs")

KEYS = [
    *("p225@2023-08-24-00:21", "p225@2023-08-24-00:22"),
    *("p226@2023-08-24-00:21", "p226/deep@2023-08-24-00:21"),
]
CHANGED = "deleted or overwritten after it was listed"

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")

OpenProject = Callable[[S3Place], Project]


def put(place: S3Place, key: str, body: bytes) -> None:
    """Upload with a time of one's choice, both in one step: others look at the bucket meanwhile."""
    elsewhere = new_bucket()
    elsewhere.put(key, body, UPLOADED)
    stored = elsewhere.backend.get_object(elsewhere.bucket, place.prefix + key)
    assert stored
    place.backend.get_bucket(place.bucket).keys[place.prefix + key] = stored


CHANGES: dict[str, Callable[[S3Place], None]] = {
    "nothing": lambda place: None,
    "overwritten": lambda place: put(place, "p225/b.flac", SAMPLE[8].read_bytes()),
    "deleted": lambda place: place.delete("p225/b.flac"),
    "added": lambda place: put(place, "p225/e.flac", SAMPLE[9].read_bytes()),
}
_outcomes: dict[str, dict[str, bytes]] = {}


@pytest.fixture
def outcome(open_project: OpenProject) -> Callable[[str], dict[str, bytes]]:
    """The table files of a run that began after a change."""

    def of(change: str) -> dict[str, bytes]:
        if change not in _outcomes:
            place = new_bucket()
            fill(place)
            CHANGES[change](place)
            assert open_project(place).catch_up() == 1
            _outcomes[change] = table_files(place)
        return _outcomes[change]

    return of


def speech_in_a_bucket(open_project: OpenProject, monkeypatch: pytest.MonkeyPatch) -> tuple[S3Place, Project]:
    """A bucket with speech, and the project on it, whose sensor asks again at once for what failed."""
    place = new_bucket()
    fill(place)
    monkeypatch.setattr(tick, "retry_delay", lambda tries: dt.timedelta(0))
    return place, open_project(place)


def rows(body: bytes) -> list[dict]:
    """A file's rows; of those that changed under the run, what is known all the same."""
    found = pq.read_table(io.BytesIO(body)).to_pylist()
    return [row if CHANGED not in (row.get("error") or "") else {"Key": row["Key"]} for row in found]


def is_serial(found: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]) -> bool:
    """Whether each file of the training table is that of one of two states."""

    def equal(path: str, state: dict[str, bytes]) -> bool:
        mine = rows(found[path])
        others = rows(state[path])
        return len(mine) == len(others) and all(
            m == (o if len(m) > 1 else {"Key": o["Key"]}) for m, o in zip(mine, others, strict=True)
        )

    tables = [path for path in found if path.startswith("output_parquet/audio_table/")]
    return all(equal(path, before) or equal(path, after) for path in tables)


@pytest.mark.seeds(1, 40)
def test_runs_at_once_beside_which_objects_change(
    open_project: OpenProject,
    outcome: Callable[[str], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    seed: int,
):
    chance = random.Random(seed)
    change = list(CHANGES)[(seed + 1) % len(CHANGES)]
    before = outcome("nothing")
    after = outcome(change)
    place, project = speech_in_a_bucket(open_project, monkeypatch)
    project.instance.add_dynamic_partitions("folder_minute", KEYS)
    # Else the pool lets one wait for the other.
    project.instance.event_log_storage.set_concurrency_slots("gpu", 2)

    home = pathlib.Path(project.instance.root_directory)
    runs = [start(home, KEYS[0], KEYS[-1], settings())]
    time.sleep(chance.uniform(0, 0.5))
    runs.append(start(home, KEYS[0], KEYS[-1], settings()))
    time.sleep(chance.uniform(0, 2))
    CHANGES[change](place)
    for run in runs:
        run.join()
    for run in project.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
        events = project.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        assert all("materialise" in event.to_json() for event in events)
    if any(run.exitcode == 0 for run in runs):
        assert is_serial(table_files(place), before, after)
    record_property(f"races with an object {change}", 1)
    record_property("runs in races that failed by name", sum(run.exitcode != 0 for run in runs))
    record_property("runs that mended what a race left", project.catch_up())
    assert table_files(place) == after


@pytest.mark.seeds(1, 20)
def test_the_sensor_keeps_off_a_run_and_mends_what_changed_beside_it(
    open_project: OpenProject,
    outcome: Callable[[str], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    seed: int,
):
    chance = random.Random(seed)
    change = list(CHANGES)[(seed + 1) % len(CHANGES)]
    after = outcome(change)
    place, project = speech_in_a_bucket(open_project, monkeypatch)
    [request] = project.tick()
    first, last = (request.tags.get(tag, "") for tag in RANGE)
    run = start(pathlib.Path(project.instance.root_directory), first, last, settings())
    while not project.instance.get_runs():
        time.sleep(0.01)
    under_way = dg.RunsFilter(statuses=UNFINISHED)
    change_at = time.monotonic() + chance.uniform(0, 2)
    ticks = 0
    while run.is_alive():
        if time.monotonic() > change_at:
            CHANGES[change](place)
            change_at = float("inf")
        before = project.instance.get_runs(under_way)
        asked = project.tick()
        assert not (asked and before and project.instance.get_runs(under_way))
        ticks += 1
        time.sleep(0.2)
    if change_at < float("inf"):
        CHANGES[change](place)
    assert run.exitcode == 0
    record_property("ticks beside runs", ticks)
    record_property("runs that mended what a race left", project.catch_up())
    assert table_files(place) == after
