"""FLAC of any kind becomes mono float32 at 16 kHz; anything else is refused in words."""

import io

import numpy as np
import pytest
import soundfile

from audio_assets.audio import SAMPLE_RATE_HZ, decode_flac, decoder_of, read_flac
from audio_assets.errors import AudioError
from audio_assets_tests.support.audio import flac


def tone(seconds: float, rate: int, channels: int = 1, hz: float = 440.0) -> np.ndarray:
    """float64 [samples, channels]; the first channel holds the sine, the others are silent."""
    wave = np.zeros((int(seconds * rate), channels))
    wave[:, 0] = 0.5 * np.sin(2 * np.pi * hz * np.arange(len(wave)) / rate)
    return wave


def encoded(wave: np.ndarray, rate: int, form: str = "FLAC", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=form, subtype=subtype)
    return file.getvalue()


def total_samples(body: bytes, samples: int) -> bytes:
    """The same FLAC with another length in its header: 36 bits from the middle of byte 21 on."""
    header = (int.from_bytes(body[18:26], "big") >> 36 << 36) | samples
    return body[:18] + header.to_bytes(8, "big") + body[26:]


# --- what is decoded ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_any_rate_and_channel_count_becomes_mono_at_16_khz(rate: int, channels: int):
    audio = decode_flac(encoded(tone(0.4, rate, channels), rate))
    assert (audio.sample_rate_hz, audio.channels, audio.duration_s) == (rate, channels, 0.4)
    assert audio.samples.dtype == np.float32
    assert audio.samples.shape == (6_400,)
    # The ends carry the resampler's transient.
    expected = tone(0.4, SAMPLE_RATE_HZ)[:, 0] / channels
    np.testing.assert_allclose(audio.samples[800:-800], expected[800:-800], atol=2e-3)


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_are_averaged(channels: int):
    levels = np.arange(1, channels + 1) / 16
    audio = decode_flac(encoded(np.tile(levels, (160, 1)), 16_000))
    np.testing.assert_allclose(audio.samples, levels.mean(), atol=1e-4)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_any_sample_width_has_the_same_loudness(subtype: str):
    audio = decode_flac(encoded(np.full(160, 0.5), 16_000, subtype=subtype))
    np.testing.assert_allclose(audio.samples, 0.5, atol=1e-2)


def test_audio_longer_than_one_block_has_no_seams():
    seconds = 61
    audio = decode_flac(encoded(tone(seconds, 44_100), 44_100))
    assert len(audio.samples) == seconds * SAMPLE_RATE_HZ
    expected = tone(seconds, SAMPLE_RATE_HZ)[:, 0]
    np.testing.assert_allclose(audio.samples[800:-800], expected[800:-800], atol=2e-3)


def test_a_single_sample_is_audio():
    audio = decode_flac(encoded(np.full(1, 0.5), 16_000))
    assert audio.samples.shape == (1,)
    assert len(decode_flac(encoded(np.full(1, 0.5), 48_000)).samples) <= 1


def test_a_stream_whose_header_leaves_the_length_open_is_read_to_its_end():
    body = flac(40)
    audio = decode_flac(total_samples(body, 0))
    np.testing.assert_array_equal(audio.samples, decode_flac(body).samples)
    assert audio.duration_s == 40


def test_names_say_what_is_flac():
    for key in ("p225/a.flac", "p225/A.FLAC", "p225/.flac", "p225/b.txt.flac"):
        assert decoder_of(key) is read_flac
    for key in ("p225/a.flac.txt", "p225/flac", "p225.flac/a", "flac", "p225/a.", ""):
        assert decoder_of(key) is None


# --- what is refused ------------------------------------------------------------------------------------

GOOD = flac(2)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b'{"speaker": "p225"}', "not FLAC inside but text", id="JSON"),
        pytest.param(b"\0" * 4096, "not FLAC inside but zeros", id="zeros"),
        pytest.param(b"fLaC", "its header is damaged", id="magic alone"),
        pytest.param(b"fLaC junk" * 20, "FLAC", id="junk behind the magic"),
        pytest.param(GOOD[:60], "FLAC", id="header alone"),
        pytest.param(GOOD[: len(GOOD) // 2], "corrupt or truncated FLAC", id="truncated"),
        pytest.param(GOOD[:-1], "corrupt or truncated FLAC", id="last byte missing"),
        pytest.param(encoded(tone(0.1, 16_000), 16_000, "WAV"), "not FLAC inside but WAV", id="WAV"),
        pytest.param(encoded(tone(0.1, 44_100), 44_100, "MP3"), "not FLAC inside but MP3", id="MP3"),
        pytest.param(encoded(tone(0.1, 48_000), 48_000, "OGG"), "not FLAC inside but Ogg", id="Ogg"),
    ],
)
def test_what_is_no_whole_flac_is_refused_with_its_reason(body: bytes, reason: str):
    with pytest.raises(AudioError, match=reason):
        decode_flac(body)


@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_damage_inside_is_noticed(at: float):
    start = int(len(GOOD) * at)
    with pytest.raises(AudioError, match="corrupt"):
        decode_flac(GOOD[:start] + bytes(500) + GOOD[start + 500 :])
