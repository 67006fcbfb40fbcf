"""One pass over the audio: fetch ahead, batch across partitions, write each partition as it completes.

The transcripts and the tokens of a run's partitions are made here, each object being fetched and decoded
once. Which rows are reused and what a row says is decided in `partition_rows.py`, how Whisper is batched in
`transcription`, how tokens are made in `tokenisation`.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from audio_assets.audio import SAMPLE_RATE_HZ, Audio, check_size, decode, decoder_of, decoding_processes
from audio_assets.errors import (
    AudioError,
    CodecError,
    ConflictError,
    ObjectChangedError,
    ObjectNameError,
    ObjectRefusedError,
    StoppedError,
)
from audio_assets.parallel import MemoryBudget, map_ahead
from audio_assets.partition_rows import Finished, PartitionRows, audio_values, transcript_values
from audio_assets.partitions import FolderMinute
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets.table import THREADS, Table, replace_rounds
from audio_assets.tokenisation import Tokeniser

if TYPE_CHECKING:
    from audio_assets.transcription import Transcript
    from audio_assets.transcription.recogniser import Recogniser

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
        identity: that of the recogniser, the value of `whisper_model`; a row with another one is made anew.
        load: gives the recogniser; called once, and only if an object needs it.
        on_gpu: whether it runs on a GPU; then processes decode, and leave the interpreter lock to it.
    """

    table: Table
    identity: str
    load: "Callable[[], Recogniser]"
    on_gpu: bool = False
    producer: ClassVar[str] = "whisper_model"


@dataclasses.dataclass(frozen=True)
class Tokenising:
    """Make `tokens`.

    Attributes:
        table: where they lie.
        tokeniser: what makes them; its identity is the value of `tokeniser`.
    """

    table: Table
    tokeniser: Tokeniser
    producer: ClassVar[str] = "tokeniser"

    @property
    def identity(self) -> str:
        return self.tokeniser.identity


@dataclasses.dataclass
class Job:
    """An object under way. A thread fetches, decodes and tokenises it; then the recogniser may hear it.

    Attributes:
        turn: 0, 1, 2 ... in the order in which the threads' results are taken.
        partition: the rows that it adds to.
        audio: None until it is decoded, and where that failed.
        again: whether the store has refused it once in this round.
        error: why there is no audio.
        tokens: int16 [tokens], or why there are none; None where none are wanted.
    """

    turn: int
    partition: PartitionRows
    info: ObjectInfo
    again: bool = False
    audio: Audio | None = None
    error: Exception | None = None
    tokens: np.ndarray | Exception | None = None

    def take_samples(self) -> np.ndarray:
        """The audio's float32 [samples], which the job no longer holds.

        A recogniser lets go of samples that it has taken in, and so must the job that comes back with a text.
        """
        assert self.audio is not None
        samples = self.audio.samples
        self.audio = dataclasses.replace(self.audio, samples=_NO_SAMPLES)
        return samples


class SpeechPass:
    """One pass over some partitions.

    Args:
        source: the objects to read.
        inventory: the table that says what is in each partition.
        transcribing: None where transcripts are not asked for.
        tokenising: None where tokens are not asked for.
        recompute: whether to make each row anew, though nothing has changed.
        unreadable: keys of objects that are not to be touched, each with the reason for its `failed` row.
        stopped: once it is set, the pass ends with StoppedError instead of taking another object.

    Attributes:
        recogniser: once an object needed it; None before.
        seconds: wall-clock seconds that the pass took, loading the recogniser left out.
        load_seconds: what loading it took; little where the process had it already.
    """

    def __init__(
        self,
        source: AudioSource,
        inventory: Table,
        transcribing: Transcribing | None = None,
        tokenising: Tokenising | None = None,
        *,
        recompute: bool = False,
        unreadable: Mapping[str, str] | None = None,
        stopped: threading.Event | None = None,
    ) -> None:
        self.recogniser: Recogniser | None = None
        self.seconds = 0.0
        self.load_seconds = 0.0
        self._source = source
        self._inventory = inventory
        self._recompute = recompute
        self._unreadable = unreadable or {}
        self._stopped = stopped or threading.Event()
        self._transcribing = transcribing
        self._tokenising = tokenising
        self._outputs = [output for output in (transcribing, tokenising) if output]
        # The threads that read objects also tokenise them, side by side where the tokeniser allows that.
        one_at_a_time = tokenising is not None and not tokenising.tokeniser.thread_safe
        self._tokeniser_lock = threading.Lock() if one_at_a_time else contextlib.nullcontext()
        self._access = _Access(source.store)
        on_gpu = transcribing is not None and transcribing.on_gpu
        self._decode_object = decoding_processes().decode if on_gpu else decode

    def run(self, partitions: Sequence[FolderMinute]) -> Iterator[Finished]:
        """Make the partitions' files, yielding each once it is written.

        Raises:
            MissingInputError: a partition has objects and no inventory.
            StorageError: the store fails for good, or refuses an object twice and others that it gave before;
                partitions that were yielded stay written.
            ConflictError: another run keeps replacing the same partition.
            StoppedError: `stopped` is set; partitions that were yielded stay written.
        """
        for to_make, conflicts in replace_rounds(partitions):
            yield from self._round(to_make, conflicts)

    def rehearse(self, partition: FolderMinute) -> Iterator[str]:
        """Do all that `run` does to a partition's objects, one after the other, and write nothing.

        It finds the object that ends the process which works on it.

        Yields:
            The key of each object before it is touched.

        Raises:
            MissingInputError: the partition has objects and no inventory.
            StorageError: the store fails for good.
            StoppedError: `stopped` is set.
        """
        self._memory = MemoryBudget(DECODED_BYTES_AHEAD)
        opened = self._open(partition)
        for turn, info in enumerate(opened.missing()):
            self._check_stopped()
            yield info.key
            job = self._load(Job(turn, opened, info))
            self._memory.release(turn)
            if job.audio and self._needs_recogniser(job):
                for _ in self._loaded_recogniser().transcribe([(job, job.take_samples())]):
                    pass

    def _round(self, partitions: Sequence[FolderMinute], conflicts: list[FolderMinute]) -> Iterator[Finished]:
        reading = concurrent.futures.ThreadPoolExecutor(THREADS, "read")
        writing = concurrent.futures.ThreadPoolExecutor(THREADS, "write")
        # The state of this round, of which no other has a part.
        self._memory = MemoryBudget(DECODED_BYTES_AHEAD)
        self._writes = _Writes(writing, conflicts)
        self._turns = itertools.count()
        self._refused: list[tuple[PartitionRows, ObjectInfo, ObjectRefusedError]] = []
        started = time.perf_counter()
        try:
            jobs = self._loaded_jobs(reading, writing, partitions)
            for job in jobs:
                if self._needs_recogniser(job):
                    # From here on the recogniser takes the jobs, so that its batches cross partitions.
                    yield from self._recognise(itertools.chain([job], jobs))
                yield from self._writes.finished()
            yield from self._writes.finished(wait=True)
        finally:
            self.seconds += time.perf_counter() - started
            self._memory.close()
            reading.shutdown(cancel_futures=True)
            # What is complete gets written, whatever else went wrong.
            writing.shutdown()

    # --- from partitions to audio ---------------------------------------------------------------------

    def _loaded_jobs(
        self,
        reading: concurrent.futures.Executor,
        writing: concurrent.futures.Executor,
        partitions: Sequence[FolderMinute],
    ) -> Iterator[Job]:
        """Every object that lacks a row, once all its rows are added that need no recogniser."""
        # By the threads that write: those that read objects may all be waiting for memory, which the loop
        # below has to release.
        opened = map_ahead(writing, self._open, partitions, ahead=PARTITIONS_AHEAD)
        for jobs in (self._jobs(opened), self._refused_jobs()):
            loaded = map_ahead(
                reading,
                self._load,
                jobs,
                ahead=OBJECTS_AHEAD,
                weight=lambda job: job.info.size,
                max_weight=BYTES_AHEAD,
            )
            for job in loaded:
                self._memory.release(job.turn)
                self._check_stopped()
                if not self._is_set_aside(job):
                    self._add_what_needs_no_recogniser(job)
                    yield job

    def _add_what_needs_no_recogniser(self, job: Job) -> None:
        if job.audio:
            job.partition.decoded(job.audio)
        if job.error:
            self._add_failed_transcript(job, str(job.error))
        self._add_tokens(job)
        self._write_if_complete(job.partition)

    def _open(self, partition: FolderMinute) -> PartitionRows:
        return PartitionRows.read(
            partition, self._source, self._inventory, self._outputs, recompute=self._recompute
        )

    def _jobs(self, opened: Iterator[PartitionRows]) -> Iterator[Job]:
        for partition in opened:
            self._write_if_complete(partition)
            for info in partition.missing():
                yield Job(next(self._turns), partition, info)

    def _is_set_aside(self, job: Job) -> bool:
        """Whether an object is refused, and is to be read once more when all others are read.

        A refusal may be the account's and pass. One that an earlier run has met as well is a row at once, and
        so is one for the object's name.
        """
        refused = isinstance(job.error, ObjectRefusedError) and not isinstance(job.error, ObjectNameError)
        if not refused or job.again or job.partition.failed_before(job.info):
            return False
        said = str(job.error)
        job.partition.retried(job.info, said)
        # Not the error as it came: it holds all frames that it came through.
        self._refused.append((job.partition, job.info, ObjectRefusedError(said)))
        return True

    def _refused_jobs(self) -> Iterator[Job]:
        """The objects that were set aside."""
        if self._refused:
            # A fault of the account that ends right between an object's second refusal and the proof that
            # follows it would look like the object's own; hence a proof before it as well.
            _, _, error = self._refused[0]
            self._access.prove(error)
        for partition, info, _ in self._refused:
            yield Job(next(self._turns), partition, info, again=True)

    def _load(self, job: Job) -> Job:
        """Fetch, decode and tokenise one object, in one of many threads."""
        tokenising = self._tokenising_of(job)
        try:
            if job.info.key in self._unreadable:
                raise AudioError(self._unreadable[job.info.key])
            check_size(job.info.size)
            body = self._source.store.read(job.info, functools.partial(job.partition.retried, job.info))
            self._access.read(job.info)
            job.audio = self._decode(job, body, tokenising)
        except (AudioError, ObjectChangedError, ObjectRefusedError) as e:
            if job.again and isinstance(e, ObjectRefusedError):
                self._access.prove(e)
            job.error = e
            return job
        if tokenising:
            self._tokenise(job, job.audio, tokenising.tokeniser)
        return job

    def _tokenise(self, job: Job, audio: Audio, tokeniser: Tokeniser) -> None:
        try:
            with self._tokeniser_lock:
                job.tokens = tokeniser(audio.at(tokeniser.sample_rate_hz), job.info.etag)
        except CodecError:
            # There are no weights, for this clip or any other.
            raise
        except Exception as e:
            # Whatever a tokeniser throws at one clip must not cost the others.
            job.tokens = e
        # The recogniser needs no other rate than its own.
        job.audio = dataclasses.replace(audio, resampled={})

    def _tokenising_of(self, job: Job) -> Tokenising | None:
        """What makes an object's tokens, None where it needs none."""
        wanted = self._tokenising
        return wanted if wanted and job.partition.lacks(wanted, job.info) else None

    def _decode(self, job: Job, body: bytes, tokenising: Tokenising | None) -> Audio:
        decoder = decoder_of(job.info.key)
        assert decoder is not None
        rates = {tokenising.tokeniser.sample_rate_hz} if tokenising else set()
        try:
            return self._decode_object(
                decoder,
                body,
                functools.partial(self._memory.reserve, job.turn),
                rates_hz=sorted(rates - {SAMPLE_RATE_HZ}),
                evidence=self._needs_recogniser(job),
            )
        except (AudioError, concurrent.futures.CancelledError):
            raise
        except Exception as e:
            # Whatever a decoder of somebody's own throws at one object must not cost the others.
            raise AudioError(f"the decoder failed on it: {e}") from e

    # --- from audio to rows ---------------------------------------------------------------------------

    def _needs_recogniser(self, job: Job) -> bool:
        return self._transcribing is not None and job.partition.lacks(self._transcribing, job.info)

    def _recognise(self, jobs: Iterator[Job]) -> Iterator[Finished]:
        """Transcribe what needs it; yields the partitions that were written meanwhile."""
        for job, result in self._loaded_recogniser().transcribe(self._clips(jobs)):
            self._check_stopped()
            self._add_transcript(job, result)
            self._write_if_complete(job.partition)
            yield from self._writes.finished()

    def _loaded_recogniser(self) -> "Recogniser":
        assert self._transcribing is not None
        if self.recogniser is None:
            started = time.perf_counter()
            self.recogniser = self._transcribing.load()
            self.load_seconds = time.perf_counter() - started
            self.seconds -= self.load_seconds
        return self.recogniser

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise StoppedError("the pass was told to stop")

    def _clips(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, np.ndarray]]:
        for job in jobs:
            if self._needs_recogniser(job):
                yield job, job.take_samples()

    def _add_transcript(self, job: Job, result: "Transcript | Exception") -> None:
        assert self._transcribing is not None
        assert job.audio is not None
        if isinstance(result, Exception):
            self._add_failed_transcript(job, f"Whisper failed on it: {result}")
        else:
            values = audio_values(job.audio) | transcript_values(result, job.audio.duration_s)
            job.partition.add_ok(self._transcribing, job.info, **values)

    def _add_failed_transcript(self, job: Job, error: str) -> None:
        if self._transcribing and job.partition.lacks(self._transcribing, job.info):
            values = audio_values(job.audio) if job.audio else {}
            job.partition.add_failed(self._transcribing, job.info, error, **values)

    def _add_tokens(self, job: Job) -> None:
        if self._tokenising is None or not job.partition.lacks(self._tokenising, job.info):
            return
        if job.error:
            job.partition.add_failed(self._tokenising, job.info, str(job.error))
        elif isinstance(job.tokens, np.ndarray):
            token_format = self._tokenising.tokeniser.token_format
            values = token_format.values() if token_format else {}
            job.partition.add_ok(self._tokenising, job.info, tokenized_info=job.tokens, **values)
        else:
            error = f"the tokeniser failed on it: {job.tokens}"
            job.partition.add_failed(self._tokenising, job.info, error)

    # --- from rows to files ---------------------------------------------------------------------------

    def _write_if_complete(self, partition: PartitionRows) -> None:
        if partition.complete:
            self._writes.start(partition)


class _Access:
    """Whether the account may read objects at all: what tells a fault of the account from that of an object.

    Args:
        source: where the objects lie.
    """

    def __init__(self, source: ObjectStore) -> None:
        self._source = source
        self._smallest: ObjectInfo | None = None
        self._proved = -math.inf
        self._one_at_a_time = threading.Lock()

    def read(self, info: ObjectInfo) -> None:
        """Note that an object could be read."""
        if self._smallest is None or info.size < self._smallest.size:
            self._smallest = info

    def prove(self, refused: ObjectRefusedError) -> None:
        """See that an object can be read, now, that could be read before.

        Args:
            refused: what is raised where it cannot.
        """
        asked = time.monotonic()
        with self._one_at_a_time:
            if self._proved > asked:
                return  # Another thread has read it meanwhile.
            started = time.monotonic()
            if self._smallest is None:
                raise refused
            try:
                self._source.read(self._smallest)
            except ObjectRefusedError:
                raise refused from None
            except ObjectChangedError:
                pass  # An answer that only those get who may read.
            self._proved = started


class _Writes:
    """Partitions that are being written, in the order in which they were complete.

    Args:
        conflicts: gets the partitions whose file another run replaced meanwhile.
    """

    def __init__(self, threads: concurrent.futures.Executor, conflicts: list[FolderMinute]) -> None:
        self._threads = threads
        self._conflicts = conflicts
        self._running: collections.deque[tuple[FolderMinute, concurrent.futures.Future[Finished]]]
        self._running = collections.deque()

    def start(self, partition: PartitionRows) -> None:
        """Write a partition; waits while `PARTITIONS_AHEAD` others are being written."""
        self._running.append((partition.partition, self._threads.submit(partition.write)))
        if len(self._running) > PARTITIONS_AHEAD:
            _, earlier = self._running[-1 - PARTITIONS_AHEAD]
            # Its error, if it has one, is raised by `finished`.
            concurrent.futures.wait([earlier])

    def finished(self, *, wait: bool = False) -> Iterator[Finished]:
        """The partitions that are written and were not given before.

        Args:
            wait: for those also that are being written.

        Raises:
            StorageError: one cannot be written.
        """
        while self._running and (wait or self._running[0][1].done()):
            partition, write = self._running.popleft()
            try:
                written = write.result()
            except ConflictError:
                self._conflicts.append(partition)
            else:
                yield written
