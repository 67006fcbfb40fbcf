"""`tokenise`, its reproducible form inside the pipeline, and tokenisers of one's own."""

import sys
import types

import numpy as np
import pytest
import torch

import audio_assets
from audio_assets import tokenisation
from audio_assets.tokenisation import load_tokeniser, tokenise

AUDIO = np.zeros(16_000, np.float32)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokenisation, "SIMULATED_INFERENCE_S", 0.0)


# --- tokenise -------------------------------------------------------------------------------------------


def test_tokenise_is_what_users_import():
    assert audio_assets.tokenise is tokenise


def test_tokens_are_one_dimensional_int16_of_random_length():
    lengths = set()
    for _ in range(300):
        tokens = tokenise(AUDIO)
        assert isinstance(tokens, torch.Tensor)
        assert tokens.dtype == torch.int16
        assert tokens.ndim == 1
        assert 20 <= len(tokens) <= 1000
        assert tokens.min() >= 0
        lengths.add(len(tokens))
    assert len(lengths) > 100


@pytest.mark.parametrize("audio", [None, [0.0], "a.flac", b"fLaC", torch.zeros(3), 1.0])
def test_anything_but_an_array_is_refused_by_its_type(audio: object):
    with pytest.raises(ValueError, match=f"NumPy array, not {type(audio).__name__}"):
        tokenise(audio)  # type: ignore[arg-type]


# --- inside the pipeline --------------------------------------------------------------------------------


def test_the_same_content_has_the_same_tokens_whatever_happened_before():
    simulated = load_tokeniser("simulated")
    first = simulated(AUDIO, "etag")
    torch.manual_seed(0)
    simulated(AUDIO, "another etag")
    np.testing.assert_array_equal(simulated(AUDIO, "etag"), first)
    assert first.dtype == np.int16
    # The figures are part of tables that exist: a change of seeding needs a new name of the tokeniser.
    assert (len(first), first[:3].tolist()) == (431, [2678, 841, 7952])


def test_other_content_has_other_tokens():
    simulated = load_tokeniser("simulated")
    assert len({simulated(AUDIO, str(i)).tobytes() for i in range(50)}) == 50


# --- one's own ------------------------------------------------------------------------------------------


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("own_tokenisers")
    monkeypatch.setitem(sys.modules, "own_tokenisers", module)
    return module


def test_ones_own_tokeniser_gets_the_audio(own: types.ModuleType):
    own.length = lambda audio: [len(audio), -1]  # type: ignore[attr-defined]
    tokens = load_tokeniser("own_tokenisers:length")(AUDIO[:7], "etag")
    assert tokens.dtype == np.int16
    assert tokens.tolist() == [7, -1]


@pytest.mark.parametrize(
    "made",
    [torch.tensor([1, 2]), np.array([1, 2], np.int64), np.array([1, 2], np.uint8), [1, 2], (1, 2)],
    ids=lambda made: type(made).__name__,
)
def test_whole_numbers_of_any_kind_are_tokens(own: types.ModuleType, made: object):
    own.tokens = lambda audio: made  # type: ignore[attr-defined]
    assert load_tokeniser("own_tokenisers:tokens")(AUDIO, "etag").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        ([1.5], r"float64 \[1\]; wanted integers"),
        ([[1, 2]], r"int64 \[1, 2\]"),
        (7, r"int64 \[\]"),
        (["a"], "wanted integers"),
        (None, "wanted integers"),
        ([32_768], "from 32768 to 32768, which int16 cannot hold"),
        ([0, -32_769], "from -32769 to 0, which int16 cannot hold"),
    ],
)
def test_what_is_no_row_of_tokens_is_refused(own: types.ModuleType, made: object, reason: str):
    own.tokens = lambda audio: made  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=reason):
        load_tokeniser("own_tokenisers:tokens")(AUDIO, "etag")


@pytest.mark.parametrize(
    "name", ["", "simulate", "no.such.module:f", "json:no_such", "json", ":f", "math:pi"]
)
def test_a_name_of_nothing_is_refused_before_any_audio(name: str):
    with pytest.raises(
        ValueError, match=f"TOKENISER='{name}' is neither simulated nor package.module:function"
    ):
        load_tokeniser(name)
