"""What each actor of a run has done, for the log and the metadata."""

import dataclasses
import time
from collections.abc import Callable

from audio_assets.cluster.messages import Report, Worker


@dataclasses.dataclass
class WorkerFigures:
    """What one actor has done in this run.

    Attributes:
        worker: where it runs.
        device: of its recogniser; empty until it needed one.
        partitions: that it has written.
        computed: objects that it has fetched and decoded.
        audio_s: seconds of audio that it has decoded.
        seconds: wall-clock seconds that it worked, loading left out.
        loads: how often it has loaded a recogniser in this run.
        load_s: what that took.
    """

    worker: Worker
    device: str = ""
    partitions: int = 0
    computed: int = 0
    audio_s: float = 0.0
    seconds: float = 0.0
    loads: int = 0
    load_s: float = 0.0

    @property
    def audio_s_per_s(self) -> float:
        return self.audio_s / self.seconds if self.seconds else 0.0


class Fleet:
    """The actors of a run, those too that have died.

    Args:
        gpus_per_actor: the part of a GPU that each takes.
        clock: seconds.

    Attributes:
        workers: what each has done, by its name in the log.
        stats: what the recognisers have done, by the names of `transcription.Stats`.
    """

    def __init__(self, gpus_per_actor: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.workers: dict[str, WorkerFigures] = {}
        self.stats: dict[str, float] = {}
        self._gpus_per_actor = gpus_per_actor
        self._clock = clock
        self._started = clock()
        self._held_since: dict[str, float] = {}
        self._held_s = 0.0
        self._ended: float | None = None

    def joined(self, name: str, worker: Worker) -> None:
        """Note that an actor is there for the run."""
        # One that takes the place of one that died has its name.
        self.workers.setdefault(name, WorkerFigures(worker)).worker = worker
        self._held_since[name] = self._clock()

    def left(self, name: str) -> None:
        """Note that an actor is gone, or that the run needs it no more."""
        if (since := self._held_since.pop(name, None)) is not None:
            self._held_s += self._clock() - since

    def end(self) -> None:
        """Note that the run is through; nothing changes any more."""
        for name in list(self._held_since):
            self.left(name)
        self._ended = self._clock()

    def add(self, name: str, report: Report) -> None:
        """Note what an actor reports."""
        figures = self.workers[name]
        figures.device = report.device or figures.device
        figures.partitions += len(report.finished)
        figures.computed += sum(finished.computed for finished in report.finished)
        figures.audio_s += sum(finished.audio_s for finished in report.finished)
        figures.seconds += report.seconds
        if report.load_s is not None:
            figures.loads += 1
            figures.load_s += report.load_s
        for stage, done in report.stats.items():
            self.stats[stage] = self.stats.get(stage, 0) + done

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the run asked for actors."""
        return (self._ended or self._clock()) - self._started

    @property
    def audio_s(self) -> float:
        return sum(figures.audio_s for figures in self.workers.values())

    @property
    def loads(self) -> int:
        return sum(figures.loads for figures in self.workers.values())

    @property
    def gpu_hours(self) -> float:
        """Hours of a GPU that the run's actors held while it ran; of a worker where they take no GPU."""
        held = self._held_s + sum(self._clock() - since for since in self._held_since.values())
        return held * (self._gpus_per_actor or 1.0) / 3600

    @property
    def audio_hours_per_gpu_hour(self) -> float:
        hours = self.gpu_hours
        return self.audio_s / 3600 / hours if hours else 0.0

    def per_worker(self) -> str:
        """The audio seconds per second of each actor, slowest first, in words."""
        rates = sorted(
            (figures.audio_s_per_s, name) for name, figures in self.workers.items() if figures.audio_s
        )
        return ", ".join(f"{name} {rate:.1f}" for rate, name in rates)
