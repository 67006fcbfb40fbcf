"""Evidence of a text: how fast it is spoken, how much it repeats itself, and whether it looks made up.

The flags are those of NeMo Curator's `WhisperHallucinationStage` and of `DetectWhisperHallucinationFeatures`
in NeMo Speech Data Processor, by which Granary was filtered, with their limits. Both take a file of phrases;
here a few phrases stand that Whisper is known to say over silence.
"""

import dataclasses

LEAST_UNIQUE_RATIO = 0.4
LONG_WORD = 25
LONG_COMPOUND = 35
LONGER_THAN_NEXT = 3.0
MOST_CHARACTERS_PER_S = 40.0
SHORTEST_PREFIX = 8

COMPOUNDING = frozenset({"fi", "hu", "et", "de", "nl", "da", "sv", "no"})
"""Languages of long words, as NeMo Curator lists them."""
WITHOUT_BLANKS = frozenset({"zh", "ja", "th", "lo", "my", "yue", "km", "bo"})
"""Languages that are written without blanks, whose words are not counted: those of `whisper.tokenizer` and
NeMo Curator."""

PHRASES = (
    "Thank you for watching",
    "Thanks for watching",
    "Thank you so much for watching",
    "Please subscribe",
    "Subtitles by the Amara.org community",
    "Sous-titres réalisés par la communauté d'Amara.org",
    "Sous-titrage Société Radio-Canada",
    "Untertitel der Amara.org-Community",
    "Untertitel im Auftrag des ZDF",
    "Subtítulos realizados por la comunidad de Amara.org",
    "ご視聴ありがとうございました",
    "字幕由Amara.org社区提供",
)
"""What Whisper says over silence and noise, as its users report it (openai/whisper, discussion 928)."""

REPEATED_NGRAMS = "repeated_ngrams"
LONG_WORD_FLAG = "long_word"
PHRASE_MATCH = "phrase_match"
HIGH_CHAR_RATE = "high_char_rate"
HALLUCINATION_FLAGS = (REPEATED_NGRAMS, LONG_WORD_FLAG, PHRASE_MATCH, HIGH_CHAR_RATE)
"""The values in `hallucination_flags`, by NeMo Curator's names."""


@dataclasses.dataclass(frozen=True)
class TextEvidence:
    """Each attribute is a column; None where the text has no words that can be counted.

    Attributes:
        characters_per_second: characters of its words, without blanks, for each second of audio.
        words_per_second: words for each second of audio.
        unique_word_ratio: distinct words over words.
        longest_word_length: characters of its longest word.
        hallucination_flags: of `HALLUCINATION_FLAGS`, those that hold.
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
    characters = sum(map(len, words))
    counted = words if language not in WITHOUT_BLANKS else []
    flags = {
        REPEATED_NGRAMS: bool(counted) and len(set(counted)) / len(counted) <= LEAST_UNIQUE_RATIO,
        LONG_WORD_FLAG: bool(counted) and _has_long_word(counted, compounding=language in COMPOUNDING),
        PHRASE_MATCH: _is_phrase(text),
        HIGH_CHAR_RATE: characters / duration_s > MOST_CHARACTERS_PER_S,
    }
    return TextEvidence(
        characters_per_second=characters / duration_s,
        words_per_second=len(counted) / duration_s if counted or not words else None,
        unique_word_ratio=len(set(counted)) / len(counted) if counted else None,
        longest_word_length=max(map(len, counted), default=None),
        hallucination_flags=tuple(name for name in HALLUCINATION_FLAGS if flags[name]),
    )


def _has_long_word(words: list[str], *, compounding: bool) -> bool:
    *_, longest = lengths = sorted(map(len, words))
    if compounding:
        return longest >= LONG_COMPOUND
    if longest >= LONG_WORD:
        return True
    return len(lengths) > 1 and (longest - lengths[-2]) / lengths[-2] >= LONGER_THAN_NEXT


def _is_phrase(text: str) -> bool:
    """Whether a text is a phrase, or begins with one of at least `SHORTEST_PREFIX` characters."""
    spoken = _without_stops(text)
    return any(
        spoken == phrase or (len(phrase) >= SHORTEST_PREFIX and spoken.startswith(phrase))
        for phrase in map(_without_stops, PHRASES)
    )


def _without_stops(text: str) -> str:
    return text.strip().translate(str.maketrans("", "", ".?!"))
