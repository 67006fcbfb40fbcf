"""What options cost: a language that is detected, certain or not, a second model, and a beam search.

    python -m benchmarks.options --device cuda --shape large-v3-turbo --clips 256
    python -m benchmarks.options --shape base

The models read out a script (`benchmarks/scripted.py`), so that each run says the same tokens. Where a
language is certain it is taken from the window that is transcribed, else from another one: both are forced by
the threshold. The second model has the shape of tiny. Figures are medians of three passes over all clips.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from audio_assets.transcription import Transcriber
from audio_assets.transcription.options import SECOND_BATCH_SIZE
from audio_assets.transcription.second_opinion import with_second_opinion
from audio_assets.transcription.transcribe_options import TranscribeOptions
from benchmarks.common import RESULTS, machine
from benchmarks.engine import noises
from benchmarks.peers import our_transcriber
from benchmarks.scripted import SHAPES, scripted_whisper

TOKENS = 40
PASSES = 3


def measure(run: Callable[[], Iterable[Any]], first: Transcriber) -> dict[str, Any]:
    """Median seconds of a pass over all clips, and how many windows it encodes with the first model."""

    def timed() -> float:
        started = time.perf_counter()
        for _ in run():
            pass
        if first.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    timed()
    windows = first.stats.windows
    seconds = [timed() for _ in range(PASSES)]
    taken = (first.stats.windows - windows) // PASSES
    return {"s": round(statistics.median(seconds), 3), "windows": taken}


def passes(args: argparse.Namespace, clips: list[np.ndarray]) -> dict[str, dict[str, Any]]:
    model = scripted_whisper(args.shape, TOKENS).to(args.device)
    tiny = scripted_whisper("tiny", TOKENS).to(args.device)
    first = our_transcriber(model, "auto", "en")
    second = our_transcriber(tiny, "auto", "en", SECOND_BATCH_SIZE)
    found = {
        "given": measure(lambda: first.transcribe(enumerate(clips)), first),
        "second model": measure(
            lambda: with_second_opinion(enumerate(clips), first.transcribe, second.transcribe), first
        ),
    }
    others = {
        "certain": (None, TranscribeOptions(language_detection_threshold=0.0)),
        "not certain": (None, TranscribeOptions(language_detection_threshold=None)),
        "beam": ("en", TranscribeOptions(beam_size=5)),
    }
    for name, (language, options) in others.items():
        other = our_transcriber(model, "auto", language, transcribe=options)
        found[name] = measure(lambda by=other: by.transcribe(enumerate(clips)), other)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=list(SHAPES), default="base")
    parser.add_argument("--clips", type=int, default=24)
    args = parser.parse_args()
    clips = noises(args.clips, 3.0, 15.0)
    found = {
        "machine": machine(),
        "settings": vars(args),
        "audio_s": round(sum(map(len, clips)) / 16_000, 1),
        "passes": passes(args, clips),
    }
    path = RESULTS / f"options_{args.device}_{args.shape}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["passes"], indent=1))


if __name__ == "__main__":
    main()
