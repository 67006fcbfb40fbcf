"""An actor: a warm recogniser in a process of its own, which runs the pass over the audio on chunks.

It outlives the run that started it and serves the next ones, until nobody has asked for anything for a while.
"""

import collections
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import ray

from audio_assets.cluster.actor_name import code_version
from audio_assets.cluster.chunks import Chunk
from audio_assets.cluster.messages import OpenPass, Report, Worker
from audio_assets.errors import (
    ArgumentError,
    ConflictError,
    MissingInputError,
    StaleRowsError,
    StoppedError,
    StorageError,
)
from audio_assets.partition_rows import Finished
from audio_assets.speech import SpeechPass

if TYPE_CHECKING:
    from audio_assets.transcription.recogniser import Recogniser

CONTROL = "control"
"""The threads that answer while the pass works."""
SECONDS_BETWEEN_REPORTS = 0.2
SECONDS_TO_BEGIN = 60.0
# What another actor would meet as well; all else may be a fault of this process or of its GPU.
_OF_THE_INPUT = (ArgumentError, ConflictError, MissingInputError, StaleRowsError, StorageError)


class SpeechActor:
    """What runs in the actor's process. One chunk at a time, whichever runs it comes from.

    Args:
        idle_s: seconds without work after which the process ends.
        environment: settings of the run that started it, by variable; none is secret.
    """

    def __init__(self, idle_s: float, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._idle_s = idle_s
        # The first chunk brings imports with it that take a while.
        self._begins_until = time.monotonic() + SECONDS_TO_BEGIN
        self._idle_since = time.monotonic()
        self._working = False
        # The code that this process has loaded, not what lies there when it is asked.
        self._code = code_version()
        self._warm = _Warm()
        # Chunks by run and number, those too that have not begun.
        self._stopped: collections.defaultdict[tuple[str, int], threading.Event]
        self._stopped = collections.defaultdict(threading.Event)
        self._warnings = _Warnings()
        logging.getLogger("audio_assets").addHandler(self._warnings)
        threading.Thread(target=self._leave_once_idle, daemon=True).start()

    # --- what a driver asks for -----------------------------------------------------------------------

    def process(self, run: str, chunk: Chunk, open_pass: OpenPass) -> Iterator[Report]:
        """Make the partitions of a chunk, reporting those that are written.

        Args:
            run: tells the driver from others that use the actor.

        Yields:
            Reports. The last one has an error where another actor would meet the same; any other error is
            raised, and the process is of no more use.
        """
        stopped = self._stopped[run, chunk.number]
        self._working = True
        self._begins_until = 0.0
        try:
            yield from self._reports(chunk, open_pass, stopped)
        except StoppedError:
            pass
        except _OF_THE_INPUT as e:
            yield Report(error=e, warnings=self._warnings.take())
        finally:
            self._idle_since = time.monotonic()
            self._working = False
            del self._stopped[run, chunk.number]

    @ray.method(concurrency_group=CONTROL)
    def describe(self) -> Worker:
        """Where the actor runs, and what it has loaded."""
        # Whoever asks has work.
        self._idle_since = time.monotonic()
        node = ray.util.get_node_ip_address()
        return Worker(node, os.getpid(), self._code, self._warm.loads)

    @ray.method(concurrency_group=CONTROL)
    def stop(self, run: str, number: int) -> None:
        """End a chunk before its next object; one that has not begun as soon as it begins."""
        self._stopped[run, number].set()

    @ray.method(concurrency_group=CONTROL)
    def leave_if_idle(self, seconds: float) -> None:
        """End the process, and give its GPU back, where it has had no work for so long."""
        if self._idle_for(seconds):
            # After the answer, so that whoever asks meets no broken connection.
            threading.Timer(0.2, self._leave_if_idle, [seconds]).start()

    # --- how it is done -------------------------------------------------------------------------------

    def _reports(self, chunk: Chunk, open_pass: OpenPass, stopped: threading.Event) -> Iterator[Report]:
        speech_pass = open_pass(chunk.unreadable, stopped)
        reporting = _Reporting(speech_pass, self._warm, self._warnings.take)
        if chunk.rehearse:
            for key in speech_pass.rehearse(chunk.partitions[0]):
                yield dataclasses.replace(reporting.report(), touched=key)
            return
        for finished in speech_pass.run(chunk.partitions):
            reporting.finished.append(finished)
            if reporting.is_due():
                yield reporting.report()
        yield reporting.report()

    def _idle_for(self, seconds: float) -> bool:
        now = time.monotonic()
        return not self._working and now >= self._begins_until and now - self._idle_since >= seconds

    def _leave_once_idle(self) -> None:
        while True:
            time.sleep(min(self._idle_s / 4, 5.0))
            self._leave_if_idle(self._idle_s)

    def _leave_if_idle(self, seconds: float) -> None:
        if self._idle_for(seconds):
            # Not `exit_actor`: that works in a call of the actor's alone.
            os._exit(0)


class _Warm:
    """The recogniser that the process holds, which the passes ask for again and again.

    Attributes:
        loads: how often another one was loaded.
    """

    def __init__(self) -> None:
        self.loads = 0
        self._recogniser: Recogniser | None = None
        self._done: dict[str, float] = {}

    def is_new(self, recogniser: "Recogniser") -> bool:
        """Whether it was loaded since the last call."""
        if recogniser is self._recogniser:
            return False
        self._recogniser = recogniser
        self._done = {}
        self.loads += 1
        return True

    def done(self) -> dict[str, float]:
        """What the recogniser has done since the last call."""
        assert self._recogniser is not None
        before = self._done
        self._done = dataclasses.asdict(self._recogniser.stats)
        return {name: value - before.get(name, 0) for name, value in self._done.items()}


class _Reporting:
    """What is to be told of a chunk since the last report."""

    def __init__(self, speech_pass: SpeechPass, warm: _Warm, warnings: Callable[[], tuple[str, ...]]) -> None:
        self.finished: list[Finished] = []
        self._pass = speech_pass
        self._warm = warm
        self._warnings = warnings
        self._since = time.perf_counter()
        self._reports = 0

    def is_due(self) -> bool:
        """The first partition is told of at once."""
        return not self._reports or time.perf_counter() - self._since >= SECONDS_BETWEEN_REPORTS

    def report(self) -> Report:
        now = time.perf_counter()
        seconds = now - self._since
        self._since = now
        self._reports += 1
        finished = tuple(self.finished)
        self.finished.clear()
        recogniser = self._pass.recogniser
        if recogniser is None:
            return Report(finished, seconds, warnings=self._warnings())
        load_s = self._pass.load_seconds if self._warm.is_new(recogniser) else None
        return Report(
            finished,
            max(seconds - (load_s or 0.0), 0.0),
            load_s,
            recogniser.device,
            self._warm.done(),
            self._warnings(),
        )


class _Warnings(logging.Handler):
    """Keeps the warnings of the package until the next report."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: collections.deque[str] = collections.deque(maxlen=1000)

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())

    def take(self) -> tuple[str, ...]:
        texts = []
        while self._texts:
            texts.append(self._texts.popleft())
        return tuple(texts)
