"""What a tick asks for, from what is in the bucket and what the table was made from."""

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_assets import settings
from audio_assets.defs.partitions import backfill_policy
from audio_assets.digest import EMPTY, Digest, group
from audio_assets.partitions import FolderMinute
from audio_assets.record import PartitionRecord
from audio_assets.sensor.run_requests import (
    LARGEST_GAP,
    FolderContents,
    Plan,
    RunLimits,
    plan,
    retry_delay,
)
from audio_assets.storage import ObjectInfo
from audio_assets_tests.support.audio import MINUTE

NOW = MINUTE + dt.timedelta(days=1)
SETTLE = dt.timedelta(seconds=60)
LIMITS = RunLimits()
NOTHING = Plan(add=[], delete=[], ranges=[], open=0)


def at(minute: int, folder: str = "p225") -> FolderMinute:
    return FolderMinute(folder, MINUTE + dt.timedelta(minutes=minute))


def objects(*names: str, etag: str = "e") -> list[ObjectInfo]:
    return [ObjectInfo(name, etag, 1, MINUTE) for name in names]


def some(count: int = 1) -> Digest:
    return Digest(count, count * 7)


def decide(
    found: dict[FolderMinute, Digest],
    recorded: dict[FolderMinute, Digest] | None = None,
    registered: list[FolderMinute] | None = None,
    busy: set[FolderMinute] | None = None,
    folders: set[str] | None = None,
    now: dt.datetime = NOW,
) -> Plan:
    recorded = recorded or {}
    registered = list(recorded) if registered is None else registered
    listed = folders if folders is not None else {p.folder for p in (*found, *registered)}
    return plan(
        FolderContents(listed, found),
        {p.key: str(digest) for p, digest in recorded.items()},
        [p.key for p in registered],
        {p.key for p in busy or ()},
        now,
        SETTLE,
    )


def ranges(decided: Plan) -> list[tuple[str, str]]:
    return [(request.start, request.end) for request in decided.ranges]


# --- digests --------------------------------------------------------------------------------------------

infos = st.builds(ObjectInfo, st.text(max_size=3), st.text("ab", max_size=2), st.just(1), st.just(MINUTE))
folders_of_objects = st.lists(infos, unique_by=lambda o: o.key, max_size=6)


@given(folders_of_objects, st.randoms())
def test_a_digest_does_not_depend_on_the_order(found: list[ObjectInfo], random):
    shuffled = random.sample(found, len(found))
    assert Digest.of(shuffled) == Digest.of(iter(found))


@given(folders_of_objects, folders_of_objects)
def test_a_digest_is_that_of_the_keys_etags_and_times(one: list[ObjectInfo], other: list[ObjectInfo]):
    # The second of LastModified is the same in all of them.
    same = {(o.key, o.etag) for o in one} == {(o.key, o.etag) for o in other}
    assert (str(Digest.of(one)) == str(Digest.of(other))) == same


def test_the_same_bytes_again_have_another_digest_by_the_second():
    [one] = objects("a")
    at_once = one._replace(last_modified=one.last_modified + dt.timedelta(microseconds=999_999))
    later = one._replace(last_modified=one.last_modified + dt.timedelta(seconds=1))
    assert Digest.of([at_once]) == Digest.of([one]) != Digest.of([later])


def test_a_digest_says_how_many_objects_there_are():
    assert Digest.of(objects("a", "b", "c")).count == 3
    assert Digest.of([]) == EMPTY


@given(folders_of_objects, st.integers(0, 6))
def test_digests_of_parts_sum_to_that_of_the_whole_and_are_read_back(found: list[ObjectInfo], at: int):
    assert Digest.of(found[:at]) + Digest.of(found[at:]) == Digest.of(found)
    assert Digest.parse(str(Digest.of(found))) == Digest.of(found)


def test_a_digest_is_the_same_in_every_version_of_the_code():
    # Recorded in instances that exist: another sum would have every partition made anew.
    assert str(Digest.of(objects("p225/a.flac", "p225/b.flac"))) == "2-2632abc1edc78a3d"


def test_objects_are_grouped_by_folder_and_minute():
    late = ObjectInfo("p225/c.flac", "e", 1, MINUTE + dt.timedelta(seconds=60))
    found = objects("p225/a.flac", "p225/b.flac", "p226/a.flac")
    assert group([*found, late]) == {
        at(0): found[:2],
        at(0, "p226"): found[2:],
        at(1): [late],
    }


# --- what a tick asks for -------------------------------------------------------------------------------


def test_new_partitions_are_registered_folder_by_folder_and_asked_for_in_one_range():
    found = [at(1), at(0, "p226"), at(0)]
    decided = decide(dict.fromkeys(found, some()))
    assert decided.add == [at(0).key, at(1).key, at(0, "p226").key]
    assert ranges(decided) == [(at(0).key, at(0, "p226").key)]
    assert decided.ranges[0].partitions == 3
    assert decided.delete == []


def test_what_the_table_was_made_from_is_not_asked_for_again():
    assert decide({at(0): some()}, {at(0): some()}) == NOTHING


def test_a_late_object_asks_for_its_partition_alone():
    made = {at(i): some() for i in range(5)}
    assert ranges(decide(made | {at(2): some(2)}, made)) == [(at(2).key, at(2).key)]


def test_an_object_that_moved_to_another_minute_asks_for_both():
    decided = decide({at(0): some(1), at(9): some(1)}, {at(0): some(2)})
    assert ranges(decided) == [(at(0).key, at(9).key)]
    assert decided.add == [at(9).key]


def test_an_emptied_partition_is_asked_for_and_deleted_once_its_rows_are_gone():
    gone = decide({}, {at(0): some()})
    assert (ranges(gone), gone.delete) == ([(at(0).key, at(0).key)], [])
    assert decide({}, {at(0): EMPTY}) == dataclasses.replace(NOTHING, delete=[at(0).key])
    assert decide({}, {at(0): EMPTY}, registered=[], folders={"p225"}) == NOTHING


def test_a_partition_that_never_came_to_have_rows_is_deleted_once_its_objects_are_gone():
    assert decide({}, {}, registered=[at(0)]) == dataclasses.replace(NOTHING, delete=[at(0).key])


def test_a_partition_that_is_emptied_after_its_key_was_deleted_by_hand_is_registered_again():
    decided = decide({}, {at(0): some()}, registered=[], folders={"p225"})
    assert decided.add == [at(0).key]
    assert ranges(decided) == [(at(0).key, at(0).key)]


def test_an_object_that_comes_back_is_asked_for():
    assert decide({at(0): some()}, {at(0): EMPTY}, registered=[]).add == [at(0).key]


def test_partitions_of_folders_that_were_not_listed_are_left_alone():
    decided = decide({at(0, "a"): some()}, {at(0, "z"): some()}, folders={"a"})
    assert (decided.add, decided.delete) == ([at(0, "a").key], [])
    assert ranges(decided) == [(at(0, "a").key, at(0, "a").key)]


def test_open_minutes_are_left_until_they_have_settled():
    found = {at(0): some()}
    for seconds, asked in ((30, False), (119, False), (120, True), (121, True)):
        now = MINUTE + dt.timedelta(seconds=seconds)
        decided = decide(found, now=now)
        assert (len(decided.ranges), decided.open) == ((1, 0) if asked else (0, 1))
        # Neither is a partition deleted whose new objects have not settled.
        assert decide(found, {}, registered=[at(0)], now=now).delete == []


def test_busy_partitions_are_left_until_their_run_ends():
    found = {at(i): some() for i in range(5)}
    decided = decide(found, registered=list(found), busy={at(2)})
    assert ranges(decided) == [(at(0).key, at(1).key), (at(3).key, at(4).key)]
    assert decide({}, {at(0): EMPTY}, busy={at(0)}) == NOTHING


def test_what_somebody_registered_by_hand_and_is_no_key_is_deleted():
    decided = plan(FolderContents(set(), {at(0): some()}), {}, ["nonsense"], set(), NOW, SETTLE)
    assert (decided.add, decided.delete) == ([at(0).key], ["nonsense"])
    assert ranges(decided) == [(at(0).key, at(0).key)]


def test_backfills_of_the_ui_cover_as_many_partitions_at_a_time():
    assert backfill_policy.max_partitions_per_run == settings.PARTITIONS_PER_RUN.get()


def test_runs_are_bounded_by_partitions_and_by_objects():
    decided = decide({at(i): some() for i in range(LIMITS.partitions * 2 + 1)})
    assert [request.partitions for request in decided.ranges] == [LIMITS.partitions, LIMITS.partitions, 1]
    decided = decide({at(i): some(LIMITS.objects // 2) for i in range(5)})
    assert [request.partitions for request in decided.ranges] == [2, 2, 1]
    assert len(decide({at(0): some(LIMITS.objects * 3)}).ranges) == 1


def test_a_run_passes_over_a_few_partitions_that_are_done_but_not_over_many():
    registered = [at(i) for i in range(LARGEST_GAP + 3)]
    made = dict.fromkeys(registered, some())

    def asked(first: int, last: int) -> int:
        return len(decide(made | {at(first): some(2), at(last): some(2)}, made).ranges)

    assert asked(0, LARGEST_GAP + 1) == 1
    assert asked(0, LARGEST_GAP + 2) == 2


def test_the_newest_minutes_come_first_if_so_set():
    known = at(1, "c")
    found = dict.fromkeys([at(0, "a"), at(2, "a"), at(0, "b"), at(2, "b"), known], some())
    contents = FolderContents({"a", "b", "c"}, found)
    limits = RunLimits(partitions=2)
    decided = plan(contents, {}, [known.key], set(), NOW, SETTLE, newest_first=True, limits=limits)
    assert decided.add == [at(2, "a").key, at(2, "b").key, at(0, "a").key, at(0, "b").key]
    assert ranges(decided) == [
        (known.key, at(2, "a").key),
        (at(2, "b").key, at(0, "a").key),
        (at(0, "b").key, at(0, "b").key),
    ]


def test_the_same_wanted_state_has_the_same_fingerprint_and_another_one_another():
    def fingerprint(found: dict[FolderMinute, Digest]) -> str:
        [request] = decide(found).ranges
        return request.fingerprint

    assert fingerprint({at(0): some(), at(1): some()}) == fingerprint({at(1): some(), at(0): some()})
    states = [{at(0): some()}, {at(0): some(2)}, {at(1): some()}, {at(0): some(), at(1): some()}]
    assert len({fingerprint(found) for found in states}) == len(states)


moments = st.builds(at, st.integers(0, 200), st.sampled_from(["a", "b"]))
digests = st.builds(some, st.integers(1, 3) | st.just(LIMITS.objects - 1))


@given(
    st.dictionaries(moments, digests), st.dictionaries(moments, digests | st.just(EMPTY)), st.sets(moments)
)
def test_every_pending_partition_is_in_one_range_and_no_busy_one_is(
    found: dict[FolderMinute, Digest], recorded: dict[FolderMinute, Digest], busy: set[FolderMinute]
):
    decided = decide(found, recorded, busy=busy)
    order = [p.key for p in recorded] + decided.add
    covered = [order[order.index(r.start) : order.index(r.end) + 1] for r in decided.ranges]
    flat = [key for keys in covered for key in keys]
    assert len(flat) == len(set(flat))
    wanted = {p: found.get(p, EMPTY) for p in (*found, *recorded)}
    pending = {p.key for p, digest in wanted.items() if recorded.get(p, EMPTY) != digest}
    assert pending - {p.key for p in busy} <= set(flat)
    assert not {p.key for p in busy} & set(flat)
    assert all(r.start in pending and r.end in pending for r in decided.ranges)
    assert all(len(keys) <= LIMITS.partitions for keys in covered)
    assert sum(r.partitions for r in decided.ranges) == len(pending - {p.key for p in busy})


@given(st.dictionaries(moments, digests), st.dictionaries(moments, digests | st.just(EMPTY)))
def test_once_the_runs_have_done_what_was_asked_there_is_nothing_left_to_ask(
    found: dict[FolderMinute, Digest], recorded: dict[FolderMinute, Digest]
):
    decided = decide(found, recorded)
    order = [*(p.key for p in recorded), *decided.add]
    done = dict(recorded)
    for request in decided.ranges:
        for key in order[order.index(request.start) : order.index(request.end) + 1]:
            done[FolderMinute.parse(key)] = found.get(FolderMinute.parse(key), EMPTY)
    registered = [FolderMinute.parse(key) for key in order if key not in decided.delete]
    after = decide(found, done, registered)
    assert (after.add, after.ranges) == ([], [])
    left = [p for p in registered if p.key not in after.delete]
    assert set(left) == set(found)


# --- retries --------------------------------------------------------------------------------------------


def test_retries_wait_longer_each_time_and_never_more_than_an_hour():
    delays = [retry_delay(tries) for tries in range(1, 50)]
    assert delays[0] == dt.timedelta(minutes=1)
    assert delays == sorted(delays)
    assert delays[-1] == dt.timedelta(hours=1)


@pytest.mark.parametrize("tries", [1, 5, 10_000])
def test_a_retry_is_never_refused(tries: int):
    assert dt.timedelta(0) < retry_delay(tries) <= dt.timedelta(hours=1)


# --- objects that are overwritten -----------------------------------------------------------------------


def test_an_open_minute_does_not_wait_where_its_folder_may_have_lost_a_row_to_it():
    now = MINUTE + dt.timedelta(minutes=5, seconds=30)
    recorded = {at(0): some(2), at(1): some(), at(1, "p226"): some()}
    found = {at(0): some(1), at(1): some(), at(5): some(3), at(1, "p226"): some(), at(5, "p226"): some()}
    decided = decide(found, recorded, now=now)
    assert decided.add == [at(5).key]
    # p226 has lost nothing, so its open minute waits.
    assert decided.open == 1
    assert decided.pending == {at(0).key, at(5).key}


def test_a_minute_that_gains_rows_is_asked_for_before_one_that_loses_rows():
    recorded = {at(m): some(2) for m in range(2 * LARGEST_GAP)}
    found = {**recorded, at(0): some(1), at(99): some(1)}
    assert ranges(decide(found, recorded)) == [(at(99).key, at(99).key), (at(0).key, at(0).key)]
    gone = {p: digest for p, digest in found.items() if p != at(0)}
    assert ranges(decide(gone, recorded)) == [(at(99).key, at(99).key), (at(0).key, at(0).key)]


def test_deletions_do_not_wait_for_open_minutes():
    now = MINUTE + dt.timedelta(minutes=5)
    recorded = {at(0): some(2), at(5): some(1)}
    found = {at(0): some(1), at(5): some(2)}
    assert decide(found, recorded, now=now).pending == {at(0).key, at(5).key}
    assert decide(found, recorded, now=now, busy={at(0)}).pending == {at(0).key}


def test_a_partition_without_rows_that_gains_some_has_lost_none():
    now = MINUTE + dt.timedelta(minutes=5)
    decided = decide({at(0): some(), at(5): some()}, {at(0): EMPTY}, now=now)
    assert (decided.open, decided.pending) == (1, {at(0).key})


def test_a_request_after_another_run_is_no_second_try_and_one_after_a_run_that_died_is():
    def fingerprint(recorded: str | None, *, made_before: PartitionRecord | None = None) -> str:
        contents = FolderContents({"p225"}, {at(0): some(1)})
        key = at(0).key
        before = {key: made_before} if made_before else {}
        actual = {key: recorded} if recorded else {}
        [wanted] = plan(contents, actual, [key], set(), NOW, SETTLE, made_before=before).ranges
        return wanted.fingerprint

    first = fingerprint(None)
    # What died has left files in some of the tables.
    assert fingerprint("unknown") == first
    made = PartitionRecord(str(some(2)), "v", run="one")
    back = fingerprint(made.digest, made_before=made)
    assert back != first
    assert fingerprint(made.digest, made_before=dataclasses.replace(made, run="three")) != back
    assert fingerprint(None, made_before=made) == back
