"""FLAC for tests, and a minute in which it was uploaded."""

import datetime as dt
import io

import numpy as np
import soundfile

MINUTE = dt.datetime(2023, 8, 24, 0, 21, tzinfo=dt.UTC)
UPLOADED = MINUTE + dt.timedelta(seconds=7)


def flac(seconds: float = 0.1, seed: int = 0, rate: int = 16_000, channels: int = 1) -> bytes:
    """A FLAC file of quiet noise."""
    noise = np.random.default_rng(seed).normal(0, 0.1, (int(seconds * rate), channels)).clip(-1, 1)
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format="FLAC")
    return file.getvalue()
