"""Ticks of the sensor on a real instance, and the runs that they ask for.

Most objects here are no FLAC: what the sensor does is the same for them, and they cost no transcription.
"""

import datetime as dt
import json
import logging

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from audio_assets import schema
from audio_assets.defs import sensor
from audio_assets.errors import StorageError
from audio_assets.partitions import FolderMinute
from audio_assets.read import read_slice
from audio_assets.sensor import tick
from audio_assets.table import Table
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.places import Place, S3Place
from audio_assets_tests.support.project import Project

START = "dagster/asset_partition_range_start"
END = "dagster/asset_partition_range_end"
HOSTILE_FOLDERS = [
    *(
        "sp ace",
        "pi|pe",
        "com,ma",
        "[br]ack[et]",
        "st*r",
        "do...ts",
        "...",
        "ünï/日本/😀",
        "pl+us",
        "50%",
        "%41",
    ),
    *(
        "a/b/c",
        "0225",
        "0",
        "qu\"o'te",
        "back\\slash",
        "q?&=#",
        " lead",
        "trail ",
        "~",
        "_u",
        ".hidden",
        "{x}",
    ),
]
HOSTILE_FOLDERS_OF_S3 = ["", "a/", "./", "x/..", "tab\there", "bell\x07", "a//b"]

# Where S3 makes no difference.
on_disk = pytest.mark.parametrize("place", ["local"], indirect=True)


def later(minutes: int) -> dt.datetime:
    return UPLOADED + dt.timedelta(minutes=minutes)


def ranges(requests: list[dg.RunRequest]) -> list[tuple[str | None, str | None]]:
    return [(r.tags.get(START, r.partition_key), r.tags.get(END, r.partition_key)) for r in requests]


def keys(project: Project, folder: str | None = None) -> list[str]:
    return sorted(project.table(folder, columns=["Key"])["Key"])


# --- the bucket is the wanted state ---------------------------------------------------------------------


def test_new_objects_are_asked_for_once(project: Project):
    project.place.put("p225/a.txt")
    project.place.put("p225/b.txt", uploaded=later(1))
    project.place.put("p226/c.txt")
    project.place.put("top.txt")
    [request] = project.tick()
    assert ranges([request]) == [(".@2023-08-24-00:21", "p226@2023-08-24-00:21")]
    assert project.partition_keys == [
        ".@2023-08-24-00:21",
        "p225@2023-08-24-00:21",
        "p225@2023-08-24-00:22",
        "p226@2023-08-24-00:21",
    ]
    assert project.execute(request).success
    assert keys(project) == ["p225/a.txt", "p225/b.txt", "p226/c.txt", "top.txt"]
    assert project.tick() == []
    assert "nothing to ask for" in (project.evaluated.skip_message or "")


@on_disk
def test_a_late_object_is_asked_for_alone(project: Project):
    for name in "abc":
        project.place.put(f"p22{name}/x.txt")
    project.catch_up()
    project.place.put("p22b/late.txt")
    [request] = project.tick()
    assert ranges([request]) == [("p22b@2023-08-24-00:21",) * 2]
    assert project.execute(request).success
    assert keys(project, "p22b") == ["p22b/late.txt", "p22b/x.txt"]
    assert project.tick() == []


def test_an_overwritten_object_moves_to_its_new_minute(project: Project):
    project.place.put("p225/a.txt", b"old")
    project.place.put("p225/b.txt")
    project.catch_up()
    project.place.put("p225/a.txt", b"new", later(5))
    assert project.catch_up() == 1
    table = project.table("p225").set_index("Key")
    assert table["LastModifiedMinute"].to_dict() == {"p225/a.txt": 26, "p225/b.txt": 21}


@on_disk
def test_an_object_overwritten_in_its_minute_is_made_anew(project: Project):
    project.place.put("p225/a.txt", b"old")
    project.catch_up()
    before = project.table()["ETag"].tolist()
    project.place.put("p225/a.txt", b"newer")
    assert project.catch_up() == 1
    assert project.table()["Size"].tolist() == [5]
    assert project.table()["ETag"].tolist() != before


@on_disk
def test_a_deleted_object_loses_its_row(project: Project):
    project.place.put("p225/a.txt")
    project.place.put("p225/b.txt")
    project.catch_up()
    project.place.delete("p225/a.txt")
    assert project.catch_up() == 1
    assert keys(project) == ["p225/b.txt"]


def test_a_deleted_folder_loses_its_rows_and_then_its_partitions(project: Project):
    for minute in range(3):
        project.place.put(f"p225/{minute}.txt", uploaded=later(minute))
    project.place.put("p226/a.txt")
    project.catch_up()
    for minute in range(3):
        project.place.delete(f"p225/{minute}.txt")
    [request] = project.tick()
    assert len(project.partition_keys) == 4
    assert project.execute(request).success
    assert keys(project) == ["p226/a.txt"]
    assert project.tick() == []
    assert project.partition_keys == ["p226@2023-08-24-00:21"]
    project.place.put("p225/back.txt")
    assert project.catch_up() == 1
    assert keys(project, "p225") == ["p225/back.txt"]


@on_disk
def test_objects_that_vanish_before_their_run_leave_nothing_behind(project: Project):
    project.place.put("p225/a.txt")
    [request] = project.tick()
    project.place.delete("p225/a.txt")
    assert project.execute(request).success
    assert project.catch_up() == 0
    assert (project.partition_keys, keys(project)) == ([], [])


@on_disk
def test_objects_that_arrive_during_a_run_are_asked_for_next(project: Project):
    project.place.put("p225/a.txt")
    [request] = project.tick()
    project.place.put("p225/b.txt")
    project.place.put("p225/c.txt", uploaded=later(1))
    assert project.execute(request).success
    assert keys(project) == ["p225/a.txt", "p225/b.txt"]
    assert ranges(project.tick()) == [("p225@2023-08-24-00:22",) * 2]


def test_every_folder_name_comes_back_from_the_table(project: Project):
    folders = HOSTILE_FOLDERS + (HOSTILE_FOLDERS_OF_S3 if isinstance(project.place, S3Place) else [])
    objects = {f"{folder.removesuffix('/')}/x, y|[*]...%41+ü.txt": folder for folder in folders}
    if isinstance(project.place, S3Place):
        del objects["a/x, y|[*]...%41+ü.txt"], objects["./x, y|[*]...%41+ü.txt"]
        objects |= {"a//x.txt": "a/", "./x.txt": "./"}
    objects["top, [*].txt"] = "."
    for key in objects:
        project.place.put(key)
    project.place.put("50%/speech.flac", flac(0.2))
    assert project.catch_up() == 1
    assert len(project.partition_keys) == len(objects)
    table = project.table(columns=["Key", "FolderName", "status"])
    found = dict(zip(table["Key"], table["FolderName"], strict=True))
    assert found == objects | {"50%/speech.flac": "50%"}
    assert set(table["status"]) == {"ok", "not_flac"}
    tables = Table(project.place.store, "output_parquet/audio_table", schema.AUDIO_TABLE)
    for folder in set(objects.values()):
        assert {found[key] for key in read_slice(tables, folder, columns=["Key"])["Key"]} == {folder}
    assert {FolderMinute.parse(key).folder for key in project.partition_keys} == set(objects.values())


@on_disk
def test_every_tick_logs_what_it_looked_at(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    # Dagster's own logger of a tick writes into the instance, past all others.
    monkeypatch.setattr(dg.SensorEvaluationContext, "log", logging.getLogger("tick"))
    project.place.put("p225/a.txt")
    caplog.set_level(logging.INFO)
    [request] = project.tick()
    assert "1 partitions in 1 folders looked at; 1 partitions registered; 1 runs asked for" in caplog.text
    assert project.execute(request).success
    caplog.clear()
    assert project.tick() == []
    assert "1 partitions in 1 folders looked at; no object is of an audio format" in caplog.text
    assert "nothing to ask for now" in caplog.text


# --- minutes --------------------------------------------------------------------------------------------


@on_disk
def test_a_minute_is_left_until_it_has_settled(project: Project, monkeypatch: pytest.MonkeyPatch):
    project.place.put("p225/a.txt", uploaded=dt.datetime.now(dt.UTC))
    assert project.tick() == []
    assert project.partition_keys == []
    assert "1 wait for their minute to close" in (project.evaluated.skip_message or "")
    monkeypatch.setenv("SETTLE_SECONDS", "-120")
    assert len(project.tick()) == 1


@on_disk
def test_settle_seconds_that_are_no_number_say_so(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SETTLE_SECONDS", "a minute")
    with pytest.raises(ValueError, match="SETTLE_SECONDS is a number of seconds, not 'a minute'"):
        project.tick()


# --- runs under way, and runs that failed ---------------------------------------------------------------


@on_disk
@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_partitions_of_a_run_under_way_are_not_asked_for_again(project: Project, status: dg.DagsterRunStatus):
    for folder in ("p225", "p226", "p227"):
        project.place.put(f"{folder}/a.txt")
    [request] = project.tick()
    create_run_for_test(project.instance, job_name="process_audio", status=status, tags=request.tags)
    assert project.tick() == []
    project.place.put("p228/new.txt")
    project.place.put("p226/late.txt")
    assert ranges(project.tick()) == [("p228@2023-08-24-00:21",) * 2]


@on_disk
def test_a_single_partition_under_way_is_passed_over(project: Project):
    for folder in ("p225", "p226", "p227"):
        project.place.put(f"{folder}/a.txt")
    project.tick()
    tags = {"dagster/partition": "p226@2023-08-24-00:21"}
    create_run_for_test(
        project.instance, job_name="process_audio", status=dg.DagsterRunStatus.STARTED, tags=tags
    )
    assert ranges(project.tick()) == [("p225@2023-08-24-00:21",) * 2, ("p227@2023-08-24-00:21",) * 2]


@on_disk
def test_a_run_of_other_assets_stands_in_nobodys_way(project: Project):
    project.place.put("p225/a.txt")
    [request] = project.tick()
    create_run_for_test(
        project.instance,
        job_name="process_audio",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "p225@2023-08-24-00:21"},
        asset_selection=frozenset({dg.AssetKey("tokens")}),
    )
    assert ranges(project.tick()) == ranges([request])


@on_disk
def test_partitions_under_way_are_not_deleted(project: Project):
    project.place.put("p225/a.txt")
    [request] = project.tick()
    run = create_run_for_test(
        project.instance,
        job_name="process_audio",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": request.partition_key or ""},
    )
    project.place.delete("p225/a.txt")
    project.tick()
    assert project.partition_keys == ["p225@2023-08-24-00:21"]
    project.instance.report_run_canceled(run)
    project.tick()
    assert project.partition_keys == []


@on_disk
def test_no_more_runs_are_asked_for_than_may_be_in_flight(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MAX_RUNS_IN_FLIGHT", "2")
    monkeypatch.setenv("PARTITIONS_PER_RUN", "1")
    for folder in range(5):
        project.place.put(f"p{folder}/a.txt")
    first = project.tick()
    assert ranges(first) == [("p0@2023-08-24-00:21",) * 2, ("p1@2023-08-24-00:21",) * 2]
    assert len(project.partition_keys) == 5
    create_run_for_test(
        project.instance,
        job_name="process_audio",
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={"dagster/partition": "p0@2023-08-24-00:21"},
    )
    assert ranges(project.tick()) == [("p1@2023-08-24-00:21",) * 2]


@on_disk
def test_a_request_whose_run_failed_is_made_again_later_under_another_run_key(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    project.place.put("p225/a.flac", flac(0.2))
    monkeypatch.setenv("WHISPER_MODEL", "no-such-model")
    project.reload()
    [request] = project.tick()
    assert not project.execute(request).success
    assert project.tick() == []
    monkeypatch.setattr(tick, "retry_delay", lambda tries: dt.timedelta(0))
    [again] = project.tick()
    assert ranges([again]) == ranges([request])
    assert again.run_key != request.run_key
    monkeypatch.delenv("WHISPER_MODEL")
    project.reload()
    assert project.execute(again).success
    assert keys(project) == ["p225/a.flac"]
    assert project.tick() == []


@on_disk
def test_a_failed_run_holds_up_no_other_partition(project: Project, monkeypatch: pytest.MonkeyPatch):
    project.place.put("p225/a.flac", flac(0.2))
    monkeypatch.setenv("WHISPER_MODEL", "no-such-model")
    project.reload()
    [request] = project.tick()
    assert not project.execute(request).success
    monkeypatch.delenv("WHISPER_MODEL")
    project.reload()
    project.place.put("p226/a.txt")
    asked = project.tick()
    assert any("p226@2023-08-24-00:21" in r for r in ranges(asked))
    assert all(project.execute(r).success for r in asked)


@on_disk
def test_a_request_that_was_lost_is_made_again_under_the_same_run_key(project: Project):
    project.place.put("p225/a.txt")
    [request] = project.tick()
    [again] = project.tick()
    assert (again.run_key, again.partition_key) == (request.run_key, request.partition_key)


# --- large buckets --------------------------------------------------------------------------------------


def test_a_tick_that_runs_out_of_time_goes_on_in_the_next(project: Project, monkeypatch: pytest.MonkeyPatch):
    folders = ["p1", "p1/deep", "p1-extra", "p2", "p3", "p4"]
    for folder in folders:
        project.place.put(f"{folder}/a.txt")
    project.place.put("p1-extra/gone.txt")
    assert project.catch_up() == 1
    project.place.delete("p1-extra/gone.txt")
    project.place.delete("p4/a.txt")
    for folder in ("p0", "p1/deep", "p3"):
        project.place.put(f"{folder}/new.txt")
    monkeypatch.setattr(sensor, "LISTING_SECONDS", -1)
    monkeypatch.setattr("audio_assets.storage.s3_listing.PAGE", 1)

    def full_scan() -> tuple[list[tuple[str | None, str | None]], int]:
        asked = []
        ticks = 0
        while ticks == 0 or project.scanning:
            requests = project.tick()
            asked += ranges(requests)
            assert all(project.execute(request).success for request in requests)
            ticks += 1
            assert ticks < 20
        return asked, ticks

    asked, ticks = full_scan()
    assert ticks > 5
    changed = [("p0", "p0"), ("p1-extra", "p1-extra"), ("p1/deep", "p1/deep"), ("p3", "p4")]
    assert asked == [(f"{a}@2023-08-24-00:21", f"{b}@2023-08-24-00:21") for a, b in changed]
    # The next full scan begins at the first folder again.
    project.place.put("p0/later.txt")
    assert full_scan()[0] == [("p0@2023-08-24-00:21",) * 2]
    assert sorted(keys(project)) == sorted(
        [*(f"{folder}/a.txt" for folder in folders if folder != "p4")]
        + [f"{folder}/new.txt" for folder in ("p0", "p1/deep", "p3")]
        + ["p0/later.txt"]
    )


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_folder_that_is_too_large_for_a_tick_is_compared_once_it_is_whole(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    for i in range(5):
        project.place.put(f"p225/{i}.txt", b"x")
    monkeypatch.setattr(sensor, "LISTING_SECONDS", -1)
    monkeypatch.setattr("audio_assets.storage.s3_listing.PAGE", 2)
    ticks = [project.tick()]
    while project.scanning:
        ticks.append(project.tick())
    # Its digest would be wrong before the end, and a run would be asked for that comes too early.
    assert len(ticks) > 2
    assert [len(requests) for requests in ticks] == [0] * (len(ticks) - 1) + [1]
    [request] = ticks[-1]
    assert project.execute(request).success
    assert len(keys(project)) == 5
    assert project.catch_up() == 0


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "null", "[]", "{", '{"after": "p225"}', '{"full_scan": null}', '{"marked": [1]}'),
        *('{"full_scan": {"left": [[1, 2]]}}', '{"report": {"version": 1}}', '{"created": [["key"]]}'),
        # As an older version wrote it.
        '{"walk": {"left": [["p226", null]], "partial": ""}, "swept": 1.0}',
    ],
)
@on_disk
def test_a_cursor_that_says_nothing_sensible_begins_a_full_scan(project: Project, cursor: str):
    project.place.put("p225/a.txt")
    project.cursor = cursor
    assert ranges(project.tick()) == [("p225@2023-08-24-00:21",) * 2]
    assert json.loads(project.cursor or "") == {}


@on_disk
def test_the_newest_audio_is_asked_for_first_if_so_set(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARTITIONS_PER_RUN", "2")
    monkeypatch.setenv("MAX_RUNS_IN_FLIGHT", "1")
    monkeypatch.setenv("BACKFILL_ORDER", "newest")
    for folder in ("p225", "p226"):
        for minute in range(2):
            project.place.put(f"{folder}/{minute}.txt", uploaded=later(minute))
    [request] = project.tick()
    assert ranges([request]) == [("p225@2023-08-24-00:22", "p226@2023-08-24-00:22")]
    assert project.execute(request).success
    # What comes in meanwhile goes before what waits.
    project.place.put("p225/new.txt", uploaded=later(9))
    assert ranges(project.tick()) == [("p225@2023-08-24-00:30",) * 2]


@on_disk
def test_an_order_that_there_is_not_says_so(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BACKFILL_ORDER", "fastest")
    with pytest.raises(ValueError, match="BACKFILL_ORDER is folder or newest, not 'fastest'"):
        project.tick()


@on_disk
def test_any_number_of_partitions_is_registered_in_one_tick(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sensor, "KEYS_AT_A_TIME", 2)
    for i in range(5):
        project.place.put(f"p{i}/a.txt")
    project.tick()
    assert [len(r.partition_keys) for r in project.evaluated.dynamic_partitions_requests or []] == [2, 2, 1]
    assert len(project.partition_keys) == 5


@on_disk
def test_partitions_that_are_gone_are_deleted_a_bounded_number_at_a_time(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tick, "DELETED_PER_TICK", 2)
    project.instance.add_dynamic_partitions("folder_minute", [f"p{i}@2023-08-24-00:21" for i in range(3)])
    assert project.catch_up() == 0
    assert len(project.partition_keys) == 1
    assert project.catch_up() == 0
    assert project.partition_keys == []


def test_hundreds_of_partitions_are_one_round_of_ranges(project: Project):
    for i in range(300):
        project.place.put(f"p{i % 30:02}/{i}.txt", uploaded=later(i // 30))
    requests = project.tick()
    assert len(requests) == 3
    assert len(project.partition_keys) == 300
    assert [project.partition_keys.index(start or "") for start, _ in ranges(requests)] == [0, 100, 200]


# --- what goes wrong ------------------------------------------------------------------------------------


@on_disk
def test_a_key_that_somebody_made_up_is_deleted_and_stops_nothing(project: Project):
    project.place.put("p225/a.txt")
    project.instance.add_dynamic_partitions("folder_minute", ["made up", "p9@2023-08-24-00:21"])
    assert project.catch_up() == 1
    assert project.partition_keys == ["p225@2023-08-24-00:21"]


@pytest.mark.parametrize("uri", ["file:///no/such/bucket", "s3://no-such-bucket/prefix"])
def test_a_bucket_that_is_not_there_fails_the_tick_by_its_settings_name(
    place: Place, project: Project, monkeypatch: pytest.MonkeyPatch, uri: str, s3: str
):
    monkeypatch.setenv("AUDIO_SOURCE_URI", uri)
    project.reload()
    with pytest.raises(StorageError, match=rf"{uri}.*AUDIO_SOURCE_URI"):
        project.tick()


@on_disk
def test_tables_elsewhere_leave_the_bucket_untouched(
    project: Project, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AUDIO_TABLE_URI", (tmp_path / "tables").as_uri())
    project.reload()
    project.place.put("p225/a.txt")
    assert project.catch_up() == 1
    assert project.place.all_keys() == ["p225/a.txt"]
    assert keys(project) == ["p225/a.txt"]
