"""What to do with the tokens of a row: codes by codebook, and audio again.

from audio_assets import read_table, tokens

row = read_table("p225").iloc[0]
codes = tokens.unflatten(row)    # [codebooks, frames]
audio = tokens.decode(row)       # float32 [samples] at row["codec_sample_rate_hz"]
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from audio_assets.tokenisation import layouts
from audio_assets.tokenisation.types import TokenFormat

if TYPE_CHECKING:
    import pandas as pd


def unflatten(row: "Mapping[str, Any] | pd.Series") -> np.ndarray:
    """The codes of a row's tokens.

    Args:
        row: of `audio_table` or `tokens`, as a mapping or a pandas Series, with `tokenized_info` and the
            columns from `codec` to `token_layout`.

    Returns:
        int64 [codebooks, frames], each from 0 to `codebook_size` - 1.

    Raises:
        ValueError: the row has no tokens, or none of a codec.
    """
    return layouts.unflatten(np.asarray(row["tokenized_info"]), _format_of(row))


def decode(
    row: "Mapping[str, Any] | pd.Series", *, codec: str | None = None, device: str = "auto"
) -> np.ndarray:
    """The audio that a row's tokens stand for, by the codec that made them.

    Args:
        row: as `unflatten` takes it. Where it has `duration_s`, the audio ends there.
        codec: folder or name of the codec, where it is no longer that of the row.
        device: `auto` for CUDA if there is any, `cpu`, `cuda` or `cuda:N`.

    Returns:
        float32 [samples], mono at `codec_sample_rate_hz`.

    Raises:
        ValueError: the row has no tokens, or none of a codec.
        ArgumentError: there is no such codec here.
        CodecError: its weights cannot be loaded.
    """
    from audio_assets.tokenisation import codec_name
    from audio_assets.tokenisation.codec import load_codec

    token_format = _format_of(row)
    codes = unflatten(row)
    loaded = load_codec(codec_name.parse(codec or token_format.codec), device)
    audio = loaded.decode_pieces(codes)
    if _is_null(row.get("duration_s")):
        return audio
    return audio[: round(row["duration_s"] * token_format.codec_sample_rate_hz)]


def _format_of(row: "Mapping[str, Any] | pd.Series") -> TokenFormat:
    key = row.get("Key", "the row")
    if _is_null(row.get("tokenized_info")):
        raise ValueError(f"{key} has no tokens; its status says why")
    if _is_null(row.get("codec")):
        raise ValueError(
            f"{key} has tokens of {row.get('tokeniser')!r}, which does not say how they are read"
        )
    # From pandas they may come as other kinds of numbers.
    return TokenFormat(
        codec=row["codec"],
        codebooks=int(row["codebooks"]),
        codebook_size=int(row["codebook_size"]),
        frame_rate_hz=float(row["frame_rate_hz"]),
        codec_sample_rate_hz=int(row["codec_sample_rate_hz"]),
        token_layout=row["token_layout"],
    )


def _is_null(value: object) -> bool:
    """pandas has NaN in the place of a null."""
    return value is None or (isinstance(value, float) and math.isnan(value))
