"""`Transcriber` gives the answers of `whisper.transcribe`, whatever shares its batches.

The models are real Whispers of width 64 with random weights, shaped so that they end sentences, place
timestamps, fall below thresholds or hear nobody. At temperatures above 0 both sides are given the same random
numbers, so that even sampled text must be equal.
"""

import contextlib
import dataclasses
import hashlib
import math
import re
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import whisper
import whisper.decoding
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from audio_assets.errors import ArgumentError
from audio_assets.settings import DEMO_CHECKPOINT
from audio_assets.transcription import Transcriber, Transcript, layers, model_identity
from audio_assets.transcription.batch import DecodeBatch, Running
from audio_assets.transcription.decoder import Decoder
from audio_assets.transcription.encoder import Encoder
from audio_assets.transcription.graphs import Graphs, bucket
from audio_assets.transcription.kv_cache import DecodeState, KVCache
from audio_assets.transcription.options import Options
from audio_assets.transcription.sampling import Sampler
from audio_assets_tests.support.random_whisper import (
    DIMS,
    MODELS,
    noise,
    sample_speech,
    transcripts,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def checkpoint(checkpoints: dict[str, str]) -> str:
    return checkpoints["terse"]


def assert_same(ours: Transcript, theirs: dict[str, Any]) -> None:
    """The text, the segments and, where the file has one window, the figures."""
    assert ours.language == theirs["language"]
    assert ours.text == theirs["text"]
    spoken = [s for s in theirs["segments"] if s["text"]]
    assert [(s.start_s, s.end_s, s.text) for s in ours.segments] == [
        (s["start"], s["end"], s["text"]) for s in spoken
    ]
    if len({s["seek"] for s in theirs["segments"]}) == 1:
        for name in ("avg_logprob", "no_speech_prob", "compression_ratio", "temperature"):
            assert getattr(ours, name) == pytest.approx(theirs["segments"][0][name], abs=1e-3), name


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("language", ["en", None])
def test_answers_are_those_of_transcribe(
    checkpoints: dict[str, str], same_randomness: None, name: str, language: str | None
):
    lengths = (0.05, 0.2, 3, 8, 29.99, 30.01, 75) if language else (0.05, 4, 31)
    clips = [noise(s, i) for i, s in enumerate(lengths)]
    stock = whisper.load_model(checkpoints[name], device="cpu")
    theirs = [stock.transcribe(c, language=language, fp16=False) for c in clips]
    # A batch of three among more files: rows leave and join at different times.
    transcriber = Transcriber.load(checkpoints[name], language=language, device="cpu", batch_size=3)
    ours = transcripts(transcriber, clips)
    assert len(ours) == len(clips)
    for i, answer in enumerate(theirs):
        assert_same(ours[i], answer)


def test_the_sample_speech_is_read_as_by_transcribe():
    clips = sample_speech(12)
    stock = whisper.load_model(str(DEMO_CHECKPOINT), device="cpu")
    ours = transcripts(Transcriber.load(str(DEMO_CHECKPOINT), language="en", device="cpu"), clips)
    for i, clip in enumerate(clips):
        assert_same(ours[i], stock.transcribe(clip, language="en", fp16=False))


def test_a_transcript_is_the_same_to_the_last_bit_whatever_shares_its_batch():
    transcriber = Transcriber.load(str(DEMO_CHECKPOINT), language="en", device="cpu")
    clips = sample_speech(10)
    alone = [transcripts(transcriber, [clip])[0] for clip in clips]
    for together in (2, 10):
        for first in range(0, len(clips), together):
            shared = transcripts(transcriber, clips[first : first + together])
            assert [shared[i] for i in range(together)] == alone[first : first + together]


def test_only_rows_that_fail_a_threshold_are_decoded_again(checkpoint: str):
    transcriber = Transcriber.load(checkpoint, language="en", device="cpu")
    clips = [noise(2, i) for i in range(6)]
    greedy = transcripts(transcriber, clips)
    assert transcriber.stats.fallbacks == 0
    threshold = sorted(t.avg_logprob for t in greedy.values())[2]
    transcriber = Transcriber.load(checkpoint, language="en", device="cpu", logprob_threshold=threshold)
    answers = transcripts(transcriber, clips)
    failing = {i for i, t in greedy.items() if t.avg_logprob < threshold}
    assert len(failing) == 2
    assert {i for i, t in answers.items() if t.temperature > 0} == failing
    assert {i: answers[i] for i in greedy.keys() - failing} == {i: greedy[i] for i in greedy.keys() - failing}
    assert transcriber.stats.fallbacks <= 5 * len(failing)


def test_sampled_text_is_the_same_in_every_run(checkpoints: dict[str, str]):
    clips = [noise(2, i) for i in range(4)]
    transcriber = Transcriber.load(checkpoints["hesitant"], language="en", device="cpu", batch_size=4)
    first, second = (transcripts(transcriber, c) for c in (clips, clips))
    assert any(t.temperature > 0 for t in first.values())
    assert {k: t.text for k, t in first.items()} == {k: t.text for k, t in second.items()}
    assert transcripts(transcriber, [clips[2]])[0].text == first[2].text


def test_audio_is_pulled_as_needed_and_not_kept(checkpoint: str):
    transcriber = Transcriber.load(checkpoint, language="en", device="cpu", batch_size=2)
    pulled = 0
    clips: list[weakref.ref[np.ndarray]] = []

    def source() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal pulled
        for i in range(40):
            pulled += 1
            clip = noise(0.1, i)
            clips.append(weakref.ref(clip))
            yield i, clip
            del clip

    most = 0
    done = 0
    for done, _ in enumerate(transcriber.transcribe(source()), 1):
        most = max(most, pulled - done)
        assert sum(clip() is not None for clip in clips) <= 1
    assert done == pulled == 40
    assert most <= 8


@pytest.mark.parametrize("where", [(Decoder, "step"), (Decoder, "prefill"), (Encoder, "encode")])
def test_a_batch_that_runs_out_of_memory_is_halved(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]
):
    clips = [noise(1, i) for i in range(9)]
    transcriber = Transcriber.load(checkpoint, language="en", device="cpu", batch_size=8)
    wanted = {k: t.text for k, t in transcripts(transcriber, clips).items()}
    owner, name = where
    method = getattr(owner, name)
    shortages = 2

    def short_of_memory(*args: object, **kwargs: object) -> object:
        nonlocal shortages
        if shortages:
            shortages -= 1
            raise torch.OutOfMemoryError("out of memory")
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, short_of_memory)
    assert {k: t.text for k, t in transcripts(transcriber, clips).items()} == wanted
    assert transcriber.stats.halvings >= 1
    if owner is Decoder:
        assert transcriber.batch_size == 2


def test_steps_as_a_gpu_takes_them_change_no_answer(checkpoint: str, monkeypatch: pytest.MonkeyPatch):
    """In buckets that exceed the batch, and several before anybody asks what is done."""
    clips = [noise(s, i) for i, s in enumerate((1, 2, 31, 4, 0.05, 33, 2))]
    wanted = transcripts(Transcriber.load(checkpoint, language="en", device="cpu", batch_size=8), clips)

    def run(self: Graphs, rows: int, most_rows: int, longest: int, most_length: int, sampling: bool) -> None:
        self.advance(bucket(rows, most_rows, 4), bucket(longest, most_length, 64), sampling)

    monkeypatch.setattr(Graphs, "run", run)
    monkeypatch.setattr(
        DecodeBatch, "steps_at_once", property(lambda self: 4, lambda self, value: None), raising=False
    )
    answers = transcripts(Transcriber.load(checkpoint, language="en", device="cpu", batch_size=8), clips)
    assert {i: (t.text, t.segments, t.temperature) for i, t in answers.items()} == {
        i: (t.text, t.segments, t.temperature) for i, t in wanted.items()
    }


def test_without_onednn_the_answers_are_the_same(checkpoint: str, monkeypatch: pytest.MonkeyPatch):
    clips = [noise(s, i) for i, s in enumerate((1, 2, 31))]
    wanted = transcripts(Transcriber.load(checkpoint, language="en", device="cpu"), clips)
    monkeypatch.setattr(layers, "has_onednn", lambda *_: False)
    answers = transcripts(Transcriber.load(checkpoint, language="en", device="cpu"), clips)
    assert {i: (t.text, t.segments) for i, t in answers.items()} == {
        i: (t.text, t.segments) for i, t in wanted.items()
    }


def test_a_kind_of_step_runs_once_before_it_is_captured_and_then_is_replayed(monkeypatch: pytest.MonkeyPatch):
    """The order that CUDA wants; recording itself is left out, as it needs a device."""
    events: list[object] = []

    class Graph:
        def pool(self) -> str:
            return "pool"

        def replay(self) -> None:
            events.append("replay")

    @contextlib.contextmanager
    def record(graph: Graph, pool: str | None, capture_error_mode: str) -> Iterator[None]:
        # Other threads may use the device meanwhile.
        assert capture_error_mode == "thread_local"
        events.append(f"record into {pool}")
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", record)
    graphs = Graphs(lambda *key: events.append(key), torch.device("cuda"))
    for rows in (5, 7, 8):
        graphs.run(rows, 12, 10, 448, False)
    key = (8, 64, False)
    assert events == [key, "record into None", key, "replay", "replay"]
    events.clear()
    for _ in range(2):
        graphs.run(9, 12, 300, 448, True)
    key = (12, 448, True)
    assert events == [key, "record into pool", key, "replay"]


def test_half_precision_gives_about_the_same_figures(checkpoint: str):
    clips = [noise(2, i) for i in range(3)]
    exact, half = (
        transcripts(Transcriber.load(checkpoint, language="en", device="cpu", precision=p), clips)
        for p in ("float32", "bfloat16")
    )
    for i in range(len(clips)):
        assert half[i].avg_logprob == pytest.approx(exact[i].avg_logprob, abs=0.3)


def test_importing_the_package_loads_neither_torch_nor_whisper():
    code = (
        "import sys, audio_assets.transcription; sys.exit('torch' in sys.modules or 'whisper' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_broken_file_is_its_own_exception_and_kills_no_other(checkpoint: str):
    transcriber = Transcriber.load(checkpoint, language="en", device="cpu")
    good = noise(0.05, 0)
    bad = np.full(800, np.nan, np.float32)
    items: list[tuple[str, Any]] = [
        ("good", good),
        ("nan", bad),
        ("list", [0.0]),
        ("stereo", np.zeros((2, 800), np.float32)),
    ]
    out = list(transcriber.transcribe(items))
    answers = dict(out)
    assert len(out) == len(answers) == 4
    assert isinstance(answers["nan"], ValueError)
    assert "NaN" in str(answers["nan"])
    assert isinstance(answers["list"], TypeError)
    assert isinstance(answers["stereo"], ValueError)
    assert isinstance(answers["good"], Transcript)
    assert answers["good"].language == "en"


def test_a_file_of_less_than_a_frame_is_empty(checkpoint: str):
    transcript = transcripts(Transcriber.load(checkpoint, language="en", device="cpu"), [noise(0.005, 0)])[0]
    assert transcript.text == ""
    assert transcript.segments == ()
    assert math.isnan(transcript.avg_logprob)


def test_the_callers_thread_counts_as_exactly_as_before(checkpoint: str):
    dict(Transcriber.load(checkpoint, language="en", device="cpu").transcribe([(0, noise(0.3, 0))]))
    assert np.finfo(np.float32).smallest_subnormal * np.float32(1) > 0


def test_the_identity_of_a_model_is_known_before_it_is_loaded(checkpoint: str):
    transcriber = Transcriber.load(checkpoint, language="English", device="cpu", batch_size=3)
    assert transcriber.identity == model_identity(checkpoint, language="en", device="cpu")
    assert "terse.pt" in transcriber.identity
    assert whisper.__version__ in transcriber.identity
    assert transcriber.identity != model_identity(checkpoint, language=None, device="cpu")
    assert "sha256=65147644a518" in model_identity("tiny", device="cpu")


def test_identities_are_those_that_stored_rows_carry(checkpoint: str):
    """A row is made anew where its identity differs by a byte, so these change with the answers alone."""
    version = whisper.__version__
    with open(checkpoint, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    assert model_identity(checkpoint, device="cpu") == (
        f"whisper terse.pt sha256={digest} language=detected temperatures=0.0-1.0 precision=float32"
        f" openai-whisper={version} engine=1"
    )
    # A precision that is given needs no device: the identity is the same on a machine that has none.
    for device in ("auto", "cuda"):
        assert model_identity("tiny", language="German", precision="float16", device=device) == (
            "whisper tiny sha256=65147644a518 language=de temperatures=0.0-1.0 precision=float16"
            f" openai-whisper={version} engine=1"
        )


def test_options_are_resolved_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = Options("tiny", language="English").resolve()
    assert options == Options("tiny", device="cpu", language="en", batch_size=None, precision="float32")
    assert options.resolve() == options
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.device = "cuda"  # type: ignore[misc]


# --- the decode batch -----------------------------------------------------------------------------------


def decode_batch(slots: int) -> DecodeBatch:
    model = Whisper(DIMS)
    tokenizer = get_tokenizer(True)
    decoder = Decoder(model.decoder, torch.float32, slots)
    return DecodeBatch(decoder, Sampler(model, tokenizer), tokenizer, DIMS.n_audio_ctx, slots, beam_size=2)


def tensors_of(batch: DecodeBatch) -> dict[str, torch.Tensor]:
    """What the slots hold, one slot after the other."""
    cache = {f"cache.{f.name}": getattr(batch.cache, f.name) for f in dataclasses.fields(batch.cache)}
    state = {f"state.{f.name}": getattr(batch.state, f.name) for f in dataclasses.fields(batch.state)}
    return {name: tensor.transpose(0, 1) for name, tensor in cache.items()} | state


@torch.inference_mode()
def test_a_row_moves_with_all_that_it_holds():
    batch = decode_batch(3)
    tensors = tensors_of(batch)
    assert len(tensors) == len(dataclasses.fields(KVCache)) + len(dataclasses.fields(DecodeState))
    generator = torch.Generator().manual_seed(0)
    for tensor in tensors.values():
        assert len(tensor) == 3
        tensor.copy_(
            torch.randint(0, 2 if tensor.dtype == torch.bool else 1000, tensor.shape, generator=generator)
        )
    batch.state.done[0] = False
    batch.state.done[2] = True
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    for owner in "abc":
        batch._add_row(Running(owner, 0.0, 3, 0.0))
    batch._close_gap(0, [10, 10, DIMS.n_text_ctx])
    assert [(row.decode.owner, row.slot) for row in batch.rows] == [("c", 0), ("b", 1)]
    for name, tensor in tensors.items():
        assert not torch.equal(before[name][0], before[name][2]), name
        assert torch.equal(tensor[0], before[name][2]), name
        assert torch.equal(tensor[1:], before[name][1:]), name


def test_no_tensor_of_a_row_lies_outside_the_declarations():
    """So that a field which is added later moves with its row."""
    batch = decode_batch(3)
    for holder in (batch, batch.decoder, batch.graphs):
        assert [name for name, value in vars(holder).items() if _is_per_slot(value)] == []


def _is_per_slot(value: object) -> bool:
    tensors = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(t, torch.Tensor) and 3 in t.shape[:2] for t in tensors)


# --- profiles -------------------------------------------------------------------------------------------


def test_the_stages_stand_in_a_profile(checkpoint: str):
    transcriber = Transcriber.load(checkpoint, device="cpu")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        dict(transcriber.transcribe([(0, noise(1, 0))]))
    assert {"mel", "encode", "language", "prefill", "decode step"} <= {e.key for e in profile.key_averages()}
    stats = transcriber.stats
    assert min(stats.mel_s, stats.encode_s, stats.language_s, stats.decode_s) > 0


@pytest.mark.parametrize(
    ("model", "options", "argument", "message"),
    [
        (
            "no-such-model",
            {},
            "model",
            "model='no-such-model' is neither a file nor a model that Whisper knows",
        ),
        (
            "tiny",
            {"language": "klingon"},
            "language",
            "language='klingon' is not a language that Whisper knows",
        ),
        ("tiny", {"device": "tpu"}, "device", "device='tpu' is not one of auto, cpu, cuda"),
        ("tiny", {"device": "cuda:99"}, "device", "device='cuda:99', but PyTorch sees"),
        ("tiny", {"device": "cpu", "batch_size": 0}, "batch_size", "batch_size=0 is not at least 1"),
        ("tiny", {"precision": "int8"}, "precision", "precision 'int8' is not one of auto, float32"),
        (
            "tiny",
            {"device": "cpu", "precision": "float16"},
            "precision",
            "precision float16 is for CUDA devices",
        ),
    ],
)
def test_a_wrong_argument_is_named(model: str, options: dict[str, Any], argument: str, message: str):
    with pytest.raises(ArgumentError, match=re.escape(message)) as e:
        Transcriber.load(model, **options)
    assert e.value.argument == argument


def test_a_model_that_does_not_fit_is_named_with_its_device(checkpoint: str, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(whisper, "load_model", full)
    said = re.escape(f"model={checkpoint!r} does not fit into the free memory of device='cpu'")
    with pytest.raises(ArgumentError, match=said) as e:
        Transcriber.load(checkpoint, device="cpu")
    assert e.value.argument == "model"
