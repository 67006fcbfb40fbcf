"""What is recorded of a partition, from its rows and back."""

import dataclasses
import json

import pytest

from audio_assets import schema
from audio_assets.digest import EMPTY, Digest
from audio_assets.record import LONGEST_BYTES, MANY, PartitionRecord
from audio_assets.rows import inventory_objects
from audio_assets_tests.support.rows import row, rows


def test_a_record_counts_the_rows_of_a_file():
    made = rows(
        row("a.flac", transcribed_text="one", whisper_model="tiny", tokeniser="simulated", duration_s=1.25),
        row("b.flac", transcribed_text="", whisper_model="tiny", tokeniser="own", duration_s=0.5),
        row("c.flac", status=schema.FAILED, transcribed_text=None, whisper_model="base", tokeniser="own"),
        row("d.TXT", status=schema.NOT_FLAC, transcribed_text=None, whisper_model=None, tokeniser=None),
    )
    record = PartitionRecord.of(made, "v1")
    assert record == PartitionRecord(
        digest=str(Digest.of(inventory_objects(made))),
        version="v1",
        ok=2,
        failed=1,
        not_flac=1,
        empty=1,
        whisper_models={"tiny": 2, "base": 1},
        tokenisers={"simulated": 1, "own": 2},
        audio_s=1.75,
        suffixes={".txt": 1},
    )
    assert record.rows == 4
    assert PartitionRecord.from_json(record.to_json()) == record


def test_a_partition_without_rows_has_the_digest_of_no_objects():
    record = PartitionRecord.of(schema.AUDIO_TABLE.empty_table(), "")
    assert record == PartitionRecord(str(EMPTY), "", audio_s=0.0)


def test_a_run_that_changes_nothing_leaves_the_record_as_it_is():
    before = PartitionRecord("1-00000000000000ff", "v1", ok=1, run="one")
    same = dataclasses.replace(before, run="two")
    other = dataclasses.replace(same, version="v2")
    assert same.after(before) == before
    assert other.after(before) == other
    assert other.after(None) == other


def test_a_record_is_one_short_line():
    record = PartitionRecord("1-00000000000000ff", "v1", whisper_models={"Zürich\n": 1})
    assert "\n" not in record.to_json()
    assert json.loads(record.to_json())["version"] == "v1"


def test_a_record_of_any_number_of_producers_is_short_enough_for_an_index_of_postgres():
    models = {f"whisper modèle-{i} language=detected engine=1": 2 for i in range(100)}
    suffixes = {f".{i}": 1 for i in range(1_000)}
    record = PartitionRecord(
        "1-00000000000000ff",
        "v1",
        ok=200,
        not_flac=1_000,
        whisper_models=models,
        tokenisers={"a": 200},
        suffixes=suffixes,
    )
    read = PartitionRecord.from_json(record.to_json())
    assert len(record.to_json().encode()) <= LONGEST_BYTES
    assert (read.ok, read.whisper_models, read.tokenisers) == (200, {MANY: 200}, {MANY: 200})
    assert read.suffixes == {MANY: 1_000}


def test_a_suffix_that_can_be_none_counts_as_none():
    names = ["v1.2023-08-24 take two", "notes", "a.b/c.MP3"]
    record = PartitionRecord.of(rows(*(row(name, status=schema.NOT_FLAC) for name in names)), "v1")
    assert record.suffixes == {"": 1, "notes": 1, ".mp3": 1}


@pytest.mark.parametrize("text", ["", "1-00000000000000ff", "[]", "{}", '{"digest": "", "else": 1}'])
def test_what_is_no_record_is_refused(text: str):
    with pytest.raises((ValueError, TypeError)):
        PartitionRecord.from_json(text)
