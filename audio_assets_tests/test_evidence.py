"""What rows say of their audio and text, against other ways of computing it."""

import hashlib
import io
import math
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_assets.audio import Audio, decode, read_flac
from audio_assets.demo.make_checkpoint import CHECKPOINT
from audio_assets.evidence import HALLUCINATION_FLAGS, SignalMeter, text_evidence
from audio_assets.evidence.hallucination import PHRASES
from audio_assets.transcription import Transcriber
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.project import Project

KEY = "p225@2023-08-24-00:21"
on_disk = pytest.mark.parametrize("place", ["local"], indirect=True)


def decoded(body: bytes) -> Audio:
    return decode(read_flac, body, evidence=True)


def flac_of(samples: np.ndarray, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


# --- the signal -----------------------------------------------------------------------------------------


def recomputed(body: bytes) -> dict[str, Any]:
    """The same evidence by other means: whole arrays, float64, one frame after another."""
    values, rate = soundfile.read(io.BytesIO(body), dtype="float32", always_2d=True)
    mono = values[:, 0] if values.shape[1] == 1 else values.mean(axis=1, dtype=np.float32)
    whole = [mono[at : at + rate // 100] for at in range(0, len(mono) - rate // 100 + 1, rate // 100)]
    energies = np.array([float(np.sum(frame.astype(np.float64) ** 2)) for frame in whole or [mono]])
    loud = 10 * np.log10(np.maximum(energies, 1e-30) / energies.max()) > -40 if energies.max() else [False]
    peak = float(np.abs(values).max())
    rms = math.sqrt(float(np.mean(values.astype(np.float64) ** 2)))
    return {
        "peak_dbfs": 20 * math.log10(peak) if peak else None,
        "rms_dbfs": 20 * math.log10(rms) if rms else None,
        "clipped_share": float(np.mean(np.abs(values) >= 32_767 / 32_768)),
        "dc_offset": float(mono.astype(np.float64).mean()),
        "speech_share": float(np.mean(loud)),
        "audio_sha256": hashlib.sha256(f"{rate} Hz\n".encode() + mono.astype("<f4").tobytes()).hexdigest(),
    }


def test_the_evidence_of_100_clips_is_what_whole_arrays_say():
    rng = np.random.default_rng(0)
    for seed in range(100):
        rate = int(rng.choice([8_000, 16_000, 48_000]))
        shape = int(rng.uniform(0.004, 1.5) * rate) + 1, 1 + seed % 2
        noise = rng.normal(0, rng.choice([0.01, 0.2, 0.9]), shape)
        body = flac_of((noise * rng.choice([0, 1], len(noise))[:, None] + 0.02).clip(-1, 1), rate)
        evidence = decoded(body).evidence
        assert evidence is not None
        for name, expected in recomputed(body).items():
            wanted = expected if isinstance(expected, str | None) else pytest.approx(expected, 1e-4, 1e-6)
            assert getattr(evidence, name) == wanted


@given(st.integers(1, 60_000), st.lists(st.integers(1, 20_000), max_size=8), st.sampled_from([1, 2]))
@settings(max_examples=50)
def test_how_the_audio_is_cut_into_blocks_does_not_matter(length: int, cuts: list[int], channels: int):
    values = np.random.default_rng(length).normal(0, 0.1, (length, channels)).astype(np.float32)

    def measured(blocks: list[np.ndarray]) -> Any:
        meter = SignalMeter(16_000)
        for block in blocks:
            meter.add(block, block.mean(axis=1, dtype=np.float32))
        return meter.finished()

    whole = measured([values])
    parts = measured(np.split(values, sorted(cut for cut in cuts if cut < length)))
    assert parts.audio_sha256 == whole.audio_sha256
    for name in ("peak_dbfs", "rms_dbfs", "clipped_share", "dc_offset", "speech_share", "bandwidth_hz"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), 1e-4, 1e-6)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_the_bandwidth_is_that_of_a_low_pass_filter(rate: int):
    limit = rate / 5
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(0, 0.1, 2 * rate))
    spectrum[np.fft.rfftfreq(2 * rate, 1 / rate) > limit] = 0
    evidence = decoded(flac_of(np.fft.irfft(spectrum).clip(-1, 1), rate)).evidence
    assert evidence
    # A Blackman-Harris window spreads an edge over four bins.
    assert evidence.bandwidth_hz == pytest.approx(limit, abs=5 * rate / 512)


def test_digital_silence_has_no_level_and_no_bandwidth():
    evidence = decoded(flac_of(np.zeros(16_000))).evidence
    assert evidence
    assert (evidence.peak_dbfs, evidence.rms_dbfs, evidence.bandwidth_hz) == (None, None, None)
    assert (evidence.clipped_share, evidence.dc_offset, evidence.speech_share) == (0, 0, 0)


def test_the_same_audio_has_one_digest_whatever_its_container_and_another_rate_has_another():
    samples = np.round(np.random.default_rng(0).normal(0, 0.1, 4_000).clip(-1, 1) * 32_767) / 32_768
    one = decoded(flac_of(samples)).evidence
    file = io.BytesIO()
    soundfile.write(file, np.stack([samples, samples], 1), 16_000, format="FLAC", subtype="PCM_16")
    both_channels = decoded(file.getvalue()).evidence
    other_rate = decoded(flac_of(samples, 8_000)).evidence
    assert one
    assert both_channels
    assert other_rate
    assert one.audio_sha256 == both_channels.audio_sha256 != other_rate.audio_sha256


# --- the text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language", "seconds", "flags"),
    [
        (" One two three.", "en", 2, []),
        ("", "en", 2, []),
        (" no no no no no", "en", 5, ["repeated_ngrams"]),
        (" a b a b a", "en", 5, ["repeated_ngrams"]),
        (" a b c a b", "en", 5, []),
        (" an abcdefghijklmnopqrstuvwxy", "en", 9, ["long_word"]),
        (" I xxxx", "en", 9, ["long_word"]),
        (" I xxx", "en", 9, []),
        (" Donaudampfschifffahrtsgesellschaft ist da", "de", 9, []),
        (" Donaudampfschifffahrtsgesellschaften ist da", "de", 9, ["long_word"]),
        (" Thank you for watching!", "en", 9, ["phrase_match"]),
        (" Please subscribe to my channel", "en", 9, ["phrase_match"]),
        ("ご視聴ありがとうございました", "ja", 9, ["phrase_match"]),
        ("今日はとても良い天気ですね明日も晴れるでしょうか", "ja", 9, []),
        (" many words in no time at all", "en", 0.5, ["high_char_rate"]),
    ],
)
def test_flags_are_those_of_nemo_curator(text: str, language: str, seconds: float, flags: list[str]):
    assert list(text_evidence(text, language, seconds).hallucination_flags) == flags


@given(st.text(), st.sampled_from(["en", "de", "ja", None]), st.floats(0.01, 100))
def test_evidence_of_any_text_is_within_its_limits(text: str, language: str | None, seconds: float):
    evidence = text_evidence(text, language, seconds)
    assert set(evidence.hallucination_flags) <= set(HALLUCINATION_FLAGS)
    assert evidence.unique_word_ratio is None or 0 < evidence.unique_word_ratio <= 1
    assert evidence.characters_per_second == pytest.approx(len("".join(text.split())) / seconds)
    counted = language != "ja" and text.split()
    assert (evidence.longest_word_length is not None) == bool(counted)


def test_each_phrase_is_found_with_its_stops():
    for phrase in PHRASES:
        assert text_evidence(f" {phrase}.", "en", 60).hallucination_flags == ("phrase_match",)


# --- what Whisper says, and the rows --------------------------------------------------------------------


def test_languages_have_the_probabilities_of_whisper_detect_language(checkpoints: dict[str, str]):
    model = whisper.load_model(checkpoints["terse"], device="cpu")
    clips = [np.random.default_rng(i).normal(0, 0.1, 16_000 + 1_600 * i).astype(np.float32) for i in range(6)]
    answers = Transcriber.load(checkpoints["terse"], device="cpu").transcribe(enumerate(clips))
    for i, answer in answers:
        assert not isinstance(answer, Exception)
        mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(clips[i]), model.dims.n_mels)
        with torch.no_grad():
            _, found = model.detect_language(mel)
        probabilities = cast("dict[str, float]", found)
        first, second, *_ = sorted(probabilities.values(), reverse=True)
        assert second > 0.001
        assert answer.language_probability == pytest.approx(first, abs=6e-5)
        assert answer.runner_up_language_probability == pytest.approx(second, abs=6e-5)
        assert answer.runner_up_language
        assert probabilities[answer.language] == pytest.approx(first, abs=6e-5)
        assert probabilities[answer.runner_up_language] == pytest.approx(second, abs=6e-5)


def test_a_language_without_a_rival_has_no_runner_up():
    # The demo's model knows one language.
    clip = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    [(_, answer)] = Transcriber.load(str(CHECKPOINT), device="cpu").transcribe([(0, clip)])
    assert not isinstance(answer, Exception)
    assert (answer.language, answer.language_probability) == ("en", 1.0)
    assert (answer.runner_up_language, answer.runner_up_language_probability) == (None, 0.0)


@on_disk
def test_a_row_carries_its_evidence_and_a_failed_one_that_of_its_audio(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    heard = flac(1.2, rate=48_000, channels=2)
    project.place.put("p225/a.flac", heard, UPLOADED)
    project.place.put("p225/b.flac", b"junk", UPLOADED)
    project.place.put("p225/c.txt", b"text", UPLOADED)
    assert project.run(KEY).success
    good, bad, text = project.table().sort_values("Key").to_dict("records")
    for name, expected in recomputed(heard).items():
        assert good[name] == (expected if isinstance(expected, str) else pytest.approx(expected, 1e-4, 1e-5))
    assert (good["language_probability"], good["runner_up_language_probability"]) == (1, 0)
    assert good["worst_avg_logprob"] == good["avg_logprob"]
    assert good["worst_no_speech_prob"] == good["no_speech_prob"]
    assert good["sampled_share"] in (0, 1)
    assert "".join(s["text"] for s in good["segments"]).strip() == good["transcribed_text"]
    letters = len("".join(good["transcribed_text"].split()))
    assert good["characters_per_second"] == pytest.approx(letters / 1.2)
    for row in (bad, text):
        assert np.isnan(row["rms_dbfs"])
        assert pd.isna(row["audio_sha256"])

    monkeypatch.setenv("WHISPER_LANGUAGE", "en")
    project.reload()
    assert project.run(KEY).success
    given_language, *_ = project.table().sort_values("Key").to_dict("records")
    assert np.isnan(given_language["language_probability"])
    assert pd.isna(given_language["runner_up_language"])
