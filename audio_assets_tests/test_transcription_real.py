"""Real weights on human speech, named by --model and --speech: the answers of `whisper.transcribe`."""

import pathlib

import numpy as np
import pytest
import whisper

from audio_assets.transcription import Transcriber
from benchmarks.agreement import give_both_the_same_draws
from benchmarks.common import transcripts
from benchmarks.real import by_engine, by_whisper, recordings, speech


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> str:
    if path := request.config.getoption("--model"):
        return str(path)
    pytest.skip("real weights are not part of the project; name a checkpoint by --model")


@pytest.fixture(scope="module")
def clips(request: pytest.FixtureRequest) -> list[np.ndarray]:
    if folder := request.config.getoption("--speech"):
        return speech(pathlib.Path(folder), 24, 1.0)
    pytest.skip("human speech is not part of the project; name a folder of FLAC by --speech")


def test_text_language_and_segments_are_those_of_whisper_transcribe(model: str, clips: list[np.ndarray]):
    heard = [*clips, *recordings(clips, 45.0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        give_both_the_same_draws(patch.setattr)
        stock = whisper.load_model(model, device="cpu")
        theirs = [by_whisper(stock, audio, None) for audio in heard]
        ours = transcripts(Transcriber.load(model, device="cpu", precision="float32"), heard)
    for expected, said in zip(theirs, map(by_engine, ours), strict=True):
        assert (said.text, said.language) == (expected.text, expected.language)
        assert said.segments == expected.segments
