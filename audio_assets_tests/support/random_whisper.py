"""Small models with random weights, what they are given, and what they say.

They are real Whispers of width 64, shaped so that they end sentences, place timestamps, fall below thresholds
or hear nobody.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np
import soundfile
import soxr
import torch
from whisper.model import ModelDimensions, Whisper

from audio_assets.settings import DEMO_CHECKPOINT
from audio_assets.transcription import Transcriber, Transcript

DIMS = ModelDimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=64,
    n_audio_head=2,
    n_audio_layer=1,
    n_vocab=51865,
    n_text_ctx=64,
    n_text_state=64,
    n_text_head=2,
    n_text_layer=2,
)
EOT = 50257
NO_SPEECH = 50362
TIMESTAMPS = slice(50364, None)
# Seed, and how much sharper than random the words are and how much likelier than others some tokens.
MODELS = {
    "hesitant": {"seed": 0, "sharpness": 2, EOT: 8},
    "terse": {"seed": 2, "sharpness": 4, EOT: 14},
    "sure": {"seed": 3, "sharpness": 8, EOT: 20},
    "deaf": {"seed": 0, "sharpness": 2, EOT: 8, NO_SPEECH: 40},
}


def random_whisper(seed: int, sharpness: float, **likelier: float) -> Whisper:
    generator = torch.Generator().manual_seed(seed)
    model = Whisper(DIMS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
            if name.endswith("cross_attn.query.weight"):
                parameter.mul_(4)
        tokens = model.decoder.token_embedding.weight.mul_(sharpness)
        # The last layer norm adds this to every hidden state; only the chosen tokens answer to it.
        always = torch.randn(DIMS.n_text_state, generator=generator)
        model.decoder.ln.bias.copy_(always)
        answer = always / always.norm() ** 2
        tokens -= (tokens @ always)[:, None] * answer
        tokens[TIMESTAMPS] += 5 * answer
        for token, gain in likelier.items():
            tokens[int(token)] += gain * answer
    return model.eval()


def save_models(folder: pathlib.Path) -> dict[str, str]:
    """The path of each model's checkpoint, by its name."""
    paths = {}
    for name, settings in MODELS.items():
        model = random_whisper(**{str(k): v for k, v in settings.items()})
        paths[name] = str(folder / f"{name}.pt")
        torch.save({"dims": dataclasses.asdict(DIMS), "model_state_dict": model.state_dict()}, paths[name])
    return paths


def noise(seconds: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    samples = int(seconds * 16_000)
    hum = np.sin(np.arange(samples) * rng.uniform(0.001, 0.3))
    return (rng.normal(0, 10 ** rng.uniform(-3, -0.5), samples) * hum).astype(np.float32)


def transcripts(transcriber: Transcriber, clips: Iterable[np.ndarray]) -> dict[int, Transcript]:
    """By the clip's number; none may fail."""
    answers = {}
    for i, answer in transcriber.transcribe(enumerate(clips)):
        assert isinstance(answer, Transcript)
        answers[i] = answer
    return answers


def sample_speech(count: int) -> list[np.ndarray]:
    """The first clips of the demo's sample, float32 [samples] at 16 kHz."""
    clips = []
    for file in sorted(DEMO_CHECKPOINT.parent.glob("sample/**/*.flac")):
        with contextlib.suppress(soundfile.LibsndfileError):
            audio, rate = soundfile.read(file, dtype="float32", always_2d=True)
            clips.append(soxr.resample(audio.mean(axis=1), rate, 16_000).astype(np.float32))
    found = [clip for clip in clips if len(clip)][:count]
    assert len(found) == count
    return found
