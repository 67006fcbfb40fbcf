"""What is found wrong with the rows of `audio_table`, without Dagster."""

import datetime as dt
import math

import pyarrow as pa
import pytest

from audio_assets import schema
from audio_assets.partitions import FolderMinute
from audio_assets.quality import EXAMPLES, Findings
from audio_assets.schema import FieldMetadata
from audio_assets_tests.support.audio import MINUTE

PARTITION = FolderMinute("p225", MINUTE)


def row(key: str, **values: object) -> dict[str, object]:
    return dict(Key=key, ETag="e", Size=1, LastModified=MINUTE, status="ok", transcribed_text="One.") | values


def found(*rows: dict[str, object]) -> Findings:
    """What is found in one partition that the inventory agrees with."""
    table = pa.Table.from_pylist(list(rows), schema.AUDIO_TABLE)
    findings = Findings()
    findings.add(PARTITION, table, table.select(schema.INVENTORY.names))
    return findings


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
    assert findings.disallowed == 1
    assert findings.examples == [
        {"Key": "p225/b.flac", "column": column, "value": repr(value), "allowed": allowed}
    ]


def test_null_and_the_limits_themselves_are_allowed():
    least = dict(no_speech_prob=0.0, temperature=0.0, duration_s=0.0, Size=0, sample_rate_hz=1, channels=1)
    most = dict(no_speech_prob=1.0, temperature=1.0, duration_s=1e9, Size=2**62)
    none = dict.fromkeys(["no_speech_prob", "temperature", "duration_s", "sample_rate_hz", "channels"])
    assert found(row("a", **least), row("b", **most), row("c", **none)).disallowed == 0
    for status in schema.STATUSES:
        assert found(row("a", status=status)).disallowed == 0


def test_of_many_values_the_first_are_shown_and_all_are_counted():
    findings = found(*[row(f"p225/{i:03}.flac", channels=0, temperature=-1.0) for i in range(100)])
    assert findings.disallowed == 200
    assert len(findings.examples) == EXAMPLES
    assert {example["column"] for example in findings.examples} == {"temperature"}


def test_every_column_with_a_limit_has_one_that_arrow_can_compare():
    limited = {f.name for f in schema.AUDIO_TABLE if FieldMetadata.of(f).allowed}
    assert limited == {
        *("Size", "no_speech_prob", "temperature", "duration_s", "sample_rate_hz", "channels", "status"),
    }


def test_a_file_without_nullable_columns_is_looked_at_like_any_other():
    table = pa.Table.from_pylist([row("p225/a.flac")], schema.AUDIO_TABLE)
    findings = Findings()
    old = table.drop_columns(["transcribed_text", "error", "temperature"])
    findings.add(PARTITION, old, table.select(schema.INVENTORY.names))
    assert findings.wrong_schema == []
    assert (findings.rows, findings.flac, findings.recognised, findings.empty) == (1, 1, 1, 1)


def test_a_key_repeats_across_the_minutes_of_a_folder():
    findings = Findings()
    later = FolderMinute("p225", MINUTE + dt.timedelta(minutes=1))
    for partition in (PARTITION, later):
        table = pa.Table.from_pylist([row("p225/a.flac")], schema.AUDIO_TABLE)
        findings.add(partition, table, table.select(schema.INVENTORY.names))
    assert findings.repeated == ["p225/a.flac"]
    assert (findings.partitions, findings.rows) == (2, 2)


def test_a_partition_without_file_or_inventory_is_found():
    findings = Findings()
    findings.add(PARTITION, None, None)
    assert findings.wrong_schema == [PARTITION.key]
    findings.add(PARTITION, pa.Table.from_pylist([row("p225/a.flac")], schema.AUDIO_TABLE), None)
    assert findings.differing == ["p225/a.flac"]


def test_shares_of_nothing_are_none_at_all():
    assert Findings().failed_share == Findings().empty_share == 0


def test_shares_are_those_of_flac_and_of_what_was_recognised():
    findings = found(
        row("a", status="not_flac", transcribed_text=None),
        row("b", status="failed", error="the object is empty", transcribed_text=None),
        row("c", transcribed_text=""),
        row("d"),
        row("e"),
    )
    assert (findings.failed_share, findings.empty_share) == (1 / 4, 1 / 3)
    assert findings.failed == [{"Key": "b", "error": "the object is empty"}]
