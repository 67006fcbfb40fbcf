"""`whisper.transcribe` for one file, written as a generator that asks for decodes instead of running them.

Long-form transcription (Radford et al. 2022, https://arxiv.org/abs/2212.04356, sections 3.8 and 4.5) goes
through a file in windows of up to 30 s. What it asks for next depends on what it heard last. Because it is a
generator, many files can take their steps side by side, and their decodes run as one batch. The rules follow
`whisper/transcribe.py`, line by line; what words change of them stands in `words`.

No model code here: torch and whisper are imported for their types alone.
"""

import dataclasses
import math
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audio_assets.transcription import words
from audio_assets.transcription.transcribe_options import DEFAULTS, TranscribeOptions
from audio_assets.transcription.transcript import Segment, Transcript
from audio_assets.transcription.words import Aligned, Heard, Span, in_language

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.tokenizer import Tokenizer

    from audio_assets.transcription.mel import LogMel

# As in whisper/audio.py.
FRAMES_PER_SECOND = 100
WINDOW_FRAMES = 3000
# Above this temperature the text is too wild to be the prompt of the next window.
PROMPT_RESET_TEMPERATURE = 0.5
FRAMES_PER_TIMESTAMP = 2
SECONDS_PER_TIMESTAMP = FRAMES_PER_TIMESTAMP / FRAMES_PER_SECOND


@dataclass(eq=False)
class Window:
    """Up to 30 s of a file, which several requests may share.

    Attributes:
        mel: what the encoder is given, float32 [n_mels, 3000].
        encoding: what it said, `dtype` [1500, n_state]; kept here, so that a window is encoded once.
    """

    mel: "Tensor"
    encoding: "Tensor | None" = None


@dataclass(frozen=True, eq=False)
class DetectLanguage:
    """Asks for the language of a window; the answer is a `Detected`."""

    window: Window


@dataclass(frozen=True)
class Detected:
    """The two most probable languages of a window, as codes, each with its probability to four decimals.

    There is no runner-up where every other language's probability is 0 by that.
    """

    language: str
    probability: float
    runner_up: str | None
    runner_up_probability: float


@dataclass(frozen=True, eq=False)
class Decode:
    """Asks for the text of a window, given the text before it; the answer is a `Decoded`.

    Attributes:
        beam_size: how many texts a beam search keeps, at temperature 0; None for the most probable token.
        patience: of the beam search, as `TranscribeOptions` has it.
        samples: how many texts are drawn, of which the best is kept.
    """

    window: Window
    language: str
    prompt: tuple[int, ...]
    temperature: float
    beam_size: int | None = None
    patience: float | None = None
    samples: int = 1

    @property
    def rows(self) -> int:
        """How many texts are decoded side by side."""
        return self.beam_size or self.samples


@dataclass(frozen=True, eq=False)
class Align:
    """Asks when each token of a window's text was said; the answer is an `Aligned`.

    Attributes:
        tokens: of the text, at least one, without timestamps.
        frames: of audio in the window.
    """

    window: Window
    language: str
    tokens: tuple[int, ...]
    frames: int


@dataclass(frozen=True)
class Decoded:
    """Sampled tokens without end-of-text, and Whisper's figures for them (`whisper.DecodingResult`).

    Attributes:
        margin: the least of the tokens' margins, as `Sampler.choose` gives them; infinity where there are
            none.
    """

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    margin: float = math.inf

    @property
    def compression_ratio(self) -> float:
        """UTF-8 bytes over zlib bytes of the text; high where it repeats itself."""
        text = self.text.encode()
        return len(text) / len(zlib.compress(text))


Request = DetectLanguage | Decode | Align
Answer = Detected | Decoded | Aligned
LongForm = Generator[Request, Any, Transcript]


def transcribe_windows(
    mel: "LogMel", tokenizer: "Tokenizer", language: str | None, options: TranscribeOptions = DEFAULTS
) -> LongForm:
    """Transcribe one file: yields requests, is sent their answers, returns the transcript.

    Args:
        mel: the file's spectrogram.
        tokenizer: the model's, in any language.
        language: a code such as `en`, or None to detect it.
        options: those of `whisper.transcribe`.
    """
    window = Window(mel.window(0))
    detected: Detected | None = None
    if language is None:
        detected = yield from _detect_language(mel, window, options)
        language = detected.language
    given = []
    if options.initial_prompt is not None:
        given = tokenizer.encode(" " + options.initial_prompt.strip())
    tokens = list(given)
    prompt_start = 0
    segments: list[Segment] = []
    figures = _Figures(options)
    seek = 0
    silence_s = options.hallucination_silence_threshold
    spoken_s = 0.0
    while seek < mel.content_frames:
        size = min(WINDOW_FRAMES, mel.content_frames - seek)
        window = Window(mel.window(seek)) if seek else window
        prompt = tuple(tokens[prompt_start:])
        result = yield from _decode_with_fallback(window, language, prompt, options)
        if _is_silent(result, options):
            figures.add(result, size, skipped=True)
            seek += size
            continue
        heard, advance = _segments(result.tokens, seek, size, tokenizer)
        if options.word_timestamps:
            aligned = yield from _align(heard, window, language, size, tokenizer)
            span = Span(seek, size, mel.content_frames, _ends_with_single(result.tokens, tokenizer))
            next_seek = seek + advance
            kept, next_seek, spoken_s = words.place(
                heard, aligned, in_language(tokenizer, language), span, next_seek, spoken_s, silence_s
            )
            advance = next_seek - seek
            if kept is None:
                figures.add(result, advance, skipped=True)
                seek = next_seek
                continue
            heard = kept
        figures.add(result, advance, skipped=False)
        seek += advance
        for segment, its_tokens in _with_text(heard, tokenizer, options):
            segments.append(segment)
            tokens += its_tokens
        if result.temperature > PROMPT_RESET_TEMPERATURE or not options.condition_on_previous_text:
            prompt_start = len(tokens)
    text = tokenizer.decode(tokens[len(given) :])
    return figures.transcript(text, language, tuple(segments), detected)


def _detect_language(
    mel: "LogMel", first: Window, options: TranscribeOptions
) -> Generator[Request, Any, Detected]:
    """The language of a file, by a window of its own only where the first one leaves it open.

    `whisper.transcribe` detects it on audio that is padded with silence, and transcribes a spectrogram that
    is padded with 0.0. From 30 s on the two are the same.
    """
    certain_from = options.language_detection_threshold
    if mel.content_frames >= WINDOW_FRAMES:
        certain_from = 0.0
    if certain_from is not None:
        detected: Detected = yield DetectLanguage(first)
        if detected.probability >= certain_from:
            return detected
    return (yield DetectLanguage(Window(mel.language_window())))


def _decode_with_fallback(
    window: Window, language: str, prompt: tuple[int, ...], options: TranscribeOptions
) -> Generator[Request, Any, Decoded]:
    """Decode at rising temperatures until the text is neither repetitive nor improbable, or is silence."""
    result: Decoded = yield _decode(window, language, prompt, options.temperatures[0], options)
    for temperature in options.temperatures[1:]:
        if not _has_failed(result, options):
            break
        result = yield _decode(window, language, prompt, temperature, options)
    return result


def _decode(
    window: Window, language: str, prompt: tuple[int, ...], temperature: float, options: TranscribeOptions
) -> Decode:
    """A beam is for temperature 0, several samples for those above it."""
    decode = Decode(window, language, prompt, temperature)
    if temperature == 0:
        return dataclasses.replace(decode, beam_size=options.beam_size, patience=options.patience)
    return dataclasses.replace(decode, samples=options.best_of or 1)


def _has_failed(result: Decoded, options: TranscribeOptions) -> bool:
    most_repetitive = options.compression_ratio_threshold
    repetitive = most_repetitive is not None and result.compression_ratio > most_repetitive
    improbable = options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold
    unheard = options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold
    return (repetitive or improbable) and not (improbable and unheard)


def _is_silent(result: Decoded, options: TranscribeOptions) -> bool:
    """Whether nobody speaks in a window, and its text is not so probable that somebody must."""
    if options.no_speech_threshold is None:
        return False
    probable = options.logprob_threshold is not None and result.avg_logprob > options.logprob_threshold
    return result.no_speech_prob > options.no_speech_threshold and not probable


def _align(
    heard: list[Heard], window: Window, language: str, size: int, tokenizer: "Tokenizer"
) -> Generator[Request, Any, Aligned | None]:
    """When the tokens of a window's segments were said; None where they have no text."""
    tokens = tuple(t for segment in heard for t in segment.text_tokens(tokenizer))
    if not tokens:
        return None
    return (yield Align(window, language, tokens, size))


def _ends_with_single(tokens: tuple[int, ...], tokenizer: "Tokenizer") -> bool:
    return [t >= tokenizer.timestamp_begin for t in tokens[-2:]] == [False, True]


def _with_text(
    heard: list[Heard], tokenizer: "Tokenizer", options: TranscribeOptions
) -> Iterator[tuple[Segment, tuple[int, ...]]]:
    """The segments that last and have text, each with its tokens."""
    for segment in heard:
        text = tokenizer.decode(segment.text_tokens(tokenizer))
        if segment.start != segment.end and text.strip():
            timed = segment.frozen_words() if options.word_timestamps else None
            yield Segment(segment.start, segment.end, text, timed), segment.tokens


def _segments(
    tokens: tuple[int, ...], seek: int, size: int, tokenizer: "Tokenizer"
) -> tuple[list[Heard], int]:
    """As `split`, with the segments' times from the start of the file."""
    pieces, advance = split(tokens, size, tokenizer)
    start_s = seek / FRAMES_PER_SECOND
    return [Heard(start_s + p.start_s, start_s + p.end_s, p.tokens) for p in pieces], advance


@dataclass(frozen=True)
class Piece:
    """Tokens of one segment, its timestamps included; seconds from the start of the window."""

    start_s: float
    end_s: float
    tokens: tuple[int, ...]


def split(tokens: tuple[int, ...], size: int, tokenizer: "Tokenizer") -> tuple[list[Piece], int]:
    """Cut a window's tokens into segments, and say how many frames to move on.

    A pair of timestamps side by side ends one segment and starts the next. Tokens after the last pair are an
    unfinished segment: they are dropped and the next window starts at that pair, unless a single timestamp
    at the end says that no speech follows it.

    Args:
        tokens: a window's sampled tokens.
        size: frames of audio in the window.
    """
    zero = tokenizer.timestamp_begin
    stamped = [t >= zero for t in tokens]
    cuts = [i for i in range(1, len(tokens)) if stamped[i - 1] and stamped[i]]
    if not cuts:
        return [Piece(0.0, _end_of_only_segment(tokens, size, zero), tokens)], size
    if _ends_with_single(tokens, tokenizer):
        cuts.append(len(tokens))
    pieces = []
    for begin, end in zip([0, *cuts], cuts, strict=False):
        part = tokens[begin:end]
        start_s = (part[0] - zero) * SECONDS_PER_TIMESTAMP
        end_s = (part[-1] - zero) * SECONDS_PER_TIMESTAMP
        pieces.append(Piece(start_s, end_s, part))
    if _ends_with_single(tokens, tokenizer):
        return pieces, size
    return pieces, (tokens[cuts[-1] - 1] - zero) * FRAMES_PER_TIMESTAMP


def _end_of_only_segment(tokens: tuple[int, ...], size: int, zero: int) -> float:
    """Seconds at the last timestamp, or at the window's end where there is none that says anything."""
    stamps = [t for t in tokens if t >= zero]
    if stamps and stamps[-1] != zero:
        return (stamps[-1] - zero) * SECONDS_PER_TIMESTAMP
    return size / FRAMES_PER_SECOND


@dataclass
class _Figures:
    """Gathers the windows' figures into the file's; `Transcript` says how."""

    options: TranscribeOptions
    windows: list[tuple[Decoded, int, bool]] = field(default_factory=list)

    def add(self, result: Decoded, frames: int, *, skipped: bool) -> None:
        self.windows.append((result, frames, skipped))

    def transcript(
        self, text: str, language: str, segments: tuple[Segment, ...], detected: Detected | None
    ) -> Transcript:
        return Transcript(
            text,
            language,
            **self._of_file(),
            segments=segments,
            **_of_language(detected),
            logit_margin=self._margin(detected),
        )

    def _margin(self, detected: Detected | None) -> float:
        if self.options.logit_margin_threshold is None:
            return math.inf
        margins = [_margin(result, self.options) for result, _, _ in self.windows]
        if detected is not None and detected.runner_up is not None:
            margins.append(math.log(detected.probability / detected.runner_up_probability))
        return min(margins, default=math.inf)

    def _of_file(self) -> dict[str, float]:
        all_windows = [result for result, _, _ in self.windows]
        heard = [result for result, _, skipped in self.windows if not skipped] or all_windows
        return {
            # A window's avg_logprob is its sum over n + 1: end-of-text counts too.
            "avg_logprob": _mean([(r.avg_logprob, len(r.tokens) + 1) for r in heard]),
            "no_speech_prob": _mean([(r.no_speech_prob, frames) for r, frames, _ in self.windows]),
            "compression_ratio": max((r.compression_ratio for r in heard), default=math.nan),
            "temperature": max((r.temperature for r in heard), default=math.nan),
            "worst_avg_logprob": min((r.avg_logprob for r in heard), default=math.nan),
            "worst_no_speech_prob": max((r.no_speech_prob for r in all_windows), default=math.nan),
            "sampled_share": _mean([(float(r.temperature > 0), 1) for r in all_windows]),
        }


def _margin(result: Decoded, options: TranscribeOptions) -> float:
    """How close a window came to another text: by its tokens, or by a threshold of its figures."""
    if result.temperature > 0:
        # What is drawn at random may change with any rounding.
        return 0.0
    margins = [result.margin]
    if options.logprob_threshold is not None:
        margins.append(abs(result.avg_logprob - options.logprob_threshold))
        improbable = result.avg_logprob < options.logprob_threshold
        if improbable and options.no_speech_threshold is not None:
            margins.append(abs(result.no_speech_prob - options.no_speech_threshold))
    return min(margins)


def _of_language(detected: Detected | None) -> dict[str, Any]:
    """What a transcript says of the language; nothing where it was given."""
    if detected is None:
        return {}
    return {
        "language_probability": detected.probability,
        "runner_up_language": detected.runner_up,
        "runner_up_language_probability": detected.runner_up_probability,
    }


def _mean(weighted: list[tuple[float, int]]) -> float:
    if len(weighted) == 1:
        return weighted[0][0]
    total = sum(w for _, w in weighted)
    return sum(v * w for v, w in weighted) / total if total else math.nan
