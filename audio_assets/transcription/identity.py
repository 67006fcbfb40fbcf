"""Names what shapes a transcript, so that a stored row says what made it and is reused if nothing changed."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import re

# Raised when the engine's own rules change in a way that can change its answers.
ENGINE_VERSION = 1
PRECISIONS = ("float32", "bfloat16", "float16")


def model_identity(
    model: str,
    *,
    language: str | None = None,
    precision: str = "auto",
    device: str = "auto",
) -> str:
    """The identity that a `Transcriber` loaded with the same settings has; loads no weights.

    Batch size is no part of it: it changes no answer beyond the rounding of floating-point sums. Precision
    is: a half-precision sum can tip the choice between two tokens.

    Args:
        model: a name that `whisper.load_model` knows, or a checkpoint's path.
        language: a code or an English name; None where it is detected for each file.
        precision: `float32`, `bfloat16`, `float16`, or `auto` for what the device is best at.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; matters where `precision` is `auto`.

    Raises:
        ValueError: a setting is not one of the above; the message names its environment variable.
    """
    parts = {
        "sha256": weights_digest(model),
        "language": language_code(language) or "detected",
        "temperatures": "0.0-1.0",
        "precision": resolve_precision(precision, resolve_device(device) if precision == "auto" else device),
        "openai-whisper": importlib.metadata.version("openai-whisper"),
        "engine": ENGINE_VERSION,
    }
    name = pathlib.Path(model).name if os.path.isfile(model) else model
    return " ".join([f"whisper {name}", *(f"{k}={v}" for k, v in parts.items())])


def weights_digest(model: str) -> str:
    """First 12 hex digits of the SHA-256 of a checkpoint file, which for named models their URL carries.

    Raises:
        ValueError: neither a known name nor a file that holds a checkpoint.
    """
    import whisper

    # A name wins over a file of the same name, as in whisper.load_model.
    if model in whisper._MODELS:
        return whisper._MODELS[model].split("/")[-2][:12]
    if not os.path.isfile(model):
        names = ", ".join(whisper.available_models())
        raise ValueError(f"WHISPER_MODEL={model!r} is neither a file nor a model that Whisper knows: {names}")
    status = os.stat(model)
    return _file_digest(os.path.abspath(model), status.st_mtime_ns, status.st_size)[:12]


@functools.lru_cache(maxsize=8)
def _file_digest(path: str, mtime_ns: int, size: int) -> str:
    from audio_assets.transcription.checkpoint import check_checkpoint

    check_checkpoint(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def language_code(language: str | None) -> str | None:
    """`English`, `english` or `en` -> `en`; None stays None.

    Raises:
        ValueError: Whisper does not know the language.
    """
    if language is None:
        return None
    from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

    lowered = language.lower()
    code = lowered if lowered in LANGUAGES else TO_LANGUAGE_CODE.get(lowered)
    if code is None:
        raise ValueError(
            f"WHISPER_LANGUAGE={language!r} is not a language that Whisper knows, such as en or English"
        )
    return code


def resolve_device(device: str) -> str:
    """`auto` -> `cuda` where there is one, else `cpu`; anything else is checked and kept.

    Raises:
        ValueError: no such device here.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ValueError(f"WHISPER_DEVICE={device!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ValueError(
            f"WHISPER_DEVICE={device!r}, but PyTorch sees {found} CUDA devices here; auto falls back to cpu"
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """`auto` -> what `whisper.transcribe` itself uses on the device: float16 on CUDA, float32 on a CPU.

    Raises:
        ValueError: unknown, or float16 on a CPU, where PyTorch is slower with it than with float32.
    """
    if precision == "auto":
        return "float32" if device == "cpu" else "float16"
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not one of auto, {', '.join(PRECISIONS)}")
    if precision == "float16" and device == "cpu":
        raise ValueError("precision float16 is for CUDA devices; a CPU takes float32 or bfloat16")
    return precision
