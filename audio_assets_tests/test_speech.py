"""One pass over the audio, on a local folder with a hand-written recogniser in Whisper's place."""

import collections
import contextlib
import dataclasses
import datetime as dt
import hashlib
import io
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from audio_assets import audio, schema, speech
from audio_assets.audio import limits
from audio_assets.digest import group
from audio_assets.errors import ConflictError, MissingInputError, ObjectRefusedError, StorageError
from audio_assets.parallel import MemoryBudget
from audio_assets.partition_rows import Finished, read_inventory
from audio_assets.partitions import FolderMinute
from audio_assets.source import AudioSource
from audio_assets.speech import Job, SpeechPass, Tokenising, Transcribing
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets.table import CONFLICT_ROUNDS, Snapshot, Table
from audio_assets.transcription import Segment, Stats, Transcript
from audio_assets.transcription.recogniser import Recogniser
from audio_assets_tests.support.audio import MINUTE, UPLOADED, flac
from audio_assets_tests.support.bad_audio import constant_flac
from audio_assets_tests.support.places import LocalPlace

SILENCE = flac(0.1, seed=1)
NOISE = flac(0.2, seed=2)


class CountingStore(ObjectStore):
    """Counts which objects are fetched; refuses those that it is told to."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.fetched: collections.Counter[str] = collections.Counter()
        self.broken: set[str] = set()
        self.refused: set[str] = set()
        self.outage = range(0)
        """Of the reads of this pass, 0, 1, 2 ..., those that meet a store that refuses everything."""
        self._reading = threading.Lock()

    def read(self, info: ObjectInfo, retried: Callable[[str], object] | None = None) -> bytes:
        with self._reading:
            refuses_all = self.fetched.total() in self.outage
            self.fetched[info.key] += 1
        if refuses_all:
            raise ObjectRefusedError(f"cannot read {self.uri}/{info.key}: the account is locked")
        if info.key in self.broken:
            raise StorageError(f"cannot read {self.uri}/{info.key}: connection reset")
        if info.key in self.refused:
            raise ObjectRefusedError(f"cannot read {self.uri}/{info.key}: AccessDenied")
        return super().read(info, retried)


K = TypeVar("K")


class CountingRecogniser:
    """Takes `batch` clips at a time, as the real one does, and hears how many samples each has."""

    identity = "counts samples"
    device = "cpu"
    stats = Stats()

    def __init__(self) -> None:
        self.batch = 4
        self.loads = 0
        self.batches: list[list[int]] = []
        self.fails_on: set[int] = set()

    def load(self) -> Recogniser:
        self.loads += 1
        return self

    def transcribe(self, audio: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Transcript | Exception]]:
        clips = iter(audio)
        while batch := list(itertools.islice(clips, self.batch)):
            self.batches.append([len(samples) for _, samples in batch])
            for job, samples in reversed(batch):
                if len(samples) in self.fails_on:
                    yield job, RuntimeError("no idea")
                else:
                    segments = (Segment(0.0, 0.5, " many"), Segment(0.5, 1.0, " samples"))
                    yield job, Transcript(f" {len(samples)} samples ", "en", -0.25, 0.1, 1.0, 0.0, segments)


class CountingTokeniser:
    """Notes what it is given; its tokens are made of the ETag."""

    identity = "tokeniser 1"
    sample_rate_hz = 16_000
    token_format = None
    thread_safe = True

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []
        self.errors: dict[int, Exception] = {}

    def __call__(self, audio: np.ndarray, etag: str) -> np.ndarray:
        self.calls.append((len(audio), etag))
        if len(audio) in self.errors:
            raise self.errors[len(audio)]
        return np.frombuffer(hashlib.sha256(etag.encode()).digest(), np.int16)


class Bench:
    """A bucket, the tables beside it, and whatever makes the rows."""

    def __init__(self, place: LocalPlace) -> None:
        self.place = place
        self.source = CountingStore(place.uri)
        tables = ObjectStore(f"{place.uri}/../tables")
        self.audio = AudioSource(self.source, tables)
        self.inventory = Table(tables, "s3_inventory", schema.INVENTORY)
        self.transcripts = Table(tables, "transcripts", schema.TRANSCRIPTS)
        self.tokens = Table(tables, "tokens", schema.TOKENS)
        self.recogniser = CountingRecogniser()
        self.tokeniser = CountingTokeniser()
        self.identity = "model 1"

    def take_inventory(self) -> list[FolderMinute]:
        """What `s3_inventory` does; gives the partitions."""
        found = [o for _, page in self.source.scan() for o in page]
        grouped = group(found)
        known: dict[FolderMinute, list[ObjectInfo]] = {p: [] for p in self.inventory.partitions()}
        for partition, objects in {**known, **grouped}.items():
            rows = [dict(Key=o.key, ETag=o.etag, Size=o.size, LastModified=o.last_modified) for o in objects]
            rows.sort(key=lambda row: row["Key"])
            made = pa.Table.from_pylist(rows, schema=schema.INVENTORY)
            self.inventory.replace(partition, made, self.inventory.read(partition))
        return sorted(grouped)

    def start(self, *, transcripts: bool = True, tokens: bool = True, recompute: bool = False) -> SpeechPass:
        self.source.fetched.clear()
        self.recogniser.batches.clear()
        self.tokeniser.calls.clear()
        return SpeechPass(
            self.audio,
            self.inventory,
            Transcribing(self.transcripts, self.identity, self.recogniser.load) if transcripts else None,
            Tokenising(self.tokens, self.tokeniser) if tokens else None,
            recompute=recompute,
        )

    def run(
        self,
        partitions: list[FolderMinute] | None = None,
        /,
        *,
        transcripts: bool = True,
        tokens: bool = True,
    ) -> list[Finished]:
        partitions = self.take_inventory() if partitions is None else partitions
        return list(self.start(transcripts=transcripts, tokens=tokens).run(partitions))

    def rows(self, table: Table) -> dict[str, dict[str, Any]]:
        return {row["Key"]: row for p in table.partitions() for row in table.read(p).rows.to_pylist()}  # type: ignore[union-attr]


@pytest.fixture
def bench(local_place: LocalPlace) -> Bench:
    return Bench(local_place)


def minutes_later(minutes: int) -> dt.datetime:
    return UPLOADED.replace(minute=UPLOADED.minute + minutes)


# --- what becomes of an object --------------------------------------------------------------------------


def test_every_object_has_a_row_in_each_table_in_the_order_of_the_inventory(bench: Bench):
    for key, body in {"b.flac": NOISE, "a.flac": SILENCE, "c.txt": b"", "bad.FLAC": b"junk"}.items():
        bench.place.put(f"p225/{key}", body)
    [finished] = bench.run()
    keys = ["p225/a.flac", "p225/b.flac", "p225/bad.FLAC", "p225/c.txt"]
    for table in (bench.transcripts, bench.tokens):
        rows = table.read(finished.partition).rows
        assert rows is not None
        assert rows["Key"].to_pylist() == keys
        assert rows["status"].to_pylist() == ["ok", "ok", "failed", "not_flac"]
    assert finished.statuses == {
        name: collections.Counter(ok=2, failed=1, not_flac=1) for name in ("transcripts", "tokens")
    }
    assert finished.computed == 2
    assert finished.audio_s == pytest.approx(0.3)


def test_a_spoken_row_carries_text_confidence_audio_and_producer(bench: Bench):
    bench.place.put("p225/a.flac", flac(0.5, rate=48_000, channels=2))
    bench.run()
    row = bench.rows(bench.transcripts)["p225/a.flac"]
    assert row["transcribed_text"] == "8000 samples"
    assert (row["language"], row["avg_logprob"], row["temperature"]) == ("en", -0.25, 0.0)
    assert row["segments"] == [
        {"start_s": 0.0, "end_s": 0.5, "text": " many"},
        {"start_s": 0.5, "end_s": 1.0, "text": " samples"},
    ]
    assert row["words"] is None
    assert (row["duration_s"], row["sample_rate_hz"], row["channels"]) == (0.5, 48_000, 2)
    assert (row["whisper_model"], row["error"]) == ("model 1", None)
    tokens = bench.rows(bench.tokens)["p225/a.flac"]
    assert len(tokens["tokenized_info"]) == 16
    assert tokens["tokeniser"] == "tokeniser 1"


def test_what_is_no_flac_is_null_and_never_fetched(bench: Bench):
    bench.place.put("p225/notes.txt", SILENCE)
    bench.run()
    assert not bench.source.fetched
    row = bench.rows(bench.transcripts)["p225/notes.txt"]
    given = {name for name, value in row.items() if value is not None}
    assert given == {"Key", "ETag", "status"}


def test_a_bad_object_fails_alone_and_says_why(bench: Bench):
    bench.place.put("p225/empty.flac", b"")
    bench.place.put("p225/good.flac", SILENCE)
    bench.run()
    for table in (bench.transcripts, bench.tokens):
        rows = bench.rows(table)
        assert rows["p225/empty.flac"]["error"] == "the object is empty (0 bytes); upload it again"
        assert rows["p225/good.flac"]["status"] == "ok"
    assert bench.rows(bench.transcripts)["p225/empty.flac"]["transcribed_text"] is None
    assert bench.rows(bench.tokens)["p225/empty.flac"]["tokenized_info"] is None


def test_a_clip_that_whisper_fails_on_keeps_its_tokens(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.recogniser.fails_on = {1_600}
    bench.run()
    row = bench.rows(bench.transcripts)["p225/a.flac"]
    assert (row["status"], row["error"]) == ("failed", "Whisper failed on it: no idea")
    assert row["duration_s"] == 0.1
    assert bench.rows(bench.tokens)["p225/a.flac"]["status"] == "ok"


def test_a_clip_that_the_tokeniser_fails_on_keeps_its_text(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.place.put("p225/b.flac", NOISE)
    bench.tokeniser.errors = {1_600: KeyError("codebook")}
    bench.run()
    rows = bench.rows(bench.tokens)
    assert (rows["p225/a.flac"]["status"], rows["p225/b.flac"]["status"]) == ("failed", "ok")
    assert rows["p225/a.flac"]["error"] == "the tokeniser failed on it: 'codebook'"
    assert bench.rows(bench.transcripts)["p225/a.flac"]["status"] == "ok"


def test_an_object_that_changed_since_the_inventory_fails_until_the_next_one(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    partitions = bench.take_inventory()
    bench.place.put("p225/a.flac", NOISE)
    bench.run(partitions)
    assert (
        "deleted or overwritten after it was listed" in bench.rows(bench.transcripts)["p225/a.flac"]["error"]
    )
    bench.run()
    assert bench.rows(bench.transcripts)["p225/a.flac"]["transcribed_text"] == "3200 samples"


# --- what is done once ----------------------------------------------------------------------------------


def test_each_object_is_fetched_once_for_both_tables(bench: Bench):
    for name in "abc":
        bench.place.put(f"p225/{name}.flac", flac(0.1, seed=ord(name)))
    bench.run()
    assert bench.source.fetched == {"p225/a.flac": 1, "p225/b.flac": 1, "p225/c.flac": 1}
    assert len(bench.tokeniser.calls) == 3


@pytest.mark.parametrize("asked", ["transcripts", "tokens"])
def test_each_table_can_be_asked_for_alone(bench: Bench, asked: str):
    bench.place.put("p225/a.flac", SILENCE)
    [finished] = bench.run(transcripts=asked == "transcripts", tokens=asked == "tokens")
    assert set(finished.statuses) == {asked}
    assert set(bench.rows(bench.transcripts)) == ({"p225/a.flac"} if asked == "transcripts" else set())
    assert set(bench.rows(bench.tokens)) == ({"p225/a.flac"} if asked == "tokens" else set())
    assert bench.recogniser.loads == (asked == "transcripts")
    assert len(bench.tokeniser.calls) == (asked == "tokens")


def test_a_second_pass_computes_nothing_and_loads_no_model(bench: Bench):
    for folder in ("p225", "p226"):
        bench.place.put(f"{folder}/a.flac", SILENCE)
        bench.place.put(f"{folder}/notes.txt", b"x")
    partitions = bench.take_inventory()
    bench.run(partitions)
    before = [table.read(p) for table in (bench.transcripts, bench.tokens) for p in partitions]
    again = bench.run(partitions)
    assert [f.partition for f in again] == partitions
    assert sum(f.computed for f in again) == 0
    assert [f.statuses["tokens"] for f in again] == [collections.Counter(ok=1, not_flac=1)] * 2
    assert not bench.source.fetched
    assert bench.recogniser.loads == 1
    assert [table.read(p) for table in (bench.transcripts, bench.tokens) for p in partitions] == before


def test_a_late_object_is_the_only_one_computed(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.run()
    bench.place.put("p225/late.flac", NOISE)
    [finished] = bench.run()
    assert (finished.computed, finished.reused) == (1, 1)
    assert bench.source.fetched == {"p225/late.flac": 1}
    assert bench.recogniser.batches == [[3_200]]
    assert set(bench.rows(bench.transcripts)) == {"p225/a.flac", "p225/late.flac"}


def test_an_overwritten_object_is_computed_again(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.run()
    bench.place.put("p225/a.flac", NOISE)
    [finished] = bench.run()
    assert finished.computed == 1
    assert bench.rows(bench.transcripts)["p225/a.flac"]["transcribed_text"] == "3200 samples"


def test_rows_of_deleted_objects_go(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.place.put("p225/b.flac", NOISE)
    partitions = bench.take_inventory()
    bench.run(partitions)
    bench.place.delete("p225/b.flac")
    bench.take_inventory()
    bench.run(partitions)
    assert set(bench.rows(bench.tokens)) == {"p225/a.flac"}
    bench.place.delete("p225/a.flac")
    bench.take_inventory()
    [finished] = bench.run(partitions)
    assert bench.rows(bench.tokens) == bench.rows(bench.transcripts) == {}
    assert finished.statuses == {"transcripts": {}, "tokens": {}}


def test_another_model_makes_its_own_rows_anew_and_leaves_the_tokens(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.run()
    bench.identity = "model 2"
    bench.run()
    assert bench.recogniser.batches == [[1_600]]
    assert bench.tokeniser.calls == []
    assert bench.rows(bench.transcripts)["p225/a.flac"]["whisper_model"] == "model 2"


def test_a_pass_that_is_told_so_makes_every_row_anew(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.place.put("p225/notes.txt", b"x")
    partitions = bench.take_inventory()
    bench.run(partitions)
    before = bench.transcripts.read(partitions[0])
    [finished] = bench.start(recompute=True).run(partitions)
    assert finished.computed == 1
    assert bench.source.fetched == {"p225/a.flac": 1}
    assert len(bench.tokeniser.calls) == 1
    # What comes out the same is not written.
    assert bench.transcripts.read(partitions[0]) == before


@pytest.mark.parametrize("computed", [True, False])
def test_what_became_of_a_partition_tells_of_the_file_whatever_the_pass_did(bench: Bench, computed: bool):
    bench.place.put("p225/a.flac", SILENCE)
    bench.place.put("p225/b.flac", NOISE)
    bench.place.put("p225/c.flac", b"junk")
    bench.place.put("p225/notes.txt", b"x")
    if not computed:
        bench.run()
    [finished] = bench.run()
    assert (finished.computed, finished.reused) == ((2, 0) if computed else (0, 2))
    assert finished.statuses["transcripts"] == {"ok": 2, "failed": 1, "not_flac": 1}
    assert finished.producers == {"transcripts": {"model 1": 3}, "tokens": {"tokeniser 1": 3}}
    assert finished.duration_s == pytest.approx(0.3)
    assert finished.tokens == 2 * 16


def test_failed_rows_are_tried_again(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.place.put("p225/b.flac", NOISE)
    bench.recogniser.fails_on = {1_600}
    bench.run()
    bench.recogniser.fails_on = set()
    [finished] = bench.run()
    assert bench.recogniser.batches == [[1_600]]
    assert finished.statuses["transcripts"] == collections.Counter(ok=2)


def test_a_tokeniser_is_called_by_one_thread_at_a_time_unless_it_says_more(bench: Bench):
    class Alone(CountingTokeniser):
        thread_safe = False
        inside = False

        def __call__(self, audio: np.ndarray, etag: str) -> np.ndarray:
            assert not self.inside, "called while another call was under way"
            self.inside = True
            time.sleep(0.005)
            self.inside = False
            return super().__call__(audio, etag)

    bench.tokeniser = Alone()
    for i in range(24):
        bench.place.put(f"p225/{i}.flac", flac(0.1, seed=i))
    [finished] = bench.run(transcripts=False)
    assert finished.statuses["tokens"] == {"ok": 24}


def test_a_tokeniser_that_allows_it_is_called_by_several_threads_at_once(bench: Bench):
    class Together(CountingTokeniser):
        # Each call ends only when another one is under way.
        meeting = threading.Barrier(2, timeout=60)

        def __call__(self, audio: np.ndarray, etag: str) -> np.ndarray:
            self.meeting.wait()
            return super().__call__(audio, etag)

    bench.tokeniser = Together()
    for i in range(4):
        bench.place.put(f"p225/{i}.flac", flac(0.1, seed=i))
    [finished] = bench.run(transcripts=False)
    assert finished.statuses["tokens"] == {"ok": 4}


# --- formats of one's own -------------------------------------------------------------------------------


def wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def read_wav(body: bytes) -> audio.PcmStream:
    samples, rate = soundfile.read(io.BytesIO(body), dtype="float32", always_2d=True)
    return audio.PcmStream(rate, samples.shape[1], iter([samples]))


def test_a_decoder_of_ones_own_makes_its_suffix_audio(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.place.put("p225/a.WAV", wav(np.zeros(4_000), 8_000))
    bench.place.put("p225/b.flac", SILENCE)
    bench.run()
    assert bench.rows(bench.transcripts)["p225/a.WAV"]["status"] == "not_flac"
    monkeypatch.setitem(audio.DECODERS, ".wav", read_wav)
    bench.run()
    assert bench.source.fetched == {"p225/a.WAV": 1}
    row = bench.rows(bench.transcripts)["p225/a.WAV"]
    assert (row["status"], row["transcribed_text"]) == ("ok", "8000 samples")
    assert (row["duration_s"], row["sample_rate_hz"], row["channels"]) == (0.5, 8_000, 1)
    assert bench.rows(bench.tokens)["p225/a.WAV"]["status"] == "ok"


def test_an_object_that_a_decoder_of_ones_own_fails_on_fails_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(audio.DECODERS, ".wav", read_wav)
    bench.place.put("p225/a.wav", b"junk")
    bench.place.put("p225/b.wav", wav(np.zeros(4_000), 8_000))
    bench.run()
    for table in (bench.transcripts, bench.tokens):
        rows = bench.rows(table)
        assert (rows["p225/a.wav"]["status"], rows["p225/b.wav"]["status"]) == ("failed", "ok")
        assert re.match("the decoder failed on it: .*not recognised", rows["p225/a.wav"]["error"])


def test_a_decoder_of_ones_own_waits_for_memory_and_lets_go_when_the_pass_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(audio.DECODERS, ".wav", read_wav)
    monkeypatch.setattr(speech, "DECODED_BYTES_AHEAD", 1)
    for i in range(40):
        bench.place.put(f"p{i:02}/a.wav", wav(np.zeros(4_000), 8_000))
    bench.source.broken = {"p01/a.wav"}
    with pytest.raises(StorageError, match=r"p01/a\.wav: connection reset"):
        bench.run(tokens=False)


# --- many partitions ------------------------------------------------------------------------------------


def test_batches_cross_partitions_and_the_model_is_loaded_once(bench: Bench):
    for i in range(8):
        bench.place.put(f"p22{i}/a.flac", flac(0.1, seed=i))
    finished = bench.run()
    assert len(finished) == 8
    assert bench.recogniser.batches == [[1_600] * 4, [1_600] * 4]
    assert bench.recogniser.loads == 1


def test_every_partition_finishes_once(bench: Bench):
    bodies = [SILENCE, b"", NOISE]
    for i in range(30):
        bench.place.put(
            f"p{i % 7}/{i}.{'txt' if i % 5 == 0 else 'flac'}", bodies[i % 3], minutes_later(i % 4)
        )
    partitions = bench.take_inventory()
    finished = bench.run(partitions)
    assert sorted(f.partition for f in finished) == partitions
    assert sum(sum(f.statuses["transcripts"].values()) for f in finished) == 30
    assert len(bench.rows(bench.transcripts)) == len(bench.rows(bench.tokens)) == 30


@pytest.mark.parametrize("asked", [dict(transcripts=True), dict(transcripts=False)], ids=["both", "tokens"])
def test_a_partition_is_written_while_later_ones_are_still_to_come(
    bench: Bench, asked: dict[str, bool], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(speech, "OBJECTS_AHEAD", 2)
    monkeypatch.setattr(speech, "PARTITIONS_AHEAD", 2)
    bench.recogniser.batch = 1
    for i in range(20):
        bench.place.put(f"p{i:02}/a.flac", flac(0.1, seed=i))
    partitions = bench.take_inventory()
    passing = bench.start(**asked).run(partitions)
    first = next(passing)
    assert first.partition == partitions[0]
    assert len(bench.tokeniser.calls) < 10
    assert bench.tokens.read(first.partition).rows is not None
    list(passing)


def test_partitions_that_need_no_recogniser_are_reported_before_one_is_loaded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(speech, "OBJECTS_AHEAD", 1)
    monkeypatch.setattr(speech, "PARTITIONS_AHEAD", 1)
    for i in range(8):
        bench.place.put(f"p{i}/a.flac", b"junk")
    bench.place.put("p8/a.flac", SILENCE)
    partitions = bench.take_inventory()
    passing = bench.start().run(partitions)
    assert next(passing).partition == partitions[0]
    assert bench.recogniser.loads == 0
    assert [finished.partition for finished in passing] == partitions[1:]
    assert bench.recogniser.loads == 1


def test_partitions_that_need_no_recogniser_are_written_while_it_takes_its_input(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(speech, "OBJECTS_AHEAD", 1)
    monkeypatch.setattr(speech, "PARTITIONS_AHEAD", 1)
    bench.recogniser.batch = 2
    bench.place.put("p0/a.flac", SILENCE)
    for i in range(1, 8):
        bench.place.put(f"p{i}/a.flac", b"junk")
    bench.place.put("p8/a.flac", NOISE)
    partitions = bench.take_inventory()
    passing = bench.start().run(partitions)
    written: list[list[FolderMinute]] = []
    clips = SpeechPass._clips

    def watched(self: SpeechPass, jobs: Iterator[Job]) -> Iterator[tuple[Job, np.ndarray]]:
        for clip in clips(self, jobs):
            written.append(bench.transcripts.partitions())
            yield clip

    monkeypatch.setattr(SpeechPass, "_clips", watched)
    assert sorted(finished.partition for finished in passing) == partitions
    # By when the second clip is taken, at most one partition before it is still being written.
    assert set(partitions[1:7]) <= set(written[1])


@pytest.mark.parametrize("asked", [dict(transcripts=True), dict(transcripts=False)], ids=["both", "tokens"])
def test_a_storage_fault_ends_the_pass_by_the_objects_name_and_keeps_what_is_complete(
    bench: Bench, asked: dict[str, bool]
):
    bench.recogniser.batch = 1
    for i in range(4):
        bench.place.put(f"p{i}/a.flac", flac(0.1, seed=i))
    bench.place.put("p0/b.txt", b"")
    bench.source.broken = {"p3/a.flac"}
    partitions = bench.take_inventory()
    with pytest.raises(StorageError, match=r"p3/a\.flac: connection reset"):
        bench.run(partitions, **asked)
    assert bench.tokens.partitions() == partitions[:3]
    bench.source.broken = set()
    finished = bench.run(partitions, **asked)
    assert bench.source.fetched == {"p3/a.flac": 1}
    assert len(finished) == 4


def test_partitions_of_bad_objects_alone_survive_a_fault_behind_them(bench: Bench):
    bench.place.put("p0/a.flac", b"junk")
    bench.place.put("p1/a.flac", SILENCE)
    bench.source.broken = {"p1/a.flac"}
    partitions = bench.take_inventory()
    with pytest.raises(StorageError):
        bench.run(partitions)
    assert bench.transcripts.partitions() == partitions[:1]


@pytest.mark.parametrize("asked", [{}, {"tokens": False}, {"transcripts": False}])
@pytest.mark.parametrize("refused", range(4))
def test_an_object_that_the_store_refuses_is_a_row_where_it_gives_others(
    bench: Bench, refused: int, asked: dict[str, bool]
):
    for i in range(4):
        bench.place.put(f"p{i // 2}/{i}.flac", flac(0.1, seed=i))
    bench.source.refused = {key := f"p{refused // 2}/{refused}.flac"}
    assert len(bench.run(**asked)) == 2
    table = bench.transcripts if asked.get("transcripts", True) else bench.tokens
    rows = bench.rows(table)
    assert {row["Key"] for row in rows.values() if row["status"] == "ok"} == rows.keys() - {key}
    assert rows[key]["error"] == f"cannot read {bench.source.uri}/{key}: AccessDenied"
    # It is asked for again, and stays a row as long as nothing changes, with nothing else to read.
    before = rows
    bench.run(**asked)
    assert bench.source.fetched == {key: 1}
    assert bench.rows(table) == before
    bench.source.refused = set()
    bench.run(**asked)
    assert bench.rows(table)[key]["status"] == "ok"


def test_a_store_that_refuses_every_object_fails_the_run_and_writes_none_of_them(bench: Bench):
    for i in range(3):
        bench.place.put(f"p{i}/a.flac", flac(0.1, seed=i))
    bench.place.put("p3/a.txt", b"")
    bench.source.refused = {f"p{i}/a.flac" for i in range(3)}
    partitions = bench.take_inventory()
    with pytest.raises(ObjectRefusedError, match=r"p\d/a\.flac: AccessDenied"):
        bench.run(partitions)
    assert bench.transcripts.partitions() == bench.tokens.partitions() == partitions[3:]


def failed_rows(bench: Bench) -> list[str]:
    rows = [*bench.rows(bench.transcripts).values(), *bench.rows(bench.tokens).values()]
    return [row["Key"] for row in rows if row["status"] == "failed"]


@pytest.mark.parametrize("asked", [{}, {"tokens": False}, {"transcripts": False}])
def test_an_object_that_is_refused_for_a_while_is_read_at_the_end_and_no_failed_row(
    bench: Bench, asked: dict[str, bool]
):
    for i in range(40):
        bench.place.put(f"p{i // 4}/{i:02}.flac", flac(0.1, seed=i))
    bench.source.outage = range(10, 40)
    finished = bench.run(**asked)
    assert len(finished) == 10
    assert failed_rows(bench) == []
    assert sum(f.computed for f in finished) == 40
    retried = {key: reasons for f in finished for key, reasons in f.retries.items()}
    assert len(retried) == 30
    assert all(len(reasons) == 1 and "account is locked" in reasons[0] for reasons in retried.values())


@pytest.mark.parametrize("asked", [{}, {"transcripts": False}], ids=["both", "tokens"])
def test_a_store_that_refuses_all_from_mid_run_on_fails_the_run_and_costs_no_row(
    bench: Bench, asked: dict[str, bool]
):
    bench.recogniser.batch = 1
    for i in range(40):
        bench.place.put(f"p{i // 4}/{i:02}.flac", flac(0.1, seed=i))
    bench.place.put("p9/notes.txt", b"")
    bench.source.outage = range(10, 1_000)
    partitions = bench.take_inventory()
    with pytest.raises(StorageError, match=r"p\d/\d\d\.flac: the account is locked"):
        bench.run(partitions, **asked)
    # The threads read side by side, so that which partitions are complete is not the same each time.
    complete = bench.tokens.partitions()
    assert len(complete) <= 2
    assert failed_rows(bench) == []
    bench.source.outage = range(0)
    bench.run(partitions, **asked)
    assert len(bench.source.fetched) == 40 - 4 * len(complete)
    assert len(bench.rows(bench.tokens)) == 41
    assert failed_rows(bench) == []


@pytest.mark.parametrize(
    "ends",
    [
        pytest.param(ends, marks=() if ends in {1, 2, 5, 9, 16, 23, 1_000} else pytest.mark.torture)
        for ends in (*range(1, 24), 1_000)
    ],
)
def test_an_outage_never_leaves_a_failed_row_whenever_it_begins_and_ends(bench: Bench, ends: int):
    for i in range(8):
        bench.place.put(f"p{i // 2}/{i}.flac", flac(0.1, seed=i))
    partitions = bench.take_inventory()
    for begins in range(min(ends, 8)):
        for table in (bench.tokens, bench.transcripts):
            for partition in table.partitions():
                (bench.place.folder.parent / "tables" / table.path(partition)).unlink()
        bench.source.outage = range(begins, ends)
        with contextlib.suppress(StorageError):
            bench.run(partitions)
        assert failed_rows(bench) == []
        bench.source.outage = range(0)
        bench.run(partitions)
        assert len(bench.rows(bench.tokens)) == len(bench.rows(bench.transcripts)) == 8


def test_an_outage_that_begins_when_a_refused_object_is_read_again_fails_the_run(bench: Bench):
    for i in range(4):
        bench.place.put(f"p{i}/a.flac", flac(0.1, seed=i))
    bench.source.refused = {"p1/a.flac"}
    # Of the five reads, the last two are the proof that others can be read, and the object once more.
    bench.source.outage = range(5, 1_000)
    with pytest.raises(StorageError, match=r"p1/a\.flac: "):
        bench.run()
    assert failed_rows(bench) == []


def test_an_object_that_was_read_and_is_gone_still_proves_that_the_account_may_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    bench.place.put("p0/a.flac", SILENCE)
    bench.place.put("p1/a.flac", NOISE)
    bench.source.refused = {"p1/a.flac"}
    partitions = bench.take_inventory()
    read = bench.source.read

    def read_once(info: ObjectInfo, retried: Callable[[str], object] | None = None) -> bytes:
        body = read(info, retried)
        bench.place.delete(info.key)
        return body

    monkeypatch.setattr(bench.source, "read", read_once)
    assert len(bench.run(partitions)) == 2
    assert set(failed_rows(bench)) == {"p1/a.flac"}


def test_objects_that_the_store_refuses_one_by_one_are_read_twice_each(bench: Bench):
    for i in range(60):
        bench.place.put(f"p{i // 4}/{i:02}.flac", flac(0.1, seed=i))
    bench.place.put("p0/good.flac", SILENCE)
    bench.source.refused = {f"p{i // 4}/{i:02}.flac" for i in range(60)}
    assert len(bench.run()) == 15
    assert set(failed_rows(bench)) == bench.source.refused
    assert {bench.source.fetched[key] for key in bench.source.refused} == {2}


def test_a_partition_with_objects_and_without_inventory_is_named(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    [partition] = bench.take_inventory()
    bench.place.put("p226/a.flac", SILENCE)
    missing = dataclasses.replace(partition, folder="p226")
    with pytest.raises(
        MissingInputError, match=f"{re.escape(missing.key)} has no s3_inventory; materialise that first"
    ):
        bench.run([partition, missing])


@pytest.mark.parametrize("other", [None, "p226/a.flac", "p225/b.flac", "p225/c/a.flac"])
def test_a_partition_without_objects_and_without_inventory_has_no_rows(bench: Bench, other: str | None):
    if other:
        bench.place.put(other, SILENCE, minutes_later(1))
    partition = FolderMinute("p225", MINUTE)
    assert read_inventory(bench.audio, bench.inventory, partition).equals(schema.INVENTORY.empty_table())
    [finished] = bench.run([partition])
    assert (finished.partition, finished.computed) == (partition, 0)
    assert bench.rows(bench.tokens) == bench.rows(bench.transcripts) == {}


def test_objects_are_fetched_a_bounded_number_ahead(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speech, "OBJECTS_AHEAD", 3)
    bench.recogniser.batch = 1
    for i in range(20):
        bench.place.put(f"p225/{i:02}.flac", flac(0.1, seed=i))
    partitions = bench.take_inventory()
    most: list[int] = []
    original = CountingRecogniser.transcribe

    def transcribe(clips: Iterable[tuple[Any, np.ndarray]]) -> Iterator[tuple[Any, Any]]:
        for heard, result in enumerate(original(bench.recogniser, clips)):
            most.append(bench.source.fetched.total() - heard)
            yield result

    monkeypatch.setattr(bench.recogniser, "transcribe", transcribe)
    bench.run(partitions)
    assert len(most) == 20
    assert max(most) <= 3 + 1


def test_bytes_are_fetched_a_bounded_number_ahead(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speech, "BYTES_AHEAD", 2 * len(SILENCE))
    bench.recogniser.batch = 1
    for i in range(10):
        bench.place.put(f"p225/{i}.flac", SILENCE)
    partitions = bench.take_inventory()
    passing = bench.start()
    clips = passing._clips
    most: list[int] = []

    def counted(jobs: Iterator[Job]) -> Iterator[tuple[Job, np.ndarray]]:
        for taken, clip in enumerate(clips(jobs)):
            most.append(bench.source.fetched.total() - taken)
            yield clip

    monkeypatch.setattr(passing, "_clips", counted)
    list(passing.run(partitions))
    assert max(most) <= 3


def test_audio_is_decoded_a_bounded_number_of_bytes_ahead(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    # A few kilobytes of silence each: what they weigh only shows when they are decoded.
    silence = constant_flac(60)
    size = 60 * 16_000 * 4
    monkeypatch.setattr(speech, "DECODED_BYTES_AHEAD", 3 * size)
    bench.recogniser.batch = 1
    for i in range(40):
        bench.place.put(f"p{i // 4}/{i}.flac", silence)
    passing = bench.start(tokens=False)
    held = 0
    most: list[int] = []
    lock = threading.Lock()

    def reserve_and_count(turn: int, size: int) -> None:
        nonlocal held
        reserve(turn, size)
        with lock:
            held += size
            most.append(held)

    def release_and_count(turn: int) -> None:
        nonlocal held
        with lock:
            held -= size
        release(turn)

    budget = MemoryBudget(speech.DECODED_BYTES_AHEAD)
    reserve = budget.reserve
    release = budget.release
    monkeypatch.setattr(budget, "reserve", reserve_and_count)
    monkeypatch.setattr(budget, "release", release_and_count)
    monkeypatch.setattr(speech, "MemoryBudget", lambda size: budget)
    finished = list(passing.run(bench.take_inventory()))
    assert sum(f.audio_s for f in finished) == 40 * 60
    assert max(most) <= 4 * size


def test_a_fault_ends_the_pass_though_threads_wait_for_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(speech, "DECODED_BYTES_AHEAD", 1)
    for i in range(40):
        bench.place.put(f"p{i:02}/a.flac", constant_flac(60))
    bench.source.broken = {"p01/a.flac"}
    with pytest.raises(StorageError, match=r"p01/a\.flac: connection reset"):
        bench.run(tokens=False)


def test_an_object_too_large_to_be_fetched_is_a_row(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "LARGEST_BYTES", len(SILENCE))
    bench.place.put("p225/a.flac", SILENCE)
    bench.place.put("p225/b.flac", SILENCE + b"x")
    bench.run()
    assert bench.source.fetched == {"p225/a.flac": 1}
    row = bench.rows(bench.transcripts)["p225/b.flac"]
    assert row["status"] == "failed"
    assert row["error"].endswith("cut it into pieces")


# --- several runs ---------------------------------------------------------------------------------------


class Rival(Table):
    """Another run replaces the partition's file just before this one does, `times` times."""

    times: int

    def replace(self, partition: FolderMinute, rows: pa.Table, snapshot: Snapshot) -> str:
        if self.times:
            object.__setattr__(self, "times", self.times - 1)
            stale = rows.set_column(1, self.schema.field("ETag"), pa.array([str(self.times)] * len(rows)))
            super().replace(partition, stale, self.read(partition))
        return super().replace(partition, rows, snapshot)


def rival(table: Table, times: int) -> Rival:
    made = Rival(table.store, table.name, table.schema)
    object.__setattr__(made, "times", times)
    return made


def test_a_pass_that_lost_a_race_reads_again_and_makes_the_partition_anew(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.place.put("p226/a.flac", NOISE)
    bench.tokens = rival(bench.tokens, times=2)
    finished = bench.run()
    assert sorted(f.partition.folder for f in finished) == ["p225", "p226"]
    assert {row["status"] for row in bench.rows(bench.tokens).values()} == {"ok"}
    assert {row["ETag"] for row in bench.rows(bench.tokens).values()} == {
        row["ETag"] for row in bench.rows(bench.inventory).values()
    }


def test_a_pass_that_keeps_losing_gives_up_by_the_partitions_name(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    bench.tokens = rival(bench.tokens, times=CONFLICT_ROUNDS)
    with pytest.raises(ConflictError, match=r"p225@2023-08-24-00:21"):
        bench.run()


def test_an_inventory_that_changes_during_the_pass_cannot_be_overwritten_by_older_rows(bench: Bench):
    bench.place.put("p225/a.flac", SILENCE)
    [partition] = bench.take_inventory()
    read = bench.inventory.read
    other_ran: list[bool] = []

    class Watched(Table):
        def read(self, partition: FolderMinute) -> Any:
            found = read(partition)
            if not other_ran:
                # Another run sees a newer bucket and finishes first.
                other_ran.append(True)
                bench.place.put("p225/b.flac", NOISE)
                bench.take_inventory()
                bench.run([partition])
            return found

    watched = Watched(bench.inventory.store, bench.inventory.name, bench.inventory.schema)
    slow = SpeechPass(bench.audio, watched, None, Tokenising(bench.tokens, bench.tokeniser))
    bench.inventory = Table(watched.store, watched.name, watched.schema)
    list(slow.run([partition]))
    assert set(bench.rows(bench.tokens)) == {"p225/a.flac", "p225/b.flac"}
