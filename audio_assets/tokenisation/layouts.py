"""How the codebooks of a codec lie in a one-dimensional list of int16, and back.

Codes are integers [codebooks, frames]. Each layout keeps every code that it takes, and `unflatten` gives back
what `flatten` was given.
"""

import dataclasses

import numpy as np

from audio_assets.errors import ArgumentError
from audio_assets.tokenisation.types import TokenFormat

INTERLEAVED = "interleaved"
METAVOICE = "metavoice"
LARGEST = 2**15
"""How many values int16 has from 0 on. Tokens of a larger codebook are stored less this number."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """An order of the codebooks' tokens in one list. Frame follows frame, and in it codebook codebook.

    Attributes:
        meaning: for the documentation.
        most_codebooks: how many codebooks it takes at the most, the first ones; None for all.
        raised: whether each codebook's tokens are raised by the sizes of the codebooks before it, so that one
            vocabulary holds them all.
    """

    meaning: str
    most_codebooks: int | None = None
    raised: bool = False

    def codebooks_of(self, available: int) -> int:
        """How many of a codec's codebooks it takes."""
        return min(available, self.most_codebooks or available)


LAYOUTS = {
    INTERLEAVED: Layout("all codebooks, frame by frame: the flattening pattern of MusicGen"),
    METAVOICE: Layout(
        "the first two codebooks, frame by frame, the second raised by the size of a codebook: what"
        " MetaVoice-1B's language model reads",
        most_codebooks=2,
        raised=True,
    ),
}
"""Copet et al. 2023 (arXiv:2306.05284), section 2.2, describe the flattening pattern. MetaVoice's order and
its offset are those of `fam/llm/adapters/flattened_encodec.py` in metavoiceio/metavoice-src."""


def flatten(codes: np.ndarray, token_format: TokenFormat) -> np.ndarray:
    """Codes as tokens.

    Args:
        codes: integers [codebooks, frames] from 0 to `codebook_size` - 1, the codebooks of `token_format`.

    Returns:
        int16 [codebooks * frames].

    Raises:
        ValueError: a code is outside of its codebook, or there are other codebooks than the format says.
    """
    size = token_format.codebook_size
    if len(codes) != token_format.codebooks:
        raise ValueError(f"the codec gave {len(codes)} codebooks, not {token_format.codebooks}")
    if codes.size and not 0 <= codes.min() <= codes.max() < size:
        raise ValueError(f"the codec gave tokens from {codes.min()} to {codes.max()}, not below {size}")
    values = codes.astype(np.int64) + _offsets(token_format)
    return values.T.reshape(-1).astype(np.int16)


def unflatten(tokens: np.ndarray, token_format: TokenFormat) -> np.ndarray:
    """Tokens as codes.

    Args:
        tokens: integers [codebooks * frames], as a row of the table has them.

    Returns:
        int64 [codebooks, frames], each from 0 to `codebook_size` - 1.

    Raises:
        ValueError: the tokens are no whole frames, or not of this format.
    """
    if len(tokens) % token_format.codebooks:
        raise ValueError(f"{len(tokens)} tokens are no whole frames of {token_format.codebooks} codebooks")
    values = np.asarray(tokens, np.int64).reshape(-1, token_format.codebooks).T
    codes = values - _offsets(token_format)
    if codes.size and not 0 <= codes.min() <= codes.max() < token_format.codebook_size:
        raise ValueError(f"the tokens are not of {token_format}")
    return codes


def check(token_format: TokenFormat, available: int) -> None:
    """See that int16 holds each token of a format.

    Args:
        available: how many codebooks the codec has.

    Raises:
        ArgumentError: it does not, or the codec has too few codebooks.
    """
    layout = LAYOUTS[token_format.token_layout]
    if layout.most_codebooks and available < layout.most_codebooks:
        problem = f"={token_format.token_layout} takes {layout.most_codebooks} codebooks, and the codec gives"
        raise ArgumentError("layout", f"{problem} {available}")
    if int(_offsets(token_format).max()) + token_format.codebook_size > LARGEST:
        problem = f"={token_format.token_layout} of {token_format.codebooks} codebooks of"
        raise ArgumentError("layout", f"{problem} {token_format.codebook_size} entries does not fit int16")


def _offsets(token_format: TokenFormat) -> np.ndarray:
    """What is added to the codes of each codebook: int64 [codebooks, 1]."""
    size = token_format.codebook_size
    if LAYOUTS[token_format.token_layout].raised:
        return size * np.arange(token_format.codebooks, dtype=np.int64)[:, None]
    offset = -LARGEST if size > LARGEST else 0
    return np.full((token_format.codebooks, 1), offset, np.int64)
