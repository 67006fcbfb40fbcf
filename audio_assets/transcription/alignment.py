"""When each token of a text was said, from where the decoder attends to in the audio.

The method of `find_alignment` in `whisper/timing.py`: the text runs through the decoder once more, all tokens
given; the cross-attention weights of some heads, those that follow the speech, are normalised, smoothed by a
median filter and averaged; dynamic time warping finds the one path through them that never goes back. Which
heads these are is the model's to say: for a named model `whisper.load_model` knows them, for a checkpoint's
file it takes all heads of the upper half of the layers.

What words become of the tokens' times is the business of `words`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from whisper.model import Whisper
from whisper.timing import median_filter

from audio_assets.transcription.kernels import warp
from audio_assets.transcription.words import Aligned

FILTER_WIDTH = 7


@dataclass(frozen=True)
class Text:
    """A text as the decoder was given it.

    Attributes:
        tokens: int64, the text alone.
        begin: how many tokens stand before the text and `<|notimestamps|>`.
        frames: of 20 ms, the audio in the window.
    """

    tokens: Sequence[int]
    begin: int
    frames: int


class Aligner:
    """For one model: which of its heads follow the speech."""

    def __init__(self, model: Whisper) -> None:
        self.heads: dict[int, list[int]] = {}
        for layer, head in model.get_buffer("alignment_heads").to_dense().nonzero().tolist():
            self.heads.setdefault(layer, []).append(head)

    def __call__(
        self, text: Text, queries: Sequence[Tensor], keys: Sequence[Tensor], logits: Tensor
    ) -> Aligned:
        """Align one text.

        Args:
            queries: of each layer's cross-attention, [heads, tokens, head_dim], scaled; of all tokens that
                were given: what stands before the text, the text, end-of-text.
            keys: of each layer, [heads, 1500, head_dim].
            logits: [text tokens, at least all that are text], what follows the token before each.
        """
        probabilities = logits.float().softmax(dim=1)
        each = torch.arange(len(text.tokens), device=logits.device)
        of_text = probabilities[each, torch.tensor(text.tokens, device=logits.device)]
        weights = torch.cat(
            [
                (queries[layer][heads].float() @ keys[layer][heads][:, : text.frames].float().mT).softmax(-1)
                for layer, heads in self.heads.items()
            ]
        )
        std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
        matrix = median_filter((weights - mean) / std, FILTER_WIDTH).mean(dim=0)[text.begin : -1]
        return Aligned(tuple(first_frames(-matrix)), tuple(of_text.tolist()))


def first_frames(costs: Tensor) -> list[int]:
    """The frame at which the cheapest path enters each token; costs: float32 [tokens, frames]."""
    token, frame = warp(costs.float().cpu().contiguous())
    enters = np.diff(token, prepend=token[0] - 1) != 0
    return frame[enters].tolist()
