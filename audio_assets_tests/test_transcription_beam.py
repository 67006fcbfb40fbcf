"""Beam search, patience and several samples give the answers of `whisper.transcribe`, in any batch."""

from typing import Any

import pytest
import torch
import whisper
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.decoding import BeamSearchDecoder, Inference, MaximumLikelihoodRanker
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from audio_assets.errors import ArgumentError
from audio_assets.settings import DEMO_CHECKPOINT
from audio_assets.transcription import Transcriber
from audio_assets.transcription.beam import BeamSearch, best_of
from audio_assets.transcription.decoder import Decoder
from audio_assets.transcription.graphs import Graphs, bucket
from audio_assets.transcription.sampling import Sampler, _only_allowed, _pick
from audio_assets_tests.support.random_whisper import DIMS, noise, sample_speech, transcripts
from audio_assets_tests.test_transcription import assert_same

EOT = 0
VOCABULARY = 6


pytestmark = pytest.mark.usefixtures("one_thread")


class NoCache(Inference):
    def rearrange_kv_cache(self, source_indices: list[int]) -> None:
        """There is none."""


def theirs(logits: torch.Tensor, size: int, patience: float | None) -> tuple[list[int], float]:
    """What Whisper's decoder finds; logits: float32 [steps, VOCABULARY, VOCABULARY], by the token before."""
    decoder = BeamSearchDecoder(size, EOT, NoCache(), patience)
    tokens = torch.full((size, 1), 1)
    sums = torch.zeros(size)
    for step in logits:
        tokens, completed = decoder.update(tokens, step[tokens[:, -1]], sums)
        if completed:
            break
    texts, all_sums = decoder.finalize(tokens.reshape(1, size, -1), sums.reshape(1, size))
    cut = [[text[1 : int((text == EOT).nonzero()[0, 0])] for text in texts[0]]]
    [chosen] = MaximumLikelihoodRanker(None).rank(cut, all_sums)
    return cut[0][chosen].tolist(), all_sums[0][chosen]


def ours(logits: torch.Tensor, size: int, patience: float | None) -> tuple[list[int], float]:
    search = BeamSearch(size, patience, EOT)
    for step in logits:
        last = [text[-1] if text else 1 for text, _ in search.beams]
        best, tokens = step[last].log_softmax(dim=1).topk(size + 1, dim=1)
        search.extend(tokens.tolist(), best.tolist())
        if search.is_over:
            break
    text, total = best_of(search.results())
    return list(text), total


@given(
    st.integers(0, 10**9),
    st.integers(1, 4),
    st.none() | st.sampled_from([0.5, 1.0, 1.7, 3.0]),
    st.integers(1, 8),
    st.floats(-4, 4),
)
def test_the_search_is_that_of_whisper(seed: int, size: int, patience: float | None, steps: int, end: float):
    if round(size * (patience or 1.0)) < 1:
        return
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(steps, VOCABULARY, VOCABULARY, generator=generator)
    logits[:, :, EOT] += end
    # No text is empty: a transcript begins with a timestamp.
    logits[0, :, EOT] = -torch.inf
    expected = theirs(logits, size, patience)
    found = ours(logits, size, patience)
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], abs=1e-5)


@given(
    st.integers(0, 10**9),
    st.lists(st.tuples(st.integers(-1, 51864), st.integers(-1, 51864), st.integers(-1, 51864)), min_size=1),
)
@settings(max_examples=20)
def test_the_best_tokens_are_those_that_the_rules_leave(seed: int, said: list[tuple[int, int, int]]):
    tokenizer = get_tokenizer(True)
    sampler = Sampler(Whisper(DIMS), tokenizer)
    zero = tokenizer.timestamp_begin
    last, before_last, stamp = (torch.tensor(column) for column in zip(*said, strict=True))
    # Who has said nothing yet has said no timestamp either.
    stamp = torch.where((stamp < zero) | (last < 0), -1, stamp)
    logits = torch.randn(len(said), DIMS.n_vocab, generator=torch.Generator().manual_seed(seed))
    logits[:, zero:] += 2
    token, logprob = sampler.best(logits.clone(), last, before_last, stamp, 6)
    # What is drawn from holds the same rules.
    masked = logits.index_fill(1, sampler.suppressed, -torch.inf)
    stretches = sampler._stretches(masked, sampler._allowed(last, before_last, stamp, DIMS.n_vocab))
    *_, only_timestamps = _pick(
        [s.best for s in stretches], [s.token for s in stretches], [s.sum for s in stretches]
    )
    expected, places = _only_allowed(stretches, only_timestamps).log_softmax(dim=1).topk(6, dim=1)
    torch.testing.assert_close(logprob, expected, atol=1e-4, rtol=0)
    assert torch.equal(token[expected > -torch.inf], places[expected > -torch.inf])


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("hesitant", {"beam_size": 5}),
    ("terse", {"beam_size": 1}),
    ("sure", {"beam_size": 3, "patience": 2.0}),
    ("hesitant", {"beam_size": 4, "patience": 0.5}),
    ("hesitant", {"best_of": 3}),
    ("terse", {"beam_size": 2, "best_of": 5}),
]


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_answers_are_those_of_transcribe(
    checkpoints: dict[str, str], same_randomness: None, name: str, options: dict[str, Any]
):
    clips = [noise(s, i) for i, s in enumerate((0.05, 0.2, 3, 31, 2))]
    stock = whisper.load_model(checkpoints[name], device="cpu")
    # Texts of several rows join and leave beside one another.
    transcriber = Transcriber.load(checkpoints[name], language="en", device="cpu", batch_size=11, **options)
    heard = transcripts(transcriber, clips)
    for i, clip in enumerate(clips):
        assert_same(heard[i], stock.transcribe(clip, language="en", fp16=False, **options))


def test_the_sample_speech_is_read_as_by_transcribe():
    clips = sample_speech(4)
    stock = whisper.load_model(str(DEMO_CHECKPOINT), device="cpu")
    transcriber = Transcriber.load(str(DEMO_CHECKPOINT), language="en", device="cpu", beam_size=5)
    heard = transcripts(transcriber, clips)
    for i, clip in enumerate(clips):
        assert_same(heard[i], stock.transcribe(clip, language="en", fp16=False, beam_size=5))


def test_samples_differ_and_are_the_same_in_every_run(checkpoints: dict[str, str]):
    clips = [noise(2, i) for i in range(3)]
    load = {"language": "en", "device": "cpu", "temperatures": (0.8,)}
    several = Transcriber.load(checkpoints["hesitant"], **load, best_of=4)
    first = transcripts(several, clips)
    assert first == transcripts(several, clips)
    # The more probable of four is hardly ever the first.
    one = transcripts(Transcriber.load(checkpoints["hesitant"], **load), clips)
    assert any(first[i].avg_logprob > one[i].avg_logprob for i in one)


def test_rows_in_buckets_as_a_gpu_has_them_change_no_answer(
    checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    clips = [noise(s, i) for i, s in enumerate((1, 2, 31, 0.05))]
    load = {"language": "en", "device": "cpu", "batch_size": 12, "beam_size": 3}
    wanted = transcripts(Transcriber.load(checkpoints["terse"], **load), clips)

    def run(self: Graphs, rows: int, most_rows: int, longest: int, most_length: int, sampling: bool) -> None:
        self.advance(bucket(rows, most_rows, 4), bucket(longest, most_length, 64), sampling)

    monkeypatch.setattr(Graphs, "run", run)
    assert {
        i: t.text for i, t in transcripts(Transcriber.load(checkpoints["terse"], **load), clips).items()
    } == {i: t.text for i, t in wanted.items()}


def test_a_batch_that_runs_out_of_memory_keeps_room_for_a_beam(
    checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    step = Decoder.step
    shortages = 1

    def short_of_memory(self: Decoder, *args: Any) -> torch.Tensor:
        nonlocal shortages
        if shortages:
            shortages -= 1
            raise torch.OutOfMemoryError("out of memory")
        return step(self, *args)

    monkeypatch.setattr(Decoder, "step", short_of_memory)
    clips = [noise(1, i) for i in range(3)]
    load = {"language": "en", "device": "cpu", "beam_size": 4}
    transcriber = Transcriber.load(checkpoints["terse"], **load, batch_size=8)
    assert len(transcripts(transcriber, clips)) == 3
    assert transcriber.batch_size == 4
    shortages = 1
    with pytest.raises(torch.OutOfMemoryError):
        transcripts(transcriber, clips)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"beam_size": 0}, "beam_size=0 is not at least 1"),
        ({"best_of": -1}, "best_of=-1 is not at least 1"),
        ({"patience": 2.0}, "patience=2.0 needs beam_size"),
        ({"beam_size": 2, "patience": 0.1}, "patience=0.1 with beam_size=2 lets no text end"),
        ({"beam_size": 5, "batch_size": 4}, "batch_size=4 has no room for the 5 texts"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], said: str):
    with pytest.raises(ArgumentError, match=said):
        Transcriber.load(str(DEMO_CHECKPOINT), device="cpu", **options)
