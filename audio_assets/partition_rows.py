"""The rows of one partition in `transcripts` and `tokens`, from those that are reused to the last one made.

Here is decided which rows still hold, which are missing, and what a row says. How objects are fetched,
decoded and heard is the business of `speech.py`.
"""

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pyarrow as pa

from audio_assets.audio import Audio, decoder_of
from audio_assets.errors import MissingInputError
from audio_assets.evidence import text_evidence
from audio_assets.partitions import FolderMinute
from audio_assets.rows import inventory_objects
from audio_assets.schema import FAILED, INVENTORY, NOT_FLAC, OK
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectInfo
from audio_assets.table import Snapshot, Table

if TYPE_CHECKING:
    from audio_assets.transcription import Transcript


class Output(Protocol):
    """A table that a pass makes.

    Attributes:
        table: where its rows lie.
        producer: the column that says what made a row.
        identity: the value of that column; a row of another identity is made anew.
    """

    producer: ClassVar[str]

    @property
    def table(self) -> Table: ...

    @property
    def identity(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Finished:
    """What became of one partition: what its files hold now, and what the pass did to them.

    Attributes:
        statuses: number of rows by `status`, for each table that was made, by its name.
        producers: number of rows by what made them, likewise; without the rows that nothing made.
        duration_s: seconds of audio behind the rows of `transcripts`; 0 where that was not made.
        tokens: number of tokens in the rows of `tokens`; 0 where that was not made.
        computed: objects that the pass fetched and decoded.
        reused: objects of audio whose rows the pass left as they were.
        audio_s: seconds of audio that it decoded.
        retries: for each object whose reading had to be repeated, the reasons, one a repetition.
    """

    partition: FolderMinute
    statuses: dict[str, collections.Counter[str]]
    producers: dict[str, collections.Counter[str]]
    duration_s: float
    tokens: int
    computed: int
    reused: int
    audio_s: float
    retries: dict[str, list[str]]


def read_inventory(source: AudioSource, inventory: Table, partition: FolderMinute) -> pa.Table:
    """The rows of a partition in `s3_inventory`; none where the partition has no file and no objects.

    A partition without objects leaves no file, so that the source has to say which of the two it is: a
    partition whose objects are gone, or one that was never inventoried.

    Returns:
        Rows of `schema.INVENTORY`.

    Raises:
        MissingInputError: it has objects and no inventory.
        StorageError: the inventory cannot be read, or the source cannot be listed.
    """
    rows = inventory.read(partition).rows
    if rows is not None:
        return rows
    for page in source.objects(partition.folder):
        if any(FolderMinute.of(o.key, o.last_modified) == partition for o in page):
            raise MissingInputError(f"{partition.key} has no {inventory.name}; materialise that first")
    return INVENTORY.empty_table()


class PartitionRows:
    """A partition under way: its objects, and the rows that each table has so far.

    Args:
        objects: those of the inventory, in its order.
        outputs: the tables to make.
        snapshots: each of these tables as it was read, by its name.
        recompute: whether to make each row anew, though nothing has changed.
    """

    def __init__(
        self,
        partition: FolderMinute,
        objects: list[ObjectInfo],
        outputs: Sequence[Output],
        snapshots: dict[str, Snapshot],
        *,
        recompute: bool = False,
    ) -> None:
        self.partition = partition
        self._objects = objects
        self._outputs = outputs
        self._snapshots = snapshots
        self._rows: dict[str, dict[str, dict[str, Any]]] = {output.table.name: {} for output in outputs}
        self._failed_before: set[tuple[str, str]] = set()
        self._computed = 0
        self._audio_s = 0.0
        self._retries: dict[str, list[str]] = {}
        for output in outputs:
            self._reuse(output, recompute=recompute)
            for info in objects:
                if self.lacks(output, info) and decoder_of(info.key) is None:
                    self._add(output, info, NOT_FLAC)
        to_make = {info.key for info in self.missing()}
        self._reused = sum(decoder_of(info.key) is not None and info.key not in to_make for info in objects)

    @classmethod
    def read(
        cls,
        partition: FolderMinute,
        source: AudioSource,
        inventory: Table,
        outputs: Sequence[Output],
        *,
        recompute: bool = False,
    ) -> "PartitionRows":
        """Read a partition's inventory and the rows that it has.

        Raises:
            MissingInputError: it has objects and no inventory.
            StorageError: a table cannot be read, or the source cannot be listed.
        """
        # Before the inventory, so that of two runs the one with the newer inventory writes last.
        snapshots = {output.table.name: output.table.read(partition) for output in outputs}
        listed = read_inventory(source, inventory, partition)
        return cls(partition, inventory_objects(listed), outputs, snapshots, recompute=recompute)

    def _reuse(self, output: Output, *, recompute: bool) -> None:
        """Keep the rows of the objects as they are, made by the same producer."""
        found = self._snapshots[output.table.name].rows
        listed = {(info.key, info.etag) for info in self._objects}
        for row in found.to_pylist() if found is not None else []:
            content = (row["Key"], row["ETag"])
            if row["status"] == FAILED:
                self._failed_before.add(content)
            elif recompute or row[output.producer] != output.identity or content not in listed:
                continue
            elif row["status"] == OK and decoder_of(row["Key"]):
                self._rows[output.table.name][row["Key"]] = row

    # --- what is missing ------------------------------------------------------------------------------

    def lacks(self, output: Output, info: ObjectInfo) -> bool:
        """Whether a table has no row of an object yet."""
        return info.key not in self._rows[output.table.name]

    def missing(self) -> list[ObjectInfo]:
        """The objects that some table has no row of yet."""
        return [info for info in self._objects if any(self.lacks(output, info) for output in self._outputs)]

    def failed_before(self, info: ObjectInfo) -> bool:
        """Whether an object, with the same content, has a failed row of an earlier run."""
        return (info.key, info.etag) in self._failed_before

    @property
    def complete(self) -> bool:
        return all(len(rows) == len(self._objects) for rows in self._rows.values())

    # --- what is made ---------------------------------------------------------------------------------

    def retried(self, info: ObjectInfo, why: str) -> None:
        """Note that the reading of an object is repeated."""
        self._retries.setdefault(info.key, []).append(why)

    def decoded(self, audio: Audio) -> None:
        """Note that an object was fetched and decoded."""
        self._computed += 1
        self._audio_s += audio.duration_s

    def add_ok(self, output: Output, info: ObjectInfo, **values: Any) -> None:
        """Add an object's row, with values by column."""
        self._add(output, info, OK, **{output.producer: output.identity}, **values)

    def add_failed(self, output: Output, info: ObjectInfo, error: str, **values: Any) -> None:
        """Add the row of an object that could not be made, and why."""
        self._add(output, info, FAILED, error=error, **{output.producer: output.identity}, **values)

    def _add(self, output: Output, info: ObjectInfo, status: str, **values: Any) -> None:
        row = {"Key": info.key, "ETag": info.etag, "status": status, **values}
        self._rows[output.table.name][info.key] = row

    # --- what is written ------------------------------------------------------------------------------

    def write(self) -> Finished:
        """Replace the partition's file in each table, if its rows are others.

        Raises:
            ConflictError: another run replaced a file since it was read.
            StorageError: one cannot be written.
        """
        made_rows: dict[str, list[dict[str, Any]]] = {}
        for output in self._outputs:
            name = output.table.name
            made_rows[name] = rows = [self._rows[name][info.key] for info in self._objects]
            made = pa.Table.from_pylist(rows, schema=output.table.schema)
            output.table.replace(self.partition, made, self._snapshots[name])
        return self._finished(made_rows)

    def _finished(self, made: dict[str, list[dict[str, Any]]]) -> Finished:
        producers = {output.table.name: output.producer for output in self._outputs}
        all_rows = [row for rows in made.values() for row in rows]
        return Finished(
            self.partition,
            {name: collections.Counter(row["status"] for row in rows) for name, rows in made.items()},
            {
                name: collections.Counter(filter(None, (row.get(producers[name]) for row in rows)))
                for name, rows in made.items()
            },
            sum(row.get("duration_s") or 0.0 for row in all_rows),
            sum(len(row["tokenized_info"]) for row in all_rows if row.get("tokenized_info") is not None),
            self._computed,
            self._reused,
            self._audio_s,
            self._retries,
        )


def audio_values(audio: Audio) -> dict[str, Any]:
    """What a row of `transcripts` says of the audio itself, by column."""
    return {
        "duration_s": audio.duration_s,
        "sample_rate_hz": audio.sample_rate_hz,
        "channels": audio.channels,
        **(dataclasses.asdict(audio.evidence) if audio.evidence else {}),
    }


def transcript_values(transcript: "Transcript", duration_s: float) -> dict[str, Any]:
    """What a row of `transcripts` says of what was heard, by column.

    Args:
        duration_s: of the audio.
    """
    figures = {
        "avg_logprob": transcript.avg_logprob,
        "no_speech_prob": transcript.no_speech_prob,
        "compression_ratio": transcript.compression_ratio,
        "temperature": transcript.temperature,
        "language_probability": transcript.language_probability,
        "runner_up_language_probability": transcript.runner_up_language_probability,
        "worst_avg_logprob": transcript.worst_avg_logprob,
        "worst_no_speech_prob": transcript.worst_no_speech_prob,
        "sampled_share": transcript.sampled_share,
    }
    second = transcript.second_opinion
    return {
        "second_text": second and second.text.strip(),
        "second_word_error_rate": second and second.word_error_rate,
        "transcribed_text": transcript.text.strip(),
        "language": transcript.language,
        "runner_up_language": transcript.runner_up_language,
        **dataclasses.asdict(text_evidence(transcript.text, transcript.language, duration_s)),
        "segments": [
            {"start_s": segment.start_s, "end_s": segment.end_s, "text": segment.text}
            for segment in transcript.segments
        ],
        "words": None if transcript.words is None else list(map(dataclasses.asdict, transcript.words)),
        # A file of less than one frame has no figures.
        **{name: None if math.isnan(figure) else figure for name, figure in figures.items()},
    }
