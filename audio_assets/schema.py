"""One explicit Arrow schema for each table: the single source of columns, types and what they may hold.

A field carries its description, its unit and its allowed values as data. What Dagster shows is derived from
them in `defs/metadata.py`, and the check `allowed_values` in `quality.py`. Partition columns are read from
Hive paths and are never repeated inside the files.

A new column is nullable and needs no change elsewhere to be read: files written before it lack it, and
`conform` reads it as null there. How the files are read and written is the business of `table`.
"""

import dataclasses
import json

import pyarrow as pa

TABLES = ("s3_inventory", "transcripts", "tokens", "audio_table")
"""The tables, each of which is a folder, in the order in which data flows."""

AUDIO_TABLE_DAILY = "audio_table_daily"
"""The copy of `audio_table` by days, which has other partitions."""

TRAINING_SHARDS = "training_shards"
"""Rows with their audio for training, by days as well."""

OK = "ok"
NOT_FLAC = "not_flac"
FAILED = "failed"
STATUSES = (OK, NOT_FLAC, FAILED)
"""The values of `status`."""


def _field(
    name: str,
    kind: pa.DataType,
    description: str,
    *,
    nullable: bool = True,
    unit: str = "",
    values: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> pa.Field:
    """A column; `FieldMetadata.of` reads back what is said of it here."""
    metadata = {"description": description}
    if unit:
        metadata["unit"] = unit
    if values:
        metadata["values"] = json.dumps(values)
    if minimum is not None:
        metadata["minimum"] = json.dumps(minimum)
    if maximum is not None:
        metadata["maximum"] = json.dumps(maximum)
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class FieldMetadata:
    """What a column means and may hold, which its Arrow field carries as metadata.

    Attributes:
        description: one sentence.
        unit: `s`, `Hz`, `bytes`; empty where there is none.
        values: all that it may hold; empty where any value may occur.
        minimum: the least value that it may hold, None where there is no limit.
        maximum: the greatest value that it may hold, None where there is no limit.
    """

    description: str = ""
    unit: str = ""
    values: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    @classmethod
    def of(cls, field: pa.Field) -> "FieldMetadata":
        """Read the metadata of a field of this module."""
        said = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        return cls(
            said.get("description", ""),
            said.get("unit", ""),
            tuple(json.loads(said.get("values", "[]"))),
            json.loads(said.get("minimum", "null")),
            json.loads(said.get("maximum", "null")),
        )

    @property
    def allowed(self) -> str:
        """The allowed values in words, such as `ok, not_flac, failed` or `0 to 23`; empty for any value."""
        if self.values:
            return ", ".join(self.values)
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f"{self.minimum:g} or more"
        return "" if self.maximum is None else f"{self.maximum:g} or less"


PARTITION_SCHEMA = pa.schema(
    [
        _field(
            "FolderName", pa.string(), "Part of the key before the file name; . for none.", nullable=False
        ),
        _field("LastModifiedDate", pa.date32(), "Day of LastModified, UTC.", nullable=False),
        _field(
            "LastModifiedHour",
            pa.int32(),
            "Hour of LastModified, UTC.",
            nullable=False,
            minimum=0,
            maximum=23,
        ),
        _field(
            "LastModifiedMinute",
            pa.int32(),
            "Minute of LastModified, UTC.",
            nullable=False,
            minimum=0,
            maximum=59,
        ),
    ]
)
"""What readers must be told, so that a folder called `0225` stays text."""

_OBJECT = [
    _field("Key", pa.string(), "Object key, relative to AUDIO_SOURCE_URI.", nullable=False),
    _field("ETag", pa.string(), "ETag of the object's content, without quotes.", nullable=False),
]
_INVENTORY = [
    *_OBJECT,
    _field("Size", pa.int64(), "Size of the object.", nullable=False, unit="bytes", minimum=0),
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
_WORDS = [
    _field(
        "words",
        pa.list_(
            pa.struct(
                [
                    ("word", pa.string()),
                    ("start_s", pa.float64()),
                    ("end_s", pa.float64()),
                    ("probability", pa.float32()),
                ]
            )
        ),
        "The words with their starts and ends in seconds; null without WHISPER_WORD_TIMESTAMPS or text.",
    ),
]
_TOKENS = [
    _field("tokenized_info", pa.list_(pa.int16()), "The audio's tokens; null where not FLAC or failed."),
]
_CONFIDENCE = [
    _field("language", pa.string(), "Language code, given or detected."),
    _field("avg_logprob", pa.float32(), "Mean log probability of the text's tokens."),
    _field("no_speech_prob", pa.float32(), "Probability that nobody speaks.", minimum=0, maximum=1),
    _field("compression_ratio", pa.float32(), "Of the text under zlib; above 2.4 it repeats itself."),
    _field(
        "temperature",
        pa.float32(),
        "Sampling temperature that the text was accepted at.",
        minimum=0,
        maximum=1,
    ),
]
_LANGUAGES = [
    _field(
        "language_probability",
        pa.float32(),
        "Probability of the detected language; null where it was given.",
        minimum=0,
        maximum=1,
    ),
    _field(
        "runner_up_language",
        pa.string(),
        "Second most probable language; null where there is none.",
    ),
    _field(
        "runner_up_language_probability",
        pa.float32(),
        "Its probability; null where the language was given.",
        minimum=0,
        maximum=0.5,
    ),
]
_WINDOWS = [
    _field("worst_avg_logprob", pa.float32(), "Lowest mean log probability of a window of 30 s.", maximum=0),
    _field(
        "worst_no_speech_prob",
        pa.float32(),
        "Highest probability of a window of 30 s that nobody speaks.",
        minimum=0,
        maximum=1,
    ),
    _field(
        "sampled_share",
        pa.float32(),
        "Share of the windows whose text was sampled, above temperature 0.",
        minimum=0,
        maximum=1,
    ),
]
_TEXT_EVIDENCE = [
    _field(
        "characters_per_second",
        pa.float32(),
        "Characters of the text, without blanks, for each second of audio.",
        unit="1/s",
        minimum=0,
    ),
    _field("words_per_second", pa.float32(), "Words for each second of audio.", unit="1/s", minimum=0),
    _field("unique_word_ratio", pa.float32(), "Distinct words over words.", minimum=0, maximum=1),
    _field("longest_word_length", pa.int32(), "Characters of the longest word.", minimum=1),
    _field(
        "hallucination_flags",
        pa.list_(pa.string()),
        "Patterns of made-up text, as NeMo Curator names them; an empty list for none.",
    ),
]
_SIGNAL = [
    _field("peak_dbfs", pa.float32(), "Largest sample; null of digital silence.", unit="dBFS"),
    _field("rms_dbfs", pa.float32(), "Root mean square; null of digital silence.", unit="dBFS"),
    _field("clipped_share", pa.float32(), "Share of samples at full scale.", minimum=0, maximum=1),
    _field("dc_offset", pa.float32(), "Mean sample, of full scale."),
    _field(
        "speech_share",
        pa.float32(),
        "Share of frames of 10 ms within 40 dB of the loudest.",
        minimum=0,
        maximum=1,
    ),
    _field(
        "bandwidth_hz",
        pa.float32(),
        "Highest frequency within 50 dB of the spectrum's peak; null of silence.",
        unit="Hz",
        minimum=0,
    ),
    _field("audio_sha256", pa.string(), "SHA-256 of the decoded samples, mono, and their rate."),
]
_SECOND = [
    _field("second_text", pa.string(), "What WHISPER_SECOND_MODEL hears; null without it."),
    _field(
        "second_word_error_rate",
        pa.float32(),
        "Word error rate of transcribed_text against second_text; null where only the latter has words.",
        minimum=0,
    ),
]
_EVIDENCE = [*_LANGUAGES, *_WINDOWS, *_TEXT_EVIDENCE, *_SIGNAL, *_SECOND]
_AUDIO = [
    _field("duration_s", pa.float64(), "Length of the source audio.", unit="s", minimum=0),
    _field("sample_rate_hz", pa.int32(), "Sample rate of the source audio.", unit="Hz", minimum=1),
    _field("channels", pa.int16(), "Channels of the source audio.", minimum=1),
]
_WHISPER = [_field("whisper_model", pa.string(), "Model and options behind the text.")]
_TOKENISER = [_field("tokeniser", pa.string(), "Tokeniser behind the tokens.")]
_CODEC = [
    _field("codec", pa.string(), "Codec behind the tokens; null where the tokeniser is none."),
    _field("codebooks", pa.int16(), "Codebooks of the codec in the tokens.", minimum=1),
    _field("codebook_size", pa.int32(), "Entries of each codebook.", minimum=1),
    _field("frame_rate_hz", pa.float64(), "Frames of tokens for each second.", unit="Hz", minimum=0),
    _field("codec_sample_rate_hz", pa.int32(), "Rate that the codec decodes to.", unit="Hz", minimum=1),
    _field("token_layout", pa.string(), "How the codebooks lie in the list of tokens."),
]
_STATUS = [
    _field("status", pa.string(), "What became of the object.", nullable=False, values=STATUSES),
    _field("error", pa.string(), "Why it failed, in words; null otherwise."),
]

INVENTORY = pa.schema(_INVENTORY)
TRANSCRIPTS = pa.schema(
    [*_OBJECT, *_TEXT, *_SEGMENTS, *_WORDS, *_CONFIDENCE, *_AUDIO, *_EVIDENCE, *_WHISPER, *_STATUS]
)
TOKENS = pa.schema([*_OBJECT, *_TOKENS, *_TOKENISER, *_CODEC, *_STATUS])
AUDIO_TABLE = pa.schema(
    [
        *_INVENTORY,
        *_TEXT,
        *_TOKENS,
        *_CONFIDENCE,
        *_AUDIO,
        *_SEGMENTS,
        *_EVIDENCE,
        *_WHISPER,
        *_TOKENISER,
        *_CODEC,
        *_STATUS,
    ]
)


DAY_COLUMN = "LastModifiedDate"
"""The partition column of the daily copy, which its paths carry: a reader that infers the types of a path
finds another type there than inside of the file, and pyarrow then merges neither."""


def with_partition_columns(columns: pa.Schema) -> pa.Schema:
    """A table's columns as readers see them: those of the path stand behind those of the object."""
    at = columns.names.index("LastModified") + 1 if "LastModified" in columns.names else len(_OBJECT)
    fields = list(columns)
    return pa.schema([*fields[:at], *PARTITION_SCHEMA, *fields[at:]])


def matches(found: pa.Schema, columns: pa.Schema) -> bool:
    """Whether a file's columns are those of a table, in name, type and order.

    The file may lack nullable columns: they were added to the table after it was written.
    """
    names = set(found.names)
    present = [field for field in columns if field.name in names]
    missing = [field for field in columns if field.name not in names]
    return found.equals(pa.schema(present)) and all(field.nullable for field in missing)


def conform(rows: pa.Table, columns: pa.Schema) -> pa.Table:
    """Rows with exactly these columns; a nullable column that they lack is null in each row.

    Raises:
        ValueError: they lack a column that is not nullable, or a column is of a type that cannot be cast.
    """
    held = dict(zip(rows.column_names, rows.columns, strict=True))
    if missing := [field.name for field in columns if field.name not in held and not field.nullable]:
        raise ValueError(f"it lacks the columns {missing}, which hold no null")
    arrays = [
        held[field.name] if field.name in held else pa.nulls(len(rows), field.type) for field in columns
    ]
    return pa.table(arrays, columns.names).cast(columns)


def of_day(columns: pa.Schema) -> pa.Schema:
    """What a file of the daily copy of a table holds: all columns that readers see, but for the day."""
    return pa.schema([field for field in with_partition_columns(columns) if field.name != DAY_COLUMN])
