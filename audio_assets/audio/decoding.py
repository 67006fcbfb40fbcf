"""From the blocks of any format to mono float32 at the rates that are needed. soxr resamples.

Each object is decoded once, and resampled once for each rate, always from the rate of the source.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import soxr

from audio_assets.audio import limits
from audio_assets.audio.types import SAMPLE_RATE_HZ, Audio, Decoder
from audio_assets.errors import AudioError
from audio_assets.evidence import SignalMeter

_NO_SAMPLES = np.zeros(0, np.float32)


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
    return joined(decoded_parts(decoder, body, rates_hz, evidence=evidence), admit)


def decoded_parts(
    decoder: Decoder, body: bytes, rates_hz: Sequence[int], *, evidence: bool
) -> Iterator[tuple[int, np.ndarray] | Audio]:
    """What `decode` joins, as it is decoded.

    Yields:
        A rate in Hz, 16 kHz or one of `rates_hz`, with the next float32 [samples] at that rate, which lie in
        one piece; at last the audio without its samples.

    Raises:
        AudioError: as `decode`.
    """
    stream = decoder(body)
    resamplers = {rate: _resampler(stream.rate_hz, rate) for rate in (SAMPLE_RATE_HZ, *rates_hz)}
    meter = SignalMeter(stream.rate_hz) if evidence else None
    frames = 0
    for block in stream.blocks:
        frames += len(block)
        if frames > limits.LONGEST_S * stream.rate_hz:
            raise limits.too_long("it goes on after that")
        values = _as_floats(block)
        mono = np.ascontiguousarray(_mix_down(values))
        if meter:
            meter.add(values, mono)
        for rate, resampler in resamplers.items():
            yield rate, resampler.resample_chunk(mono) if resampler else mono
    if not frames:
        raise AudioError("the object holds no audio; upload it again")
    for rate, resampler in resamplers.items():
        if resampler:
            yield rate, resampler.resample_chunk(_NO_SAMPLES, last=True)
    gathered = meter.finished() if meter else None
    none = dict.fromkeys(rates_hz, _NO_SAMPLES)
    yield Audio(_NO_SAMPLES, frames / stream.rate_hz, stream.rate_hz, stream.channels, none, gathered)


def joined(
    parts: Iterable[tuple[int, np.ndarray] | Audio], admit: Callable[[int], None] | None = None
) -> Audio:
    """The audio of all of `decoded_parts`; admit: as of `decode`."""
    # Grows in place: parts that are joined at the end would need the memory twice.
    held: dict[int, bytearray] = collections.defaultdict(bytearray)
    for part in parts:
        if isinstance(part, Audio):
            arrays = {
                rate: np.frombuffer(held[rate], np.float32) for rate in (SAMPLE_RATE_HZ, *part.resampled)
            }
            return dataclasses.replace(part, samples=arrays.pop(SAMPLE_RATE_HZ), resampled=arrays)
        rate, samples = part
        if admit:
            admit(samples.nbytes)
        held[rate] += samples.data
    raise AssertionError("the audio itself comes last")


def _resampler(from_hz: int, to_hz: int) -> soxr.ResampleStream | None:
    return None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32")


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
