"""How often the engine says what `whisper.transcribe` says, and how many words are wrong.

    python -m benchmarks.agreement
    python -m benchmarks.agreement --long 3600      # seconds of a recording, beside a clip of 0.05 s

Synthesises clips of held-out voices (needs espeak-ng) and reads them with the demo checkpoint, once by
`whisper.transcribe` file by file and once by the engine at each precision. For each text that differs it
prints how close the stock model was to saying something else: the least lead that a token had over the
runner-up, in units of logits, along the stock model's own text.

A long recording is compared segment by segment. Where both sides sample, above temperature 0, they are given
the same random numbers.
"""

import argparse
import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import whisper
from whisper.tokenizer import get_tokenizer

from audio_assets.demo.make_checkpoint import CHECKPOINT
from audio_assets.transcription import Transcriber, Transcript, batch
from audio_assets.transcription.sampling import draw
from benchmarks.common import machine, spoken_clips, transcripts, word_error_rate, write_results


@torch.inference_mode()
def least_lead(model: whisper.Whisper, audio: np.ndarray, theirs: dict[str, Any]) -> float:
    """The least difference between the best and the second-best logit along a text, timestamps left aside."""
    tokenizer = get_tokenizer(True, num_languages=model.num_languages, language=theirs["language"])
    said = [t for s in theirs["segments"] for t in s["tokens"]]
    mel = whisper.log_mel_spectrogram(audio, model.dims.n_mels)
    mel = torch.as_tensor(whisper.pad_or_trim(mel[:, : len(audio) // 160], 3000))[None]
    given = [*tokenizer.sot_sequence, *said]
    logits = model.logits(torch.tensor([given]), model.embed_audio(mel))[0, len(tokenizer.sot_sequence) :]
    best, second = logits[:, : tokenizer.timestamp_begin].topk(2).values.T
    return (best - second).min().item()


def recording(seconds: float) -> np.ndarray:
    """Held-out voices with pauses of 0.2 to 3 s between sentences; float32 at 16 kHz."""
    pauses = random.Random(0)
    parts = []
    length = 0
    for _, clip in spoken_clips(round(seconds)):
        parts += [clip, np.zeros(round(pauses.uniform(0.2, 3) * 16_000), np.float32)]
        length += len(parts[-2]) + len(parts[-1])
        if length >= seconds * 16_000:
            return np.concatenate(parts)[: round(seconds * 16_000)]
    raise ValueError(f"{length / 16_000:.0f} s of speech are too few for {seconds} s")


def give_both_the_same_draws(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Replace both sides' random numbers by one sequence, which each decode starts from its first.

    Args:
        replace: sets an attribute; that of a test takes it back.
    """
    uniform = torch.from_numpy(np.random.default_rng(5).random((5, 448)))
    drawn = itertools.count()

    class Categorical:
        def __init__(self, logits: torch.Tensor) -> None:
            self.logits = logits

        def sample(self) -> torch.Tensor:
            point = uniform[: len(self.logits), next(drawn)]
            return draw(self.logits, point.to(self.logits.device))

    def restart(self) -> None:
        nonlocal drawn
        drawn = itertools.count()

    replace(whisper.decoding, "Categorical", Categorical)
    replace(whisper.decoding.GreedyDecoder, "reset", restart)
    replace(batch, "draws", lambda _, count, sample: uniform[sample, :count].numpy())


def compare_long(model: str, seconds: float) -> None:
    """A long recording and the shortest of clips in one batch, each against `whisper.transcribe`."""
    give_both_the_same_draws()
    long = recording(seconds)
    heard = {f"{seconds:.0f} s": long, "0.05 s": long[:800], "45 s": long[: 45 * 16_000]}
    transcriber = Transcriber.load(model, device="cpu", language="en", batch_size=4)
    started = time.perf_counter()
    ours = dict(zip(heard, transcripts(transcriber, list(heard.values())), strict=True))
    print(f"this engine: {time.perf_counter() - started:.0f} s, {transcriber.stats}", flush=True)
    stock = whisper.load_model(model, device="cpu")
    differ = False
    for name, audio in heard.items():
        started = time.perf_counter()
        theirs = stock_transcribe(stock, audio)
        wanted = [(s["start"], s["end"], s["text"]) for s in theirs["segments"] if s["text"].strip()]
        got = [(s.start_s, s.end_s, s.text) for s in ours[name].segments]
        windows = len({s["seek"] for s in theirs["segments"]})
        sampled = len({s["seek"] for s in theirs["segments"] if s["temperature"]})
        equal = sum(a == b for a, b in zip(wanted, got, strict=False))
        print(f"{name}: {equal} of {len(wanted)} segments equal ({len(got)} of ours), {windows} windows,")
        print(f"    {sampled} of them sampled, text equal: {theirs['text'] == ours[name].text},", end=" ")
        print(f"whisper.transcribe took {time.perf_counter() - started:.0f} s", flush=True)
        differ |= wanted != got or theirs["text"] != ours[name].text
    if differ:
        raise SystemExit("the answers differ")


def stock_transcribe(model: whisper.Whisper, audio: np.ndarray) -> dict[str, Any]:
    return model.transcribe(audio, fp16=False, language="en")


def agreement(
    ours: list[Transcript], theirs: list[dict[str, Any]], audio: list[np.ndarray], stock: whisper.Whisper
) -> dict[str, Any]:
    """How many texts are equal, and what the others say."""
    other = [i for i in range(len(audio)) if ours[i].text != theirs[i]["text"]]
    figures = [
        abs(mine.avg_logprob - t["segments"][0]["avg_logprob"])
        for mine, t in zip(ours, theirs, strict=True)
        if t["segments"]
    ]
    return {
        "equal_texts": len(audio) - len(other),
        "of": len(audio),
        "largest_difference_of_avg_logprob": float(f"{max(figures):.2g}"),
        "differences": [
            {
                "stock": theirs[i]["text"],
                "ours": ours[i].text,
                "least_lead": round(least_lead(stock, audio[i], theirs[i]), 4),
            }
            for i in other
        ],
    }


def compare_short(model: str, count: int) -> None:
    """Short clips, each against `whisper.transcribe` and the words that were said; writes the figures."""
    heard = spoken_clips(count)
    said = [t for t, _ in heard]
    audio = [a for _, a in heard]
    stock = whisper.load_model(model, device="cpu")
    started = time.perf_counter()
    theirs = [stock_transcribe(stock, a) for a in audio]
    seconds = time.perf_counter() - started
    rows: list[dict[str, Any]] = [
        {
            "engine": "whisper.transcribe",
            "precision": "float32",
            "seconds": round(seconds, 1),
            "word_error_rate": round(word_error_rate(said, [t["text"] for t in theirs]), 4),
        }
    ]
    for precision in ("float32", "bfloat16"):
        transcriber = Transcriber.load(model, device="cpu", language="en", precision=precision)
        started = time.perf_counter()
        ours = transcripts(transcriber, audio)
        seconds = time.perf_counter() - started
        rows.append(
            {
                "engine": "this engine",
                "precision": precision,
                "seconds": round(seconds, 1),
                "word_error_rate": round(word_error_rate(said, [t.text for t in ours]), 4),
                **agreement(ours, theirs, audio, stock),
            }
        )
    for row in rows:
        print("  ".join(f"{k} {v}" for k, v in row.items() if k != "differences"))
        for difference in row.get("differences", []):
            print(f"    {difference}")
    settings = {"clips": len(audio), "audio_s": round(sum(map(len, audio)) / 16_000, 1)}
    write_results("agreement", {"machine": machine(), "settings": settings, "engines": rows})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(CHECKPOINT))
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--long", type=float, help="compare a recording of so many seconds instead")
    args = parser.parse_args()
    if args.long:
        compare_long(args.model, args.long)
    else:
        compare_short(args.model, args.clips)


if __name__ == "__main__":
    main()
