"""Decode steps on a CUDA device, captured once as CUDA graphs and replayed.

A decode step is hundreds of small kernels. To launch them one by one takes the host several times as long as
the device needs to run them. A CUDA graph launches them all at once, for one shape of the batch. On a CPU,
steps just run.
"""

from collections.abc import Callable

import torch


class Graphs:
    """Captured steps by batch size, cached length and kind of sampling.

    Sizes are rounded up to few buckets. Rows beyond the active ones are computed and ignored: whatever joins
    later overwrites their state. The first step of each kind runs as it is, which is the warm-up that a
    capture needs; a warm-up of its own would take a step that nobody asked for.
    """

    def __init__(self, advance: Callable[[int, int, bool], None], device: torch.device) -> None:
        """advance(rows, longest, sampling) takes a step; it must not wait for the device."""
        self.advance = advance
        self.device = device
        self.captured: dict[tuple[int, int, bool], torch.cuda.CUDAGraph | None] = {}

    def run(self, rows: int, most_rows: int, longest: int, most_length: int, sampling: bool) -> None:
        """Take a step of at least `rows` rows that attend to at least `longest` tokens."""
        if self.device.type != "cuda":
            self.advance(rows, longest, sampling)
            return
        key = bucket(rows, most_rows, 1), bucket(longest, most_length, 64), sampling
        if key not in self.captured:
            self.captured[key] = None
            self.advance(*key)
            return
        graph = self.captured[key]
        if graph is None:
            graph = self.captured[key] = self._capture(key)
        graph.replay()

    def _capture(self, key: tuple[int, int, bool]) -> torch.cuda.CUDAGraph:
        """Record a step without running it. Graphs never run side by side, so they share a memory pool."""
        graph = torch.cuda.CUDAGraph()
        pool = next((g.pool() for g in self.captured.values() if g is not None), None)
        # Other threads, such as those of a codec, may allocate memory meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self.advance(*key)
        return graph


def bucket(size: int, most: int, least: int) -> int:
    """`size` rounded up to `least` times a power of two, or to `most` if that is less."""
    rounded = least
    while rounded < size:
        rounded *= 2
    return min(rounded, most)
