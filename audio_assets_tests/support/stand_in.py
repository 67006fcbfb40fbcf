"""A recogniser of known duration in the model's place, and the project with it: what is tested or measured is
everything else.

What it hears follows from the samples alone, so that tables can be compared byte by byte. An object whose key
says `poison` kills the process that hears it.
"""

import functools
import hashlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import dagster as dg
import numpy as np

from audio_assets.definitions import defs
from audio_assets.defs.resources import Whisper
from audio_assets.speech import Job, Transcribing
from audio_assets.table import Table
from audio_assets.transcription import Stats, Transcript

K = TypeVar("K")

POISON = "poison"


class StandIn:
    """Takes `seconds` for each clip."""

    identity = "stand-in 1"
    device = "cpu"

    def __init__(self, seconds: float) -> None:
        self.stats = Stats()
        self._seconds = seconds

    def transcribe(self, audio: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Transcript | Exception]]:
        for job, samples in audio:
            if isinstance(job, Job) and POISON in job.info.key:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self._seconds)
            self.stats.files += 1
            self.stats.audio_s += len(samples) / 16_000
            said = hashlib.sha256(samples.tobytes()).hexdigest()
            yield job, Transcript(said, "en", -0.5, 0.1, 1.5, 0.0, ())


@functools.cache
def _loaded(seconds: float, load_s: float) -> StandIn:
    time.sleep(load_s)
    return StandIn(seconds)


class StandInWhisper(Whisper):
    """The resource that gives it, kept for as long as the process lives.

    Attributes:
        seconds: that a clip takes.
        load_s: that loading takes.
    """

    model: str = "stand-in"
    seconds: float = 0.0
    load_s: float = 0.0

    def load(self) -> StandIn:
        return _loaded(self.seconds, self.load_s)

    def transcribing(self, table: Table) -> Transcribing:
        return Transcribing(table, StandIn.identity, self.load)

    def expected_parts(self) -> tuple[str, ...]:
        return ("stand-in", "1")


class Tokens:
    """The tokeniser of it, which needs no torch."""

    identity = "stand-in tokens 1"
    thread_safe = True

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        return (1000 * audio[:20]).astype(np.int16)


TOKENISER = f"{__name__}:Tokens"


def definitions(whisper: StandInWhisper) -> dg.Definitions:
    """The project with the stand-in."""
    project = defs()
    return dg.Definitions(
        assets=project.assets,
        asset_checks=project.asset_checks,
        jobs=project.jobs,
        schedules=project.schedules,
        sensors=project.sensors,
        executor=project.executor,
        resources={**(project.resources or {}), "whisper": whisper},
    )
