"""Names what shapes a transcript, so that a stored row says what made it and is reused if nothing changed."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
from collections.abc import Sequence

from audio_assets.errors import ArgumentError, renaming
from audio_assets.transcription import transcribe_options
from audio_assets.transcription.options import Options, language_code, resolve_device, resolve_precision
from audio_assets.transcription.transcribe_options import DEFAULTS, TranscribeOptions
from audio_assets.transcription.whisper_names import model_urls

# Raised when the engine's own rules change in a way that can change its answers.
ENGINE_VERSION = 1
# Stands in each identity, because identities had it before temperatures could be set.
DEFAULT_TEMPERATURES = "temperatures=0.0-1.0"


def model_identity(
    model: str,
    *,
    language: str | None = None,
    precision: str = "auto",
    device: str = "auto",
    transcribe: TranscribeOptions = DEFAULTS,
) -> str:
    """The identity that a `Transcriber` loaded with the same options has; loads no weights.

    Batch size is no part of it: it changes no answer beyond the rounding of floating-point sums. Precision
    is: a half-precision sum can tip the choice between two tokens.

    Args:
        model: a name that `whisper.load_model` knows, or a checkpoint's path.
        language: a code or an English name; None where it is detected for each file.
        precision: `float32`, `bfloat16`, `float16`, or `auto` for what the device is best at.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; matters where `precision` is `auto`.
        transcribe: the options of `whisper.transcribe`. Only those that differ from their defaults are named,
            so that a new option leaves the identities of rows that do without it as they are.

    Raises:
        ArgumentError: an argument is not one of the above.
    """
    options = Options(model, device=device, language=language, precision=precision, transcribe=transcribe)
    return identity_of(options)


def identity_of(options: Options) -> str:
    """As `model_identity`, of options that may be resolved or not."""
    device = options.device
    if options.precision == "auto":
        device = resolve_device(device)
    parts = {
        "sha256": weights_digest(options.model),
        "language": language_code(options.language) or "detected",
        "temperatures": DEFAULT_TEMPERATURES.partition("=")[2],
        "precision": resolve_precision(options.precision, device, options.transcribe),
        "openai-whisper": importlib.metadata.version("openai-whisper"),
        "engine": ENGINE_VERSION,
        **_option_parts(options.transcribe),
    }
    return " ".join([f"whisper {_model_name(options.model)}", *(f"{k}={v}" for k, v in parts.items())])


def expected_parts(
    model: str, language: str | None = None, transcribe: TranscribeOptions = DEFAULTS
) -> tuple[str, ...]:
    """What the identity of a model says that is known without torch, whisper or the device of a run.

    Whoever decides what is to be computed anew, such as the sensor, compares rows with it by `is_current`.
    The precision is no part of it, since only the machine of a run knows what `auto` is there.

    Args:
        model: a name that `whisper.load_model` knows, or a checkpoint's path.
        language: a code or an English name; None where it is detected for each file.
        transcribe: the options of `whisper.transcribe`.

    Returns:
        First `whisper` with the model's name, then `name=value` each. For a checkpoint's file its SHA-256 is
        among them, for which the file is read once.

    Raises:
        ArgumentError: an argument is not one of the above.
    """
    parts = {
        "language": language_code(language) or "detected",
        "openai-whisper": importlib.metadata.version("openai-whisper"),
        "engine": ENGINE_VERSION,
        **_option_parts(transcribe),
    }
    if model not in model_urls():
        parts["sha256"] = _file_digest(*_file_version(model))[:12]
    return (f"whisper {_model_name(model)}", *(f"{k}={v}" for k, v in parts.items()))


def _option_parts(options: TranscribeOptions) -> dict[str, str]:
    """By name, the options that differ from their default; a second model by its weights, too."""
    parts = options.identity_parts()
    if options.second_model is not None:
        with renaming({"model": "second_model"}):
            weights = weights_digest(options.second_model)
        parts["second_model"] = f"{_model_name(options.second_model)}:{weights}".replace(" ", "_")
    return parts


def is_current(identity: str, parts: Sequence[str]) -> bool:
    """Whether a row of this identity is what a run would make now, as far as that is known before it.

    Args:
        identity: the row's `whisper_model`.
        parts: what `expected_parts` gives.
    """
    name, *others = parts
    words = set(identity.removeprefix(name).split(" "))
    # An option at its default is named nowhere, so that one which only the row names makes it another.
    options = {word for word in words if word.partition("=")[0] in transcribe_options.NAMES}
    return (
        identity.startswith(f"{name} ")
        and set(others) <= words
        and options - {DEFAULT_TEMPERATURES} <= set(others)
    )


def file_version(model: str) -> tuple[str, int, int] | None:
    """A checkpoint's path, time of modification in ns and size in bytes; None where a model is no file.

    It changes when the file is replaced in place.
    """
    return None if model in model_urls() or not os.path.isfile(model) else _file_version(model)


def weights_digest(model: str) -> str:
    """First 12 hex digits of the SHA-256 of a checkpoint file, which for named models their URL carries.

    Raises:
        ArgumentError: neither a known name nor a file that holds a checkpoint.
    """
    # A name wins over a file of the same name, as in whisper.load_model.
    if url := model_urls().get(model):
        return url.split("/")[-2][:12]
    version = _file_version(model)
    _check_file(*version)
    return _file_digest(*version)[:12]


def _model_name(model: str) -> str:
    return pathlib.Path(model).name if os.path.isfile(model) else model


def _file_version(model: str) -> tuple[str, int, int]:
    if not os.path.isfile(model):
        names = ", ".join(model_urls())
        problem = f"={model!r} is neither a file nor a model that Whisper knows: {names}"
        raise ArgumentError("model", problem)
    status = os.stat(model)
    return os.path.abspath(model), status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=8)
def _check_file(path: str, mtime_ns: int, size: int) -> None:
    from audio_assets.transcription.checkpoint import check_checkpoint

    check_checkpoint(path)


@functools.lru_cache(maxsize=8)
def _file_digest(path: str, mtime_ns: int, size: int) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        problem = f"={path!r} cannot be used: it cannot be read: {e.strerror or e}"
        raise ArgumentError("model", problem) from None
