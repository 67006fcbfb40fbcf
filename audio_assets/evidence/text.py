"""Evidence of a text: how fast it is spoken, and how much it repeats itself."""

import dataclasses

from audio_assets.evidence.hallucination import hallucination_flags

WITHOUT_BLANKS = frozenset({"zh", "ja", "th", "lo", "my", "yue", "km", "bo"})
"""Languages that are written without blanks, whose words are not counted: those of `whisper.tokenizer` and
NeMo Curator."""


@dataclasses.dataclass(frozen=True)
class TextEvidence:
    """Each attribute is a column; None where the text has no words that can be counted.

    Attributes:
        characters_per_second: characters of its words, without blanks, for each second of audio.
        words_per_second: words for each second of audio.
        unique_word_ratio: distinct words over words.
        longest_word_length: characters of its longest word.
        hallucination_flags: those of `hallucination.HALLUCINATION_FLAGS` that hold.
    """

    characters_per_second: float | None
    words_per_second: float | None
    unique_word_ratio: float | None
    longest_word_length: int | None
    hallucination_flags: tuple[str, ...]


def text_evidence(text: str, language: str | None, duration_s: float) -> TextEvidence:
    """The evidence of a text.

    Args:
        text: as it is heard; words are what blanks divide.
        language: its code, which says whether words can be counted.
        duration_s: of the audio; above 0.
    """
    words = text.split()
    characters_per_second = sum(map(len, words)) / duration_s
    counted = words if language not in WITHOUT_BLANKS else []
    return TextEvidence(
        characters_per_second=characters_per_second,
        words_per_second=len(counted) / duration_s if counted or not words else None,
        unique_word_ratio=len(set(counted)) / len(counted) if counted else None,
        longest_word_length=max(map(len, counted), default=None),
        hallucination_flags=hallucination_flags(text, counted, characters_per_second, language),
    )
