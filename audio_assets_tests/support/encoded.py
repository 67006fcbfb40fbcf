"""Speech-like audio in each format, as other programs write it."""

import io
from typing import TYPE_CHECKING

import numpy as np
import soundfile

if TYPE_CHECKING:
    import av
    import av.container

RATE_HZ = 48_000
# Format -> what libsndfile is told, or FFmpeg's muxer and encoder.
_LIBSNDFILE = {
    "flac": ("FLAC", None),
    "wav": ("WAV", "PCM_16"),
    "mp3": ("MP3", None),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}
_FFMPEG = {"m4a": ("ipod", "aac"), "aac": ("adts", "aac"), "webm": ("webm", "libopus")}
FORMATS = (*_LIBSNDFILE, *_FFMPEG)


def speech(seconds: float, channels: int = 1, seed: int = 0) -> np.ndarray:
    """float32 [samples, channels] at 48 kHz: tones that come, go and rise, other ones in each channel."""
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    random = np.random.default_rng(seed)
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)
    # They rise, so that no other delay gives the same audio.
    tones = [np.sin(2 * np.pi * hz * (1 + time) * time) for hz in random.uniform(150, 400, channels)]
    return (0.4 * envelope * np.stack(tones)).T.astype(np.float32)


def encode(form: str, wave: np.ndarray, rate: int = RATE_HZ) -> bytes:
    """Encode a wave in one of FORMATS.

    Args:
        wave: float32 [samples, channels].
        rate: in Hz.
    """
    file = io.BytesIO()
    if form in _LIBSNDFILE:
        container, subtype = _LIBSNDFILE[form]
        soundfile.write(file, wave, rate, format=container, subtype=subtype)
        return file.getvalue()
    import av

    muxer, codec = _FFMPEG[form]
    with av.open(file, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono" if wave.shape[1] == 1 else "stereo")
        assert isinstance(stream, av.AudioStream)
        mux(container, stream, wave, rate)
    return file.getvalue()


def mux(
    container: "av.container.OutputContainer", stream: "av.AudioStream", wave: np.ndarray, rate: int
) -> None:
    """Encode a wave into a stream of FFmpeg's, which ends with it.

    Args:
        wave: float32 [samples, channels].
        rate: in Hz.
    """
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), format="fltp", layout=stream.layout.name)
    frame.sample_rate = rate
    resampler = av.AudioResampler(stream.format, stream.layout, rate, stream.codec_context.frame_size or 1024)
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))
