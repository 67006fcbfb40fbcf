"""What names the maker of a transcript, known before a run without torch and whisper."""

import os
import pathlib
import subprocess
import sys

import pytest
import whisper
from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

from audio_assets.errors import ArgumentError
from audio_assets.settings import DEMO_CHECKPOINT
from audio_assets.transcription import model_identity
from audio_assets.transcription.identity import expected_parts, file_version, is_current
from audio_assets.transcription.whisper_names import language_codes, model_urls

VERSION = whisper.__version__


def test_the_names_read_from_whispers_source_are_those_that_it_has():
    assert model_urls() == whisper._MODELS
    assert list(model_urls()) == whisper.available_models()
    assert language_codes() == {code: code for code in LANGUAGES} | TO_LANGUAGE_CODE


def test_expected_parts_need_neither_torch_nor_whisper():
    code = f"""if True:
        import sys
        from audio_assets.transcription.identity import expected_parts, is_current
        from audio_assets.defs.resources import AudioTokeniser, Whisper
        parts = expected_parts({str(DEMO_CHECKPOINT)!r}, "English")
        is_current("whisper turbo", parts)
        assert expected_parts("turbo", "en") == Whisper(model="turbo", language="en").expected_parts()
        assert Whisper(model="turbo").code_version
        # A module that imports torch.
        version = AudioTokeniser(name="audio_assets.transcription.checkpoint:load_model").code_version
        assert "sha256=" in version, version
        sys.exit(", ".join({{"torch", "whisper"}} & set(sys.modules)) or 0)"""
    run = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_parts_of_a_named_model_are_all_but_its_weights_and_what_a_machine_adds():
    assert expected_parts("turbo", "English") == (
        "whisper turbo",
        "language=en",
        f"openai-whisper={VERSION}",
        "engine=1",
    )
    assert "language=detected" in expected_parts("turbo")


@pytest.mark.parametrize("language", [None, "en", "German"])
@pytest.mark.parametrize("model", ["turbo", "tiny.en", str(DEMO_CHECKPOINT)])
def test_a_row_of_todays_settings_is_current_whatever_the_precision(model: str, language: str | None):
    for precision in ("float32", "bfloat16"):
        identity = model_identity(model, language=language, device="cpu", precision=precision)
        assert is_current(identity, expected_parts(model, language))


@pytest.mark.parametrize(
    ("model", "language"), [("tiny", "en"), ("turbo", None), ("turbo", "de"), (str(DEMO_CHECKPOINT), "en")]
)
def test_a_row_of_another_model_or_language_is_not(model: str, language: str | None):
    identity = model_identity("turbo", language="en", device="cpu")
    assert not is_current(identity, expected_parts(model, language))


def test_a_model_whose_name_begins_another_is_another():
    identity = model_identity("tiny.en", language="en", device="cpu")
    assert not is_current(identity, expected_parts("tiny", "en"))


@pytest.mark.parametrize(
    ("now", "then"),
    [(f"openai-whisper={VERSION}", "openai-whisper=20231117"), ("engine=1", "engine=10")],
)
def test_a_row_of_an_older_engine_is_not(now: str, then: str):
    identity = model_identity("turbo", language="en", device="cpu")
    assert now in identity
    assert not is_current(identity.replace(now, then), expected_parts("turbo", "en"))


def test_a_file_that_is_replaced_in_place_makes_its_rows_old(tmp_path: pathlib.Path):
    checkpoint = tmp_path / "my model.pt"
    checkpoint.write_bytes(DEMO_CHECKPOINT.read_bytes())
    identity = model_identity(str(checkpoint), language="en", device="cpu")
    before = file_version(str(checkpoint))
    assert is_current(identity, expected_parts(str(checkpoint), "en"))
    damaged = bytearray(checkpoint.read_bytes())
    damaged[1000] ^= 1
    checkpoint.write_bytes(damaged)
    os.utime(checkpoint, ns=(1, 1))
    assert file_version(str(checkpoint)) != before
    assert not is_current(identity, expected_parts(str(checkpoint), "en"))


def test_a_name_wins_over_a_file_of_the_same_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    parts = expected_parts("turbo")
    pathlib.Path("turbo").write_bytes(b"not a checkpoint")
    assert expected_parts("turbo") == parts
    assert file_version("turbo") is None


@pytest.mark.parametrize(
    ("model", "language", "said"),
    [
        ("no/such/file", None, "model='no/such/file' is neither a file nor a model that Whisper knows: tiny"),
        ("turbo", "Klingon", "language='Klingon' is not a language that Whisper knows"),
    ],
)
def test_what_is_wrong_is_said_as_a_run_says_it(model: str, language: str | None, said: str):
    for ask in (expected_parts, lambda model, language: model_identity(model, language=language)):
        with pytest.raises(ArgumentError, match=said):
            ask(model, language)
