"""Every option of `whisper.transcribe` does here what it does there, words and made-up text included.

Both sides hear the same script in place of a model: random texts, and random times for their tokens. So the
rules are compared on thousands of windows, with all options drawn at random. What a model adds, the times of
tokens, is compared in `test_transcription_words.py`.
"""

import dataclasses
import sys
import types
from collections.abc import Iterator
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
import whisper
import whisper.timing
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper.decoding import DecodingOptions, DecodingResult
from whisper.timing import WordTiming
from whisper.tokenizer import Tokenizer, get_tokenizer
from whisper.utils import compression_ratio

from audio_assets.errors import ArgumentError
from audio_assets.transcription import Transcript, model_identity
from audio_assets.transcription.identity import expected_parts, is_current
from audio_assets.transcription.longform import Align, Decode, Decoded, DetectLanguage, transcribe_windows
from audio_assets.transcription.mel import LogMel
from audio_assets.transcription.transcribe_options import (
    DEFAULTS,
    NAMES,
    TranscribeArguments,
    TranscribeOptions,
)
from audio_assets.transcription.words import TOKENS_PER_SECOND, Aligned, in_language

TOKENIZER = get_tokenizer(multilingual=True, language="en")
TEXTS = (
    *(" Hello", " world", " it", "'s", " no", " 世界", " a", " longer"),
    *(".", ",", "?", "。", " (", ")", ' "', " -"),
)
TOKENS = [TOKENIZER.encode(text) for text in TEXTS]
WINDOWS = 12


class Script:
    """What is heard in the n-th decode, and when its tokens are said.

    Attributes:
        asked: the prompt and the temperature of each decode.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asked: list[tuple[tuple[int, ...], float]] = []

    def decode(self, prompt: tuple[int, ...], temperature: float) -> Decoded:
        rng = np.random.default_rng([self.seed, len(self.asked)])
        self.asked.append((prompt, temperature))
        # A script ends in silence, whatever the rules do with it.
        over = len(self.asked) > WINDOWS
        tokens = [] if over else list(self._tokens(rng))
        return Decoded(
            tuple(tokens),
            TOKENIZER.decode(tokens).strip() * (8 if rng.random() < 0.2 else 1),
            -9.0 if over else rng.choice([-0.4, -0.9, -1.3]),
            1.0 if over else rng.choice([0.1, 0.5, 0.7]),
            temperature,
        )

    def _tokens(self, rng: np.random.Generator) -> Iterator[int]:
        zero = TOKENIZER.timestamp_begin
        at = int(rng.integers(0, 50))
        for _ in range(rng.integers(1, 5)):
            yield zero + at
            for _ in range(rng.integers(0, 5)):
                yield from TOKENS[rng.integers(len(TOKENS))]
            at = min(1500, at + int(rng.choice([1, 20, 100, 400])))
            yield zero + at
        if rng.random() < 0.5:
            yield zero + at
            yield from TOKENS[0]

    def align(self, count: int, frames: int) -> Aligned:
        rng = np.random.default_rng([self.seed, len(self.asked), 1])
        steps = rng.choice([0, 1, 5, 15, 40, 150], count + 1, p=[0.2, 0.1, 0.2, 0.3, 0.15, 0.05])
        starts = np.minimum(steps.cumsum(), frames // 2)
        return Aligned(tuple(starts.tolist()), tuple(rng.choice([0.05, 0.4, 0.9], count).tolist()))


def theirs(script: Script, frames: int, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> dict[str, Any]:
    """`whisper.transcribe` of silence of so many frames, with the script in place of a model."""

    def decode(_: object, options: DecodingOptions) -> DecodingResult:
        assert isinstance(options.prompt, list)
        heard = script.decode(tuple(options.prompt), options.temperature)
        values = {name: value for name, value in vars(heard).items() if name not in ("tokens", "margin")}
        ratio = compression_ratio(heard.text)
        return DecodingResult(
            torch.empty(0), "en", tokens=list(heard.tokens), compression_ratio=ratio, **values
        )

    def find_alignment(
        _: object, tokenizer: Tokenizer, tokens: list[int], mel: object, num_frames: int
    ) -> list[WordTiming]:
        if not tokens:
            return []
        aligned = script.align(len(tokens), num_frames)
        words, parts = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
        ends = np.cumsum([len(part) for part in parts[:-1]])
        times = [np.float64(start) / TOKENS_PER_SECOND for start in aligned.starts]
        return [
            WordTiming(
                word,
                part,
                times[end - len(part)],
                times[end],
                float(np.mean(aligned.probabilities[end - len(part) : end])),
            )
            for word, part, end in zip(words, parts, ends, strict=False)
        ]

    dims = types.SimpleNamespace(n_mels=80, n_audio_ctx=1500, n_text_ctx=448)
    model: Any = types.SimpleNamespace(
        device=torch.device("cpu"), dims=dims, is_multilingual=True, num_languages=99, decode=decode
    )
    module = sys.modules["whisper.transcribe"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "log_mel_spectrogram", lambda *_, **__: torch.zeros(80, frames + 3000))
        patch.setattr(whisper.timing, "find_alignment", find_alignment)
        return whisper.transcribe(model, np.zeros(0, np.float32), fp16=False, **arguments)


def ours(script: Script, frames: int, language: str, options: TranscribeOptions) -> Transcript:
    """The same, by this package's rules."""
    steps = transcribe_windows(LogMel(torch.zeros(80, frames), frames, 0.0), TOKENIZER, language, options)
    request = next(steps)
    while True:
        assert not isinstance(request, DetectLanguage)
        answer = script.align(len(request.tokens), request.frames) if isinstance(request, Align) else None
        if isinstance(request, Decode):
            answer = script.decode(request.prompt, request.temperature)
        try:
            request = steps.send(answer)
        except StopIteration as stop:
            return stop.value


all_options = st.builds(
    TranscribeOptions,
    initial_prompt=st.none() | st.sampled_from(["", "Zaphod, Trillian", " names " * 300]),
    condition_on_previous_text=st.booleans(),
    temperatures=st.sampled_from([(0.0,), (0.4,), (0.0, 0.6), DEFAULTS.temperatures]),
    compression_ratio_threshold=st.none() | st.sampled_from([0.9, 2.4]),
    logprob_threshold=st.none() | st.sampled_from([-1.0, -0.5]),
    no_speech_threshold=st.none() | st.sampled_from([0.3, 0.6]),
    word_timestamps=st.just(True),
    hallucination_silence_threshold=st.none() | st.sampled_from([0.1, 1.0, 4.0]),
)


@settings(max_examples=300)
@given(
    st.integers(0, 10**9),
    st.sampled_from([1, 40, 900, 3000, 7001]),
    st.sampled_from(["en", "ja"]),
    all_options,
    st.booleans(),
)
def test_with_any_options_the_rules_are_those_of_transcribe(
    seed: int, frames: int, language: str, options: TranscribeOptions, words: bool
):
    if not words:
        options = dataclasses.replace(options, word_timestamps=False, hallucination_silence_threshold=None)
    # Those of a beam are the model's business, compared in `test_transcription_beam.py`.
    ours_alone = {"temperatures", "language_detection_threshold", "second_model", "logit_margin_threshold"}
    ours_alone |= {"beam_size", "patience", "best_of"}
    arguments = {name: getattr(options, name) for name in set(NAMES) - ours_alone}
    script = Script(seed)
    same_script = Script(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        expected = theirs(
            script, frames, monkeypatch, temperature=options.temperatures, language=language, **arguments
        )
    heard = ours(same_script, frames, language, options)
    assert same_script.asked == script.asked
    assert heard.text == expected["text"]
    spoken = [s for s in expected["segments"] if s["text"]]
    assert [(s.start_s, s.end_s, s.text) for s in heard.segments] == [
        (s["start"], s["end"], s["text"]) for s in spoken
    ]
    if words:
        assert [(w.word, w.start_s, w.end_s) for s in heard.segments for w in s.words or ()] == [
            (w["word"], w["start"], w["end"]) for s in spoken for w in s["words"]
        ]
        assert [w.probability for w in heard.words or ()] == pytest.approx(
            [w["probability"] for s in spoken for w in s["words"]]
        )
    else:
        assert heard.words is None


def test_a_model_for_english_alone_has_no_other_language():
    english = get_tokenizer(multilingual=False)
    assert in_language(english, "ja") is english
    assert in_language(TOKENIZER, "ja").language == "ja"
    assert TOKENIZER.language == "en"


def test_each_option_is_a_keyword_argument_of_the_same_type():
    assert get_type_hints(TranscribeArguments) == get_type_hints(TranscribeOptions)


def test_defaults_are_those_of_transcribe():
    defaults = whisper.transcribe.__kwdefaults__ or {}
    renamed = {"temperatures": "temperature"}
    for name in ("beam_size", "patience", "best_of"):
        assert getattr(DEFAULTS, name) is getattr(DecodingOptions(), name) is None
    elsewhere = {"task", "language_detection_threshold", "second_model", "beam_size", "patience", "best_of"}
    elsewhere |= {"logit_margin_threshold"}
    for name in set(NAMES) - elsewhere:
        assert getattr(DEFAULTS, name) == defaults[renamed.get(name, name)], name
    assert DEFAULTS.task == DecodingOptions().task


# --- the identity ---------------------------------------------------------------------------------------

OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"task": "translate"}, "task=translate"),
    ({"initial_prompt": "Zaphod, Trillian"}, "initial_prompt=0751958f1cf8"),
    ({"condition_on_previous_text": False}, "condition_on_previous_text=false"),
    ({"temperatures": (0.0, 0.4)}, "temperatures=0.0,0.4"),
    ({"beam_size": 5}, "beam_size=5"),
    ({"beam_size": 5, "patience": 2.0}, "beam_size=5 patience=2.0"),
    ({"best_of": 5}, "best_of=5"),
    ({"compression_ratio_threshold": None}, "compression_ratio_threshold=none"),
    ({"logprob_threshold": -0.5}, "logprob_threshold=-0.5"),
    ({"no_speech_threshold": 0.3}, "no_speech_threshold=0.3"),
    ({"word_timestamps": True}, "word_timestamps=true"),
    ({"language_detection_threshold": None}, "language_detection_threshold=none"),
    ({"second_model": "tiny.en"}, "second_model=tiny.en:d3dd57d32acc"),
    ({"logit_margin_threshold": 0.05}, "logit_margin_threshold=0.05"),
    (
        {"word_timestamps": True, "hallucination_silence_threshold": 2.0},
        "word_timestamps=true hallucination_silence_threshold=2.0",
    ),
]


@pytest.mark.parametrize(("given", "words"), OTHERS)
def test_an_option_is_part_of_the_identity_where_it_differs_from_its_default(
    given: dict[str, Any], words: str
):
    plain = model_identity("tiny", language="en", precision="bfloat16")
    options = TranscribeOptions(**given)
    identity = model_identity("tiny", language="en", precision="bfloat16", transcribe=options)
    added = set(identity.split(" ")) - set(plain.split(" "))
    assert added == set(words.split(" "))
    assert set(plain.split(" ")) - set(identity.split(" ")) <= {"temperatures=0.0-1.0"}
    assert is_current(identity, expected_parts("tiny", "en", options))
    assert not is_current(identity, expected_parts("tiny", "en"))
    assert not is_current(plain, expected_parts("tiny", "en", options))
    other = TranscribeOptions(no_speech_threshold=0.9)
    assert not is_current(identity, expected_parts("tiny", "en", other))


def test_a_long_prompt_leaves_the_identity_short():
    options = TranscribeOptions(initial_prompt="names " * 1000)
    assert len(model_identity("tiny", precision="float32", transcribe=options)) < 200


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": "summarise"}, "task='summarise' is not one of transcribe, translate"),
        ({"temperatures": ()}, "temperatures=() is not one temperature or several"),
        ({"temperatures": (0.0, 1.2)}, "each from 0 to 1"),
        ({"logprob_threshold": float("nan")}, "logprob_threshold=nan is neither a finite number nor None"),
        (
            {"hallucination_silence_threshold": 2.0},
            "hallucination_silence_threshold=2.0 needs word_timestamps",
        ),
        (
            {"word_timestamps": True, "hallucination_silence_threshold": 0.0},
            "hallucination_silence_threshold=0.0 is not a number of seconds above 0",
        ),
    ],
)
def test_a_wrong_option_is_named(given: dict[str, Any], said: str):
    with pytest.raises(ArgumentError) as e:
        TranscribeOptions(**given)
    assert said in str(e.value)
