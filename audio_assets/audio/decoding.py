"""From the blocks of any format to mono float32 at the rates that are needed. soxr resamples.

Each object is decoded once, and resampled once for each rate, always from the rate of the source.
"""

from collections.abc import Callable, Sequence

import numpy as np
import soxr

from audio_assets.audio import types
from audio_assets.audio.types import SAMPLE_RATE_HZ, Audio, Decoder, too_long
from audio_assets.errors import AudioError
from audio_assets.evidence import SignalMeter


def decode(
    decoder: Decoder,
    body: bytes,
    admit: Callable[[int], None] | None = None,
    *,
    rates_hz: Sequence[int] = (),
    evidence: bool = False,
) -> Audio:
    """Decode an object of any rate and channel count; channels are averaged.

    Memory follows what the object holds, not what its header claims.

    Args:
        decoder: that of the object's format.
        body: the object's bytes.
        admit: where it is given, is told the bytes of each further block before that block is held. It bounds
            the memory of all threads together: it may wait, or raise an exception, which passes through.
        rates_hz: rates beside 16 kHz that the audio is needed at.
        evidence: whether to gather the evidence of its samples.

    Raises:
        AudioError: the bytes are no sound audio of the format, or too long.
    """
    stream = decoder(body)
    outputs = {rate: _Resampled(stream.rate_hz, rate) for rate in (SAMPLE_RATE_HZ, *rates_hz)}
    meter = SignalMeter(stream.rate_hz) if evidence else None
    frames = 0
    for block in stream.blocks:
        frames += len(block)
        if frames > types.LONGEST_S * stream.rate_hz:
            raise too_long("it goes on after that")
        values = _as_floats(block)
        mono = _mix_down(values)
        if meter:
            meter.add(values, mono)
        for output in outputs.values():
            output.add(mono, admit)
    if not frames:
        raise AudioError("the object holds no audio; upload it again")
    arrays = {rate: output.finished() for rate, output in outputs.items()}
    samples = arrays.pop(SAMPLE_RATE_HZ)
    gathered = meter.finished() if meter else None
    return Audio(samples, frames / stream.rate_hz, stream.rate_hz, stream.channels, arrays, gathered)


class _Resampled:
    """Mono audio at one rate, which grows block by block."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._resampler = (
            None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32")
        )
        # Grows in place: parts that are joined at the end would need the memory twice.
        self._samples = bytearray()

    def add(self, mono: np.ndarray, admit: Callable[[int], None] | None) -> None:
        part = self._resampler.resample_chunk(mono) if self._resampler else mono
        if admit:
            admit(part.nbytes)
        self._samples += part.tobytes()

    def finished(self) -> np.ndarray:
        if self._resampler:
            self._samples += self._resampler.resample_chunk(np.zeros(0, np.float32), last=True).tobytes()
        return np.frombuffer(self._samples, np.float32)


def _as_floats(block: np.ndarray) -> np.ndarray:
    """int16, int32 or float32 [frames, channels] -> float32 [frames, channels] in [-1, 1].

    Raises:
        AudioError: floats that are no numbers.
    """
    if block.dtype.kind == "f":
        values = block.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise AudioError("the audio holds samples that are no finite numbers; export it again")
    else:
        scale = np.float32(1 / (1 << (8 * block.itemsize - 1)))
        values = block.astype(np.float32) * scale
    return values


def _mix_down(values: np.ndarray) -> np.ndarray:
    """float32 [frames, channels] -> float32 [frames], the mean of the channels."""
    return values[:, 0] if values.shape[1] == 1 else values.mean(axis=1, dtype=np.float32)
