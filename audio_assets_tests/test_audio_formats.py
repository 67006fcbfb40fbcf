"""Objects of each format that AUDIO_FORMATS names become audio as their decoder gives it, or a reason."""

import io
import random
import re
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import soxr

from audio_assets.audio import BUILT_IN, SAMPLE_RATE_HZ, Audio, check_formats, decode, decoder_of, limits
from audio_assets.errors import ArgumentError, AudioError
from audio_assets.settings import AUDIO_FORMAT_NAMES
from audio_assets_tests.support.encoded import FORMATS, RATE_HZ, encode, mux, speech

NAMES = {"flac": "FLAC", "wav": "WAV", "mp3": "MP3", "opus": "Ogg", "ogg": "Ogg", "m4a": "M4A", "aac": "AAC"}
NAMES |= {"webm": "WebM"}
# Which tell by themselves that bytes in their middle were changed.
WITH_CHECKSUMS = {"flac", "ogg", "opus"}
# Encoders that lose something hold a tone to this.
LOUDNESS_TOLERANCE = 0.05


def outcome(form: str, body: bytes) -> Audio | str:
    try:
        return decode(BUILT_IN[form], body)
    except AudioError as e:
        return str(e)


# --- what is decoded ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("form", FORMATS)
def test_the_audio_of_each_format_is_what_was_encoded_at_the_time_at_which_it_was(form: str, channels: int):
    wave = speech(2.0, channels)
    found = decode(BUILT_IN[form], encode(form, wave))
    assert (found.sample_rate_hz, found.channels) == (RATE_HZ, channels)
    # An encoder may fill up its last frame.
    assert 2.0 <= found.duration_s < 2.0 + 2 * 1024 / RATE_HZ
    expected = soxr.resample(wave.mean(axis=1), RATE_HZ, SAMPLE_RATE_HZ)
    middle = slice(4_000, 28_000)
    lags = range(-40, 1_100)
    correlations = [
        np.dot(found.samples[middle], np.roll(expected, lag)[middle].astype(np.float32)) for lag in lags
    ]
    lag = lags[int(np.argmax(correlations))]
    # ADTS has no place to say its encoder's delay, and the M4A made here does not say it.
    assert lag in (range(1_100) if form in ("aac", "m4a") else {0}), lag
    error = found.samples[middle] - np.roll(expected, lag)[middle]
    assert np.sqrt(np.mean(error**2)) < LOUDNESS_TOLERANCE


@pytest.mark.parametrize("form", ["wav", "mp3", "ogg", "opus"])
def test_samples_are_those_of_libsndfile(form: str):
    body = encode(form, speech(2.0, 2))
    reference, rate = soundfile.read(io.BytesIO(body), dtype="float32", always_2d=True)
    found = decode(BUILT_IN[form], body, rates_hz=(rate,))
    np.testing.assert_array_equal(found.at(rate), reference.mean(axis=1, dtype=np.float32))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg to compare with")
@pytest.mark.parametrize("form", ["m4a", "aac", "webm"])
def test_samples_are_those_of_ffmpeg(form: str, tmp_path):
    body = encode(form, speech(2.0, 1))
    (tmp_path / f"a.{form}").write_bytes(body)
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / f"a.{form}"), "-f", "f32le", "-"]
    said = subprocess.run(command, check=True, capture_output=True).stdout
    found = decode(BUILT_IN[form], body, rates_hz=(RATE_HZ,))
    # Another version of FFmpeg rounds otherwise.
    np.testing.assert_allclose(found.at(RATE_HZ), np.frombuffer(said, np.float32), atol=1e-4)


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]
)
def test_wav_of_any_width_has_the_same_loudness(subtype: str):
    file = io.BytesIO()
    wave = speech(0.5)[:, 0]
    soundfile.write(file, wave, RATE_HZ, format="WAV", subtype=subtype)
    found = decode(BUILT_IN["wav"], file.getvalue(), rates_hz=(RATE_HZ,))
    np.testing.assert_allclose(found.at(RATE_HZ)[: len(wave)], wave, atol=LOUDNESS_TOLERANCE)


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
def test_each_rate_that_is_needed_is_resampled_from_the_rate_of_the_source(rate: int):
    wave = speech(1.0)
    found = decode(BUILT_IN["flac"], encode("flac", wave), rates_hz=(rate,))
    source = np.round(wave[:, 0] * 2**15).astype(np.float32) / 2**15
    np.testing.assert_allclose(found.at(rate), soxr.resample(source, RATE_HZ, rate), atol=1e-3)
    np.testing.assert_array_equal(found.at(SAMPLE_RATE_HZ), found.samples)
    with pytest.raises(KeyError):
        found.at(12_345)


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_object_is_refused_and_told_by_its_format(form: str):
    body = encode(form, speech(3.0))
    for share in (0.3, 0.6, 0.95):
        became = outcome(form, body[: int(len(body) * share)])
        assert isinstance(became, str), share
        assert re.match(f"corrupt or truncated {NAMES[form]}: .*; upload it again", became), became


@pytest.mark.parametrize("form", sorted(WITH_CHECKSUMS))
def test_bytes_that_were_changed_in_the_middle_are_found_by_checksums(form: str):
    body = bytearray(encode(form, speech(2.0)))
    at = len(body) // 2
    body[at : at + 50] = bytes(byte ^ 0x55 for byte in body[at : at + 50])
    assert "corrupt or truncated" in str(outcome(form, bytes(body)))


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_of_another_kind_is_told_by_what_it_is(form: str):
    for other, kind in (
        ("wav", "WAV"),
        ("flac", "FLAC"),
        ("m4a", "MP4 or M4A"),
        ("webm", "Matroska or WebM"),
    ):
        if other != form:
            became = outcome(form, encode(other, speech(0.2)))
            name = NAMES[form]
            assert became == (
                f"not {name} inside but {kind}; upload {name} in its place, or name it by what it is"
            )
    page = b"<html>no such page</html>" * 10
    assert "text, perhaps an error page" in str(outcome(form, page))
    assert outcome(form, b"") == "the object is empty (0 bytes); upload it again"


@pytest.mark.parametrize("form", FORMATS)
def test_audio_longer_than_the_limit_is_refused(form: str, monkeypatch: pytest.MonkeyPatch):
    body = encode(form, speech(3.0))
    monkeypatch.setattr(limits, "LONGEST_S", 2)
    assert re.search("h of audio in one object .*cut it into pieces", str(outcome(form, body)))


def test_a_video_is_passed_over_and_one_without_audio_is_refused():
    import av

    def film(*, with_audio: bool) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format="webm") as container:
            video = container.add_stream("libvpx", rate=10)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            audio = container.add_stream("libopus", rate=RATE_HZ, layout="mono") if with_audio else None
            for _ in range(10):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                container.mux(video.encode(frame))
            if audio:
                mux(container, audio, np.zeros((RATE_HZ, 1), np.float32), RATE_HZ)
            container.mux(video.encode(None))
        return file.getvalue()

    assert decode(BUILT_IN["webm"], film(with_audio=True)).duration_s == pytest.approx(1.0, abs=0.05)
    assert outcome("webm", film(with_audio=False)) == "the WebM holds no audio; upload it again"


def test_floats_that_are_no_numbers_are_refused():
    file = io.BytesIO()
    soundfile.write(file, np.array([0.0, np.nan, np.inf]), RATE_HZ, format="WAV", subtype="FLOAT")
    assert outcome("wav", file.getvalue()) == (
        "the audio holds samples that are no finite numbers; export it again"
    )


def mutated(body: bytes, seed: int) -> bytes:
    """Some bytes changed, cut out, put in or cut off."""
    chance = random.Random(seed)
    changed = bytearray(body)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(changed))
        # Headers are where a decoder believes what it reads.
        at = at if chance.random() < 0.5 else at % 400
        match chance.randrange(4):
            case 0:
                changed[at] = chance.randrange(256)
            case 1:
                del changed[at : at + chance.randint(1, 200)]
            case 2:
                changed[at:at] = chance.randbytes(chance.randint(1, 200))
            case _:
                changed[at : at + 8] = chance.choice([bytes(8), b"\xff" * 8, chance.randbytes(8)])
        changed = changed or bytearray(body[:1])
    return bytes(changed)


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_object_is_audio_or_a_reason_and_never_more(form: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "LONGEST_S", 60)
    body = encode(form, speech(0.5, 2))
    reasons = 0
    for seed in range(1_000):
        became = outcome(form, mutated(body, seed))
        if isinstance(became, str):
            reasons += 1
            assert re.search("upload|name it by|cut it into|encode it|export it", became), (seed, became)
            assert not re.search(r"0x|<|Error|Exception|None", became), (seed, became)
        else:
            assert np.isfinite(became.samples).all(), seed
    assert reasons


# --- which are audio ------------------------------------------------------------------------------------


def test_the_setting_knows_every_built_in_decoder():
    assert set(BUILT_IN) == set(AUDIO_FORMAT_NAMES)


def test_the_setting_says_which_suffixes_are_audio(monkeypatch: pytest.MonkeyPatch):
    assert decoder_of("a.wav") is None
    monkeypatch.setenv("AUDIO_FORMATS", " .WAV, opus")
    check_formats()
    assert decoder_of("p/a.Wav") is BUILT_IN["wav"]
    assert decoder_of("a.flac") is None
    monkeypatch.setenv("AUDIO_FORMATS", "flac,wma")
    with pytest.raises(ArgumentError, match=r"AUDIO_FORMATS is a list of flac, wav, .*not 'flac,wma'"):
        decoder_of("a.flac")


def test_a_format_that_needs_a_package_says_which(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("AUDIO_FORMATS", "flac,wav")
    check_formats()
    monkeypatch.setenv("AUDIO_FORMATS", "flac,m4a,webm")
    with pytest.raises(
        ArgumentError, match=r"AUDIO_FORMATS names m4a, webm.*pip install 'audio-assets\[formats\]'"
    ):
        check_formats()
