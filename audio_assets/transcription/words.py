"""When each word was said: from the tokens' times to words, and what follows from words for the next window.

The rules follow `whisper/timing.py` and the word timestamps of `whisper/transcribe.py`, line by line and in
the order of their floating-point operations. The tokens' times themselves come from `alignment`. Plain
Python: torch and whisper are imported for their types alone.
"""

import copy
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from audio_assets.transcription.transcript import Word

if TYPE_CHECKING:
    from whisper.tokenizer import Tokenizer

# As in whisper/audio.py and whisper/transcribe.py.
TOKENS_PER_SECOND = 50
FRAMES_PER_SECOND = 100
WINDOW_S = 30.0
SENTENCE_ENDS = ".。!！?？"
PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"
LONGEST_MEDIAN_S = 0.7


@dataclass(frozen=True)
class Aligned:
    """Where a window's text tokens lie in its audio.

    Attributes:
        starts: where each token starts, and at last where the text ends, in 20 ms from the window's start.
        probabilities: of each token, given the ones before it, among all that are text.
    """

    starts: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass
class TimedWord:
    """A word whose times are being decided, in seconds; merged into another, its text becomes empty."""

    word: str
    tokens: list[int]
    start: float
    end: float
    probability: float


@dataclass
class Heard:
    """A segment whose times are being decided, in seconds from the start of the file."""

    start: float
    end: float
    tokens: tuple[int, ...]
    words: list[TimedWord] = field(default_factory=list)

    def text_tokens(self, tokenizer: "Tokenizer") -> list[int]:
        """Its tokens but for timestamps."""
        return [t for t in self.tokens if t < tokenizer.eot]

    def frozen_words(self) -> tuple[Word, ...]:
        return tuple(Word(w.word, w.start, w.end, w.probability) for w in self.words)


@dataclass(frozen=True)
class Span:
    """A window's place in its file.

    Attributes:
        seek: its first frame of 10 ms.
        size: its frames of audio.
        content_frames: those of the file.
        ends_with_single: whether its text ends with a single timestamp, after which nobody speaks.
    """

    seek: int
    size: int
    content_frames: int
    ends_with_single: bool

    @property
    def start_s(self) -> float:
        return self.seek / FRAMES_PER_SECOND

    @property
    def end_s(self) -> float:
        """Where a window of full length would end."""
        return (self.seek + WINDOW_S * FRAMES_PER_SECOND) / FRAMES_PER_SECOND


def place(
    segments: list[Heard],
    aligned: Aligned | None,
    tokenizer: "Tokenizer",
    span: Span,
    seek: int,
    spoken_s: float,
    silence_s: float | None,
) -> tuple[list[Heard] | None, int, float]:
    """Give a window's segments their words, and say what follows from these.

    Args:
        segments: changed in place.
        aligned: their text tokens; None where there are none.
        tokenizer: the model's, in the language of the text, which says whether words stand between blanks.
        seek: where the next window starts without words.
        spoken_s: until where the file has been heard to speak.
        silence_s: `hallucination_silence_threshold`.

    Returns:
        The segments that stay, None where the window is to be heard again without its leading silence; where
        the next window starts; until where the file has been heard to speak now.
    """
    _add_words(segments, aligned, tokenizer, span.start_s, spoken_s)
    seek = _next_seek(segments, span, seek, silence_s)
    if silence_s is not None:
        frames = _leading_silence(segments, span, silence_s)
        if frames is not None:
            return None, span.seek + frames, spoken_s
        segments, found = _without_hallucination(segments, span, spoken_s, silence_s)
        seek = seek if found is None else found
    end_s = _end_of(segments)
    return segments, seek, spoken_s if end_s is None else end_s


def in_language(tokenizer: "Tokenizer", language: str) -> "Tokenizer":
    """The same tokenizer for another language, as far as words go; one for English alone has no other."""
    if tokenizer.language is None:
        return tokenizer
    other = copy.copy(tokenizer)
    other.language = language
    return other


# --- the words of a window's text -----------------------------------------------------------------------


def _add_words(
    segments: Sequence[Heard],
    aligned: Aligned | None,
    tokenizer: "Tokenizer",
    start_s: float,
    spoken_s: float,
) -> None:
    """Give segments their words, and let them begin and end with these."""
    words = _words_of(segments, aligned, tokenizer) if aligned else []
    durations = [w.end - w.start for w in words if w.end != w.start]
    median = min(LONGEST_MEDIAN_S, float(statistics.median(durations)) if durations else 0.0)
    if durations:
        _shorten_at_sentence_ends(words, 2 * median)
    _merge_punctuation(words)
    waiting = iter(words)
    for segment in segments:
        left = len(segment.text_tokens(tokenizer))
        while left > 0 and (word := next(waiting, None)):
            left -= len(word.tokens)
            if word.word:
                word.start = round(start_s + word.start, 2)
                word.end = round(start_s + word.end, 2)
                segment.words.append(word)
        if segment.words:
            _fit(segment, median, spoken_s)
            spoken_s = segment.end


def _words_of(segments: Sequence[Heard], aligned: Aligned, tokenizer: "Tokenizer") -> list[TimedWord]:
    """The words of all segments, with times from the start of the window."""
    tokens = [t for segment in segments for t in segment.text_tokens(tokenizer)]
    texts, parts = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
    times = [start / TOKENS_PER_SECOND for start in aligned.starts]
    words = []
    first = 0
    # The last one is end-of-text.
    for text, part in zip(texts[:-1], parts[:-1], strict=True):
        last = first + len(part)
        probability = math.fsum(aligned.probabilities[first:last]) / len(part)
        words.append(TimedWord(text, list(part), times[first], times[last], probability))
        first = last
    return words


def _shorten_at_sentence_ends(words: Sequence[TimedWord], longest_s: float) -> None:
    """Take the pause beside the end of a sentence out of the words that it was counted into."""
    for before, word in itertools.pairwise(words):
        if word.end - word.start <= longest_s:
            continue
        if word.word in SENTENCE_ENDS:
            word.end = word.start + longest_s
        elif before.word in SENTENCE_ENDS:
            word.start = word.end - longest_s


def _merge_punctuation(words: Sequence[TimedWord]) -> None:
    """Join punctuation to the word that it belongs to; what is joined is left empty, with its times."""
    following = len(words) - 1
    for i in range(len(words) - 2, -1, -1):
        mark = words[i]
        word = words[following]
        if mark.word.startswith(" ") and mark.word.strip() in PREPENDED:
            word.word = mark.word + word.word
            word.tokens = mark.tokens + word.tokens
            mark.word = ""
            mark.tokens = []
        else:
            following = i
    previous = 0
    for j in range(1, len(words)):
        word = words[previous]
        mark = words[j]
        if not word.word.endswith(" ") and mark.word in APPENDED:
            word.word += mark.word
            word.tokens = word.tokens + mark.tokens
            mark.word = ""
            mark.tokens = []
        else:
            previous = j


def _fit(segment: Heard, median_s: float, spoken_s: float) -> None:
    """Shorten words that hold a pause at the segment's edges, else let it begin and end with its words."""
    _shorten_after_pause(segment.words, median_s, spoken_s)
    first = segment.words[0]
    if segment.start < first.end and segment.start - 0.5 > first.start:
        first.start = max(0, min(first.end - median_s, segment.start))
    else:
        segment.start = first.start
    last = segment.words[-1]
    if segment.end > last.start and segment.end + 0.5 < last.end:
        last.end = max(last.start + median_s, segment.end)
    else:
        segment.end = last.end


def _shorten_after_pause(words: Sequence[TimedWord], median_s: float, spoken_s: float) -> None:
    """The first two words after a pause are at most twice as long as the median."""
    longest_s = 2 * median_s
    first = words[0]
    second = words[1] if len(words) > 1 else None
    if first.end - spoken_s <= 4 * median_s:
        return
    both_long = second is not None and second.end - first.start > 2 * longest_s
    if not both_long and first.end - first.start <= longest_s:
        return
    if second is not None and second.end - second.start > longest_s:
        boundary = max(second.end / 2, second.end - longest_s)
        first.end = boundary
        second.start = boundary
    first.start = max(0, first.end - longest_s)


# --- where the next window starts -----------------------------------------------------------------------


def _end_of(segments: Sequence[Heard]) -> float | None:
    """Seconds at which the last word ends, or the last segment where there is no word."""
    ends = [word.end for segment in segments for word in segment.words]
    if ends:
        return ends[-1]
    return segments[-1].end if segments else None


def _next_seek(segments: Sequence[Heard], span: Span, seek: int, silence_s: float | None) -> int:
    """Where the next window starts: behind the last word, unless nobody speaks behind the last timestamp.

    Args:
        seek: where it would start without words.
        silence_s: `hallucination_silence_threshold`.
    """
    last = _end_of(segments)
    if span.ends_with_single or last is None or last <= span.start_s:
        return seek
    if silence_s is not None and span.end_s - last <= silence_s:
        return span.seek + span.size
    return round(last * FRAMES_PER_SECOND)


def _leading_silence(segments: Sequence[Heard], span: Span, silence_s: float) -> int | None:
    """Frames to skip before a window whose first words are likely made up; None where they are not."""
    first = next((s for s in segments if s.words), None)
    if first is None or not _is_anomaly(first):
        return None
    gap_s = first.start - span.start_s
    return round(gap_s * FRAMES_PER_SECOND) if gap_s > silence_s else None


def _without_hallucination(
    segments: list[Heard], span: Span, spoken_s: float, silence_s: float
) -> tuple[list[Heard], int | None]:
    """The segments up to the first that is likely made up and has silence, or more of its kind, around it.

    Returns:
        The segments, and where the next window starts if one was found.
    """
    for i, segment in enumerate(segments):
        if not segment.words:
            continue
        following = next((s for s in segments[i + 1 :] if s.words), None)
        if _is_anomaly(segment) and _is_alone(segment, following, span, spoken_s, silence_s):
            seek = round(max(span.start_s + 1, segment.start) * FRAMES_PER_SECOND)
            if span.content_frames / FRAMES_PER_SECOND - segment.end < silence_s:
                seek = span.content_frames
            return segments[:i], seek
        spoken_s = segment.end
    return segments, None


def _is_alone(segment: Heard, following: Heard | None, span: Span, spoken_s: float, silence_s: float) -> bool:
    next_start = (
        span.start_s + span.size / FRAMES_PER_SECOND if following is None else following.words[0].start
    )
    before = (
        segment.start - spoken_s > silence_s
        or segment.start < silence_s
        or segment.start - span.start_s < 2.0
    )
    after = (
        next_start - segment.end > silence_s
        or (following is not None and _is_anomaly(following))
        or span.end_s - segment.end < 2.0
    )
    return before and after


def _is_anomaly(segment: Heard) -> bool:
    """Whether a segment's first words are too improbable, short or long to have been said."""
    words = [w for w in segment.words if w.word not in PREPENDED + APPENDED][:8]
    score = sum(map(_anomaly, words))
    return bool(segment.words) and (score >= 3 or score + 0.01 >= len(words))


def _anomaly(word: TimedWord) -> float:
    duration_s = word.end - word.start
    score = 1.0 if word.probability < 0.15 else 0.0
    if duration_s < 0.133:
        score += (0.133 - duration_s) * 15
    if duration_s > 2.0:
        score += duration_s - 2.0
    return score
