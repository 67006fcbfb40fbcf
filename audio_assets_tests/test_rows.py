"""`audio_table` is its three inputs, joined object by object."""

from typing import Any

import pyarrow as pa
import pytest

from audio_assets import schema
from audio_assets.errors import MissingInputError
from audio_assets.rows import audio_rows
from audio_assets_tests.support.audio import MINUTE


def inventory(*names: str) -> pa.Table:
    rows = [dict(Key=name, ETag=f"etag of {name}", Size=1, LastModified=MINUTE) for name in names]
    return pa.Table.from_pylist(rows, schema=schema.INVENTORY)


def made(columns: pa.Schema, *rows: dict[str, Any]) -> pa.Table:
    filled = [dict(ETag=f"etag of {row['Key']}", status="ok") | row for row in rows]
    return pa.Table.from_pylist(filled, schema=columns)


def test_each_object_is_one_row_in_the_order_of_the_inventory():
    transcripts = made(
        schema.TRANSCRIPTS,
        dict(Key="b", transcribed_text="B", avg_logprob=-0.5, duration_s=2.0, whisper_model="w"),
        dict(Key="a", transcribed_text="A"),
    )
    tokens = made(
        schema.TOKENS, dict(Key="a", tokenized_info=[1]), dict(Key="b", tokenized_info=[2], tokeniser="t")
    )
    table = audio_rows(inventory("b", "a"), transcripts, tokens)
    assert table.schema == schema.AUDIO_TABLE
    assert table["Key"].to_pylist() == ["b", "a"]
    assert table["transcribed_text"].to_pylist() == ["B", "A"]
    assert table["tokenized_info"].to_pylist() == [[2], [1]]
    first = table.to_pylist()[0]
    assert (first["duration_s"], first["whisper_model"], first["tokeniser"]) == (2.0, "w", "t")
    assert (first["LastModified"], first["Size"], first["error"]) == (MINUTE, 1, None)


@pytest.mark.parametrize(
    ("heard", "coded", "status", "error"),
    [
        (("ok", None), ("ok", None), "ok", None),
        (("not_flac", None), ("not_flac", None), "not_flac", None),
        (("failed", "empty"), ("failed", "empty"), "failed", "empty"),
        (("ok", None), ("failed", "codec"), "failed", "codec"),
        (("failed", "Whisper"), ("failed", "codec"), "failed", "Whisper; codec"),
    ],
)
def test_an_object_is_as_bad_as_the_worse_of_its_two(
    heard: tuple, coded: tuple, status: str, error: str | None
):
    transcripts = made(schema.TRANSCRIPTS, dict(Key="a", status=heard[0], error=heard[1]))
    tokens = made(schema.TOKENS, dict(Key="a", status=coded[0], error=coded[1]))
    [row] = audio_rows(inventory("a"), transcripts, tokens).to_pylist()
    assert (row["status"], row["error"]) == (status, error)


def test_rows_of_objects_that_are_gone_are_left_out():
    transcripts = made(schema.TRANSCRIPTS, dict(Key="gone"), dict(Key="a"))
    tokens = made(schema.TOKENS, dict(Key="a"), dict(Key="gone"))
    assert audio_rows(inventory("a"), transcripts, tokens)["Key"].to_pylist() == ["a"]
    assert len(audio_rows(inventory(), transcripts, tokens)) == 0


@pytest.mark.parametrize("stale", [dict(Key="other"), dict(Key="b", ETag="older")])
def test_what_is_not_transcribed_in_its_present_form_is_named(stale: dict):
    whole = (dict(Key="a"), dict(Key="b"))
    with pytest.raises(
        MissingInputError, match=r"transcripts lacks 1 of 2 objects .* 'b' .*; materialise transcripts"
    ):
        audio_rows(
            inventory("a", "b"), made(schema.TRANSCRIPTS, whole[0], stale), made(schema.TOKENS, *whole)
        )
    with pytest.raises(MissingInputError, match=r"tokens lacks 1 of 2 objects .* 'b'"):
        audio_rows(
            inventory("a", "b"), made(schema.TRANSCRIPTS, *whole), made(schema.TOKENS, whole[0], stale)
        )
