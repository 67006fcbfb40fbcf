"""FLAC bytes -> mono float32 at 16 kHz, the array that Whisper and the tokenisers take.

Decoding is libsndfile's (soundfile) and resampling soxr's; both release the interpreter lock, so that
threads decode side by side.
"""

import dataclasses
import io

import numpy as np
import soundfile
import soxr

SAMPLE_RATE_HZ = 16_000
"""What Whisper was trained on (Radford et al. 2022, section 2.2)."""

_BLOCK_S = 30


class AudioError(ValueError):
    """The bytes are no audio that can be transcribed; says why in words."""


@dataclasses.dataclass(frozen=True)
class Audio:
    """Decoded audio and what it was decoded from.

    Attributes:
        samples: float32 [samples], mono, 16 kHz, nominally in [-1, 1].
        duration_s: of the source, in seconds.
        sample_rate_hz: of the source.
        channels: of the source.
    """

    samples: np.ndarray
    duration_s: float
    sample_rate_hz: int
    channels: int


class _SequentialFile(soundfile.SoundFile):
    """Reads front to back: libsndfile cannot seek where a stream encoder left the length unknown."""

    def seekable(self) -> bool:
        return False


def is_flac(key: str) -> bool:
    """Whether an object's name says that it is FLAC."""
    return key.lower().endswith(".flac")


def decode_flac(body: bytes) -> Audio:
    """Decode FLAC of any rate and channel count; channels are averaged.

    Memory follows what the file holds, not what its header claims.

    Raises:
        AudioError: empty, not FLAC, corrupt or truncated.
    """
    if not body:
        raise AudioError("the object is empty (0 bytes)")
    try:
        file = _SequentialFile(io.BytesIO(body))
    except soundfile.LibsndfileError as e:
        raise AudioError(f"not readable as FLAC: {_reason(e)}") from e
    with file:
        if file.format != "FLAC":
            raise AudioError(f"not FLAC inside but {file.format}; convert it, or name it by what it is")
        rate, channels, claimed = file.samplerate, file.channels, file.frames
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")
        parts, frames = [], 0
        try:
            while len(block := file.read(rate * _BLOCK_S, dtype="float32", always_2d=True)):
                frames += len(block)
                mono = block[:, 0] if channels == 1 else block.mean(axis=1)
                parts.append(mono if rate == SAMPLE_RATE_HZ else resampler.resample_chunk(mono))
        except soundfile.LibsndfileError as e:
            raise AudioError(f"corrupt or truncated FLAC: {_reason(e)}") from e
    if not frames:
        raise AudioError("the FLAC holds no audio, or its first frame is corrupt")
    # A stream encoder that cannot seek back leaves the length unknown; libsndfile then reports its maximum.
    if frames < claimed < 2**62:
        raise AudioError(
            f"corrupt or truncated FLAC: {frames / rate:.2f} s of {claimed / rate:.2f} s are readable"
        )
    if rate != SAMPLE_RATE_HZ:
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts)
    if not np.isfinite(samples).all():
        raise AudioError("the audio holds values that are not numbers")
    return Audio(samples, frames / rate, rate, channels)


def _reason(e: soundfile.LibsndfileError) -> str:
    return e.error_string.rstrip(".").removeprefix("Error : ")
