"""What the pipeline asks of a recogniser; `Transcriber`, which runs Whisper, is one."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np

from audio_assets.transcription.transcript import Stats, Transcript

K = TypeVar("K")


class Recogniser(Protocol):
    """Hears many clips at once. The pipeline calls it from one thread at a time.

    Attributes:
        identity: what shapes its answers, with enough to reproduce them. It is stored in `whisper_model`; a
            row of another identity is computed anew.
        device: where it runs, e.g. `cpu` or `cuda:0`.
        stats: what it has done since it was loaded.
    """

    @property
    def identity(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def stats(self) -> Stats: ...

    def transcribe(self, audio: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Transcript | Exception]]:
        """Transcribe clips, in any order, every one exactly once.

        Args:
            audio: pairs of anything and a float32 array of shape [samples], mono at 16 kHz, in [-1, 1]. To be
                pulled as needed: the pipeline fetches and decodes ahead of it by a bounded distance.

        Yields:
            The same first half with the transcript, or with the exception that this clip alone ran into. That
            becomes a row of status `failed`.
        """
        ...
