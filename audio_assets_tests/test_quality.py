"""What is found wrong with the rows of `audio_table`, without Dagster."""

import io
import math
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audio_assets import schema
from audio_assets.partitions import FolderMinute
from audio_assets.quality import EXAMPLES, Findings, PartitionFile, Summary
from audio_assets.record import PartitionRecord
from audio_assets.schema import FieldMetadata
from audio_assets.staleness import Producers, stale_partitions
from audio_assets.storage import ObjectStore
from audio_assets.table import Table
from audio_assets_tests.support.audio import MINUTE
from audio_assets_tests.support.rows import at, write

PARTITION = FolderMinute("p225", MINUTE)


def row(key: str, **values: object) -> dict[str, object]:
    return dict(Key=key, ETag="e", Size=1, LastModified=MINUTE, status="ok", transcribed_text="One.") | values


def file_of(*rows: dict[str, object], partition: FolderMinute = PARTITION) -> PartitionFile:
    return PartitionFile.of(partition, pa.Table.from_pylist(list(rows), schema.AUDIO_TABLE))


def found(*rows: dict[str, object]) -> Findings:
    """What is found in one partition."""
    findings = Findings()
    findings.add(file_of(*rows))
    return findings


@pytest.fixture
def table(tmp_path: pathlib.Path) -> Table:
    return Table(ObjectStore(tmp_path.as_uri()), "audio_table", schema.AUDIO_TABLE)


def never(_: FolderMinute) -> bool:
    return False


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("status", "unknown", "ok, not_flac, failed"),
        ("status", "", "ok, not_flac, failed"),
        ("no_speech_prob", 1.5, "0 to 1"),
        ("no_speech_prob", -0.5, "0 to 1"),
        ("temperature", 2.0, "0 to 1"),
        ("temperature", math.nan, "0 to 1"),
        ("temperature", math.inf, "0 to 1"),
        ("duration_s", -1.0, "0 or more"),
        ("Size", -1, "0 or more"),
        ("sample_rate_hz", 0, "1 or more"),
        ("channels", 0, "1 or more"),
    ],
)
def test_a_value_that_its_column_does_not_allow_is_found(column: str, value: object, allowed: str):
    findings = found(row("p225/a.flac"), row("p225/b.flac", **{column: value}))
    assert findings.disallowed.count == 1
    assert findings.disallowed.first == [
        {"Key": "p225/b.flac", "column": column, "value": repr(value), "allowed": allowed}
    ]


def test_null_and_the_limits_themselves_are_allowed():
    least = dict(no_speech_prob=0.0, temperature=0.0, duration_s=0.0, Size=0, sample_rate_hz=1, channels=1)
    most = dict(no_speech_prob=1.0, temperature=1.0, duration_s=1e9, Size=2**62)
    none = dict.fromkeys(["no_speech_prob", "temperature", "duration_s", "sample_rate_hz", "channels"])
    assert found(row("a", **least), row("b", **most), row("c", **none)).disallowed.count == 0
    for status in schema.STATUSES:
        assert found(row("a", status=status)).disallowed.count == 0


def test_of_many_values_the_first_are_shown_and_all_are_counted():
    findings = found(*[row(f"p225/{i:03}.flac", channels=0, temperature=-1.0) for i in range(100)])
    assert findings.disallowed.count == 200
    assert len(findings.disallowed.first) == EXAMPLES
    assert {example["column"] for example in findings.disallowed.first} == {"temperature"}
    findings.add(file_of(row("p226/a.flac", channels=0), partition=FolderMinute("p226", MINUTE)))
    assert findings.disallowed.count == 201
    assert len(findings.disallowed.first) == EXAMPLES


def test_every_column_with_a_limit_has_one_that_arrow_can_compare():
    limited = {f.name for f in schema.AUDIO_TABLE if FieldMetadata.of(f).allowed}
    assert limited == {
        *("Size", "no_speech_prob", "temperature", "duration_s", "sample_rate_hz", "channels", "status"),
        *("language_probability", "runner_up_language_probability"),
        *("worst_avg_logprob", "worst_no_speech_prob", "sampled_share"),
        *("characters_per_second", "words_per_second", "unique_word_ratio", "longest_word_length"),
        *("clipped_share", "speech_share", "bandwidth_hz", "second_word_error_rate"),
        *("codebooks", "codebook_size", "frame_rate_hz", "codec_sample_rate_hz"),
    }


# --- files --------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_none(table: Table):
    assert PartitionFile.read(table, PARTITION) is None


def test_a_file_without_nullable_columns_is_looked_at_like_any_other(table: Table):
    rows = pa.Table.from_pylist([row("p225/a.flac")], schema.AUDIO_TABLE)
    sink = io.BytesIO()
    pq.write_table(rows.drop_columns(["transcribed_text", "error", "temperature"]), sink)
    table.store.replace(table.path(PARTITION), sink.getvalue(), None)
    file = PartitionFile.read(table, PARTITION)
    assert file is not None
    assert file.problem == ""
    assert (file.record.ok, file.record.empty) == (1, 1)


def test_a_file_has_the_record_that_its_run_left(table: Table):
    rows = pa.Table.from_pylist(
        [row("p225/a.flac"), row("p225/b.txt", status="not_flac")], schema.AUDIO_TABLE
    )
    version = table.replace(PARTITION, rows, table.read(PARTITION))
    file = PartitionFile.read(table, PARTITION)
    assert file is not None
    assert file.record == PartitionRecord.of(rows, version)


def test_a_file_of_another_schema_gives_no_rows():
    findings = Findings()
    no_rows = PartitionFile(PARTITION, "it lacks Size", PartitionRecord("", ""), np.empty(0, np.int64))
    findings.add(no_rows)
    assert findings.wrong_schema.first == [{"partition": PARTITION.key, "problem": "it lacks Size"}]
    assert findings.summary.rows == findings.summary.partitions == 0


# --- repeated keys ------------------------------------------------------------------------------------------


def repeated(table: Table, *files: tuple[FolderMinute, list[str]], waits=never) -> list[dict[str, str]]:
    """What is repeated in partitions that have rows of some keys."""
    findings = Findings()
    for partition, keys in files:
        write(table, partition, *(row(key) for key in keys))
        file = PartitionFile.read(table, partition)
        assert file is not None
        findings.add(file)
    found = findings.repeated(table, waits)
    assert found.count == len(found.first)
    return found.first


def test_keys_are_told_apart(table: Table):
    files = [(at("p225", i), [f"p225/{i}-{j}.flac" for j in range(50)]) for i in range(20)]
    assert repeated(table, *files) == []


def test_a_key_repeats_in_a_file_across_minutes_and_across_folders(table: Table):
    files = [
        (at("p225"), ["p225/a.flac", "p225/b.flac", "p225/a.flac"]),
        (at("p225", 1), ["p225/b.flac", "p225/c.flac"]),
        (at("p226"), ["p225/c.flac", "p226/a.flac"]),
    ]
    assert repeated(table, *files) == [
        {"Key": "p225/a.flac", "partitions": at("p225").key},
        {"Key": "p225/b.flac", "partitions": f"{at('p225').key}, {at('p225', 1).key}"},
        {"Key": "p225/c.flac", "partitions": f"{at('p225', 1).key}, {at('p226').key}"},
    ]


def test_rows_of_a_partition_that_a_run_makes_do_not_repeat_a_key(table: Table):
    files = [(at("p225", i), ["p225/a.flac"]) for i in range(3)]
    assert repeated(table, *files[:2], waits=lambda p: p == at("p225", 1)) == []
    assert repeated(table, *files, waits=lambda p: p == at("p225", 1)) == [
        {"Key": "p225/a.flac", "partitions": f"{at('p225').key}, {at('p225', 2).key}"}
    ]


def test_a_key_that_is_repeated_no_longer_is_no_fault(table: Table):
    findings = Findings()
    for minutes in (0, 1):
        write(table, at("p225", minutes), row("p225/a.flac"))
        findings.add(file_of(row("p225/a.flac"), partition=at("p225", minutes)))
    assert findings.repeats
    write(table, at("p225"), row("p225/b.flac"))
    assert findings.repeated(table, never).count == 0


# --- sums ---------------------------------------------------------------------------------------------------


def test_shares_of_nothing_are_none_at_all():
    assert Summary().failed_share == Summary().empty_share == 0
    assert not Summary().lacks_audio


def test_shares_are_those_of_flac_and_of_what_was_recognised():
    findings = found(
        row("a", status="not_flac", transcribed_text=None),
        row("b", status="failed", error="the object is empty", transcribed_text=None),
        row("c", transcribed_text=""),
        row("d"),
        row("e"),
    )
    assert (findings.summary.failed_share, findings.summary.empty_share) == (1 / 4, 1 / 3)
    assert findings.failures.first == [{"Key": "b", "error": "the object is empty"}]


RECORDS = {
    "a": PartitionRecord("", "", ok=3, whisper_models={"new": 3}, tokenisers={"t": 3}),
    "b": PartitionRecord(
        "", "", ok=2, failed=1, empty=1, whisper_models={"old": 1, "new": 2}, tokenisers={"t": 3}
    ),
    "c": PartitionRecord("", "", not_flac=4),
    "d": PartitionRecord("", "", ok=1, whisper_models={"new": 1}, tokenisers={"u": 1}),
    "e": PartitionRecord("", "", ok=1, tokenisers={"t": 1}),
}


def test_a_summary_is_the_sum_of_its_partitions():
    summary = Summary.of(RECORDS.values())
    assert (summary.partitions, summary.rows) == (5, 12)
    assert (summary.ok, summary.failed, summary.not_flac, summary.empty) == (7, 1, 4, 1)
    # A row of audio that does not say what made it.
    assert summary.whisper_models == {"new": 6, "old": 1, "": 1}
    assert summary.tokenisers == {"t": 7, "u": 1}


def test_partitions_are_stale_that_hold_rows_of_another_producer():
    asked: list[str] = []

    def is_new(name: str) -> bool:
        asked.append(name)
        return name == "new"

    assert stale_partitions(RECORDS, Producers(is_new, "t".__eq__)) == {"b": 1, "d": 1, "e": 1}
    # The comparison may have to read a checkpoint.
    assert sorted(asked) == ["new", "old"]
    assert stale_partitions(RECORDS, Producers(lambda _: True, lambda _: True)) == {"e": 1}
    assert stale_partitions({}, Producers(is_new, is_new)) == {}


@pytest.mark.parametrize(("name", "lacks"), [("a", False), ("c", True)])
def test_a_table_lacks_audio_where_nothing_is_of_an_audio_format(name: str, lacks: bool):
    assert Summary.of([RECORDS[name]]).lacks_audio is lacks
    failed = PartitionRecord("", "", failed=1)
    assert not Summary.of([RECORDS[name], failed]).lacks_audio
