"""The options of `whisper.transcribe` that change what is heard, with its own names and defaults.

Plain Python, so that whoever compares identities need not load torch. Which of them shape an identity is
said here as well; what they do is the business of `longform` and `words`.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import TypedDict

from audio_assets.errors import ArgumentError

TASKS = ("transcribe", "translate")
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class TranscribeOptions:
    """As the arguments of `whisper.transcribe` (openai-whisper 20250625), which has `temperature` for
    `temperatures`, and no `language_detection_threshold`, `second_model` or `logit_margin_threshold`.

    Attributes:
        task: `transcribe`, or `translate` into English; a model for English alone only transcribes.
        initial_prompt: text to go before the first window, such as names and how they are spelt.
        condition_on_previous_text: whether a window's text is the prompt of the next one.
        temperatures: to decode at, one after the other, until no threshold fails; each from 0 to 1.
        beam_size: how many texts a beam search keeps at temperature 0; None to take the most probable token
            each time, as `whisper.transcribe` does by default. The command `whisper` has 5.
        patience: how many texts end before the beam search does, as a multiple of `beam_size`; None for 1.
        best_of: how many texts are drawn at a temperature above 0, of which the most probable is kept; None
            for 1. The command `whisper` has 5.
        compression_ratio_threshold: a text that compresses better has failed; None to let it pass.
        logprob_threshold: a text whose mean log-probability is lower has failed; None to let it pass.
        no_speech_threshold: a window whose probability of no speech is higher, and whose text has failed by
            `logprob_threshold`, is silent; None to take none for silent.
        word_timestamps: whether each word gets its start, end and probability. It also moves the starts of
            windows, and so may change the text of a long file.
        hallucination_silence_threshold: where a text is likely made up, silence that is longer than this many
            seconds is skipped; None to skip none. Needs `word_timestamps`.
        language_detection_threshold: where a language that is detected on the window to be transcribed is at
            least as probable, it counts. Below, and always where this is None, the window decides that
            Whisper detects it on, at the price of a second pass of the encoder. docs/transcription.md has
            what was measured to differ.
        second_model: a name or a checkpoint's path, as for the model itself. It hears the same audio with the
            same options, but for words; each `Transcript` then has a `second_opinion`.
        logit_margin_threshold: all files are transcribed in half precision, and those whose
            `Transcript.logit_margin` is lower once more at float32; None to transcribe all of them in one
            precision. Not for a beam search, which compares whole texts.
    """

    task: str = "transcribe"
    initial_prompt: str | None = None
    condition_on_previous_text: bool = True
    temperatures: tuple[float, ...] = TEMPERATURES
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    word_timestamps: bool = False
    hallucination_silence_threshold: float | None = None
    language_detection_threshold: float | None = 0.9
    second_model: str | None = None
    beam_size: int | None = None
    patience: float | None = None
    best_of: int | None = None
    logit_margin_threshold: float | None = None

    def __post_init__(self) -> None:
        """See that each option is right.

        Raises:
            ArgumentError: one is wrong.
        """
        if self.task not in TASKS:
            raise ArgumentError("task", f"={self.task!r} is not one of {', '.join(TASKS)}")
        if not self.temperatures or not all(0 <= t <= 1 for t in self.temperatures):
            problem = f"={self.temperatures} is not one temperature or several, each from 0 to 1"
            raise ArgumentError("temperatures", problem)
        for name in _THRESHOLDS:
            threshold = getattr(self, name)
            if threshold is not None and not math.isfinite(threshold):
                raise ArgumentError(name, f"={threshold} is neither a finite number nor None")
        self._check_beam()
        silence_s = self.hallucination_silence_threshold
        if silence_s is not None and silence_s <= 0:
            problem = f"={silence_s} is not a number of seconds above 0"
            raise ArgumentError("hallucination_silence_threshold", problem)
        if silence_s is not None and not self.word_timestamps:
            problem = f"={silence_s} needs word_timestamps, which tell where silence is"
            raise ArgumentError("hallucination_silence_threshold", problem)

    def _check_beam(self) -> None:
        for name in ("beam_size", "best_of"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ArgumentError(name, f"={number} is not at least 1")
        if self.logit_margin_threshold is not None and self.beam_size is not None:
            problem = f"={self.logit_margin_threshold} needs greedy decoding, without beam_size"
            raise ArgumentError("logit_margin_threshold", problem)
        if self.patience is None:
            return
        if self.beam_size is None:
            raise ArgumentError("patience", f"={self.patience} needs beam_size, of which it is a multiple")
        if not (math.isfinite(self.patience) and round(self.beam_size * self.patience) >= 1):
            problem = f"={self.patience} with beam_size={self.beam_size} lets no text end"
            raise ArgumentError("patience", problem)

    @property
    def most_rows(self) -> int:
        """How many texts are decoded side by side for one window, at the most."""
        return max(self.beam_size or 1, self.best_of or 1)

    def identity_parts(self) -> dict[str, str]:
        """By name, the options that differ from their default, as words of an identity."""
        return {
            field.name: _word(field.name, getattr(self, field.name))
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


class TranscribeArguments(TypedDict, total=False):
    """The same as keyword arguments, each of which may be left out."""

    task: str
    initial_prompt: str | None
    condition_on_previous_text: bool
    temperatures: tuple[float, ...]
    compression_ratio_threshold: float | None
    logprob_threshold: float | None
    no_speech_threshold: float | None
    word_timestamps: bool
    hallucination_silence_threshold: float | None
    language_detection_threshold: float | None
    second_model: str | None
    beam_size: int | None
    patience: float | None
    best_of: int | None
    logit_margin_threshold: float | None


_THRESHOLDS = (
    "compression_ratio_threshold",
    "logprob_threshold",
    "no_speech_threshold",
    "hallucination_silence_threshold",
    "language_detection_threshold",
    "logit_margin_threshold",
)
NAMES = tuple(field.name for field in dataclasses.fields(TranscribeOptions))

DEFAULTS = TranscribeOptions()


def _word(name: str, value: object) -> str:
    """A value without blanks. A prompt may have some and may be long: its digest stands for it."""
    if name == "initial_prompt":
        return hashlib.sha256(str(value).encode()).hexdigest()[:12]
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower()
