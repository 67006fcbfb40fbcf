"""Whispers of any shape that say what they are told, so that all engines decode the same tokens.

Speed depends on a model's shape and on how many tokens it says, not on what it has learned. Here the weights
are random but for one thing: each position of the decoder carries a strong direction of its own, which one
token answers to. Such a model reads out its script whatever it hears, sure of each token, so every engine
runs with its own thresholds and rules on and still does the same work.
"""

import math
import random

import torch
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import get_tokenizer

# name: mel bins, vocabulary, encoder layers, decoder layers, width, heads
SHAPES = {
    "tiny": (80, 51865, 4, 4, 384, 6),
    "base": (80, 51865, 6, 6, 512, 8),
    "small": (80, 51865, 12, 12, 768, 12),
    "large-v3": (128, 51866, 32, 32, 1280, 20),
    "large-v3-turbo": (128, 51866, 32, 4, 1280, 20),
}
GIVEN = 3  # <|startoftranscript|>, language, task
SPOKEN_S = 2.0


def dimensions(shape: str) -> ModelDimensions:
    mels, vocabulary, encoder, decoder, width, heads = SHAPES[shape]
    return ModelDimensions(
        **dict(n_mels=mels, n_audio_ctx=1500, n_audio_state=width, n_audio_head=heads, n_audio_layer=encoder),
        **dict(
            n_vocab=vocabulary, n_text_ctx=448, n_text_state=width, n_text_head=heads, n_text_layer=decoder
        ),
    )


def script(tokenizer, count: int) -> list[int]:
    """`count` tokens: a timestamp, words that do not repeat, a timestamp; and end-of-text."""
    allowed = set(range(1000, 40000)) - set(tokenizer.non_speech_tokens)
    words = random.Random(0).sample(sorted(allowed), count - 2)
    zero = tokenizer.timestamp_begin
    return [zero, *words, zero + round(SPOKEN_S * 50), tokenizer.eot]


@torch.no_grad()
def scripted_whisper(shape: str, count: int) -> Whisper:
    """A float32 model on the CPU that says `count` tokens."""
    torch.manual_seed(0)
    model = Whisper(dimensions(shape)).eval()
    tokenizer = get_tokenizer(True, num_languages=model.num_languages, language="en")
    width = model.dims.n_text_state
    embedding = model.decoder.token_embedding.weight
    positions = model.decoder.positional_embedding
    torch.nn.init.normal_(embedding, std=0.02)
    torch.nn.init.normal_(positions, std=0.02)
    said = script(tokenizer, count)
    said += [tokenizer.eot] * (model.dims.n_text_ctx - GIVEN + 1 - len(said))
    directions = torch.randn(len(set(said)), width)
    directions = dict(zip(sorted(set(said)), directions / directions.norm(dim=1, keepdim=True), strict=True))
    for token, direction in directions.items():
        # A normalised hidden state has norm sqrt(width), so this logit is about 30.
        embedding[token] = direction * 30 / math.sqrt(width)
    for position, token in enumerate(said, GIVEN - 1):
        positions[position] += directions[token] * 4 * math.sqrt(width)
    return model
