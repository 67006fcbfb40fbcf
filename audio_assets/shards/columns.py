"""The columns of a shard, by the names that Hugging Face, NeMo and Lhotse look for.

`audio` has Hugging Face's layout of the feature `Audio`. NeMo's Parquet reader takes `audio`, `text`,
`duration`, `lang` and `id`. What a reader does not know, it passes on: NeMo and Lhotse in `cut.custom`.
"""

import json
from collections.abc import Sequence

import pyarrow as pa

from audio_assets import schema
from audio_assets.schema import FieldMetadata

AUDIO = pa.field("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))

TAKEN = {
    "id": "Key",
    "text": "transcribed_text",
    "duration": "duration_s",
    "lang": "language",
    "speaker": "FolderName",
    "sampling_rate": "sample_rate_hz",
    "num_channels": "channels",
    "avg_logprob": "avg_logprob",
    "no_speech_prob": "no_speech_prob",
    "compression_ratio": "compression_ratio",
    "whisper_model": "whisper_model",
    "etag": "ETag",
    "last_modified": "LastModified",
}
"""Column of a shard -> column of `audio_table` that it holds."""

_TABLE = schema.with_partition_columns(schema.AUDIO_TABLE)


def _field(name: str, source: str) -> pa.Field:
    field = _TABLE.field(source)
    said = FieldMetadata.of(field)
    return pa.field(name, field.type, metadata={"description": said.description, "unit": said.unit})


_DESCRIBED = [
    AUDIO.with_metadata({"description": "The object's own bytes, and its file name."}),
    *(_field(name, source) for name, source in TAKEN.items()),
    pa.field("split", pa.string(), metadata={"description": "train, validation or test."}),
]
COLUMNS = pa.schema(_DESCRIBED)
"""With descriptions, for people."""


def _features() -> dict[str, dict[str, object]]:
    """The features of `datasets`, as its own Parquet files say them."""
    features: dict[str, dict[str, object]] = {"audio": {"_type": "Audio"}}
    for field in COLUMNS:
        if field.name != AUDIO.name:
            kind = {pa.float64(): "float64", pa.float32(): "float32"}.get(field.type, str(field.type))
            features[field.name] = {"dtype": kind, "_type": "Value"}
    return features


SCHEMA = pa.schema(
    [field.remove_metadata() for field in COLUMNS],
    metadata={"huggingface": json.dumps({"info": {"features": _features()}})},
)
"""Of a file."""

WITHOUT_AUDIO = pa.schema([field for field in SCHEMA if field.name != AUDIO.name])


def without_audio(rows: pa.Table, splits: Sequence[str]) -> pa.Table:
    """Rows of `audio_table` as rows of a shard that lack their audio; `WITHOUT_AUDIO`, and `Size`.

    Args:
        splits: of each row.
    """
    arrays = [rows[source] for source in TAKEN.values()]
    return pa.table([*arrays, pa.array(splits, pa.string()), rows["Size"]], [*TAKEN, "split", "Size"])


def with_audio(rows: pa.Table, bodies: Sequence[bytes]) -> pa.Table:
    """The same with the bytes of their objects; `SCHEMA`."""
    paths = [key.rpartition("/")[2] for key in rows["id"].to_pylist()]
    audio = pa.StructArray.from_arrays(
        [pa.array(bodies, pa.binary()), pa.array(paths, pa.string())], fields=list(AUDIO.type)
    )
    return rows.select(WITHOUT_AUDIO.names).add_column(0, AUDIO, audio).cast(SCHEMA)
