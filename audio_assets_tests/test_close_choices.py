"""Half precision first, and float32 again where a choice was close."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper import Whisper
from whisper.tokenizer import get_tokenizer

from audio_assets.errors import ArgumentError
from audio_assets.transcription import Transcriber, Transcript, close_choices, model_identity
from audio_assets.transcription.close_choices import with_close_choices_again
from audio_assets.transcription.longform import Decoded, _margin
from audio_assets.transcription.sampling import Sampler, _only_allowed, _pick
from audio_assets.transcription.sampling import _margin as margin_of_choice
from audio_assets.transcription.transcribe_options import DEFAULTS, TranscribeOptions
from audio_assets_tests.support.random_whisper import DEMO_CHECKPOINT, DIMS, sample_speech

Heard = Iterator[tuple[int, Transcript | Exception]]


def said(text: str, margin: float) -> Transcript:
    return Transcript(text, "en", -0.1, 0.0, 1.0, 0.0, (), logit_margin=margin)


def test_what_was_close_is_heard_again_and_each_file_is_answered_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(close_choices, "FILES_AT_ONCE", 2)
    margins = {0: 1.0, 1: 0.01, 2: math.inf, 3: 0.0, 4: 0.05, 5: 0.049}
    groups: list[list[int]] = []

    def half(audio: Iterable[tuple[int, np.ndarray]]) -> Heard:
        for turn, samples in audio:
            value = int(samples[0])
            yield turn, ValueError("broken") if value == 6 else said("half", margins[value])

    def full(audio: Iterable[tuple[int, np.ndarray]]) -> Heard:
        heard = list(audio)
        groups.append([int(samples[0]) for _, samples in heard])
        for turn, _ in reversed(heard):
            yield turn, said("full", 0.0)

    clips = [(f"clip {i}", np.full(8, i, np.float32)) for i in range(7)]
    answers = list(with_close_choices_again(clips, half, full, 0.05))
    assert groups == [[1, 3], [5]]
    assert len(answers) == len(clips)
    texts = {key: answer.text for key, answer in answers if isinstance(answer, Transcript)}
    close = {"clip 1", "clip 3", "clip 5"}
    assert texts == {f"clip {i}": "full" if f"clip {i}" in close else "half" for i in range(6)}
    assert isinstance(dict(answers)["clip 6"], ValueError)


def test_long_files_end_a_group(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(close_choices, "SAMPLES_AT_ONCE", 100)
    groups: list[int] = []

    def half(audio: Iterable[tuple[int, np.ndarray]]) -> Heard:
        return ((turn, said("", 0.0)) for turn, _ in audio)

    def full(audio: Iterable[tuple[int, np.ndarray]]) -> Heard:
        heard = list(audio)
        groups.append(len(heard))
        return ((turn, said("", 0.0)) for turn, _ in heard)

    clips = enumerate(np.zeros(n, np.float32) for n in (10, 50, 70, 200, 10))
    assert len(list(with_close_choices_again(clips, half, full, 0.05))) == 5
    assert groups == [3, 1, 1]


@given(
    st.integers(0, 10**9),
    st.lists(st.tuples(st.integers(-1, 51864), st.integers(-1, 51864), st.integers(-1, 51864)), min_size=1),
)
@settings(max_examples=20)
def test_a_margin_is_the_lead_over_all_that_the_rules_leave(seed: int, said: list[tuple[int, int, int]]):
    tokenizer = get_tokenizer(True)
    sampler = Sampler(Whisper(DIMS), tokenizer, margins=True)
    zero = tokenizer.timestamp_begin
    last, before_last, stamp = (torch.tensor(column) for column in zip(*said, strict=True))
    # Who has said nothing yet has said no timestamp either.
    stamp = torch.where((stamp < zero) | (last < 0), -1, stamp)
    logits = torch.randn(len(said), DIMS.n_vocab, generator=torch.Generator().manual_seed(seed))
    _, _, margin = sampler.choose(logits.clone(), last, before_last, stamp)
    assert margin is not None

    masked = logits.index_fill(1, sampler.suppressed, -torch.inf)
    stretches = sampler._stretches(masked, sampler._allowed(last, before_last, stamp, DIMS.n_vocab))
    best = [s.best for s in stretches]
    total = [s.sum for s in stretches]
    *_, only_timestamps = _pick(best, [s.token for s in stretches], total)
    first, second = _only_allowed(stretches, only_timestamps).topk(2, dim=1).values.unbind(1)
    rule = (total[2] - torch.maximum(best[0], best[1])).abs()
    torch.testing.assert_close(margin, torch.minimum(first - second, rule), atol=1e-4, rtol=0)
    # The form that a GPU takes.
    runner_up = torch.stack([s.runner_up() for s in stretches], dim=1)
    torch.testing.assert_close(
        margin_of_choice(best, total, runner_up, only_timestamps), margin, atol=1e-4, rtol=0
    )


def test_without_the_option_no_margin_is_measured():
    sampler = Sampler(Whisper(DIMS), get_tokenizer(True))
    nothing = torch.tensor([-1])
    assert sampler.choose(torch.randn(1, DIMS.n_vocab), nothing, nothing, nothing)[2] is None


def test_a_window_is_as_close_as_its_closest_choice_or_threshold():
    window = Decoded((1,), "a", avg_logprob=-0.4, no_speech_prob=0.1, temperature=0.0, margin=0.3)

    def margin(options: TranscribeOptions = DEFAULTS, **changed: float) -> float:
        return _margin(dataclasses.replace(window, **changed), options)

    assert margin() == 0.3
    assert margin(temperature=0.2) == 0.0
    assert margin(avg_logprob=-0.99) == pytest.approx(0.01)
    assert margin(avg_logprob=-1.02) == pytest.approx(0.02)
    # Whether such a window is silent is asked only of an improbable text.
    assert margin(no_speech_prob=0.61) == 0.3
    assert margin(avg_logprob=-2.0, no_speech_prob=0.61) == pytest.approx(0.01)
    assert margin(TranscribeOptions(logprob_threshold=None), avg_logprob=-0.99) == 0.3


def texts_of(transcriber: Transcriber, clips: list[np.ndarray]) -> dict[int, Transcript]:
    answers = dict(transcriber.transcribe(enumerate(clips)))
    assert len(answers) == len(clips)
    heard = {i: t for i, t in answers.items() if isinstance(t, Transcript)}
    assert len(heard) == len(clips)
    return heard


@pytest.mark.parametrize("name", ["hesitant", "sure"])
def test_every_text_is_that_of_its_own_precision(checkpoints: dict[str, str], name: str):
    clips = sample_speech(12)
    model = checkpoints[name]

    def load(threshold: float | None, precision: str = "auto") -> Transcriber:
        return Transcriber.load(
            model,
            device="cpu",
            language="en",
            precision=precision,
            temperatures=(0.0,),
            logit_margin_threshold=threshold,
        )

    at = {p: texts_of(load(None, p), clips) for p in ("float32", "bfloat16")}
    assert all(t.logit_margin == math.inf for t in at["bfloat16"].values())
    none = load(0.0)
    of_none = texts_of(none, clips)
    assert none.stats.float32_files == none.stats.float32_s == 0
    margins = sorted(t.logit_margin for t in of_none.values())
    assert all(0 < m < math.inf for m in margins)

    middle = margins[len(margins) // 2]
    some = load(middle)
    heard = texts_of(some, clips)
    assert some.stats.float32_files == sum(m < middle for m in margins)
    assert 0 < some.stats.float32_s < some.stats.busy_s
    for i in range(len(clips)):
        precision = "float32" if of_none[i].logit_margin < middle else "bfloat16"
        assert heard[i].text == at[precision][i].text, precision
        assert of_none[i].text == at["bfloat16"][i].text
    every = load(1e9)
    assert {i: t.text for i, t in texts_of(every, clips).items()} == {
        i: t.text for i, t in at["float32"].items()
    }
    assert every.stats.float32_files == every.stats.files == len(clips)


def test_a_second_model_hears_each_file_once(checkpoints: dict[str, str]):
    clips = sample_speech(3)
    transcriber = Transcriber.load(
        str(DEMO_CHECKPOINT),
        device="cpu",
        language="en",
        second_model=checkpoints["terse"],
        logit_margin_threshold=1e9,
    )
    heard = texts_of(transcriber, clips)
    exact = texts_of(Transcriber.load(str(DEMO_CHECKPOINT), device="cpu", language="en"), clips)
    for i, transcript in heard.items():
        assert transcript.text == exact[i].text
        assert transcript.second_opinion is not None
    assert transcriber.stats.float32_files == 3
    assert transcriber.stats.second_s > 0


def test_the_identity_has_both_the_precision_and_the_threshold():
    options = TranscribeOptions(logit_margin_threshold=0.05)
    identity = model_identity("tiny", device="cpu", transcribe=options)
    assert " precision=bfloat16 " in identity
    assert identity.endswith(" logit_margin_threshold=0.05")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"precision": "float32"}, "precision float32 leaves nothing to logit_margin_threshold"),
        ({"beam_size": 5}, "logit_margin_threshold=0.05 needs greedy decoding, without beam_size"),
        ({"logit_margin_threshold": math.nan}, "logit_margin_threshold=nan is neither a finite number"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], problem: str):
    options: dict[str, Any] = {"logit_margin_threshold": 0.05, **given}
    with pytest.raises(ArgumentError, match=problem):
        Transcriber.load(str(DEMO_CHECKPOINT), device="cpu", **options)
