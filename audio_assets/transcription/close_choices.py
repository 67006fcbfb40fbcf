"""Half precision for all files, and float32 once more for those whose choices it may have tipped.

Rounding changes a text only where two tokens are about as probable. How close each choice was is known once
the text is there (`Transcript.logit_margin`), so that only the files with a close one cost a second pass. To
ask a dearer model where a cheaper one is unsure is a *cascade* (for language models Chen et al. 2023,
"FrugalGPT", https://arxiv.org/abs/2305.05176).
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from audio_assets.transcription.second_opinion import Transcribe
from audio_assets.transcription.transcript import Transcript

K = TypeVar("K")
# What is heard again at a time: enough to fill a batch, and 38 MB of samples.
FILES_AT_ONCE = 64
SAMPLES_AT_ONCE = 600 * 16_000


def with_close_choices_again(
    audio: Iterable[tuple[K, np.ndarray]], half: Transcribe, full: Transcribe, threshold: float
) -> Iterator[tuple[K, Transcript | Exception]]:
    """Transcripts of `half`, but those of `full` where a choice was closer than `threshold`; as
    `Transcriber.transcribe`.

    A file's samples are held until it is clear that nobody hears them again.
    """
    held: dict[int, tuple[K, np.ndarray]] = {}
    close: dict[int, np.ndarray] = {}

    def heard() -> Iterator[tuple[int, np.ndarray]]:
        for turn, (key, samples) in enumerate(audio):
            held[turn] = key, samples
            yield turn, samples

    def again() -> Iterator[tuple[K, Transcript | Exception]]:
        for turn, transcript in full(close.items()):
            yield held.pop(turn)[0], transcript
        close.clear()

    for turn, transcript in half(heard()):
        if not isinstance(transcript, Transcript) or transcript.logit_margin >= threshold:
            yield held.pop(turn)[0], transcript
            continue
        close[turn] = held[turn][1]
        if len(close) >= FILES_AT_ONCE or sum(map(len, close.values())) >= SAMPLES_AT_ONCE:
            yield from again()
    if close:
        yield from again()
