"""One pass over the audio: fetch ahead, batch across partitions, write each partition as it completes.

The transcripts and the tokens of a run's partitions are made here, each object being fetched and decoded
once. Rows whose object and producer are unchanged are reused. How Whisper is batched is
`transcription`'s business; how tokens are made is `tokenisation`'s.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from audio_assets.audio import Audio, check_size, decode_flac, is_flac
from audio_assets.errors import (
    AudioError,
    ConflictError,
    MissingInputError,
    ObjectChangedError,
    ObjectRefusedError,
)
from audio_assets.parallel import Room, map_ahead
from audio_assets.partitions import FolderMinute
from audio_assets.rows import inventory_objects
from audio_assets.schema import FAILED, NOT_FLAC, OK
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets.table import CONFLICT_ROUNDS, THREADS, Snapshot, Table
from audio_assets.tokenisation import Tokeniser

if TYPE_CHECKING:
    from audio_assets.transcription import Transcriber, Transcript

OBJECTS_AHEAD = 128
BYTES_AHEAD = 256 * 2**20
DECODED_BYTES_AHEAD = 2**30
PARTITIONS_AHEAD = 32
_NO_SAMPLES = np.zeros(0, np.float32)


@dataclasses.dataclass(frozen=True)
class Transcribing:
    """Make `transcripts`.

    Attributes:
        table: where they lie.
        identity: the value of `whisper_model`; a row with another one is made anew.
        load: gives the model; called once, and only if an object needs it.
    """

    table: Table
    identity: str
    load: "Callable[[], Transcriber]"
    producer: ClassVar[str] = "whisper_model"


@dataclasses.dataclass(frozen=True)
class Tokenising:
    """Make `tokens`: where they lie, the value of `tokeniser`, and how to load what makes them."""

    table: Table
    identity: str
    load: Callable[[], Tokeniser]
    producer: ClassVar[str] = "tokeniser"


@dataclasses.dataclass(frozen=True)
class Finished:
    """What became of one partition.

    Attributes:
        statuses: number of rows by `status`, for each table that was made, by its name.
        computed: objects that were fetched and decoded.
        audio_s: seconds of audio that were decoded.
        retries: for each object whose reading had to be repeated, the reasons, one a repetition.
    """

    partition: FolderMinute
    statuses: dict[str, collections.Counter[str]]
    computed: int
    audio_s: float
    retries: dict[str, list[str]]


class _Open:
    """A partition under way: its objects, the rows so far for each table, and what is still to come."""

    def __init__(
        self, partition: FolderMinute, objects: list[ObjectInfo], versions: dict[str, Snapshot]
    ) -> None:
        self.partition = partition
        self.objects = objects
        self.versions = versions
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.failed_before: set[tuple[str, str]] = set()
        self.refused: ObjectRefusedError | None = None
        self.computed, self.audio_s = 0, 0.0
        self.retries: dict[str, list[str]] = {}

    def retried(self, info: ObjectInfo, why: str) -> None:
        self.retries.setdefault(info.key, []).append(why)

    def missing(self, table: str) -> list[ObjectInfo]:
        return [o for o in self.objects if o.key not in self.rows[table]]

    @property
    def complete(self) -> bool:
        return all(len(rows) == len(self.objects) for rows in self.rows.values())

    def add(self, table: str, info: ObjectInfo, status: str, error: str | None = None, **values: Any) -> None:
        self.rows[table][info.key] = dict(Key=info.key, ETag=info.etag, status=status, error=error, **values)


class SpeechPass:
    """One pass over some partitions.

    Args:
        source: where the audio lies.
        inventory: the table that says what is in each partition.
        transcribing: None where transcripts are not asked for.
        tokenising: None where tokens are not asked for.
    """

    def __init__(
        self,
        source: ObjectStore,
        inventory: Table,
        transcribing: Transcribing | None = None,
        tokenising: Tokenising | None = None,
    ) -> None:
        self._source = source
        self._inventory = inventory
        self._transcribing = transcribing
        self._tokenising = tokenising
        self._tokenise = tokenising.load() if tokenising else None
        self._outputs = [output for output in (transcribing, tokenising) if output]
        self._room = Room(DECODED_BYTES_AHEAD)
        self._writing: concurrent.futures.Executor | None = None
        self._writes: collections.deque[tuple[_Open, concurrent.futures.Future[None]]] = collections.deque()
        self.transcriber: Transcriber | None = None
        """The model, once an object needed it."""
        self._readable = False
        self._held: list[_Open] = []
        self.seconds = 0.0
        """Wall-clock seconds that the pass took, loading the model left out."""

    def run(self, partitions: Sequence[FolderMinute]) -> Iterator[Finished]:
        """Make the partitions' files, yielding each once it is written.

        Raises:
            MissingInputError: a partition has no inventory.
            StorageError: the store fails for good, or gives none of the objects; partitions that were yielded
                stay written.
            ConflictError: another run keeps replacing the same partition.
        """
        for _ in range(CONFLICT_ROUNDS):
            conflicts: list[FolderMinute] = []
            yield from self._round(partitions, conflicts)
            if not conflicts:
                return
            partitions = conflicts
        raise ConflictError(f"other runs keep replacing {[p.key for p in partitions]}; let them finish first")

    def _round(self, partitions: Sequence[FolderMinute], conflicts: list[FolderMinute]) -> Iterator[Finished]:
        reading = concurrent.futures.ThreadPoolExecutor(THREADS, "read")
        writing = concurrent.futures.ThreadPoolExecutor(THREADS, "write")
        self._writing, self._writes = writing, (writes := collections.deque())
        self._room, self._held = Room(DECODED_BYTES_AHEAD), []
        started = time.perf_counter()
        try:
            for _ in self._recognised(self._clips(reading, writing, partitions)):
                while writes and (writes[0][1].done() or len(writes) > PARTITIONS_AHEAD):
                    yield from self._settle(*writes.popleft(), conflicts)
            while writes:
                yield from self._settle(*writes.popleft(), conflicts)
        finally:
            self.seconds += time.perf_counter() - started
            self._room.close()
            reading.shutdown(cancel_futures=True)
            # What is complete gets written, whatever else went wrong.
            writing.shutdown()

    def _settle(
        self, opened: _Open, write: concurrent.futures.Future[None], conflicts: list[FolderMinute]
    ) -> Iterator[Finished]:
        try:
            write.result()
        except ConflictError:
            conflicts.append(opened.partition)
            return
        statuses = {
            name: collections.Counter(row["status"] for row in rows.values())
            for name, rows in opened.rows.items()
        }
        yield Finished(opened.partition, statuses, opened.computed, opened.audio_s, opened.retries)

    # --- from partitions to clips ---------------------------------------------------------------------

    def _clips(
        self,
        objects: concurrent.futures.Executor,
        tables: concurrent.futures.Executor,
        partitions: Sequence[FolderMinute],
    ) -> Iterator[tuple[tuple[_Open, ObjectInfo, Audio], np.ndarray] | None]:
        """What Whisper is to hear; None for each object that is settled without it."""
        # Not by the threads that read objects: all of those may wait for room, which this must go on to free.
        opened = map_ahead(tables, self._open_partition, partitions, ahead=PARTITIONS_AHEAD)
        loaded = map_ahead(
            objects,
            self._load,
            ((turn, *job) for turn, job in enumerate(self._to_load(opened))),
            ahead=OBJECTS_AHEAD,
            weight=lambda job: job[2].size,
            max_weight=BYTES_AHEAD,
        )
        for turn, (partition, info, audio, tokens) in enumerate(loaded):
            self._room.free(turn)
            if isinstance(audio, Audio):
                partition.computed += 1
                partition.audio_s += audio.duration_s
            if isinstance(audio, ObjectRefusedError) and (info.key, info.etag) not in partition.failed_before:
                partition.refused = audio
            error = None if isinstance(audio, Audio) else str(audio)
            if self._tokenising and info.key not in partition.rows[self._tokenising.table.name]:
                self._add_tokens(partition, info, error or tokens)
            if self._transcribing and info.key not in partition.rows[self._transcribing.table.name]:
                if isinstance(audio, Audio):
                    # The engine lets go of samples that it has taken in; so must what it hands back.
                    described = dataclasses.replace(audio, samples=_NO_SAMPLES)
                    yield (partition, info, described), audio.samples
                    continue
                self._add_transcript(partition, info, None, audio)
            self._close_if_complete(partition)
            yield None
        for partition in self._held:
            if partition.refused and not self._readable:
                raise partition.refused
            self._submit(partition)

    def _open_partition(self, partition: FolderMinute) -> _Open:
        # The versions are read before the inventory: who reads the inventory later writes last.
        versions = {output.table.name: output.table.read(partition) for output in self._outputs}
        inventory = self._inventory.read(partition)
        if inventory.rows is None:
            raise MissingInputError(f"{partition.key} has no {self._inventory.name}; materialise that first")
        opened = _Open(partition, inventory_objects(inventory.rows), versions)
        objects = {(o.key, o.etag) for o in opened.objects}
        for output in self._outputs:
            name = output.table.name
            rows = versions[name].rows
            known = rows.to_pylist() if rows is not None else []
            opened.failed_before |= {(row["Key"], row["ETag"]) for row in known if row["status"] == FAILED}
            opened.rows[name] = {
                row["Key"]: row
                for row in known
                if row["status"] == OK
                and row[output.producer] == output.identity
                and (row["Key"], row["ETag"]) in objects
            }
            for info in opened.missing(name):
                if not is_flac(info.key):
                    opened.add(name, info, NOT_FLAC)
        return opened

    def _to_load(self, opened: Iterator[_Open]) -> Iterator[tuple[_Open, ObjectInfo]]:
        for partition in opened:
            self._close_if_complete(partition)
            missing = {o.key: o for output in self._outputs for o in partition.missing(output.table.name)}
            for info in missing.values():
                yield partition, info

    def _load(
        self, job: tuple[int, _Open, ObjectInfo]
    ) -> tuple[_Open, ObjectInfo, Audio | Exception, np.ndarray | Exception | None]:
        turn, partition, info = job
        try:
            check_size(info.size)
            body = self._source.read(info, functools.partial(partition.retried, info))
            self._readable = True
            audio = decode_flac(body, functools.partial(self._room.take, turn))
        except (AudioError, ObjectChangedError, ObjectRefusedError) as e:
            return partition, info, e, None
        tokens: np.ndarray | Exception | None = None
        if (
            self._tokenising
            and self._tokenise
            and info.key not in partition.rows[self._tokenising.table.name]
        ):
            try:
                tokens = self._tokenise(audio.samples, info.etag)
            except Exception as e:
                # Whatever a tokeniser throws at one clip must not cost the others.
                tokens = e
        return partition, info, audio, tokens

    # --- from clips to rows ---------------------------------------------------------------------------

    def _recognised(
        self, clips: Iterator[tuple[tuple[_Open, ObjectInfo, Audio], np.ndarray] | None]
    ) -> Iterator[None]:
        """Transcribe the clips; yields now and then so that finished partitions get reported."""
        for first in clips:
            if first is not None:
                break
            yield
        else:
            return
        assert self._transcribing is not None
        started = time.perf_counter()
        self.transcriber = self._transcribing.load()
        self.seconds -= time.perf_counter() - started
        rest = (clip for clip in clips if clip is not None)
        for (partition, info, audio), result in self.transcriber.transcribe(itertools.chain([first], rest)):
            self._add_transcript(partition, info, audio, result)
            self._close_if_complete(partition)
            yield

    def _add_transcript(
        self, partition: _Open, info: ObjectInfo, audio: Audio | None, result: "Transcript | Exception"
    ) -> None:
        assert self._transcribing is not None
        values: dict[str, Any] = dict(whisper_model=self._transcribing.identity)
        if audio is not None:
            values |= dict(
                duration_s=audio.duration_s, sample_rate_hz=audio.sample_rate_hz, channels=audio.channels
            )
        if isinstance(result, Exception):
            error = str(result) if audio is None else f"Whisper failed on it: {result}"
            partition.add(self._transcribing.table.name, info, FAILED, error, **values)
            return
        values["language"] = result.language
        for name in ("avg_logprob", "no_speech_prob", "compression_ratio", "temperature"):
            figure = getattr(result, name)
            # A file of less than one frame has no figures.
            values[name] = None if math.isnan(figure) else figure
        values["segments"] = [dataclasses.asdict(segment) for segment in result.segments]
        partition.add(self._transcribing.table.name, info, OK, transcribed_text=result.text.strip(), **values)

    def _add_tokens(
        self, partition: _Open, info: ObjectInfo, tokens: "np.ndarray | Exception | str | None"
    ) -> None:
        assert self._tokenising is not None
        name, identity = self._tokenising.table.name, self._tokenising.identity
        if isinstance(tokens, np.ndarray):
            partition.add(name, info, OK, tokenized_info=tokens, tokeniser=identity)
        else:
            error = tokens if isinstance(tokens, str) else f"the tokeniser failed on it: {tokens}"
            partition.add(name, info, FAILED, error, tokeniser=identity)

    # --- from rows to files ---------------------------------------------------------------------------

    def _close_if_complete(self, partition: _Open) -> None:
        if partition.complete:
            if partition.refused and not self._readable:
                # The fault may be the account's: only an object that is read shows that it is the object's.
                self._held.append(partition)
            else:
                self._submit(partition)

    def _submit(self, partition: _Open) -> None:
        assert self._writing is not None
        self._writes.append((partition, self._writing.submit(self._write, partition)))

    def _write(self, opened: _Open) -> None:
        for output in self._outputs:
            rows = opened.rows[output.table.name]
            ordered = [rows[o.key] for o in opened.objects]
            made = pa.Table.from_pylist(ordered, schema=output.table.schema)
            output.table.replace(opened.partition, made, opened.versions[output.table.name])
