"""The engine's words are those of `whisper.transcribe(word_timestamps=True)`, whatever shares their batch."""

from typing import Any

import numpy as np
import pytest
import torch
import whisper
import whisper.timing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from audio_assets.settings import DEMO_CHECKPOINT
from audio_assets.transcription import Transcriber, Transcript
from audio_assets.transcription.alignment import first_frames
from audio_assets.transcription.decoder import Decoder
from audio_assets.transcription.encoder import Encoder
from audio_assets.transcription.kernels import warp
from audio_assets_tests.support.random_whisper import noise, sample_speech, transcripts

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_same_words(ours: Transcript, theirs: dict[str, Any]) -> int:
    """Text, segments and words with their times, probabilities within 1e-4; gives the number of words."""
    assert ours.text == theirs["text"]
    spoken = [s for s in theirs["segments"] if s["text"]]
    assert [(s.start_s, s.end_s, s.text) for s in ours.segments] == [
        (s["start"], s["end"], s["text"]) for s in spoken
    ]
    expected = [w for s in spoken for w in s.get("words", [])]
    said = [w for s in ours.segments for w in s.words or ()]
    assert [(w.word, w.start_s, w.end_s) for w in said] == [
        (w["word"], w["start"], w["end"]) for w in expected
    ]
    assert [w.probability for w in said] == pytest.approx([w["probability"] for w in expected], abs=1e-4)
    return len(said)


def compare(path: str, clips: list[np.ndarray], **options: Any) -> tuple[int, Transcriber]:
    """Both sides on the same clips and options; gives the number of words, and our side."""
    stock = whisper.load_model(path, device="cpu")
    theirs = [stock.transcribe(clip, language="en", fp16=False, **options) for clip in clips]
    temperatures = options.pop("temperature")
    transcriber = Transcriber.load(
        path, language="en", device="cpu", batch_size=3, temperatures=temperatures, **options
    )
    ours = transcripts(transcriber, clips)
    return sum(assert_same_words(ours[i], answer) for i, answer in enumerate(theirs)), transcriber


def test_words_are_those_of_transcribe(checkpoints: dict[str, str], same_randomness: None):
    """Clips from less than a token's 20 ms on, one of them silent, and texts that are sampled."""
    # Seeds for which no random number falls between two tokens but for the rounding of sums.
    clips = [*(noise(s, 10 + i) for i, s in enumerate((0.02, 0.05, 1, 2))), np.zeros(8_000, np.float32)]
    words, transcriber = compare(checkpoints["hesitant"], clips, word_timestamps=True, temperature=(0.0, 1.0))
    assert words > 0
    assert transcriber.stats.fallbacks > 0
    assert transcriber.stats.align_s > 0


@pytest.mark.parametrize("silence_s", [None, 0.5])
def test_words_of_the_sample_speech_are_those_of_transcribe(same_randomness: None, silence_s: float | None):
    clips = sample_speech(7)
    pause = np.zeros(4 * 16_000, np.float32)
    clips.append(np.concatenate([part for clip in clips for part in (clip, pause)]))
    assert len(clips[-1]) > 31 * 16_000
    words, _ = compare(
        *(str(DEMO_CHECKPOINT), clips),
        word_timestamps=True,
        hallucination_silence_threshold=silence_s,
        temperature=(0.0,),
    )
    assert words > 30


@pytest.mark.parametrize(
    "options",
    [
        {"initial_prompt": "two seven", "condition_on_previous_text": False, "temperature": (0.0,)},
        {"logprob_threshold": None, "no_speech_threshold": None, "temperature": (0.0, 0.2)},
        {"task": "translate", "temperature": (0.4,)},
    ],
    ids=str,
)
def test_a_models_answers_to_each_option_are_those_of_transcribe(
    checkpoints: dict[str, str], same_randomness: None, options: dict[str, Any]
):
    compare(checkpoints["hesitant"], [noise(s, i) for i, s in enumerate((0.3, 2, 31))], **options)


def test_words_are_the_same_to_the_last_bit_whatever_shares_the_batch():
    transcriber = Transcriber.load(str(DEMO_CHECKPOINT), language="en", device="cpu", word_timestamps=True)
    clips = sample_speech(6)
    alone = [transcripts(transcriber, [clip])[0] for clip in clips]
    assert list(transcripts(transcriber, clips).values()) != []
    assert [transcripts(transcriber, clips)[i] for i in range(6)] == alone


def test_words_cost_no_second_pass_of_the_encoder(monkeypatch: pytest.MonkeyPatch):
    encoded = 0
    encode = Encoder.encode

    def counting(self: Encoder, mel: torch.Tensor) -> torch.Tensor:
        nonlocal encoded
        encoded += len(mel)
        return encode(self, mel)

    monkeypatch.setattr(Encoder, "encode", counting)
    transcriber = Transcriber.load(str(DEMO_CHECKPOINT), language="en", device="cpu", word_timestamps=True)
    heard = transcripts(transcriber, sample_speech(4))
    assert all(transcript.words for transcript in heard.values())
    assert encoded == transcriber.stats.windows == 4


def test_a_batch_that_runs_out_of_memory_over_words_is_halved(monkeypatch: pytest.MonkeyPatch):
    clips = sample_speech(7)
    transcriber = Transcriber.load(
        str(DEMO_CHECKPOINT), language="en", device="cpu", batch_size=8, word_timestamps=True
    )
    wanted = transcripts(transcriber, clips)
    prefill = Decoder.prefill
    shortages = 2

    def short_of_memory(self: Decoder, *args: Any) -> torch.Tensor:
        nonlocal shortages
        if shortages and len(args) == 4:
            shortages -= 1
            raise torch.OutOfMemoryError("out of memory")
        return prefill(self, *args)

    monkeypatch.setattr(Decoder, "prefill", short_of_memory)
    assert transcripts(transcriber, clips) == wanted
    assert shortages == 0
    assert transcriber.batch_size == 2


costs = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0]) | st.floats(-3, 3, width=32),
)


@settings(max_examples=100)
@given(costs)
def test_the_cheapest_path_is_that_of_whisper(matrix: np.ndarray):
    ours = warp(torch.from_numpy(matrix))
    theirs = whisper.timing.dtw_cpu.py_func(matrix.astype(np.float64))
    np.testing.assert_array_equal(np.array(ours), theirs)


@pytest.mark.parametrize("matrix", [np.full((3, 1), np.nan, np.float32), np.zeros((3, 0), np.float32)])
def test_a_window_too_short_for_a_path_has_times_as_whisper_has_them(matrix: np.ndarray):
    text, time = whisper.timing.dtw_cpu.py_func(matrix.astype(np.float64))
    jumps = np.pad(np.diff(text), (1, 0), constant_values=1).astype(bool)
    assert first_frames(torch.from_numpy(matrix)) == time[jumps].tolist()
