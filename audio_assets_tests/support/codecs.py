"""Small codecs with random weights, saved as `save_pretrained` saves real ones.

Their codebooks are spread over what their encoders give, so that tokens differ from frame to frame.
"""

import pathlib
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


def make_codec(family: str, folder: pathlib.Path, *, seed: int = 0) -> str:
    """Save a small codec of a family.

    Returns:
        The folder, as TOKENISER takes it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, features = _MAKERS[family]()
        with torch.no_grad():
            _spread(family, model.eval())
    model.save_pretrained(folder)
    features.save_pretrained(folder)
    return str(folder)


def _encodec() -> tuple[Any, Any]:
    config = EncodecConfig(num_filters=4, hidden_size=16, codebook_dim=16, num_lstm_layers=1)
    return EncodecModel(config), EncodecFeatureExtractor(feature_size=1, sampling_rate=24_000)


def _dac() -> tuple[Any, Any]:
    config = DacConfig(
        encoder_hidden_size=4, decoder_hidden_size=32, downsampling_ratios=[2, 4, 8, 8], n_codebooks=4
    )
    return DacModel(config), DacFeatureExtractor(sampling_rate=16_000, hop_length=512)


def _mimi() -> tuple[Any, Any]:
    config = MimiConfig(
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
    return MimiModel(config), EncodecFeatureExtractor(feature_size=1, sampling_rate=24_000)


_MAKERS = {"encodec": _encodec, "dac": _dac, "mimi": _mimi}


def _spread(family: str, model: Any) -> None:
    """Give the codebooks entries of the size of what they quantise."""
    noise = torch.randn(1, 1, 24_000) * 0.1
    if family == "encodec":
        residual = model.encoder(noise).transpose(1, 2)[0]
        for layer in model.quantizer.layers:
            layer.codebook.embed.copy_(_entries(residual, len(layer.codebook.embed)))
            residual = residual - layer.decode(layer.encode(residual.T[None]))[0].T
    if family == "mimi":
        for name, buffer in model.named_buffers():
            if name.endswith("embed_sum"):
                buffer.copy_(torch.randn(buffer.shape) * 0.1)
    # DAC compares directions alone, so that its random entries do.


def _entries(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """Random vectors with the mean and spread of others, [count, values]."""
    return vectors.mean(0) + vectors.std(0) * torch.randn(count, vectors.shape[1])
