"""One explicit Arrow schema for each table: the single source of columns, types and descriptions.

What Dagster shows is derived from these in `defs/metadata.py`. Partition columns are read from Hive
paths and are never repeated inside the files.
"""

import pyarrow as pa


def _field(name: str, kind: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


PARTITION_SCHEMA = pa.schema(
    [
        _field(
            "FolderName", pa.string(), "Part of the key before the file name; . for none.", nullable=False
        ),
        _field("LastModifiedDate", pa.date32(), "Day of LastModified, UTC.", nullable=False),
        _field("LastModifiedHour", pa.int32(), "Hour of LastModified, 0 to 23, UTC.", nullable=False),
        _field("LastModifiedMinute", pa.int32(), "Minute of LastModified, 0 to 59, UTC.", nullable=False),
    ]
)
"""What readers must be told, so that a folder called `0225` stays text."""

_OBJECT = [
    _field("Key", pa.string(), "Object key, relative to AUDIO_SOURCE_URI.", nullable=False),
    _field("ETag", pa.string(), "ETag of the object's content, without quotes.", nullable=False),
]
_INVENTORY = [
    *_OBJECT,
    _field("Size", pa.int64(), "Bytes.", nullable=False),
    _field(
        "LastModified", pa.timestamp("ms", tz="UTC"), "When the store last saw it change.", nullable=False
    ),
]
_TEXT = [_field("transcribed_text", pa.string(), "What Whisper heard; null where not FLAC or failed.")]
_SEGMENTS = [
    _field(
        "segments",
        pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())])),
        "The text in pieces, each with its start and end in seconds; null where there is no text.",
    ),
]
_TOKENS = [
    _field("tokenized_info", pa.list_(pa.int16()), "The audio's tokens; null where not FLAC or failed."),
]
_CONFIDENCE = [
    _field("language", pa.string(), "Language code, given or detected."),
    _field("avg_logprob", pa.float32(), "Mean log probability of the text's tokens."),
    _field("no_speech_prob", pa.float32(), "Probability that nobody speaks."),
    _field("compression_ratio", pa.float32(), "Of the text under zlib; above 2.4 it repeats itself."),
    _field("temperature", pa.float32(), "Sampling temperature that the text was accepted at."),
]
_AUDIO = [
    _field("duration_s", pa.float64(), "Length of the source audio in seconds."),
    _field("sample_rate_hz", pa.int32(), "Sample rate of the source audio in Hz."),
    _field("channels", pa.int16(), "Channels of the source audio."),
]
_WHISPER = [_field("whisper_model", pa.string(), "Model and options behind the text.")]
_TOKENISER = [_field("tokeniser", pa.string(), "Tokeniser behind the tokens.")]
_STATUS = [
    _field("status", pa.string(), "ok, not_flac or failed.", nullable=False),
    _field("error", pa.string(), "Why it failed, in words; null otherwise."),
]

INVENTORY = pa.schema(_INVENTORY)
TRANSCRIPTS = pa.schema([*_OBJECT, *_TEXT, *_SEGMENTS, *_CONFIDENCE, *_AUDIO, *_WHISPER, *_STATUS])
TOKENS = pa.schema([*_OBJECT, *_TOKENS, *_TOKENISER, *_STATUS])
AUDIO_TABLE = pa.schema(
    [*_INVENTORY, *_TEXT, *_TOKENS, *_CONFIDENCE, *_AUDIO, *_WHISPER, *_TOKENISER, *_STATUS],
)

OK, NOT_FLAC, FAILED = "ok", "not_flac", "failed"
"""The values of `status`."""


def with_partition_columns(columns: pa.Schema) -> pa.Schema:
    """A table's columns as readers see them: those of the path stand behind those of the object."""
    at = columns.names.index("LastModified") + 1 if "LastModified" in columns.names else len(_OBJECT)
    fields = list(columns)
    return pa.schema([*fields[:at], *PARTITION_SCHEMA, *fields[at:]])
