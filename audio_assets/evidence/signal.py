"""Evidence of the samples of an object, gathered block by block at the source's own rate."""

import dataclasses
import hashlib
import math

import numpy as np

FULL_SCALE = 1 - 2**-15
"""The largest sample of 16 bits; a sample of that size or more counts as clipped."""
FRAME_S = 0.01
SPEECH_DB = 40.0
"""A frame counts as speech if it is at most so much quieter than the loudest one, as
`librosa.effects.split(top_db=40)` has it."""
BANDWIDTH_DB = 50.0
BANDWIDTH_SAMPLES = 512
BANDWIDTH_S = 30.0
"""NeMo Speech Data Processor's `EstimateBandwidth`: the highest bin within 50 dB of the peak of the mean
power spectrum over the first 30 s, with Blackman-Harris windows of 512 samples each 10 ms. It resamples to
44.1 kHz first; here the rate is the source's."""
BANDWIDTH_FRAMES = 500
"""So many windows, evenly spread, stand for all of them: more cost time and move nothing."""


@dataclasses.dataclass(frozen=True)
class SignalEvidence:
    """Each attribute is a column; None where it says nothing, as of digital silence.

    Attributes:
        peak_dbfs: the largest sample of any channel, in dB of full scale.
        rms_dbfs: root mean square of all samples, in dB of full scale.
        clipped_share: share of samples at full scale.
        dc_offset: mean sample, of full scale.
        speech_share: share of frames of 10 ms whose energy is within `SPEECH_DB` of the loudest.
        bandwidth_hz: the highest frequency that holds energy.
        audio_sha256: of the rate and the samples, mono; the same audio has it behind other ETags too.
    """

    peak_dbfs: float | None
    rms_dbfs: float | None
    clipped_share: float
    dc_offset: float
    speech_share: float
    bandwidth_hz: float | None
    audio_sha256: str


class SignalMeter:
    """Gathers the evidence of one object.

    Args:
        rate_hz: of the source.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._frame = max(1, round(rate_hz * FRAME_S))
        self._digest = hashlib.sha256(f"{rate_hz} Hz\n".encode())
        self._samples = 0
        self._values = 0
        self._peak = 0.0
        self._squares = 0.0
        self._clipped = 0
        self._sum = 0.0
        self._energies: list[np.ndarray] = []
        self._unframed = np.zeros(0, np.float32)
        self._beginning: list[np.ndarray] = []

    def add(self, values: np.ndarray, mono: np.ndarray) -> None:
        """Take the next block.

        Args:
            values: float32 [frames, channels].
            mono: float32 [frames], their mean.
        """
        if not len(mono):
            return
        peak = max(float(values.max()), -float(values.min()))
        self._peak = max(self._peak, peak)
        if peak >= FULL_SCALE:
            self._clipped += int(np.count_nonzero(np.abs(values) >= FULL_SCALE))
        self._squares += float(np.vdot(values, values))
        self._values += values.size
        self._sum += float(mono.sum(dtype=np.float64))
        self._digest.update(np.ascontiguousarray(mono, "<f4").data)
        if self._samples < BANDWIDTH_S * self._rate_hz:
            self._beginning.append(mono)
        self._samples += len(mono)
        self._add_energies(mono)

    def _add_energies(self, mono: np.ndarray) -> None:
        samples = np.concatenate([self._unframed, mono]) if len(self._unframed) else mono
        whole = len(samples) // self._frame * self._frame
        frames = samples[:whole].reshape(-1, self._frame)
        self._energies.append(np.einsum("ij,ij->i", frames, frames))
        self._unframed = samples[whole:].copy()

    def finished(self) -> SignalEvidence:
        """The evidence of all blocks; there is at least one sample."""
        return SignalEvidence(
            peak_dbfs=_decibels(self._peak),
            rms_dbfs=_decibels(math.sqrt(self._squares / self._values)),
            clipped_share=self._clipped / self._values,
            dc_offset=self._sum / self._samples,
            speech_share=self._speech_share(),
            bandwidth_hz=bandwidth_hz(np.concatenate(self._beginning), self._rate_hz),
            audio_sha256=self._digest.hexdigest(),
        )

    def _speech_share(self) -> float:
        energies = np.concatenate(self._energies)
        if not len(energies):
            # Less than a frame is one.
            energies = np.array([np.vdot(self._unframed, self._unframed)])
        loudest = float(energies.max())
        return float(np.mean(energies > loudest * 10 ** (-SPEECH_DB / 10))) if loudest > 0 else 0.0


def bandwidth_hz(mono: np.ndarray, rate_hz: int) -> float | None:
    """The highest frequency within `BANDWIDTH_DB` of the peak of the mean power spectrum.

    Args:
        mono: float32 [samples], at least one; what is behind `BANDWIDTH_S` is not looked at.

    Returns:
        Hz, a multiple of rate / 512; None of silence.
    """
    samples = mono[: round(BANDWIDTH_S * rate_hz)]
    if len(samples) < BANDWIDTH_SAMPLES:
        samples = np.pad(samples, (0, BANDWIDTH_SAMPLES - len(samples)))
    hop = max(1, round(rate_hz * FRAME_S))
    frames = np.lib.stride_tricks.sliding_window_view(samples, BANDWIDTH_SAMPLES)[::hop]
    frames = frames[:: -(-len(frames) // BANDWIDTH_FRAMES)]
    spectrum = np.fft.rfft(frames * _blackman_harris(), axis=1)
    power = np.mean(spectrum.real**2 + spectrum.imag**2, axis=0)
    peak = float(power.max())
    if peak <= 0:
        return None
    highest = int(np.flatnonzero(power > peak * 10 ** (-BANDWIDTH_DB / 10))[-1])
    return highest * rate_hz / BANDWIDTH_SAMPLES


def _blackman_harris() -> np.ndarray:
    """Harris 1978, "On the use of windows for harmonic analysis", four terms, periodic; float32 [512]."""
    turns = 2 * np.pi * np.arange(BANDWIDTH_SAMPLES) / BANDWIDTH_SAMPLES
    window = 0.35875 - 0.48829 * np.cos(turns) + 0.14128 * np.cos(2 * turns) - 0.01168 * np.cos(3 * turns)
    return window.astype(np.float32)


def _decibels(amplitude: float) -> float | None:
    return 20 * math.log10(amplitude) if amplitude > 0 else None
