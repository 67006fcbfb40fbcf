"""The engine's front door: settings in, transcripts out. Loads torch only when a model is loaded."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from audio_assets.transcription.identity import (
    language_code,
    model_identity,
    resolve_device,
    resolve_precision,
)
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

    def __init__(self, engine: "Engine", identity: str) -> None:
        self._engine = engine
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
    ) -> "Transcriber":
        """Load a model.

        Args:
            model: a name that `whisper.load_model` knows (it is downloaded once), or a checkpoint's path.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            language: a code or an English name; None detects it for each file, at the price of a second
                pass of the encoder over each file's first 30 s.
            batch_size: how many windows are decoded at a time; None takes what the device's memory holds.
            precision: `float32`, `bfloat16`, `float16`, or `auto` for what Whisper itself uses on the device.

        Raises:
            ValueError: a setting is wrong; the message names its environment variable.
        """
        identity = model_identity(model, language=language, precision=precision, device=device)
        device = resolve_device(device)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"WHISPER_BATCH_SIZE={batch_size} is not at least 1")
        from audio_assets.transcription.engine import Engine

        engine = Engine.load(
            model,
            device=device,
            language=language_code(language),
            batch_size=batch_size,
            precision=resolve_precision(precision, device),
            stats=Stats(),
        )
        return cls(engine, identity)

    @property
    def device(self) -> str:
        """Where the model lies: `cpu`, `cuda` or `cuda:N`."""
        return str(self._engine.device)

    @property
    def batch_size(self) -> int:
        """How many windows are decoded at a time; falls when the device runs out of memory."""
        return self._engine.batch_size

    @property
    def stats(self) -> Stats:
        return self._engine.stats

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
        return self._engine.transcribe(audio)
