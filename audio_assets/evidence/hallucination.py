"""Whether a text looks made up, by its repetition, its words and its rate: the column `hallucination_flags`.

The flags are those of NeMo Curator's `WhisperHallucinationStage` and of `DetectWhisperHallucinationFeatures`
in NeMo Speech Data Processor, by which Granary was filtered, with their limits. Both take a file of phrases;
here a few phrases stand that Whisper is known to say over silence.
"""

from collections.abc import Sequence

LEAST_UNIQUE_RATIO = 0.4
LONG_WORD = 25
LONG_COMPOUND = 35
LONGER_THAN_NEXT = 3.0
MOST_CHARACTERS_PER_S = 40.0
SHORTEST_PREFIX = 8

COMPOUNDING = frozenset({"fi", "hu", "et", "de", "nl", "da", "sv", "no"})
"""Languages of long words, as NeMo Curator lists them."""

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


def hallucination_flags(
    text: str, words: Sequence[str], characters_per_second: float, language: str | None
) -> tuple[str, ...]:
    """Those of `HALLUCINATION_FLAGS` that hold.

    Args:
        words: of the text, as far as they can be counted in its language.
        language: its code, which says how long words may be.
    """
    holds = {
        REPEATED_NGRAMS: bool(words) and len(set(words)) / len(words) <= LEAST_UNIQUE_RATIO,
        LONG_WORD_FLAG: bool(words) and _has_long_word(words, compounding=language in COMPOUNDING),
        PHRASE_MATCH: _is_phrase(text),
        HIGH_CHAR_RATE: characters_per_second > MOST_CHARACTERS_PER_S,
    }
    return tuple(name for name in HALLUCINATION_FLAGS if holds[name])


def _has_long_word(words: Sequence[str], *, compounding: bool) -> bool:
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
