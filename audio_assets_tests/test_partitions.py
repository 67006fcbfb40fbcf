"""Object key <-> folder and minute <-> partition key <-> Hive path."""

import datetime as dt
import re
from collections.abc import Iterator

import pytest
from dagster._core.definitions.partitions.utils import raise_error_on_invalid_partition_key_substring
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from audio_assets import partitions as partitions_module
from audio_assets.digest import Digest
from audio_assets.partitions import (
    LONGEST_SHOWN,
    SEPARATOR,
    FolderMinute,
    folder_of,
    folder_of_partition,
    folder_prefix,
    minute_of_partition,
    shortened_key,
)
from audio_assets.retire import Choice, month_table
from audio_assets.sensor.run_requests import FolderContents, plan

MINUTE = dt.datetime(2023, 8, 24, 0, 21, tzinfo=dt.UTC)

# S3 takes any Unicode text of up to 1,024 bytes as a key; surrogates are no Unicode text.
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    ' .%|,[]*"\\/=\0\n\x7f_', max_size=8
)
folders = names.map(lambda name: folder_of(name + "/file.flac"))
minutes = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(9999, 12, 31), timezones=st.just(dt.UTC)).map(
    lambda moment: moment.replace(second=0, microsecond=0)
)
partitions = st.builds(FolderMinute, folders, minutes)
# Too long for a directory, even where no letter is escaped.
long_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=250, max_size=1_024)


# --- object keys ----------------------------------------------------------------------------------------


def test_an_object_belongs_to_its_folder_and_the_minute_of_its_upload():
    uploaded = dt.datetime(2023, 8, 24, 2, 21, 59, 999_999, dt.timezone(dt.timedelta(hours=2)))
    assert FolderMinute.of("p225/p225_001.flac", uploaded) == FolderMinute("p225", MINUTE)


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("p225/p225_001.flac", "p225"),
        ("a/b/c.flac", "a/b"),
        ("right_here.flac", "."),
        ("/c.flac", ""),
        ("a//c.flac", "a/"),
        ("./c.flac", "./"),
        (".//c.flac", ".//"),
    ],
)
def test_folder_of_a_key(key: str, folder: str):
    assert folder_of(key) == folder


@given(names, names.map(lambda name: name.replace("/", "")))
def test_a_folder_says_what_its_keys_start_with(folder: str, file: str):
    for key in (f"{folder}/{file}", file):
        assert folder_prefix(folder_of(key)) + file == key


@given(partitions)
def test_seconds_and_other_zones_are_no_minutes(partition: FolderMinute):
    for wrong in (
        partition.minute.replace(second=1),
        partition.minute.replace(microsecond=1),
        partition.minute.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))),
        partition.minute.replace(tzinfo=None),
    ):
        with pytest.raises(ValueError, match="whole minute in UTC"):
            FolderMinute(partition.folder, wrong)


# --- partition keys -------------------------------------------------------------------------------------


def test_a_key_reads_like_folder_and_minute():
    assert FolderMinute("p225", MINUTE).key == "p225@2023-08-24-00:21"


def test_only_what_dagster_and_its_ui_cannot_take_is_escaped_in_keys():
    plain = "Ünï çode/日本 (1)+a=b&c;d:e'f#g?h..i{j}<k>$~`!^"
    assert FolderMinute(plain, MINUTE).key.startswith(plain + "@")
    assert FolderMinute("a@b|c, 50%...", MINUTE).key.startswith("a%40b%7Cc%2C 50%25%2E%2E%2E@")
    assert FolderMinute(" a ", MINUTE).key.startswith("%20a%20@")


def test_a_key_to_look_at_keeps_its_minute_and_the_beginning_of_a_long_folder():
    assert shortened_key(FolderMinute("p225", MINUTE).key) == "p225@2023-08-24-00:21"
    longest = FolderMinute("d" * 17, MINUTE).key
    assert shortened_key(longest) == longest
    shown = shortened_key(FolderMinute("speaker 0123/session 4", MINUTE).key)
    assert shown == "speaker 0123/ses…@2023-08-24-00:21"
    assert len(longest) == len(shown) == LONGEST_SHOWN


@given(partitions)
def test_a_key_reads_back_as_its_partition(partition: FolderMinute):
    assert FolderMinute.parse(partition.key) == partition


@given(partitions)
def test_dagster_takes_every_key(partition: FolderMinute):
    raise_error_on_invalid_partition_key_substring([partition.key])
    assert not re.search(r"[\x00-\x1f\x7f]", partition.key)


@given(partitions)
def test_no_key_holds_what_the_ui_takes_for_syntax(partition: FolderMinute):
    assert not re.search(r'[|,\[\]*"\\]|\.\.\.', partition.key)
    assert partition.key.count(SEPARATOR) == 1
    assert partition.key == partition.key.strip()


@given(partitions, partitions)
def test_distinct_partitions_have_distinct_keys_and_paths(one: FolderMinute, other: FolderMinute):
    assert (one.key == other.key) == (one == other)
    assert (one.path == other.path) == (one == other)


@pytest.mark.parametrize(
    "key",
    [
        *("", "p225", "p225@", "p225@2023-08-24", "p225@2023-08-24-24:00", "a@b@2023-08-24-00:21"),
        # Others than `FolderMinute.key` writes would be a second name of the same partition.
        *("p225@2023-8-24-0:21", "p%32@2023-08-24-00:21", "a,b@2023-08-24-00:21", " a@2023-08-24-00:21"),
    ],
)
def test_what_is_no_partition_key_says_how_one_reads(key: str):
    with pytest.raises(ValueError, match="p225@2023-08-24-00:21"):
        FolderMinute.parse(key)


@given(
    st.text() | st.builds("{}@{}".format, names, st.datetimes().map(lambda m: m.strftime("%Y-%m-%d-%H:%M")))
)
def test_a_text_is_the_key_of_one_partition_or_of_none(text: str):
    try:
        partition = FolderMinute.parse(text)
    except ValueError:
        return
    assert partition.key == text


def test_partitions_sort_by_folder_then_time():
    earlier = FolderMinute("p225", MINUTE)
    later = FolderMinute("p225", MINUTE + dt.timedelta(days=400))
    other = FolderMinute("p226", MINUTE - dt.timedelta(days=400))
    assert sorted([other, later, earlier]) == [earlier, later, other]


@pytest.fixture
def other_separator(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The separator is changed in the one place that says it."""
    monkeypatch.setattr(partitions_module, "SEPARATOR", "~")
    folder_of_partition.cache_clear()
    yield "~"
    folder_of_partition.cache_clear()


@pytest.mark.usefixtures("other_separator")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(partitions)
@example(FolderMinute("a~b|c", MINUTE))
def test_another_separator_leaves_keys_that_read_back(partition: FolderMinute):
    assert partition.key.count("~") == 1
    assert FolderMinute.parse(partition.key) == partition
    assert folder_of_partition(partition.key) == partition.folder
    assert minute_of_partition(partition.key) == partition.minute.isoformat("-", "minutes")[:16]
    raise_error_on_invalid_partition_key_substring([partition.key])


@pytest.mark.usefixtures("other_separator")
def test_another_separator_is_known_wherever_keys_are_sorted_grouped_and_named():
    keys = [FolderMinute(f, MINUTE + dt.timedelta(days=d)).key for f, d in (("a", 0), ("b|c", 40), ("d", 9))]
    assert keys == ["a~2023-08-24-00:21", "b%7Cc~2023-10-03-00:21", "d~2023-09-02-00:21"]
    found = {FolderMinute.parse(key): Digest(1, 1) for key in keys}
    contents = FolderContents({"a", "b|c", "d"}, found)
    now = MINUTE + dt.timedelta(days=365)
    decided = plan(contents, {}, [], set(), now, dt.timedelta(0), newest_first=True)
    assert decided.add == [keys[1], keys[2], keys[0]]
    table = month_table(Choice(retire=keys[:2], keep=keys[2:]))
    assert [line.split()[0] for line in table.splitlines()] == [
        "month",
        "2023-08",
        "2023-09",
        "2023-10",
        "all",
    ]
    with pytest.raises(ValueError, match="should read like p225~2023-08-24-00:21"):
        FolderMinute.parse("a@2023-08-24-00:21")


# --- Hive paths -----------------------------------------------------------------------------------------


def test_a_path_carries_the_partition_in_directories_and_in_the_file_name():
    assert FolderMinute("p225", MINUTE).path == (
        "FolderName=p225/LastModifiedDate=2023-08-24/LastModifiedHour=0/LastModifiedMinute=21/"
        "p225_2023-08-24_00-21.parquet"
    )


@given(partitions)
@example(FolderMinute("", MINUTE))
def test_a_path_reads_back_as_its_partition(partition: FolderMinute):
    for path in (partition.path, "some/where/audio_table/" + partition.path):
        read = FolderMinute.from_path(path)
        assert read is not None
        assert (read.path, read.minute) == (partition.path, partition.minute)
        assert read == partition or read.shortened


@given(long_names)
@example("#" * 1_000)
@example(" " * 1_000)
@example("日" * 340)
def test_a_folder_too_long_for_a_directory_is_shortened_and_told_apart_by_a_digest(name: str):
    one = FolderMinute(name, MINUTE)
    other = FolderMinute(name + "x", MINUTE)
    assert one.path != other.path
    directory = one.path.partition("/")[0].removeprefix("FolderName=")
    assert re.fullmatch(r".{50,}%7E[0-9a-f]{32}", directory)
    assert FolderMinute.parse(one.key) == one
    read = FolderMinute.from_path(one.path)
    assert read is not None
    assert (read.path, read.shortened) == (one.path, True)
    # A folder may be called as the shortened one reads.
    assert FolderMinute(read.folder, MINUTE).path != one.path


@given(partitions)
def test_file_names_are_not_hidden(partition: FolderMinute):
    assert partition.path.rpartition("/")[2][0] not in "._"


@given(partitions | st.builds(FolderMinute, long_names, minutes))
def test_a_path_has_five_segments_that_any_store_takes(partition: FolderMinute):
    segments = partition.path.split("/")
    assert len(segments) == 5
    for segment in segments:
        assert not re.search(r"[\x00-\x1f\x7f\\:*?\"<>|#'\[\]{}^+&]", segment)
        assert segment == segment.strip()
        assert len(segment.encode()) <= 255


def test_letters_of_any_alphabet_stay_readable_in_paths():
    assert FolderMinute("Zürich/日本", MINUTE).path.startswith("FolderName=Zürich%2F日本/")


@given(st.characters(exclude_categories=["Cs"]))
def test_the_longest_folder_name_of_a_disk_still_has_a_file_name(letter: str):
    folder = folder_of(letter * (255 // len(letter.encode())) + "/file.flac")
    assert len(FolderMinute(folder, MINUTE).path.rpartition("/")[2].encode()) <= 255


@pytest.mark.parametrize(
    "path",
    [
        "",
        "FolderName=p225/LastModifiedDate=2023-08-24/LastModifiedHour=0/x.parquet",
        "FolderName=p225/LastModifiedDate=2023-08-24/LastModifiedHour=0/LastModifiedMinute=21/.x.tmp",
        "FolderName=p225/LastModifiedDate=2023-02-30/LastModifiedHour=0/LastModifiedMinute=21/x.parquet",
        "FolderName=p225/LastModifiedDate=2023-08-24/LastModifiedHour=24/LastModifiedMinute=21/x.parquet",
    ],
)
def test_other_files_belong_to_no_partition(path: str):
    assert FolderMinute.from_path(path) is None
