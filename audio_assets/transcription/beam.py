"""Several texts for one window, of which the best is kept: beam search, and samples that are ranked.

The rules are those of `BeamSearchDecoder` and `MaximumLikelihoodRanker` in `whisper/decoding.py`. Patience is
that of Kasai et al. 2022 (https://arxiv.org/abs/2204.05424). Plain Python: whoever calls moves the tensors.
"""

from collections.abc import Iterable, Sequence

import numpy as np

Tokens = tuple[int, ...]


class BeamSearch:
    """The search for one window.

    Attributes:
        beams: the texts that go on, the best first, each with the sum of its tokens' log-probabilities.
    """

    def __init__(self, size: int, patience: float | None, eot: int) -> None:
        """Start with `size` empty texts.

        Args:
            size: how many texts go on.
            patience: how many texts end before the search does, as a multiple of `size`; None for 1.
            eot: the token that ends a text.
        """
        self.beams: list[tuple[Tokens, np.float32]] = [((), np.float32(0))] * size
        self._size = size
        self._most_ended = round(size * (1.0 if patience is None else patience))
        self._eot = eot
        self._ended: dict[Tokens, np.float32] = {}

    @property
    def is_over(self) -> bool:
        """Whether enough texts have ended."""
        return len(self._ended) >= self._most_ended

    def extend(self, next_tokens: Sequence[Sequence[int]], logprobs: Sequence[Sequence[float]]) -> list[int]:
        """Go on by a token.

        Args:
            next_tokens, logprobs: of each beam, its `size` + 1 most probable next tokens, the best first.

        Returns:
            Which beam each of the new beams goes on from.
        """
        scores: dict[Tokens, np.float32] = {}
        sources: dict[Tokens, int] = {}
        for beam, (tokens, total) in enumerate(self.beams):
            for token, logprob in zip(next_tokens[beam], logprobs[beam], strict=True):
                text = (*tokens, token)
                scores[text] = total + np.float32(logprob)
                sources[text] = beam
        ended: dict[Tokens, np.float32] = {}
        self.beams = []
        for text in sorted(scores, key=lambda text: scores[text], reverse=True):
            if text[-1] == self._eot:
                ended[text] = scores[text]
            else:
                self.beams.append((text, scores[text]))
                if len(self.beams) == self._size:
                    break
        for text, total in ended.items():
            if self.is_over:
                break
            self._ended[text] = total
        return [sources[text] for text, _ in self.beams]

    def results(self) -> list[tuple[Tokens, float]]:
        """The texts without their end, each with its sum; unfinished ones only where too few have ended."""
        found = dict(self._ended)
        for text, total in sorted(self.beams, key=lambda beam: beam[1], reverse=True):
            if len(found) >= self._size:
                break
            found[*text, self._eot] = total
        return [(text[:-1], float(total)) for text, total in found.items()]


def best_of(results: Iterable[tuple[Tokens, float]]) -> tuple[Tokens, float]:
    """The text with the highest log-probability for each of its tokens, with the sum of them."""
    return max(results, key=lambda result: result[1] / max(1, len(result[0])))
