"""Audio -> 1-D int16 tokens: `tokenise`, and the tokenisers that TOKENISER names.

torch is imported where it is used: Dagster loads code locations without it.
"""

import hashlib
import importlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

MIN_TOKENS, MAX_TOKENS = 20, 1000
SIMULATED_INFERENCE_S = 0.01
"""Stands for the time that a neural audio codec would take."""

Tokeniser = Callable[[np.ndarray, str], np.ndarray]
"""(audio float32 [samples] at 16 kHz, the content's ETag) -> int16 [tokens]"""


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


def _simulated(audio: np.ndarray, etag: str) -> np.ndarray:
    import torch

    # The content is the seed, so that a partition that is computed again has the same tokens.
    seed = int.from_bytes(hashlib.sha256(etag.encode()).digest()[:8], "big", signed=True)
    return tokenise(audio, generator=torch.Generator().manual_seed(seed)).numpy()


def load_tokeniser(name: str) -> Tokeniser:
    """The tokeniser that a setting names.

    Args:
        name: `simulated`, or `package.module:function` for one's own; that function takes audio (float32
            [samples], 16 kHz, mono) and gives integer tokens [tokens] that fit int16.

    Raises:
        ValueError: there is no such tokeniser.
    """
    if name == "simulated":
        return _simulated
    module, _, function = name.partition(":")
    try:
        own = getattr(importlib.import_module(module), function)
        if not callable(own):
            raise ValueError(f"{function} is no function")
    except Exception as e:  # Whatever a module of somebody's own throws when it is imported.
        raise ValueError(f"TOKENISER={name!r} is neither simulated nor package.module:function ({e})") from e

    def checked(audio: np.ndarray, etag: str) -> np.ndarray:
        tokens = np.asarray(own(audio))
        if tokens.ndim != 1 or not np.can_cast(tokens.dtype, np.int64):
            raise ValueError(f"{name} gave {tokens.dtype} {list(tokens.shape)}; wanted integers [tokens]")
        if len(tokens) and (tokens.min() < -(2**15) or tokens.max() >= 2**15):
            raise ValueError(
                f"{name} gave tokens from {tokens.min()} to {tokens.max()}, which int16 cannot hold"
            )
        return tokens.astype(np.int16)

    return checked
