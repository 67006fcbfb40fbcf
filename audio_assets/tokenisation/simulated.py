"""The built-in tokeniser, which simulates a neural audio codec."""

import hashlib
import time
from typing import TYPE_CHECKING

import numpy as np

from audio_assets.tokenisation.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import torch

SIMULATED = "simulated"
"""Its name and its identity."""

MIN_TOKENS = 20
MAX_TOKENS = 1000
SIMULATED_INFERENCE_S = 0.01
"""Stands for the time that a neural audio codec would take."""


def tokenise(audio: np.ndarray, *, generator: "torch.Generator | None" = None) -> "torch.Tensor":
    """Simulate a neural audio tokeniser.

    Args:
        audio: float [samples]; only its type matters to the simulation.
        generator: makes the tokens reproducible; torch's global one where None.

    Returns:
        torch.int16 tensor of shape [tokens], 20 <= tokens <= 1000, values in [0, 32767].

    Raises:
        ValueError: `audio` is no NumPy array.
    """
    if not isinstance(audio, np.ndarray):
        raise ValueError(f"tokenise takes audio as a NumPy array, not {type(audio).__name__}; load it first")
    import torch

    time.sleep(SIMULATED_INFERENCE_S)
    length = int(torch.randint(MIN_TOKENS, MAX_TOKENS + 1, (), generator=generator))
    return torch.randint(
        0, torch.iinfo(torch.int16).max + 1, (length,), generator=generator, dtype=torch.int16
    )


class Simulated:
    """`tokenise`, seeded by the content, so that a partition that is computed again has the same tokens."""

    identity = SIMULATED
    thread_safe = True
    sample_rate_hz = SAMPLE_RATE_HZ
    token_format = None

    def __call__(self, audio: np.ndarray, etag: str) -> np.ndarray:
        import torch

        seed = int.from_bytes(hashlib.sha256(etag.encode()).digest()[:8], "big", signed=True)
        return tokenise(audio, generator=torch.Generator().manual_seed(seed)).numpy()
