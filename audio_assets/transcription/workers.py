"""Work on a CPU's windows side by side: a thread for each, rather than all threads for each operation.

A window's activations then fit a core's cache, and no thread waits for another after every operation, which
costs dearly when other programs want the cores too. Who has fewer windows than threads shares out a window.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

from audio_assets.parallel import threads_of_torch

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """As many threads as PyTorch uses on the CPU, each of which runs PyTorch's operations alone.

    Attributes:
        threads: how many.
    """

    def __init__(self) -> None:
        self.threads = torch.get_num_threads()
        # Numbers too small for a normal exponent make x86 processors many times slower.
        self.pool = threads_of_torch("transcription", lambda: torch.set_flush_denormal(True))

    def map(self, work: Callable[..., R], *items: Iterable) -> list[R]:
        """work(a, b, ...) for each a, b, ... of `items`, in order, in inference mode."""

        def run(*args: object) -> R:
            # Inference mode is a property of the thread.
            with torch.inference_mode():
                return work(*args)

        return list(self.pool.map(run, *items))
