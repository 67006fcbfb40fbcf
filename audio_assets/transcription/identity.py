"""Names what shapes a transcript, so that a stored row says what made it and is reused if nothing changed."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib

from audio_assets.errors import ArgumentError
from audio_assets.transcription.options import Options, language_code, resolve_device, resolve_precision

# Raised when the engine's own rules change in a way that can change its answers.
ENGINE_VERSION = 1


def model_identity(
    model: str,
    *,
    language: str | None = None,
    precision: str = "auto",
    device: str = "auto",
) -> str:
    """The identity that a `Transcriber` loaded with the same options has; loads no weights.

    Batch size is no part of it: it changes no answer beyond the rounding of floating-point sums. Precision
    is: a half-precision sum can tip the choice between two tokens.

    Args:
        model: a name that `whisper.load_model` knows, or a checkpoint's path.
        language: a code or an English name; None where it is detected for each file.
        precision: `float32`, `bfloat16`, `float16`, or `auto` for what the device is best at.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; matters where `precision` is `auto`.

    Raises:
        ArgumentError: an argument is not one of the above.
    """
    return identity_of(Options(model, device=device, language=language, precision=precision))


def identity_of(options: Options) -> str:
    """As `model_identity`, of options that may be resolved or not."""
    device = options.device
    if options.precision == "auto":
        device = resolve_device(device)
    parts = {
        "sha256": weights_digest(options.model),
        "language": language_code(options.language) or "detected",
        "temperatures": "0.0-1.0",
        "precision": resolve_precision(options.precision, device),
        "openai-whisper": importlib.metadata.version("openai-whisper"),
        "engine": ENGINE_VERSION,
    }
    name = pathlib.Path(options.model).name if os.path.isfile(options.model) else options.model
    return " ".join([f"whisper {name}", *(f"{k}={v}" for k, v in parts.items())])


def weights_digest(model: str) -> str:
    """First 12 hex digits of the SHA-256 of a checkpoint file, which for named models their URL carries.

    Raises:
        ArgumentError: neither a known name nor a file that holds a checkpoint.
    """
    import whisper

    # A name wins over a file of the same name, as in whisper.load_model.
    if model in whisper._MODELS:
        return whisper._MODELS[model].split("/")[-2][:12]
    if not os.path.isfile(model):
        names = ", ".join(whisper.available_models())
        problem = f"={model!r} is neither a file nor a model that Whisper knows: {names}"
        raise ArgumentError("model", problem)
    status = os.stat(model)
    return _file_digest(os.path.abspath(model), status.st_mtime_ns, status.st_size)[:12]


@functools.lru_cache(maxsize=8)
def _file_digest(path: str, mtime_ns: int, size: int) -> str:
    from audio_assets.transcription.checkpoint import check_checkpoint

    check_checkpoint(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
