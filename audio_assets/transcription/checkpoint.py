"""Whisper's weights: a file is checked before any work relies on it, and nothing in it is executed.

Named models are downloaded by whisper, which compares their SHA-256 with the one in their URL.
"""

import zipfile
from typing import Any

import torch
import whisper

from audio_assets.errors import ArgumentError


def check_checkpoint(path: str) -> None:
    """See that a file is a whole checkpoint of Whisper, without making a model of it.

    Raises:
        ArgumentError: it is not.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                # PyTorch does not compare the checksums of its own format.
                if damaged := file.testzip():
                    raise ValueError(f"{damaged} is damaged; copy the file again")
        checkpoint: Any = torch.load(path, map_location="meta", weights_only=True)
        dims = whisper.ModelDimensions(**checkpoint["dims"])
        shapes = {name: tuple(weights.shape) for name, weights in checkpoint["model_state_dict"].items()}
    except ValueError as e:
        raise _unusable(path, str(e)) from None
    except OSError as e:
        raise _unusable(path, f"it cannot be read: {e.strerror or e}") from None
    except Exception:
        # PyTorch's own words advise to execute what is in the file.
        reason = "it is damaged, or no checkpoint of OpenAI's Whisper; nothing in it was executed"
        raise _unusable(path, reason) from None
    # A model is as large as its dimensions say, so they are compared with the weights before it is made.
    if not _fit(dims, shapes):
        raise _unusable(path, "its dimensions are not those of its weights")


def _fit(dims: whisper.ModelDimensions, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether weights, named as in Whisper's state dict, have the shapes that the dimensions say."""
    said = {
        "encoder.conv1.weight": (dims.n_audio_state, dims.n_mels, 3),
        "encoder.positional_embedding": (dims.n_audio_ctx, dims.n_audio_state),
        "decoder.token_embedding.weight": (dims.n_vocab, dims.n_text_state),
        "decoder.positional_embedding": (dims.n_text_ctx, dims.n_text_state),
    }
    layers = {
        part: len({name.split(".")[2] for name in shapes if name.startswith(f"{part}.blocks.")})
        for part in ("encoder", "decoder")
    }
    return all(shapes.get(name) == shape for name, shape in said.items()) and layers == {
        "encoder": dims.n_audio_layer,
        "decoder": dims.n_text_layer,
    }


def load_model(model: str, device: str) -> whisper.Whisper:
    """`whisper.load_model`, which unpickles nothing but weights, with errors that say what to fix.

    Raises:
        ArgumentError: it cannot be loaded or downloaded.
        MemoryError, torch.OutOfMemoryError: it does not fit.
    """
    try:
        return whisper.load_model(model, device=device).eval()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except OSError as e:
        raise _unusable(model, f"it cannot be downloaded or read: {e}") from None
    except Exception as e:
        raise _unusable(model, str(e).partition("\n")[0]) from e


def _unusable(model: str, reason: str) -> ArgumentError:
    return ArgumentError("model", f"={model!r} cannot be used: {reason}")
