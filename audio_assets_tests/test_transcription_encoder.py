"""A CPU's threads take a window each, or share one; either way its features are the same."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from whisper.model import AudioEncoder

from audio_assets.transcription import layers
from audio_assets.transcription.encoder import Encoder
from audio_assets.transcription.workers import Workers
from audio_assets_tests.support.random_whisper import DIMS

ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.1}
DEEP = dataclasses.replace(DIMS, n_audio_layer=2)


@pytest.fixture
def stock() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(
        DEEP.n_mels, DEEP.n_audio_ctx, DEEP.n_audio_state, DEEP.n_audio_head, DEEP.n_audio_layer
    ).eval()


@pytest.fixture(params=[1, 2, 3])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    threads = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield Workers()
    torch.set_num_threads(threads)


def windows(count: int) -> list[torch.Tensor]:
    return list(torch.randn(count, DEEP.n_mels, 3000, generator=torch.Generator().manual_seed(1)))


@torch.inference_mode()
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("count", [1, 4])
def test_features_are_the_same_to_the_bit_however_many_threads_there_are(
    stock: AudioEncoder, workers: Workers, dtype: torch.dtype, count: int
):
    mels = windows(count)
    encoded = Encoder(stock, dtype, workers)(mels)
    assert len(encoded) == count
    plain = Encoder(stock, dtype)
    for mel, features in zip(mels, encoded, strict=True):
        (alone,) = plain([mel])
        assert torch.equal(features, alone)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("has_amx", [True, False])
def test_features_are_those_of_whisper(
    stock: AudioEncoder, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, has_amx: bool
):
    monkeypatch.setattr(layers, "has_amx", lambda: has_amx)
    mels = windows(2)
    encoder = Encoder(stock, dtype, Workers())
    for mel, features in zip(mels, encoder(mels), strict=True):
        wanted = stock(mel[None])[0]
        torch.testing.assert_close(features.float(), wanted, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
        assert torch.equal(encoder._encode_by_all(mel[None])[0], features)


def test_threads_share_a_window_where_most_of_them_would_wait(
    stock: AudioEncoder, workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    encoder = Encoder(stock, torch.float32, workers)
    alone: list[int] = []
    shared: list[int] = []
    monkeypatch.setattr(encoder, "encode", lambda mel: alone.append(1) or mel)
    monkeypatch.setattr(encoder, "_encode_by_all", lambda mel: shared.append(1) or mel)
    threads = workers.threads
    for count in range(1, 3 * threads + 1):
        alone.clear()
        shared.clear()
        with torch.inference_mode():
            assert len(encoder(windows(count))) == count
        left = count % threads
        assert len(shared) == (left if left <= threads // 2 else 0)
        assert len(alone) == count - len(shared)
