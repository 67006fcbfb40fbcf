"""A second model's text beside each transcript, and the word error rate between the two."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import pytest

from audio_assets.defs.resources import Whisper
from audio_assets.errors import ArgumentError
from audio_assets.transcription import Transcriber, Transcript, second_opinion
from audio_assets.transcription.second_opinion import with_second_opinion, word_error_rate
from audio_assets_tests.support.audio import UPLOADED
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.random_whisper import DEMO_CHECKPOINT, sample_speech

SAMPLE = DEMO_CHECKPOINT.parent / "sample"
Heard = Iterator[tuple[int, Transcript | Exception]]


@pytest.mark.parametrize(
    ("text", "other", "language", "rate"),
    [
        (" Hello, world!", "hello world", "en", 0.0),
        ("red green blue white", "red grin blue white", "en", 0.25),
        ("red green blue white", "green blue white", "en", 0.25),
        ("red green", "red and green or blue", "en", 1.5),
        ("It costs twenty one dollars", "it costs $21", "en", 0.0),
        ("drei vier", "drei fünf", "de", 0.5),
        ("你好世界", "你好,世间", "zh", 0.25),
        ("", " ", "en", 0.0),
        ("...", "", "fr", 0.0),
        ("", "you", "en", None),
        ("you", "", "en", 1.0),
    ],
)
def test_the_rate_is_of_words_as_whisper_normalises_them(
    text: str, other: str, language: str, rate: float | None
):
    assert word_error_rate(text, other, language) == rate


# --- two models -----------------------------------------------------------------------------------------


def said(text: str) -> Transcript:
    return Transcript(text, "en", -0.1, 0.0, 1.0, 0.0, ())


def test_each_clip_gets_the_opinion_of_its_own_in_groups_and_in_any_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(second_opinion, "CLIPS_AT_ONCE", 3)
    clips = [(f"clip {i}", np.full(10, i, np.float32)) for i in range(8)]
    pulled: list[int] = []
    groups: list[int] = []

    def audio() -> Iterator[tuple[str, np.ndarray]]:
        for i, clip in enumerate(clips):
            pulled.append(i)
            yield clip

    def second(given: Iterable[tuple[int, np.ndarray]]) -> Heard:
        heard = list(given)
        groups.append(len(heard))
        for turn, samples in reversed(heard):
            value = int(samples[0])
            yield turn, ValueError("no") if value == 4 else said(f"second {value}")

    def first(given: Iterable[tuple[int, np.ndarray]]) -> Heard:
        held: list[tuple[int, np.ndarray]] = []
        for clip in given:
            # What the first model does not ask for is not pulled.
            assert len(pulled) <= len(held) + 4
            held.append(clip)
        for turn, samples in sorted(held, key=lambda clip: -clip[1][0]):
            value = int(samples[0])
            yield turn, ValueError("broken") if value == 6 else said(f"first {value}")

    answers = dict(with_second_opinion(audio(), first, second))
    assert groups == [3, 3, 2]
    assert list(answers) == [f"clip {i}" for i in reversed(range(8))]
    assert isinstance(answers.pop("clip 6"), ValueError)
    for key, answer in answers.items():
        assert isinstance(answer, Transcript)
        assert answer.text == key.replace("clip", "first")
        opinion = answer.second_opinion
        assert (opinion and opinion.text) == (None if key == "clip 4" else key.replace("clip", "second"))


def test_a_long_clip_ends_a_group(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(second_opinion, "SAMPLES_AT_ONCE", 100)
    lengths = (10, 50, 70, 200, 10)
    groups = second_opinion._groups(enumerate(np.zeros(n, np.float32) for n in lengths))
    assert [len(group) for group in groups] == [3, 1, 1]


def test_both_texts_are_those_that_each_model_gives_alone(checkpoints: dict[str, str]):
    clips = sample_speech(5)
    other = checkpoints["terse"]
    alone, of_other = (
        dict(Transcriber.load(model, device="cpu", language="en").transcribe(enumerate(clips)))
        for model in (str(DEMO_CHECKPOINT), other)
    )
    both = Transcriber.load(
        str(DEMO_CHECKPOINT), device="cpu", language="en", second_model=other, word_timestamps=True
    )
    for i, answer in both.transcribe(enumerate(clips)):
        expected = alone[i]
        second = of_other[i]
        assert isinstance(answer, Transcript)
        assert isinstance(expected, Transcript)
        assert isinstance(second, Transcript)
        assert answer.text == expected.text
        assert answer.words
        assert answer.second_opinion
        assert answer.second_opinion.text == second.text
        assert answer.second_opinion.word_error_rate == word_error_rate(expected.text, second.text, "en")
    assert 0 < both.stats.second_s < both.stats.busy_s
    assert both.stats.files == 5


def test_a_wrong_second_model_is_named():
    with pytest.raises(ArgumentError, match="second_model='no-such' is neither a file nor a model"):
        Transcriber.load(str(DEMO_CHECKPOINT), device="cpu", second_model="no-such")


# --- in the table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_rows_carry_the_second_text_and_are_stale_without_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    first, second = ((SAMPLE / f"p225/p225_00{i}_mic1.flac").read_bytes() for i in (1, 2))
    project.place.put("p225/a.flac", first, UPLOADED)
    project.catch_up()
    [row] = project.table().to_dict("records")
    assert pd.isna(row["second_text"])
    assert pd.isna(row["second_word_error_rate"])

    monkeypatch.setenv("WHISPER_SECOND_MODEL", str(DEMO_CHECKPOINT))
    project.reload()
    project.place.put("p225/b.flac", second, UPLOADED)
    project.catch_up()
    rows = project.table().to_dict("records")
    assert len(rows) == 2
    for row in rows:
        assert row["transcribed_text"]
        assert (row["second_text"], row["second_word_error_rate"]) == (row["transcribed_text"], 0.0)
        assert " second_model=checkpoint.pt:" in row["whisper_model"]


def test_a_wrong_second_model_is_named_by_its_setting():
    whisper = Whisper(model=str(DEMO_CHECKPOINT), options={"second_model": "no-such"})
    with pytest.raises(ValueError, match="WHISPER_SECOND_MODEL='no-such' is neither a file nor a model"):
        whisper.expected_parts()
