"""What a decoder gives, and what it must not exceed."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from audio_assets.errors import AudioError

SAMPLE_RATE_HZ = 16_000
"""What Whisper was trained on (Radford et al. 2022, section 2.2)."""

LONGEST_S = 12 * 3600
"""What one object may hold: 2.8 GB of float32. A few kilobytes of FLAC can really hold hours of silence."""
LARGEST_BYTES = 4 * 2**30
"""What is fetched into memory at most."""


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


class Decoder(Protocol):
    """Decodes the objects of one audio format. The pipeline calls it from several threads at once."""

    def __call__(self, body: bytes, admit: Callable[[int], None] | None) -> Audio:
        """Decode one object.

        Args:
            body: its bytes, `LARGEST_BYTES` at most.
            admit: where it is given, to be told the bytes of each further block of `Audio.samples` before
                that block is held. It bounds the memory of all threads together: it may wait, or raise an
                exception, which must pass through. Once with all bytes is enough for short audio.

        Raises:
            AudioError: the bytes are no audio of this format; says what is wrong and what to do.
        """
        ...


def check_size(size: int) -> None:
    """Refuse an object that is too large to be fetched.

    Args:
        size: bytes.

    Raises:
        AudioError: it is.
    """
    if size > LARGEST_BYTES:
        raise AudioError(
            f"the object has {size / 2**30:.1f} GiB, more than the {LARGEST_BYTES / 2**30:.0f} GiB that are"
            " read; cut it into pieces"
        )
