"""Long-form transcription takes the steps that `whisper.transcribe` takes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.audio import FRAMES_PER_SECOND, N_FRAMES, N_SAMPLES, log_mel_spectrogram, pad_or_trim
from whisper.tokenizer import get_tokenizer
from whisper.utils import compression_ratio

from audio_assets.transcription import longform
from audio_assets.transcription.longform import (
    Decode,
    Decoded,
    Detected,
    DetectLanguage,
    split,
    transcribe_windows,
)
from audio_assets.transcription.mel import LogMel, log_mels
from audio_assets.transcription.transcribe_options import TranscribeOptions

TOKENIZER = get_tokenizer(multilingual=True)
ZERO = TOKENIZER.timestamp_begin


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 200, 201, 800, 16_000, 480_000, 480_001, 1_040_003])
def test_spectrograms_are_those_of_transcribe(samples):
    rng = np.random.default_rng(samples)
    audio = rng.normal(0, 0.1, samples).astype(np.float32)
    audio[-1:] = 1.0  # The maximum lies in a frame after the last content frame.
    (mel,) = log_mels([audio], 80, torch.device("cpu"))
    theirs = log_mel_spectrogram(audio, 80, padding=N_SAMPLES)
    frames = theirs.shape[1] - 3000
    assert mel.content_frames == frames
    torch.testing.assert_close(mel.language_window(), pad_or_trim(theirs, 3000), atol=2e-6, rtol=0)
    for start in range(0, frames, 1700):
        window = pad_or_trim(theirs[:, start : min(start + 3000, frames)], 3000)
        torch.testing.assert_close(mel.window(start), window, atol=2e-6, rtol=0)


def test_a_loud_clip_does_not_change_the_spectrogram_of_a_quiet_one():
    rng = np.random.default_rng(0)
    quiet, loud = (rng.normal(0, level, 20_000).astype(np.float32) for level in (1e-5, 1.0))
    alone = log_mels([quiet], 80, torch.device("cpu"))[0]
    together = log_mels([loud, quiet], 80, torch.device("cpu"))[1]
    torch.testing.assert_close(together.frames, alone.frames)


def test_constants_and_compression_are_those_of_whisper():
    assert (longform.FRAMES_PER_SECOND, longform.WINDOW_FRAMES) == (FRAMES_PER_SECOND, N_FRAMES)
    for text in ("", " eight", " na" * 40, "Grüße, 世界"):
        assert Decoded((), text, 0.0, 0.0, 0.0).compression_ratio == compression_ratio(text)


def test_a_certain_language_takes_no_other_window_than_the_one_that_is_transcribed():
    mel = _noise(seconds=4)
    steps = transcribe_windows(mel, TOKENIZER, None)
    asked = next(steps)
    assert isinstance(asked, DetectLanguage)
    torch.testing.assert_close(asked.window.mel, mel.window(0))
    decode = steps.send(Detected("fr", 0.9, "it", 0.01))
    assert isinstance(decode, Decode)
    assert (decode.language, decode.window) == ("fr", asked.window)


def test_a_doubtful_language_is_detected_on_audio_that_is_padded_with_silence_as_whisper_does():
    mel = _noise(seconds=4)
    steps = transcribe_windows(mel, TOKENIZER, None)
    first = next(steps)
    again = steps.send(Detected("fr", 0.8999, "it", 0.04))
    assert isinstance(again, DetectLanguage)
    torch.testing.assert_close(again.window.mel, mel.language_window())
    decode = steps.send(Detected("it", 0.6, "fr", 0.3))
    assert isinstance(decode, Decode)
    assert (decode.language, decode.window) == ("it", first.window)


def test_without_a_threshold_the_language_is_detected_as_whisper_does_from_the_start():
    mel = _noise(seconds=4)
    asked = next(
        transcribe_windows(mel, TOKENIZER, None, TranscribeOptions(language_detection_threshold=None))
    )
    torch.testing.assert_close(asked.window.mel, mel.language_window())


def test_from_30_s_on_both_windows_are_the_same_so_one_tells_the_language_whatever_its_probability():
    mel = _noise(seconds=31)
    torch.testing.assert_close(mel.language_window(), mel.window(0), atol=0, rtol=0)
    for threshold in (0.9, None):
        options = TranscribeOptions(language_detection_threshold=threshold)
        steps = transcribe_windows(mel, TOKENIZER, None, options)
        window = next(steps).window
        decode = steps.send(Detected("fr", 0.3, "it", 0.2))
        assert isinstance(decode, Decode)
        assert decode.window == window


def _noise(seconds: int) -> LogMel:
    audio = np.random.default_rng(seconds).normal(0, 0.1, seconds * 16_000).astype(np.float32)
    return log_mels([audio], 80, torch.device("cpu"))[0]


def stamp(seconds: float) -> int:
    return ZERO + round(seconds * 50)


def test_a_pair_of_timestamps_ends_one_segment_and_starts_the_next():
    tokens = (stamp(0), 1, 2, stamp(1.5), stamp(2), 3, stamp(4))
    pieces, advance = split(tokens, 1000, TOKENIZER)
    assert [(p.start_s, p.end_s, p.tokens[1:-1]) for p in pieces] == [
        (0.0, 1.5, (1, 2)),
        (2.0, 4.0, (3,)),
    ]
    assert advance == 1000


def test_an_unfinished_segment_is_left_to_the_next_window():
    pieces, advance = split((stamp(0), 1, stamp(1.5), stamp(1.5), 3, 4), 3000, TOKENIZER)
    assert len(pieces) == 1
    assert advance == 150


def test_without_a_pair_the_last_timestamp_ends_the_segment_and_the_whole_window_is_done():
    assert split((stamp(0), 1, stamp(2)), 500, TOKENIZER) == (
        [type(p)(0.0, 2.0, (stamp(0), 1, stamp(2))) for p in split((1,), 1, TOKENIZER)[0]],
        500,
    )
    pieces, advance = split((1, 2), 500, TOKENIZER)
    assert (pieces[0].end_s, advance) == (5.0, 500)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 5) | st.integers(0, 1500).map(lambda i: ZERO + i), max_size=12),
    st.integers(1, 3000),
)
def test_a_split_keeps_tokens_in_order_and_never_moves_back(tokens, size):
    pieces, advance = split(tuple(tokens), size, TOKENIZER)
    joined = [t for p in pieces for t in p.tokens]
    assert joined == tokens[: len(joined)]
    assert advance >= 0
