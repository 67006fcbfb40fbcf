"""Neural audio codecs as tokenisers: real ones of transformers, small and with random weights."""

import concurrent.futures
import functools
import io
import itertools
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import huggingface_hub.constants
import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor, AutoModel, EncodecConfig, WhisperConfig

from audio_assets import tokens
from audio_assets.errors import ArgumentError, CodecError
from audio_assets.tokenisation import TokenFormat, code_version, codec, layouts, load_tokeniser
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.codecs import FAMILIES, RATES_HZ, make_codec, one_core
from audio_assets_tests.support.project import Project

KEY = "p225@2023-08-24-00:21"
COMMIT = "c1dbe2ae3f1de713481a3b3e7c47f357092ee040"

on_disk = pytest.mark.parametrize("place", ["local"], indirect=True)


@pytest.fixture(scope="session")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder for each family."""
    root = tmp_path_factory.mktemp("codecs")
    return {family: make_codec(family, root / family) for family in FAMILIES}


def noise(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)


@functools.cache
def loaded_by_the_library(folder: str) -> tuple[Any, Any]:
    """The feature extractor and the model."""
    return AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def by_the_library(folder: str, audio: np.ndarray, **options: Any) -> np.ndarray:
    """The codes [codebooks, frames] as the documentation of transformers makes them, on one core."""
    features, model = loaded_by_the_library(folder)
    inputs = features(audio, sampling_rate=features.sampling_rate, return_tensors="pt")
    if model.config.model_type == "dac":
        inputs.pop("padding_mask")
    with torch.no_grad(), one_core():
        codes = model.encode(**inputs, **options).audio_codes
    return codes.reshape(codes.shape[-2:]).numpy()


def row_of(tokeniser: Any, audio: np.ndarray) -> dict[str, Any]:
    return {"Key": "a.flac", "tokenized_info": tokeniser(audio, "etag"), **tokeniser.token_format.values()}


# --- the codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("clips", [50, pytest.param(200, marks=pytest.mark.torture)])
def test_codes_are_those_of_the_librarys_own_call(codecs: dict[str, str], family: str, clips: int):
    tokeniser = load_tokeniser(codecs[family])
    folder = codecs[family]
    rate = RATES_HZ[family]
    assert tokeniser.sample_rate_hz == rate
    features, model = loaded_by_the_library(folder)
    seconds = np.random.default_rng(1).uniform(0.02, 0.8, clips)
    seen = set()
    for seed, length in enumerate(seconds):
        audio = noise(length, rate, seed)
        inputs = features(audio, sampling_rate=rate, return_tensors="pt")
        with torch.no_grad(), one_core():
            theirs = model.encode(inputs["input_values"]).audio_codes
        ours = tokens.unflatten(row_of(tokeniser, audio))
        np.testing.assert_array_equal(ours, theirs.reshape(theirs.shape[-2:]).numpy())
        seen |= set(ours.reshape(-1).tolist())
    # Codebooks of which nearly nothing is used would prove little.
    assert len(seen) > 100


@pytest.mark.parametrize(
    ("family", "query", "options", "kept"),
    [
        ("encodec", "bandwidth=6", dict(bandwidth=6.0), 8),
        ("encodec", "bandwidth=6&codebooks=3", dict(bandwidth=6.0), 3),
        ("dac", "codebooks=3", dict(n_quantizers=3), 3),
        ("mimi", "codebooks=5", dict(num_quantizers=5), 5),
    ],
)
def test_options_are_those_of_the_library(
    codecs: dict[str, str], family: str, query: str, options: dict[str, Any], kept: int
):
    tokeniser = load_tokeniser(f"{codecs[family]}?{query}")
    audio = noise(0.5, RATES_HZ[family])
    made = tokens.unflatten(row_of(tokeniser, audio))
    theirs = by_the_library(codecs[family], audio, **options)
    np.testing.assert_array_equal(made, theirs[:kept])
    assert made.shape[0] == kept


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_says_how_its_tokens_are_read(codecs: dict[str, str], family: str):
    tokeniser = load_tokeniser(codecs[family])
    expected = {
        "encodec": TokenFormat(codecs[family], 2, 1024, 75.0, 24_000, "interleaved"),
        "dac": TokenFormat(codecs[family], 4, 1024, 31.25, 16_000, "interleaved"),
        "mimi": TokenFormat(codecs[family], 8, 256, 12.5, 24_000, "interleaved"),
    }
    assert tokeniser.token_format == expected[family]
    made = tokens.unflatten(row_of(tokeniser, noise(2, tokeniser.sample_rate_hz)))
    assert made.shape == (expected[family].codebooks, np.ceil(2 * expected[family].frame_rate_hz))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_tokens_whatever_goes_through_the_codec_beside_them(codecs: dict[str, str], family: str):
    tokeniser = load_tokeniser(codecs[family])
    clips = [noise(0.1 + 0.02 * i, RATES_HZ[family], i) for i in range(12)]
    alone = [tokeniser(clip, "etag") for clip in clips]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda clip: tokeniser(clip, "etag"), reversed(clips)))
    for one, other in zip(alone, reversed(together), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def cores() -> Iterator[Callable[[int], None]]:
    """Sets how many cores PyTorch uses from here on, as if the machine had so many."""
    before = torch.get_num_threads()

    def set_cores(count: int) -> None:
        torch.set_num_threads(count)
        codec._loaded.clear()

    yield set_cores
    set_cores(before)


def test_the_same_tokens_on_a_machine_with_other_cores(cores: Callable[[int], None], tmp_path: pathlib.Path):
    # The published shape: a small one hides it, and so does any other codec here.
    folder = make_codec("encodec", tmp_path, small=False)
    clips = [noise(1.7 + 0.4 * i, RATES_HZ["encodec"], i) for i in range(3)]
    made: dict[int, list[np.ndarray]] = {}
    for count in (1, 2):
        cores(count)
        tokeniser = load_tokeniser(f"{folder}?bandwidth=6")
        made[count] = [tokens.unflatten(row_of(tokeniser, clip)) for clip in clips]
    for clip, on_one, on_two in zip(clips, made[1], made[2], strict=True):
        np.testing.assert_array_equal(on_one, on_two)
        np.testing.assert_array_equal(on_one, by_the_library(folder, clip, bandwidth=6.0))


@pytest.mark.parametrize("family", FAMILIES)
def test_long_audio_goes_through_in_pieces_of_whole_frames(
    codecs: dict[str, str], family: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(codec, "_loaded", {})
    monkeypatch.setattr(codec, "PIECE_S", 3)
    tokeniser = load_tokeniser(codecs[family])
    rate = tokeniser.sample_rate_hz
    audio = noise(7.5, rate)
    row = row_of(tokeniser, audio)
    assert tokeniser.token_format
    frames = int(3 * rate / rate * tokeniser.token_format.frame_rate_hz)
    piece = round(frames / tokeniser.token_format.frame_rate_hz * rate)
    pieces = [audio[:piece], audio[piece : 2 * piece], audio[2 * piece :]]
    expected = [by_the_library(codecs[family], part) for part in pieces]
    np.testing.assert_array_equal(tokens.unflatten(row), np.concatenate(expected, axis=1))
    decoded = tokens.decode({**row, "duration_s": 7.5})
    assert len(decoded) == pytest.approx(7.5 * rate, abs=2_000)


def test_what_is_left_at_the_end_is_never_shorter_than_a_second():
    for length in range(100, 400):
        parts = [range(*part.indices(length)) for part in codec._pieces(length, 100, 10)]
        assert list(itertools.chain(*parts)) == list(range(length))
        assert all(10 <= len(part) < 110 for part in parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_decode_to_what_the_library_decodes(codecs: dict[str, str], family: str):
    tokeniser = load_tokeniser(codecs[family])
    audio = noise(0.5, tokeniser.sample_rate_hz)
    row = row_of(tokeniser, audio)
    _, model = loaded_by_the_library(codecs[family])
    codes = torch.from_numpy(tokens.unflatten(row))[None]
    with torch.no_grad():
        if family == "encodec":
            theirs = model.decode(codes[None], [None]).audio_values
        elif family == "dac":
            theirs = model.decode(audio_codes=codes).audio_values
        else:
            theirs = model.decode(codes).audio_values
    decoded = tokens.decode(row)
    np.testing.assert_allclose(decoded, theirs.numpy().reshape(-1), atol=1e-6)
    assert (decoded.dtype, decoded.ndim) == (np.float32, 1)
    assert len(tokens.decode({**row, "duration_s": 0.25})) == tokeniser.sample_rate_hz // 4
    moved = {**row, "codec": "/gone/since"}
    np.testing.assert_array_equal(tokens.decode(moved, codec=codecs[family]), decoded)


# --- layouts --------------------------------------------------------------------------------------------


@st.composite
def formats(draw: st.DrawFn) -> tuple[TokenFormat, np.ndarray]:
    """A format that fits int16, and codes of it."""
    layout = draw(st.sampled_from(sorted(layouts.LAYOUTS)))
    largest = 2**14 if layout == layouts.METAVOICE else 2**16
    size = draw(st.integers(1, largest) | st.sampled_from([1024, largest]))
    books = 2 if layout == layouts.METAVOICE else draw(st.integers(1, 9))
    made = TokenFormat("codec", books, size, 75.0, 24_000, layout)
    layouts.check(made, books)
    seed = draw(st.integers(0, 99))
    codes = np.random.default_rng(seed).integers(0, size, (books, draw(st.integers(0, 20))))
    return made, np.minimum(codes + draw(st.sampled_from([0, size])), size - 1)


@given(formats())
def test_unflatten_gives_back_what_was_flattened(made: tuple[TokenFormat, np.ndarray]):
    token_format, codes = made
    flat = layouts.flatten(codes, token_format)
    assert flat.dtype == np.int16
    np.testing.assert_array_equal(layouts.unflatten(flat, token_format), codes)


def test_the_order_of_each_layout():
    codes = np.array([[1, 2, 3], [4, 5, 6]])
    interleaved = TokenFormat("codec", 2, 1024, 75.0, 24_000, "interleaved")
    assert layouts.flatten(codes, interleaved).tolist() == [1, 4, 2, 5, 3, 6]
    metavoice = TokenFormat("codec", 2, 1024, 75.0, 24_000, "metavoice")
    assert layouts.flatten(codes, metavoice).tolist() == [1, 1028, 2, 1029, 3, 1030]
    large = TokenFormat("codec", 1, 65_536, 50.0, 24_000, "interleaved")
    assert layouts.flatten(np.array([[0, 32_768, 65_535]]), large).tolist() == [-32_768, 0, 32_767]


def test_codes_that_do_not_fit_their_format_are_refused():
    two = TokenFormat("codec", 2, 1024, 75.0, 24_000, "interleaved")
    for codes in ([[0, 1024], [0, 0]], [[0, -1], [0, 0]], [[0, 1]]):
        with pytest.raises(ValueError, match="the codec gave"):
            layouts.flatten(np.array(codes), two)
    with pytest.raises(ValueError, match="3 tokens are no whole frames of 2 codebooks"):
        layouts.unflatten(np.array([1, 2, 3]), two)
    with pytest.raises(ValueError, match="the tokens are not of"):
        layouts.unflatten(np.array([1, 1024]), two)
    for layout, books, size in (("metavoice", 2, 16_385), ("interleaved", 1, 65_537)):
        with pytest.raises(ArgumentError, match=f"layout={layout} of {books} .* does not fit int16"):
            layouts.check(TokenFormat("codec", books, size, 75.0, 24_000, layout), books)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"tokenized_info": None}, "a.flac has no tokens; its status says why"),
        ({"tokenized_info": [1], "codec": None, "tokeniser": "simulated"}, "tokens of 'simulated'"),
        ({"tokenized_info": [1], "tokeniser": "own"}, "tokens of 'own', which does not say how"),
    ],
)
def test_a_row_without_tokens_of_a_codec_says_so(row: dict[str, Any], problem: str):
    for use in (tokens.unflatten, tokens.decode):
        with pytest.raises(ValueError, match=problem):
            use({"Key": "a.flac", **row})


# --- names, versions and faults -------------------------------------------------------------------------


def test_the_identity_names_weights_and_options(codecs: dict[str, str], tmp_path: pathlib.Path):
    def identity(folder: object, query: str = "") -> str:
        return load_tokeniser(f"{folder}{query}").identity

    first = identity(codecs["encodec"])
    assert first.startswith("encodec sha256=")
    assert first.endswith(" layout=interleaved encoder=2")
    assert " bandwidth=6 codebooks=2 layout=metavoice " in identity(
        codecs["encodec"], "?layout=metavoice&codebooks=2&bandwidth=6.0"
    )
    # A folder may be moved.
    shutil.copytree(codecs["encodec"], tmp_path / "moved" / "encodec")
    assert identity(tmp_path / "moved" / "encodec") == first
    assert code_version(str(tmp_path / "moved" / "encodec")) == first
    make_codec("encodec", tmp_path / "moved" / "encodec", seed=1)
    assert identity(tmp_path / "moved" / "encodec") != first


def test_the_identity_needs_neither_torch_nor_transformers(codecs: dict[str, str]):
    code = (
        "import sys; from audio_assets.tokenisation import load_tokeniser;"
        f" load_tokeniser({codecs['encodec']!r}).identity;"
        " sys.exit(sorted({'torch', 'transformers'} & set(sys.modules)) or None)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.fixture
def hub(codecs: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository as it lies in the cache of huggingface_hub once it is downloaded; nothing is asked for."""
    cached = tmp_path / "hub" / "models--facebook--encodec_24khz"
    shutil.copytree(codecs["encodec"], cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return "facebook/encodec_24khz"


def test_a_codec_of_a_model_hub_is_known_by_its_commit(hub: str, codecs: dict[str, str]):
    tokeniser = load_tokeniser(f"{hub}?bandwidth=6")
    assert tokeniser.identity == f"{hub} revision={COMMIT[:12]} bandwidth=6 layout=interleaved encoder=2"
    audio = noise(0.3, 24_000)
    row = row_of(tokeniser, audio)
    np.testing.assert_array_equal(
        row["tokenized_info"], load_tokeniser(f"{codecs['encodec']}?bandwidth=6")(audio, "etag")
    )
    assert row["codec"] == f"{hub}@{COMMIT}"
    np.testing.assert_array_equal(
        tokens.decode(row), tokens.decode(row, codec=codecs["encodec"]), strict=True
    )
    assert code_version(hub) == hub


def refusal(name: str) -> str:
    with pytest.raises(ArgumentError) as refused:
        _ = load_tokeniser(name).token_format
    return str(refused.value)


def test_a_repository_that_cannot_be_had_is_refused(hub: str):
    assert "cannot be loaded from the model hub" in refusal("facebook/no_such_codec")
    assert "'facebook/encodec_24khz@main2' is no folder here" in refusal(f"{hub}@main2")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("?bitrate=6", "has the option 'bitrate'; there are bandwidth, codebooks, layout"),
        ("?layout=delay", "has layout='delay'; there are interleaved, metavoice"),
        ("?bandwidth=five", "has bandwidth='five'; it should be a number above 0"),
        ("?codebooks=1.5", "has codebooks='1.5'; it should be a number above 0"),
        ("?bandwidth=5", "has bandwidth=5; this codec has 1.5, 3, 6, 12, 24 kbit/s"),
        ("?codebooks=3", "has codebooks=3, and the codec gives 2"),
        ("?codebooks=1&layout=metavoice", "metavoice takes 2 codebooks, and the codec gives 1"),
    ],
)
def test_wrong_options_are_refused_before_any_audio(codecs: dict[str, str], query: str, problem: str):
    assert problem in refusal(codecs["encodec"] + query)


def test_what_is_no_mono_codec_is_refused(codecs: dict[str, str], tmp_path: pathlib.Path):
    assert "a bandwidth, which dac does not take" in refusal(f"{codecs['dac']}?bandwidth=6")
    WhisperConfig().save_pretrained(tmp_path / "whisper")
    assert "has the model type 'whisper'; codecs are encodec, dac" in refusal(str(tmp_path / "whisper"))
    EncodecConfig(audio_channels=2, normalize=True).save_pretrained(tmp_path / "stereo")
    assert "stereo or scaled audio" in refusal(str(tmp_path / "stereo"))
    (tmp_path / "empty").mkdir()
    assert "is a folder without config.json" in refusal(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text("{")
    assert "is no codec that transformers can load" in refusal(str(tmp_path / "empty"))


def test_transformers_is_asked_for_where_it_is_missing(
    codecs: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "needs transformers: pip install 'audio-assets[codecs]'" in refusal(codecs["encodec"])


# --- in the pipeline ------------------------------------------------------------------------------------


def flac_48khz(seconds: float, seed: int = 0) -> tuple[bytes, np.ndarray]:
    body = flac(seconds, seed, rate=48_000)
    samples, _ = soundfile.read(io.BytesIO(body), dtype="float32")
    return body, samples


@on_disk
def test_a_48_khz_recording_becomes_metavoices_tokens_and_audio_again(
    project: Project, codecs: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    body, samples = flac_48khz(1.3)
    project.place.put("p225/a.flac", body)
    project.place.put("p225/b.flac", b"junk")
    monkeypatch.setenv("TOKENISER", f"{codecs['encodec']}?bandwidth=6&layout=metavoice")
    project.reload()
    assert project.run(KEY).success
    good, bad = project.table().sort_values("Key").to_dict("records")
    # From the 48 kHz of the source, never from Whisper's 16 kHz.
    at_24_khz = soxr.resample(samples, 48_000, 24_000)
    first, second = by_the_library(codecs["encodec"], at_24_khz, bandwidth=6.0)[:2]
    assert good["tokenized_info"].tolist() == np.stack([first, second + 1024]).T.reshape(-1).tolist()
    assert (good["codebooks"], good["codebook_size"], good["frame_rate_hz"]) == (2, 1024, 75.0)
    assert (good["codec_sample_rate_hz"], good["token_layout"]) == (24_000, "metavoice")
    np.testing.assert_array_equal(tokens.unflatten(good), [first, second])
    assert len(tokens.decode(good)) == 24_000 * 1.3
    assert (bad["status"], pd.isna(bad["codec"])) == ("failed", True)
    with pytest.raises(ValueError, match=r"p225/b.flac has no tokens; its status says why"):
        tokens.decode(bad)


@on_disk
def test_weights_that_cannot_be_read_fail_the_run_and_no_row(
    project: Project, codecs: dict[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(codecs["encodec"], tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000])
    project.place.put("p225/a.flac", flac(0.3))
    monkeypatch.setenv("TOKENISER", str(tmp_path / "torn"))
    project.reload()
    result = project.run(KEY)
    assert not result.success
    [event] = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert event.step_failure_data.error
    assert "torn' cannot be loaded" in str(event.step_failure_data.error.to_string())
    assert len(project.table()) == 0
    with pytest.raises(CodecError, match="torn' cannot be loaded"):
        load_tokeniser(str(tmp_path / "torn"))(noise(0.1, 24_000), "etag")


@on_disk
def test_a_wrong_codec_fails_the_run_by_the_name_of_the_setting(
    project: Project, codecs: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    project.place.put("p225/a.flac", flac(0.3))
    monkeypatch.setenv("TOKENISER", f"{codecs['encodec']}?bandwidth=5")
    project.reload()
    result = project.run(KEY)
    [event] = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert event.step_failure_data.error
    assert "TOKENISER=" in event.step_failure_data.error.to_string()


@on_disk
def test_another_codec_makes_the_tokens_anew_and_loads_no_whisper(
    project: Project, codecs: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    from audio_assets.defs import resources

    project.place.put("p225/a.flac", flac(0.3))
    project.place.put("p225/b.flac", flac(0.3, 1))
    assert project.run(KEY).success
    texts = project.table()["transcribed_text"].tolist()
    monkeypatch.setenv("TOKENISER", codecs["mimi"])
    project.reload()
    assert project.tick() == []
    assert "1 partitions have rows made by other settings" in (project.evaluated.skip_message or "")
    loads: list[str] = []
    resources._loaded.clear()
    monkeypatch.setattr(resources, "_load_whisper", lambda model, *_: loads.append(model))
    result = project.run(KEY)
    assert result.success
    made = {m.asset_key.to_user_string(): m for m in result.asset_materializations_for_node("speech")}
    assert made["tokens"].metadata["clips_computed"].value == 2
    assert loads == []
    rows = project.table()
    assert rows["transcribed_text"].tolist() == texts
    assert set(rows["token_layout"]) == {"interleaved"}
