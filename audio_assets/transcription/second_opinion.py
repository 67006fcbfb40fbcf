"""A second model's text beside each transcript, and how far the two agree.

Two models that were trained apart rarely make up the same words. So where their texts agree they are most
likely right, and selecting by agreement is how large sets of speech are cleaned (Granary,
https://arxiv.org/abs/2505.13404).
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from audio_assets.evidence.text import WITHOUT_BLANKS
from audio_assets.transcription.transcript import SecondOpinion, Transcript

K = TypeVar("K")
Transcribe = Callable[[Iterable[tuple[int, np.ndarray]]], Iterator[tuple[int, Transcript | Exception]]]
# What the second model hears before the first one does: enough to fill its batches, and 38 MB of samples.
CLIPS_AT_ONCE = 256
SAMPLES_AT_ONCE = 600 * 16_000


def with_second_opinion(
    audio: Iterable[tuple[K, np.ndarray]], first: Transcribe, second: Transcribe
) -> Iterator[tuple[K, Transcript | Exception]]:
    """Transcripts of the first model, each with the second one's text; as `Transcriber.transcribe`.

    A clip's samples are held until both have them. A clip that the second model fails on has no opinion.
    """
    turns = itertools.count()
    keys: dict[int, K] = {}
    opinions: dict[int, Transcript | Exception] = {}

    def heard() -> Iterator[tuple[int, np.ndarray]]:
        for clips in _groups(audio):
            numbered = list(zip(itertools.islice(turns, len(clips)), clips, strict=True))
            opinions.update(second((turn, samples) for turn, (_, samples) in numbered))
            for turn, (key, samples) in numbered:
                keys[turn] = key
                yield turn, samples

    for turn, transcript in first(heard()):
        opinion = opinions.pop(turn)
        if isinstance(transcript, Transcript) and isinstance(opinion, Transcript):
            rate = word_error_rate(transcript.text, opinion.text, transcript.language)
            said = SecondOpinion(opinion.text, rate)
            transcript = dataclasses.replace(transcript, second_opinion=said)
        yield keys.pop(turn), transcript


def word_error_rate(text: str, other: str, language: str) -> float | None:
    """Words to substitute, insert and delete to get from a text to another one, for each word of the text.

    Both are normalised as in the evaluations of Whisper (Radford et al. 2022, appendix C): case and
    punctuation do not count, nor does the spelling of English numbers. In languages that are written without
    blanks a word is a letter.

    Returns:
        0 where neither has words, None where the other one alone has some.
    """
    if text == other:
        # Most texts are, and the numbers of English take a millisecond to normalise.
        return 0.0
    import jiwer

    normalise = _normaliser(language)
    words = normalise(text).split()
    others = normalise(other).split()
    if not words:
        return None if others else 0.0
    return jiwer.wer(" ".join(words), " ".join(others))


@functools.cache
def _normaliser(language: str) -> Callable[[str], str]:
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

    if language == "en":
        return EnglishTextNormalizer()
    return BasicTextNormalizer(split_letters=language in WITHOUT_BLANKS)


def _groups(audio: Iterable[tuple[K, np.ndarray]]) -> Iterator[list[tuple[K, np.ndarray]]]:
    """The clips in groups, each of which ends where it reaches a limit."""
    group: list[tuple[K, np.ndarray]] = []
    samples = 0
    for clip in audio:
        group.append(clip)
        samples += np.size(clip[1])
        if len(group) >= CLIPS_AT_ONCE or samples >= SAMPLES_AT_ONCE:
            yield group
            group = []
            samples = 0
    if group:
        yield group
