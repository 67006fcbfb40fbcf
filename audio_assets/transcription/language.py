"""The language that is spoken in a window, as `whisper.detect_language` finds it (Radford et al. 2022,
section 2.3): the most probable token after `<|startoftranscript|>`."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from whisper.tokenizer import Tokenizer

from audio_assets.transcription.decoder import Decoder
from audio_assets.transcription.longform import Detected

# Sums in another order move what is behind.
PROBABILITY_DECIMALS = 4


class LanguageDetector:
    """Finds the most probable languages of windows; probabilities are of the languages among each other."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer

    def __call__(self, features: Sequence[Tensor]) -> list[Detected]:
        """features: the encoder's output for each window, `dtype` [1500, n_state]."""
        logits = self._decoder.logits(self._decoder.first_token(features, self._tokenizer.sot))
        of_languages = logits[:, list(self._tokenizer.all_language_tokens)].float()
        probabilities = of_languages.softmax(dim=1).cpu().numpy().round(PROBABILITY_DECIMALS)
        best = of_languages.argmax(dim=1).tolist()
        return [self._detected(row, first) for row, first in zip(probabilities, best, strict=True)]

    def _detected(self, probabilities: np.ndarray, best: int) -> Detected:
        """The most probable language of a window and the next one, of float32 [languages]."""
        codes = self._tokenizer.all_language_codes
        others = probabilities.copy()
        others[best] = 0
        # The first of several that are as probable as each other.
        second = int(others.argmax())
        runner_up = codes[second] if others[second] > 0 else None
        return Detected(codes[best], float(probabilities[best]), runner_up, float(others[second]))
