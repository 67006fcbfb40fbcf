"""What an object must not exceed: its bytes, its length in hours, and how low its sample rate may be."""

from audio_assets.errors import AudioError

LOWEST_RATE_HZ = 1_000
"""The lowest rate of a source that is read."""

LONGEST_S = 12 * 3600
"""What one object may hold: 2.8 GB of float32. A few kilobytes of FLAC can really hold hours of silence."""
LARGEST_BYTES = 4 * 2**30
"""What is fetched into memory at most."""


def check_rate(name: str, rate_hz: int) -> None:
    """Refuse a rate that is no audio's.

    Args:
        name: of the format.

    Raises:
        AudioError: it is too low.
    """
    if rate_hz < LOWEST_RATE_HZ:
        raise AudioError(
            f"the {name}'s header says {rate_hz} Hz, less than {LOWEST_RATE_HZ} Hz; upload it again"
        )


def check_length(claimed_s: float) -> None:
    """Refuse what says of itself that it is too long, before any of it is decoded.

    Raises:
        AudioError: it does.
    """
    if claimed_s > LONGEST_S:
        raise too_long(f"its header says {claimed_s / 3600:.1f} h")


def too_long(reason: str) -> AudioError:
    """The error for more audio in one object than `LONGEST_S`."""
    return AudioError(
        f"more than {LONGEST_S / 3600:.0f} h of audio in one object ({reason}); cut it into pieces"
    )


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
