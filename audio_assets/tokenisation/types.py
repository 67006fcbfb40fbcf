"""What the pipeline asks of a tokeniser, and how its tokens are to be read."""

import dataclasses
from typing import Any, Protocol

import numpy as np

SAMPLE_RATE_HZ = 16_000
"""What a tokeniser gets that names no rate of its own: the rate of Whisper's audio."""


@dataclasses.dataclass(frozen=True)
class TokenFormat:
    """How the tokens of a row are read; each attribute is a column of the row.

    Attributes:
        codec: name or folder of the codec, with its revision if it has one.
        codebooks: how many codebooks the tokens hold.
        codebook_size: entries of each codebook.
        frame_rate_hz: frames for each second of audio; each frame has one token of each codebook.
        codec_sample_rate_hz: of the audio that the codec decodes to, in Hz.
        token_layout: how the codebooks lie in the list, one of `layouts.LAYOUTS`.
    """

    codec: str
    codebooks: int
    codebook_size: int
    frame_rate_hz: float
    codec_sample_rate_hz: int
    token_layout: str

    def values(self) -> dict[str, Any]:
        """The values by column."""
        return dataclasses.asdict(self)


class Tokeniser(Protocol):
    """What the pipeline asks of a tokeniser; `load_tokeniser` gives one.

    Attributes:
        identity: what makes the tokens, with its code or version. It is stored in the column `tokeniser`. A
            row of another identity is computed anew, so that no row outlives a change of the code.
        thread_safe: whether it may be called from several threads at once. If not, the pipeline calls it from
            one thread at a time.
        sample_rate_hz: of the audio that it takes. The audio is resampled to it from the source's own rate.
        token_format: how its tokens are read, None where that is not said.
    """

    @property
    def identity(self) -> str: ...

    @property
    def thread_safe(self) -> bool: ...

    @property
    def sample_rate_hz(self) -> int: ...

    @property
    def token_format(self) -> TokenFormat | None: ...

    def __call__(self, audio: np.ndarray, etag: str) -> np.ndarray:
        """Tokenise one object.

        Args:
            audio: float32 [samples], mono at `sample_rate_hz`, in [-1, 1].
            etag: of the object's content.

        Returns:
            int16 [tokens].

        Raises:
            Exception: of any kind; it becomes a row of status `failed`, and the other objects go on.
        """
        ...
