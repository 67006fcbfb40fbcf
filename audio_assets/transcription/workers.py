"""Work on a CPU's windows side by side: a thread for each, rather than all threads for each operation.

A window's activations then fit a core's cache, and no thread waits for another after every operation, which
costs dearly when other programs want the cores too.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """As many threads as PyTorch uses on the CPU, each of which runs PyTorch's operations alone.

    Attributes:
        threads: how many.
    """

    def __init__(self) -> None:
        self.threads = threads = torch.get_num_threads()
        ready = threading.Barrier(threads + 1)

        def start() -> None:
            torch.set_num_threads(1)
            # Numbers too small for a normal exponent make x86 processors many times slower.
            torch.set_flush_denormal(True)
            ready.wait()

        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="transcription")
        for _ in range(threads):
            self.pool.submit(start)
        ready.wait()
        # set_num_threads acts on its thread, but also sets what threads that start later begin with.
        torch.set_num_threads(threads)

    def map(self, work: Callable[..., R], *items: Iterable) -> list[R]:
        """work(a, b, ...) for each a, b, ... of `items`, in order, in inference mode."""

        def run(*args: object) -> R:
            # Inference mode is a property of the thread.
            with torch.inference_mode():
                return work(*args)

        return list(self.pool.map(run, *items))
