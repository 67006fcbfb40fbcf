"""The engine's front door: options in, transcripts out. Loads torch only when a model is loaded."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar, Unpack

import numpy as np

from audio_assets.errors import renaming
from audio_assets.transcription.close_choices import with_close_choices_again
from audio_assets.transcription.identity import identity_of
from audio_assets.transcription.options import Options
from audio_assets.transcription.second_opinion import with_second_opinion
from audio_assets.transcription.transcribe_options import TranscribeArguments, TranscribeOptions
from audio_assets.transcription.transcript import Stats, Transcript

if TYPE_CHECKING:
    from audio_assets.transcription.engine import Engine

K = TypeVar("K")


class Transcriber:
    """A loaded Whisper model that transcribes many files at once. Not for use by several threads at a time.

    Attributes:
        identity: what shapes its answers, as `model_identity` says.
        stats: what it has done so far.
    """

    def __init__(
        self,
        engine: "Engine",
        identity: str,
        second: "Engine | None" = None,
        float32: "Engine | None" = None,
        logit_margin_threshold: float = 0.0,
    ) -> None:
        """A transcriber of loaded engines.

        Args:
            second: what runs the second model, where there is one.
            float32: what transcribes the files again that have a choice closer than `logit_margin_threshold`.
        """
        self._engine = engine
        self._second = second
        self._float32 = float32
        self._logit_margin_threshold = logit_margin_threshold
        self.identity = identity

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str = "auto",
        language: str | None = None,
        batch_size: int | None = None,
        precision: str = "auto",
        **transcribe: Unpack[TranscribeArguments],
    ) -> "Transcriber":
        """Load a model.

        Args:
            model: a name that `whisper.load_model` knows (it is downloaded once), or a checkpoint's path.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            language: a code or an English name; None detects it for each file, and where it is not certain
                (`language_detection_threshold`), at the price of a second pass of the encoder over each
                file's first 30 s.
            batch_size: how many windows are decoded at a time; None takes what the device's memory holds.
            precision: `float32`, `bfloat16`, `float16`, or `auto` for what Whisper itself uses on the device,
                which with `logit_margin_threshold` is half precision on a CPU too.
            transcribe: the options of `whisper.transcribe`, as `TranscribeOptions` describes them, such as
                `word_timestamps=True`.

        Raises:
            ArgumentError: an argument is wrong, or the model does not fit into the device's free memory.
        """
        options = Options(
            model, device, language, batch_size, precision, TranscribeOptions(**transcribe)
        ).resolve()
        identity = identity_of(options)
        from audio_assets.transcription.engine import Engine

        first = Engine.load(options)
        second = None
        if options.transcribe.second_model is not None:
            with renaming({"model": "second_model"}):
                second = Engine.load(options.of_second_model)
        threshold = options.transcribe.logit_margin_threshold
        if threshold is None:
            return cls(first, identity, second)
        return cls(first, identity, second, Engine.load(options.at_float32), threshold)

    @property
    def device(self) -> str:
        """Where the model lies: `cpu`, `cuda` or `cuda:N`."""
        return str(self._engine.device)

    @property
    def batch_size(self) -> int:
        """How many windows are decoded at a time; falls when the device runs out of memory."""
        return self._engine.scheduler.batch_size

    @property
    def stats(self) -> Stats:
        stats = self._engine.stats
        if self._second is not None:
            stats = dataclasses.replace(stats, second_s=self._second.stats.busy_s)
        if self._float32 is not None:
            again = self._float32.stats
            stats = dataclasses.replace(stats, float32_s=again.busy_s, float32_files=again.files)
        return stats

    def transcribe(self, audio: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Transcript | Exception]]:
        """Transcribe files, each as soon as its turn comes, in any order, every one exactly once.

        Args:
            audio: pairs of anything and a float32 array of shape [samples], mono at 16 kHz. Pulled as
                needed: a bounded amount of audio is held at a time, however many pairs there are.

        Yields:
            The same first half with the transcript, or with the exception that this file alone ran into
            (`TypeError` or `ValueError` for an array that is not as above).

        Raises:
            Exception: whatever `audio` itself raises, and faults of the device.
        """
        if self._second is None:
            return self._first(audio)
        return with_second_opinion(audio, self._first, self._second.transcribe)

    def _first(self, audio: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Transcript | Exception]]:
        """As `transcribe`, without the second model."""
        if self._float32 is None:
            return self._engine.transcribe(audio)
        engines = self._engine.transcribe, self._float32.transcribe
        return with_close_choices_again(audio, *engines, self._logit_margin_threshold)
