"""`Transcriber` gives the answers of `whisper.transcribe`, whatever shares its batches."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import whisper
from whisper.model import ModelDimensions, Whisper

from audio_assets.transcription import Transcriber, model_identity

DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=64,
    n_audio_head=1,
    n_audio_layer=1,
    n_vocab=51865,
    n_text_ctx=448,
    n_text_state=64,
    n_text_head=1,
    n_text_layer=2,
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    """A multilingual Whisper of width 64 with random weights, sharp enough that most decodes pass thresholds."""
    torch.manual_seed(0)
    model = Whisper(DIMS)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    path = tmp_path_factory.mktemp("model") / "random.pt"
    torch.save({"dims": DIMS.__dict__, "model_state_dict": model.state_dict()}, path)
    return str(path)


def noise(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)


def test_importing_the_package_loads_neither_torch_nor_whisper():
    code = "import sys, audio_assets.transcription; sys.exit('torch' in sys.modules or 'whisper' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_broken_file_is_its_own_exception_and_kills_no_other(checkpoint):
    transcriber = Transcriber.load(checkpoint, language="en", device="cpu")
    good, bad = noise(0.05, 0), np.full(800, np.nan, np.float32)
    items = [
        ("good", good),
        ("nan", bad),
        ("list", [0.0]),
        ("stereo", np.zeros((2, 800), np.float32)),
    ]
    out = list(transcriber.transcribe(items))
    answers = dict(out)
    assert len(out) == len(answers) == 4
    assert isinstance(answers["nan"], ValueError) and "NaN" in str(answers["nan"])
    assert isinstance(answers["list"], TypeError)
    assert isinstance(answers["stereo"], ValueError)
    assert answers["good"].language == "en"


def test_a_file_of_less_than_a_frame_is_empty(checkpoint):
    ((_, transcript),) = Transcriber.load(
        checkpoint, language="en", device="cpu"
    ).transcribe([(0, noise(0.005, 0))])
    assert transcript.text == "" and transcript.segments == ()
    assert math.isnan(transcript.avg_logprob)


def test_the_identity_of_a_model_is_known_before_it_is_loaded(checkpoint):
    transcriber = Transcriber.load(
        checkpoint, language="English", device="cpu", batch_size=3
    )
    assert transcriber.identity == model_identity(
        checkpoint, language="en", device="cpu"
    )
    assert (
        "random.pt" in transcriber.identity
        and whisper.__version__ in transcriber.identity
    )
    assert transcriber.identity != model_identity(
        checkpoint, language=None, device="cpu"
    )
    assert "sha256=65147644a518" in model_identity("tiny", device="cpu")


@pytest.mark.parametrize(
    ("model", "settings", "named"),
    [
        ("no-such-model", {}, "WHISPER_MODEL"),
        ("tiny", {"language": "klingon"}, "WHISPER_LANGUAGE"),
        ("tiny", {"device": "tpu"}, "WHISPER_DEVICE"),
        ("tiny", {"device": "cuda:99"}, "WHISPER_DEVICE"),
        ("tiny", {"device": "cpu", "batch_size": 0}, "WHISPER_BATCH_SIZE"),
        ("tiny", {"device": "cpu", "precision": "float16"}, "precision"),
    ],
)
def test_a_wrong_setting_is_named(model, settings, named):
    with pytest.raises(ValueError, match=named):
        Transcriber.load(model, **settings)
