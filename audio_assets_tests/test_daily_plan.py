"""Which days are compacted: those whose minute files are others than those that they were made from."""

import datetime as dt

import pytest

from audio_assets.daily import DayRecord, file_digest
from audio_assets.digest import EMPTY, Digest
from audio_assets.record import PartitionRecord
from audio_assets.sensor.days import DayPlan, desired, plan
from audio_assets_tests.support.rows import at

NOW = dt.datetime(2023, 8, 30, 12, tzinfo=dt.UTC)
TODAY = "2023-08-30"
DAY = "2023-08-24"
DIGEST = Digest(2, 77)


def made(digest: Digest = DIGEST, version: str = "v", minutes_ago: float = 0) -> DayRecord:
    return DayRecord(str(digest), version, NOW.timestamp() - 60 * minutes_ago)


def planned(
    wanted: dict[str, Digest],
    made: dict[str, DayRecord],
    versions: dict[str, str] | None = None,
    registered: tuple[str, ...] = (),
    working: tuple[str, ...] = (),
    compacting: tuple[str, ...] = (),
    interval: float = 30,
) -> DayPlan:
    if versions is None:
        versions = {day: record.version for day, record in made.items() if record.version}
    return plan(
        wanted,
        made,
        versions,
        registered,
        working=working,
        compacting=compacting,
        now=NOW,
        settle_time=dt.timedelta(minutes=1),
        interval=dt.timedelta(minutes=interval),
    )


def due(found: DayPlan) -> list[str]:
    return [request.day for request in found.due]


def test_a_day_is_made_from_the_minutes_that_have_a_file():
    records = {
        at("p1").key: PartitionRecord("1-a", "v1"),
        at("p2", 5).key: PartitionRecord("1-b", "v2"),
        at("p2", 1440).key: PartitionRecord("1-c", "v3"),
        at("p3").key: PartitionRecord(str(EMPTY), ""),
        "what somebody registered": PartitionRecord("1-d", "v4"),
    }
    first = file_digest(at("p1").path, "v1") + file_digest(at("p2", 5).path, "v2")
    assert desired(records) == {DAY: first, "2023-08-25": file_digest(at("p2", 1440).path, "v3")}


def test_an_unchanged_day_is_left_alone():
    found = planned({DAY: DIGEST}, {DAY: made()}, registered=(DAY,))
    assert found == DayPlan([], [], [], [])


@pytest.mark.parametrize(
    ("record", "versions"),
    [
        ({}, {}),
        ({}, {DAY: "v"}),
        ({DAY: made(Digest(1, 77))}, {DAY: "v"}),
        ({DAY: made(Digest(2, 78))}, {DAY: "v"}),
        ({DAY: made()}, {}),
        ({DAY: made()}, {DAY: "of somebody else"}),
    ],
)
def test_a_day_is_compacted_if_its_minutes_or_its_file_are_others_than_recorded(
    record: dict[str, DayRecord], versions: dict[str, str]
):
    found = planned({DAY: DIGEST}, record, versions)
    assert due(found) == [DAY]
    assert found.add == [DAY]


def test_a_day_without_minutes_loses_its_file_and_then_its_key():
    found = planned({}, {DAY: made()}, registered=(DAY,))
    assert (due(found), found.delete) == ([DAY], [])
    found = planned({}, {DAY: made(EMPTY, "")}, registered=(DAY,))
    assert (due(found), found.delete) == ([], [DAY])
    # Nor does a key stay that is no day.
    assert planned({}, {}, registered=("tomorrow",)).delete == ["tomorrow"]
    assert planned({}, {}, registered=(DAY,), compacting=(DAY,)).delete == []


@pytest.mark.parametrize(("minutes_ago", "is_due"), [(29, False), (30, True)])
def test_an_open_day_is_compacted_once_in_an_interval(minutes_ago: float, is_due: bool):
    found = planned({TODAY: DIGEST}, {TODAY: made(EMPTY, minutes_ago=minutes_ago)})
    assert due(found) == [TODAY] * is_due
    assert found.waiting == [TODAY] * (not is_due)


def test_without_an_interval_an_open_day_is_compacted_whatever_the_clocks_say():
    record = {TODAY: made(EMPTY, minutes_ago=-5)}
    assert due(planned({TODAY: DIGEST}, record, interval=0)) == [TODAY]
    assert due(planned({TODAY: DIGEST}, record)) == []


@pytest.mark.parametrize(("minutes_ago", "is_due"), [(29, False), (30, True)])
def test_a_day_that_runs_work_on_is_compacted_once_in_an_interval(minutes_ago: float, is_due: bool):
    record = {DAY: made(EMPTY, minutes_ago=minutes_ago)}
    assert due(planned({DAY: DIGEST}, record, working=(DAY,))) == [DAY] * is_due
    assert due(planned({DAY: DIGEST}, record)) == [DAY]


def test_a_day_is_open_until_it_has_settled():
    minute = dt.timedelta(minutes=1)
    for now, expected in ((NOW.replace(day=31, hour=0), []), (NOW.replace(day=31, hour=0) + minute, [TODAY])):
        record = {TODAY: DayRecord(str(EMPTY), "v", now.timestamp())}
        found = plan(
            {TODAY: DIGEST},
            record,
            {TODAY: "v"},
            (TODAY,),
            working=(),
            compacting=(),
            now=now,
            settle_time=minute,
            interval=dt.timedelta(hours=1),
        )
        assert due(found) == expected


def test_a_day_that_is_being_compacted_waits():
    found = planned({DAY: DIGEST}, {}, compacting=(DAY,))
    assert (due(found), found.waiting, found.add) == ([], [DAY], [])


def test_the_newest_days_come_first_and_are_registered_in_order():
    days = ["2023-08-24", "2023-08-26", "2023-08-25"]
    found = planned(dict.fromkeys(days, DIGEST), {})
    assert due(found) == sorted(days, reverse=True)
    assert found.add == sorted(days)


def test_a_request_has_another_name_once_the_state_or_the_last_run_is_another():
    def name(wanted: Digest, record: dict[str, DayRecord]) -> str:
        return planned({DAY: wanted}, record, {}).due[0].fingerprint

    names = [
        name(DIGEST, {}),
        name(Digest(1, 1), {}),
        name(DIGEST, {DAY: made()}),
        name(DIGEST, {DAY: made(minutes_ago=1)}),
    ]
    assert len(set(names)) == 4
    assert name(DIGEST, {}) == names[0]
