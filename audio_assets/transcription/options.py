"""What a model is loaded with. Every option is checked here, and `auto` becomes what this machine has.

Imports torch only to answer what it alone knows: which devices there are.
"""

import dataclasses
import re
from dataclasses import dataclass

from audio_assets.errors import ArgumentError
from audio_assets.transcription.transcribe_options import DEFAULTS, TranscribeOptions
from audio_assets.transcription.whisper_names import language_codes

# The free memory of the device is the first model's to fill.
SECOND_BATCH_SIZE = 64
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Options:
    """The options of `Transcriber.load`, which describes them."""

    model: str
    device: str = "auto"
    language: str | None = None
    batch_size: int | None = None
    precision: str = "auto"
    transcribe: TranscribeOptions = DEFAULTS

    def resolve(self) -> "Options":
        """The same options, checked, with the device, the language's code and the precision filled in.

        `batch_size` stays None where free memory decides, which is known once the model is loaded.

        Raises:
            ArgumentError: an option is wrong.
        """
        if self.batch_size is not None and self.batch_size < 1:
            raise ArgumentError("batch_size", f"={self.batch_size} is not at least 1")
        rows = self.transcribe.most_rows
        if self.batch_size is not None and self.batch_size < rows:
            problem = f"={self.batch_size} has no room for the {rows} texts of beam_size or best_of"
            raise ArgumentError("batch_size", problem)
        device = resolve_device(self.device)
        return dataclasses.replace(
            self,
            device=device,
            language=language_code(self.language),
            precision=resolve_precision(self.precision, device, self.transcribe),
        )

    @property
    def of_second_model(self) -> "Options":
        """The options of the second model, which there must be: the same, without words."""
        assert self.transcribe.second_model is not None
        transcribe = dataclasses.replace(
            self.transcribe,
            second_model=None,
            word_timestamps=False,
            hallucination_silence_threshold=None,
            logit_margin_threshold=None,
        )
        return dataclasses.replace(
            self,
            model=self.transcribe.second_model,
            batch_size=self.batch_size or SECOND_BATCH_SIZE,
            transcribe=transcribe,
        )

    @property
    def at_float32(self) -> "Options":
        """The options of what transcribes files again that have close choices."""
        transcribe = dataclasses.replace(self.transcribe, second_model=None, logit_margin_threshold=None)
        # On a CPU each of both takes a quarter of the memory that is free.
        batch_size = self.batch_size or (None if self.device == "cpu" else SECOND_BATCH_SIZE)
        return dataclasses.replace(self, precision="float32", batch_size=batch_size, transcribe=transcribe)


def language_code(language: str | None) -> str | None:
    """`English`, `english` or `en` -> `en`; None stays None.

    Raises:
        ArgumentError: Whisper does not know the language.
    """
    if language is None:
        return None
    code = language_codes().get(language.lower())
    if code is None:
        problem = f"={language!r} is not a language that Whisper knows, such as en or English"
        raise ArgumentError("language", problem)
    return code


def resolve_device(device: str) -> str:
    """`auto` -> `cuda` where there is one, else `cpu`; anything else is checked and kept.

    Raises:
        ArgumentError: this machine has no such device.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ArgumentError("device", f"={device!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    index = int(device.partition(":")[2] or 0)
    found = torch.cuda.device_count()
    if index >= found:
        problem = f"={device!r}, but PyTorch sees {found} CUDA devices here; auto falls back to cpu"
        raise ArgumentError("device", problem)
    return device


def resolve_precision(precision: str, device: str, transcribe: TranscribeOptions = DEFAULTS) -> str:
    """`auto` -> what `whisper.transcribe` itself uses on the device: float16 on CUDA, float32 on a CPU.

    With `logit_margin_threshold` it is bfloat16 on a CPU.

    Raises:
        ArgumentError: unknown, or float16 on a CPU, where PyTorch is slower with it than with float32, or
            float32 where files are to be transcribed at float32 again.
    """
    again = transcribe.logit_margin_threshold is not None
    if precision == "auto":
        return "float16" if device != "cpu" else "bfloat16" if again else "float32"
    if precision == "float32" and again:
        problem = " float32 leaves nothing to logit_margin_threshold, which transcribes again at float32"
        raise ArgumentError("precision", problem)
    if precision not in PRECISIONS:
        raise ArgumentError("precision", f" {precision!r} is not one of auto, {', '.join(PRECISIONS)}")
    if precision == "float16" and device == "cpu":
        raise ArgumentError("precision", " float16 is for CUDA devices; a CPU takes float32 or bfloat16")
    return precision
