"""`whisper.transcribe` for one file, written as a generator that asks for decodes instead of running them.

Long-form transcription (Radford et al. 2022, https://arxiv.org/abs/2212.04356, sections 3.8 and 4.5) goes
through a file in windows of up to 30 s. What it asks for next depends on what it heard last. Because it is a
generator, many files can take their steps side by side, and their decodes run as one batch. The rules follow
`whisper/transcribe.py` at its default settings, line by line.

No model code here: torch and whisper are imported for their types alone.
"""

import math
import zlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from audio_assets.transcription.transcript import Segment, Transcript

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.tokenizer import Tokenizer

    from audio_assets.transcription.mel import LogMel

# As in whisper/audio.py.
FRAMES_PER_SECOND = 100
WINDOW_FRAMES = 3000
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
COMPRESSION_RATIO_THRESHOLD = 2.4
LOGPROB_THRESHOLD = -1.0
NO_SPEECH_THRESHOLD = 0.6
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
    """Asks for the language of a window; the answer is its code."""

    window: Window


@dataclass(frozen=True, eq=False)
class Decode:
    """Asks for the text of a window, given the text before it; the answer is a `Decoded`."""

    window: Window
    language: str
    prompt: tuple[int, ...]
    temperature: float


@dataclass(frozen=True)
class Decoded:
    """Sampled tokens without end-of-text, and Whisper's figures for them (`whisper.DecodingResult`)."""

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float

    @property
    def compression_ratio(self) -> float:
        """UTF-8 bytes over zlib bytes of the text; high where it repeats itself."""
        text = self.text.encode()
        return len(text) / len(zlib.compress(text))


Request = DetectLanguage | Decode
LongForm = Generator[Request, Any, Transcript]


def transcribe_windows(mel: "LogMel", tokenizer: "Tokenizer", language: str | None) -> LongForm:
    """Transcribe one file: yields requests, is sent their answers, returns the transcript.

    Args:
        mel: the file's spectrogram.
        tokenizer: the model's, in any language.
        language: a code such as `en`, or None to detect it.
    """
    if language is None:
        detected: str = yield DetectLanguage(Window(mel.language_window()))
        language = detected
    tokens: list[int] = []
    prompt_start = 0
    segments: list[Segment] = []
    figures = _Figures()
    seek = 0
    while seek < mel.content_frames:
        size = min(WINDOW_FRAMES, mel.content_frames - seek)
        result = yield from _decode_with_fallback(
            Window(mel.window(seek)), language, tuple(tokens[prompt_start:])
        )
        silent = result.no_speech_prob > NO_SPEECH_THRESHOLD and not result.avg_logprob > LOGPROB_THRESHOLD
        if silent:
            figures.add(result, size, skipped=True)
            seek += size
            continue
        pieces, advance = split(result.tokens, size, tokenizer)
        figures.add(result, advance, skipped=False)
        for piece in pieces:
            text = tokenizer.decode([t for t in piece.tokens if t < tokenizer.eot])
            start_s = seek / FRAMES_PER_SECOND + piece.start_s
            end_s = seek / FRAMES_PER_SECOND + piece.end_s
            if start_s == end_s or not text.strip():
                continue
            segments.append(Segment(start_s, end_s, text))
            tokens += piece.tokens
        seek += advance
        if result.temperature > PROMPT_RESET_TEMPERATURE:
            prompt_start = len(tokens)
    return figures.transcript(tokenizer.decode(tokens), language, tuple(segments))


def _decode_with_fallback(
    window: Window, language: str, prompt: tuple[int, ...]
) -> Generator[Request, Any, Decoded]:
    """Decode at rising temperatures until the text is neither repetitive nor improbable, or is silence."""
    result: Decoded = yield Decode(window, language, prompt, TEMPERATURES[0])
    for temperature in TEMPERATURES[1:]:
        repetitive = result.compression_ratio > COMPRESSION_RATIO_THRESHOLD
        improbable = result.avg_logprob < LOGPROB_THRESHOLD
        silence = improbable and result.no_speech_prob > NO_SPEECH_THRESHOLD
        if silence or not (repetitive or improbable):
            break
        result = yield Decode(window, language, prompt, temperature)
    return result


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
    ends_with_single = stamped[-2:] == [False, True]
    if not cuts:
        return [Piece(0.0, _end_of_only_segment(tokens, size, zero), tokens)], size
    if ends_with_single:
        cuts.append(len(tokens))
    pieces = []
    for begin, end in zip([0, *cuts], cuts, strict=False):
        part = tokens[begin:end]
        start_s = (part[0] - zero) * SECONDS_PER_TIMESTAMP
        end_s = (part[-1] - zero) * SECONDS_PER_TIMESTAMP
        pieces.append(Piece(start_s, end_s, part))
    if ends_with_single:
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

    windows: list[tuple[Decoded, int, bool]] = field(default_factory=list)

    def add(self, result: Decoded, frames: int, *, skipped: bool) -> None:
        self.windows.append((result, frames, skipped))

    def transcript(self, text: str, language: str, segments: tuple[Segment, ...]) -> Transcript:
        results = [r for r, _, skipped in self.windows if not skipped] or [r for r, _, _ in self.windows]
        return Transcript(
            text=text,
            language=language,
            # A window's avg_logprob is its sum over n + 1: end-of-text counts too.
            avg_logprob=_mean([(r.avg_logprob, len(r.tokens) + 1) for r in results]),
            no_speech_prob=_mean([(r.no_speech_prob, frames) for r, frames, _ in self.windows]),
            compression_ratio=max((r.compression_ratio for r in results), default=math.nan),
            temperature=max((r.temperature for r in results), default=math.nan),
            segments=segments,
        )


def _mean(weighted: list[tuple[float, int]]) -> float:
    if len(weighted) == 1:
        return weighted[0][0]
    total = sum(w for _, w in weighted)
    return sum(v * w for v, w in weighted) / total if total else math.nan
