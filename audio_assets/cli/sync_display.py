"""What a sync shows while it works: a bar in a terminal, a line for each step where there is none.

In a terminal the steps of runs show in the bar, and only what is worth stopping at gets a line above it.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import dagster as dg
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from audio_assets.partition_rows import Finished


class Display:
    """Shows what a sync does.

    Attributes:
        partitions: that were made.
        clips: that were computed for it.
        reused: by partition, clips whose rows were left as they were when a run first looked at it.
        audio_s: seconds of audio in them.
        working_s: seconds in which runs were executed.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=_stdout(), highlight=False, soft_wrap=True)
        self.partitions = 0
        self.clips = 0
        self.reused: dict[str, int] = {}
        self.audio_s = 0.0
        self.working_s = 0.0
        self._since: float | None = None
        self._pending: set[str] = set()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("partitions, {task.fields[clips]:,} clips, {task.fields[rate]:,.1f} s of audio/s"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            # What a step prints is Dagster's to keep.
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("looking", total=None, clips=0, rate=0.0)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        with self._bar:
            yield

    @property
    def rate(self) -> float:
        """Seconds of audio for each second in which runs were executed."""
        running = time.monotonic() - self._since if self._since is not None else 0.0
        seconds = self.working_s + running
        return self.audio_s / seconds if seconds else 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False)

    def doing(self, what: str) -> None:
        """What is done now, beside the bar."""
        self._bar.update(self._task, description=what)

    def wait(self, why: str) -> None:
        """Say what is waited for."""
        self.doing(why)
        if not self.console.is_terminal:
            self.say(f"  {why}")

    def pending(self, keys: set[str]) -> None:
        """The partitions that are still to be made."""
        self._pending = set(keys)
        self._bar.update(self._task, total=self.partitions + len(keys) or None)

    @contextlib.contextmanager
    def run(self, what: str, sensor: str = "new_s3_keys") -> Iterator[None]:
        """A run that a sensor asks for is executed; `finished` is told of its partitions."""
        if not self.console.is_terminal:
            self.say(f"  sensor {sensor} asks for {what}")
        self.doing(what)
        self._since = time.monotonic()
        try:
            yield
        finally:
            self.working_s += time.monotonic() - self._since
            self._since = None

    def finished(self, partition: Finished) -> None:
        """One partition of the run is done."""
        self.clips += partition.computed
        self.audio_s += partition.audio_s
        # A later run finds the rows that an earlier one has made.
        self.reused.setdefault(partition.partition.key, partition.reused)
        # A run passes over partitions that need no work, too.
        if partition.partition.key in self._pending:
            self._pending.discard(partition.partition.key)
            self.partitions += 1
        self._bar.update(self._task, completed=self.partitions, clips=self.clips, rate=self.rate)

    def logger(self) -> dg.LoggerDefinition:
        """Dagster's logger `console` of the runs."""

        @dg.logger
        def console(_: dg.InitLoggerContext) -> logging.Logger:
            logger = logging.Logger("audio-assets")
            logger.addHandler(_Lines(self))
            return logger

        return console


class _Lines(logging.Handler):
    """Says what is worth showing of a run, without Dagster's prefix."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event: dg.DagsterEvent | None = meta.get("dagster_event")
        if self._is_worth_showing(record, event):
            said = meta.get("orig_message") or record.getMessage()
            self._display.say(f"    {meta.get('step_key') or 'run'}: {_reason(event) or said}")

    def _is_worth_showing(self, record: logging.LogRecord, event: dg.DagsterEvent | None) -> bool:
        if event is not None and event.is_failure:
            return True
        if self._display.console.is_terminal:
            return event is None and record.levelno >= logging.WARNING
        return event.is_step_success if event is not None else record.levelno >= logging.INFO


def _reason(event: dg.DagsterEvent | None) -> str:
    """Why a step failed, without the stack trace; empty for other events."""
    if event is None or not event.is_step_failure:
        return ""
    error = event.step_failure_data.error
    return "" if error is None else f"failed: {(error.cause or error).message.strip()}"


def _stdout() -> TextIO:
    """Standard output as it is now: Dagster turns it to a file while a step runs."""
    try:
        return os.fdopen(os.dup(sys.stdout.fileno()), "w")
    except (OSError, ValueError):
        return sys.stdout
