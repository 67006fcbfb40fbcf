"""What the recogniser says about one file. No model code here, so that these types cost nothing to import."""

import itertools
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word, as `whisper.transcribe(word_timestamps=True)` gives it.

    Attributes:
        word: with the blank before it, and with the punctuation beside it.
        start_s, end_s: in seconds from the start of the file.
        probability: mean probability of its tokens, its punctuation not included.
    """

    word: str
    start_s: float
    end_s: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between two of Whisper's timestamps, in seconds from the start of the file.

    With word timestamps it starts with its first word and ends with its last one, as Whisper has it.

    Attributes:
        words: None where they were not asked for.
    """

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True)
class SecondOpinion:
    """What a second model hears in the same file.

    Attributes:
        text: as that of a `Transcript`.
        word_error_rate: of the transcript's words against those of `text`, by
            `second_opinion.word_error_rate`; None where only the second model hears words.
    """

    text: str
    word_error_rate: float | None


@dataclass(frozen=True)
class Transcript:
    """The text of one file, and how sure Whisper is of it.

    Whisper computes the four figures for each window of up to 30 s. For a file of one window they are that
    window's. For a longer file they are, so that a filter on a table finds files with one bad window:

    Attributes:
        text: as `whisper.transcribe(...)["text"]`, with the leading space that Whisper's tokens carry.
        language: code of the language that was given or detected, e.g. `en`.
        avg_logprob: mean natural-log probability of a token, over all windows that were not skipped as
            silence (over all windows, if all were).
        no_speech_prob: probability of `<|nospeech|>`, mean over windows, weighted by the audio that each
            accounts for.
        compression_ratio: UTF-8 bytes over zlib bytes of a window's text, the highest of all windows.
        temperature: the highest temperature that a window's text was sampled at; 0.0 is greedy.
        segments: with start and end as Whisper gives them.
        language_probability: of the detected language; NaN where the language was given.
        runner_up_language: the second most probable language; None where the language was given, or no other
            one is probable.
        runner_up_language_probability: its probability; NaN where the language was given.
        worst_avg_logprob: the lowest of a window that was not skipped as silence (of any, if all were).
        worst_no_speech_prob: the highest of a window.
        sampled_share: share of the windows whose text was sampled, above temperature 0.
        second_opinion: None where no second model was asked.
        logit_margin: how close the text came to being another. The least lead of a token that was chosen over
            the next one, in logits; or of the language, as the logarithm of both probabilities' ratio; or the
            least distance of a window's figures from the thresholds that they passed or failed. 0.0 where a
            window's text was sampled, infinity where it was not asked for (`logit_margin_threshold`).

    A file of less than one frame (10 ms) has no window: empty text, and NaN for the figures.
    """

    text: str
    language: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    segments: tuple[Segment, ...]
    language_probability: float = math.nan
    runner_up_language: str | None = None
    runner_up_language_probability: float = math.nan
    worst_avg_logprob: float = math.nan
    worst_no_speech_prob: float = math.nan
    sampled_share: float = math.nan
    second_opinion: SecondOpinion | None = None
    logit_margin: float = math.inf

    @property
    def words(self) -> tuple[Word, ...] | None:
        """Those of all segments; None where they were not asked for, or where no segment is."""
        words = [segment.words for segment in self.segments if segment.words is not None]
        return tuple(itertools.chain.from_iterable(words)) if words else None


@dataclass
class Stats:
    """What a `Transcriber` has done since it was loaded; seconds are wall-clock seconds of each stage."""

    files: int = 0
    audio_s: float = 0.0
    windows: int = 0
    tokens: int = 0
    fallbacks: int = 0
    """decodes at a temperature above 0, because a threshold failed"""
    halvings: int = 0
    """batches that ran out of memory and were cut in half"""
    mel_s: float = 0.0
    encode_s: float = 0.0
    language_s: float = 0.0
    decode_s: float = 0.0
    align_s: float = 0.0
    """where word timestamps are asked for"""
    second_s: float = 0.0
    """of the second model, where there is one"""
    float32_s: float = 0.0
    """of the files that were transcribed once more at float32, where `logit_margin_threshold` asks for it"""
    float32_files: int = 0
    """how many they were"""

    @property
    def busy_s(self) -> float:
        """Seconds inside the engine, waiting for audio not included."""
        own_s = self.mel_s + self.encode_s + self.language_s + self.decode_s + self.align_s
        return own_s + self.second_s + self.float32_s
