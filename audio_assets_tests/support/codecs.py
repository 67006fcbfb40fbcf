"""Codecs with random weights, saved as `save_pretrained` saves real ones.

Their codebooks are spread over what their encoders give, so that tokens differ from frame to frame.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import (
    DacConfig,
    DacFeatureExtractor,
    DacModel,
    EncodecConfig,
    EncodecFeatureExtractor,
    EncodecModel,
    MimiConfig,
    MimiModel,
)

FAMILIES = ("encodec", "dac", "mimi")
RATES_HZ = {"encodec": 24_000, "dac": 16_000, "mimi": 24_000}


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """PyTorch works on one core meanwhile: on more, EnCodec takes its sums in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_codec(family: str, folder: pathlib.Path, *, seed: int = 0, small: bool = True) -> str:
    """Save a codec of a family.

    Args:
        small: whether it is small instead of having the shape of the published codec.

    Returns:
        The folder, as TOKENISER takes it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, features = _MAKERS[family](small)
        with torch.no_grad():
            _SPREAD.get(family, lambda model: None)(model.eval())
    model.save_pretrained(folder)
    features.save_pretrained(folder)
    return str(folder)


def _encodec(small: bool) -> tuple[Any, Any]:
    small_one: dict[str, Any] = dict(num_filters=4, hidden_size=16, codebook_dim=16, num_lstm_layers=1)
    config = EncodecConfig(**(small_one if small else {}))
    return EncodecModel(config), EncodecFeatureExtractor(feature_size=1, sampling_rate=24_000)


def _dac(small: bool) -> tuple[Any, Any]:
    small_one: dict[str, Any] = dict(encoder_hidden_size=4, decoder_hidden_size=32, n_codebooks=4)
    published: dict[str, Any] = dict(sampling_rate=44_100)
    config = DacConfig(**(small_one if small else published))
    return DacModel(config), DacFeatureExtractor(sampling_rate=config.sampling_rate, hop_length=512)


def _mimi(small: bool) -> tuple[Any, Any]:
    small_one: dict[str, Any] = dict(
        hidden_size=32,
        num_filters=4,
        codebook_size=256,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=8,
        upsample_groups=32,
        num_hidden_layers=1,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    config = MimiConfig(**(small_one if small else {}))
    return MimiModel(config), EncodecFeatureExtractor(feature_size=1, sampling_rate=24_000)


_MAKERS: dict[str, Callable[[bool], tuple[Any, Any]]] = {"encodec": _encodec, "dac": _dac, "mimi": _mimi}


# --- codebooks of the size of what they quantise --------------------------------------------------------


def _spread_encodec(model: Any) -> None:
    for residuals in _first_residuals(model, [model.quantizer]):
        _spread_residuals(model.quantizer.layers, residuals, lambda book: book.embed)


def _spread_mimi(model: Any) -> None:
    quantizer = model.quantizer
    parts = [quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer]
    for part, residuals in zip(parts, _first_residuals(model, parts), strict=True):
        # Each codebook of Mimi keeps sums, which it divides by counts of one.
        _spread_residuals(part.layers, residuals, lambda book: book.embed_sum)


def _first_residuals(model: Any, quantizers: Sequence[Any]) -> list[torch.Tensor]:
    """What each quantiser's first codebook is given for ten seconds of noise, [1, values, frames]."""
    seen: list[torch.Tensor] = []
    for quantizer in quantizers:
        first = quantizer.layers[0]
        first.encode = functools.partial(_noting, seen, first.encode)
    model.encode(torch.randn(1, 1, 240_000) * 0.1)
    for quantizer in quantizers:
        del quantizer.layers[0].encode
    return seen


def _noting(seen: list[torch.Tensor], encode: Callable[[Any], Any], residual: torch.Tensor) -> Any:
    seen.append(residual)
    return encode(residual)


def _spread_residuals(
    layers: Iterable[Any], residual: torch.Tensor, entries_of: Callable[[Any], torch.Tensor]
) -> None:
    """Draw the entries of each codebook around what the codebooks before it leave."""
    for layer in layers:
        entries = entries_of(layer.codebook)
        entries.copy_(torch.randn(entries.shape) * residual.std((0, 2)) + residual.mean((0, 2)))
        # Mimi keeps the quotients.
        layer.codebook._embed = None
        residual = residual - layer.decode(layer.encode(residual))


# Of DAC only the direction of an entry matters, and random directions are spread.
_SPREAD: dict[str, Callable[[Any], None]] = {"encodec": _spread_encodec, "mimi": _spread_mimi}
