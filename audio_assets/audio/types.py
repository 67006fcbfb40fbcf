"""What a decoder gives, and what becomes of it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from audio_assets.evidence import SignalEvidence

SAMPLE_RATE_HZ = 16_000
"""What Whisper was trained on (Radford et al. 2022, section 2.2)."""


@dataclasses.dataclass(frozen=True)
class Audio:
    """Decoded audio and what it was decoded from.

    Attributes:
        samples: float32 [samples], mono, 16 kHz, nominally in [-1, 1].
        duration_s: of the source, in seconds.
        sample_rate_hz: of the source.
        channels: of the source.
        resampled: the same audio at the further rates that were asked for, by rate in Hz.
        evidence: of its samples; None where it was not asked for.
    """

    samples: np.ndarray
    duration_s: float
    sample_rate_hz: int
    channels: int
    resampled: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    evidence: SignalEvidence | None = None

    def at(self, rate_hz: int) -> np.ndarray:
        """The audio at 16 kHz, or at a further rate that was asked for: float32 [samples], mono.

        Raises:
            KeyError: this rate was not asked for.
        """
        return self.samples if rate_hz == SAMPLE_RATE_HZ else self.resampled[rate_hz]


@dataclasses.dataclass(frozen=True)
class PcmStream:
    """The samples of an object as its format holds them, block by block.

    Attributes:
        rate_hz: sample rate.
        channels: how many.
        blocks: int16, int32 or float32 [frames, channels]; integers use their whole range, floats [-1, 1].
            Each has about a million values at most. Taking one may raise AudioError: what is left cannot be
            decoded.
    """

    rate_hz: int
    channels: int
    blocks: Iterator[np.ndarray]


class Decoder(Protocol):
    """Decodes the objects of one audio format.

    The pipeline calls it from several threads at once, or beside a GPU from several processes.
    """

    def __call__(self, body: bytes) -> PcmStream:
        """Begin to decode one object; its blocks are decoded as they are taken.

        Args:
            body: its bytes, `limits.LARGEST_BYTES` at most.

        Raises:
            AudioError: the bytes are no audio of this format; says what is wrong and what to do.
        """
        ...
