"""Real weights on human speech: how often the engine says what `whisper.transcribe` says, and how fast.

    python -m benchmarks.real --model base.pt --speech flacs
    python -m benchmarks.real --model base.pt --speech flacs --device cuda --precisions float32 float16

The project ships neither weights nor speech: name a checkpoint that `whisper.load_model` reads, and a folder
of FLAC, one folder in it for each language.

Everything is compared with `whisper.transcribe` at float32, file by file, with its defaults: text, language,
segments with their times, log probability. Clips are taken evenly from the folders. Long recordings are clips
one after another. Where windows are sampled, above temperature 0, both sides are given the same random
numbers. Rates are told with their 95 % interval (Wilson 1927).
"""

import argparse
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import whisper

from audio_assets.audio import decode_flac
from audio_assets.transcription import Transcriber, Transcript
from benchmarks.agreement import give_both_the_same_draws
from benchmarks.common import RESULTS, machine, transcripts

TOLERANCE = 1e-3
"""How far two mean log probabilities may lie apart and count as equal."""


@dataclasses.dataclass(frozen=True)
class Heard:
    """What one side says of one recording."""

    text: str
    language: str
    segments: list[tuple[float, float, str]]
    avg_logprob: float
    words: list[tuple[str, float, float]]


def speech(folder: pathlib.Path, count: int, shortest_s: float) -> list[np.ndarray]:
    """`count` clips, taken in turn from the folders and evenly from each, of at least `shortest_s`."""
    by_folder: dict[pathlib.Path, list[pathlib.Path]] = {}
    for path in sorted(folder.rglob("*.flac")):
        by_folder.setdefault(path.parent, []).append(path)
    if not by_folder:
        raise SystemExit(f"{folder} holds no .flac; --speech names a folder of human speech")
    share = -(-count // len(by_folder))
    chosen: list[np.ndarray] = []
    for paths in by_folder.values():
        step = max(1, len(paths) // (2 * share))
        clips = (decode_flac(path.read_bytes()).samples for path in paths[::step])
        chosen += [clip for clip in clips if len(clip) >= shortest_s * 16_000][:share]
    return chosen[:count]


def recordings(clips: Sequence[np.ndarray], seconds: float, count: int) -> list[np.ndarray]:
    """Recordings of `seconds` each, clips one after another with 0.3 s between them."""
    pause = np.zeros(4_800, np.float32)
    whole = np.concatenate([part for clip in clips for part in (clip, pause)])
    length = round(seconds * 16_000)
    return [whole[at : at + length] for at in range(0, len(whole) - length // 2, length)][:count]


# --- both sides -----------------------------------------------------------------------------------------


def by_whisper(model: whisper.Whisper, audio: np.ndarray, language: str | None, words: bool) -> Heard:
    said: Any = model.transcribe(audio, language=language, fp16=False, word_timestamps=words)
    segments = [s for s in said["segments"] if s["text"].strip() and s["start"] != s["end"]]
    return Heard(
        said["text"],
        said["language"],
        [(s["start"], s["end"], s["text"]) for s in segments],
        said["segments"][0]["avg_logprob"] if len({s["seek"] for s in said["segments"]}) == 1 else math.nan,
        [(w["word"], float(w["start"]), float(w["end"])) for s in segments for w in s.get("words", [])],
    )


def by_engine(said: Transcript) -> Heard:
    segments = [(s.start_s, s.end_s, s.text) for s in said.segments]
    words = [(w.word, float(w.start_s), float(w.end_s)) for w in said.words or ()]
    return Heard(said.text, said.language, segments, said.avg_logprob, words)


def seconds_of(device: str, started: float) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


# --- what is measured -----------------------------------------------------------------------------------


def rate(differing: int, of: int) -> dict[str, Any]:
    """A rate and its 95 % interval by Wilson's score, which holds for rare events too."""
    z = 1.96
    p = differing / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    spread = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    interval = [round(max(0.0, middle - spread), 4), round(min(1.0, middle + spread), 4)]
    return {"differ": differing, "of": of, "rate": round(p, 4), "interval": interval}


def compared(theirs: Sequence[Heard], ours: Sequence[Heard]) -> dict[str, Any]:
    """How often each thing that is said differs; the differing texts are listed."""
    pairs = list(zip(theirs, ours, strict=True))
    # Of a recording of several windows, whisper has one figure for each.
    figures = [(a.avg_logprob, b.avg_logprob) for a, b in pairs if a.text == b.text]
    far = [abs(a - b) > TOLERANCE for a, b in figures if not math.isnan(a)]
    wrong = [(a, b) for a, b in pairs if a.text != b.text]
    return {
        "texts": rate(len(wrong), len(pairs)),
        "languages": rate(sum(a.language != b.language for a, b in pairs), len(pairs)),
        "segments": rate(sum(a.segments != b.segments for a, b in pairs), len(pairs)),
        "avg_logprob": rate(sum(far), len(far)) if far else None,
        "texts_that_differ": [
            {"whisper": a.text, "engine": b.text, "languages": [a.language, b.language]} for a, b in wrong
        ],
    }


def compared_words(theirs: Sequence[Heard], ours: Sequence[Heard]) -> dict[str, Any]:
    """Words that are the same, and how far their times lie apart."""
    pairs = [(a, b) for a, b in zip(theirs, ours, strict=True) if a.text == b.text]
    words = [(x, y) for a, b in pairs for x, y in zip(a.words, b.words, strict=False)]
    apart = [max(abs(x[1] - y[1]), abs(x[2] - y[2])) for x, y in words]
    return {
        "clips": len(pairs),
        "words": rate(sum(x[0] != y[0] for x, y in words), len(words)),
        "times": rate(sum(distance > 1e-6 for distance in apart), len(apart)),
        "largest_distance_s": round(max(apart), 3),
    }


class Comparison:
    """A checkpoint, and both sides that read with it.

    Args:
        args: of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device: str = args.device
        self.stock = whisper.load_model(args.model, device=self.device)

    def whispers(self, clips: Sequence[np.ndarray], *, words: bool = False) -> tuple[list[Heard], float]:
        started = time.perf_counter()
        heard = [by_whisper(self.stock, clip, self.args.language, words) for clip in clips]
        return heard, seconds_of(self.device, started)

    def engines(
        self, clips: Sequence[np.ndarray], precision: str, *, words: bool = False
    ) -> tuple[list[Heard], float, int]:
        """What the engine hears, its seconds, and how many windows it sampled."""
        language = self.args.language
        options: dict[str, Any] = {"word_timestamps": True} if words else {}
        transcriber = Transcriber.load(
            self.args.model, device=self.device, language=language, precision=precision, **options
        )
        # What is compiled, or captured as a graph, is so in the first batch.
        transcripts(transcriber, clips[: self.args.warm_up])
        before = transcriber.stats.fallbacks
        started = time.perf_counter()
        said = transcripts(transcriber, clips)
        taken = seconds_of(self.device, started)
        return [by_engine(s) for s in said], taken, transcriber.stats.fallbacks - before

    def of(self, clips: Sequence[np.ndarray]) -> dict[str, Any]:
        theirs, stock_s = self.whispers(clips)
        found: dict[str, Any] = {
            "clips": len(clips),
            "audio_s": round(sum(map(len, clips)) / 16_000, 1),
            "whisper_s": round(stock_s, 2),
        }
        for precision in self.args.precisions:
            ours, taken, fallbacks = self.engines(clips, precision)
            found[precision] = {
                "seconds": round(taken, 2),
                "times_whisper": round(stock_s / taken, 2),
                "fallbacks": fallbacks,
                **compared(theirs, ours),
            }
            brief = {k: v for k, v in found[precision].items() if k != "texts_that_differ"}
            print(f"{len(clips)} recordings, {precision}: {json.dumps(brief)}", flush=True)
        return found

    def of_words(self, clips: Sequence[np.ndarray]) -> dict[str, Any]:
        theirs, stock_s = self.whispers(clips, words=True)
        ours, taken, _ = self.engines(clips, "float32", words=True)
        found = {"times_whisper": round(stock_s / taken, 2), **compared_words(theirs, ours)}
        print(f"words, float32: {json.dumps(found)}", flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", help="a checkpoint in OpenAI's format, or a name that Whisper downloads")
    parser.add_argument("--speech", type=pathlib.Path, help="a folder of FLAC")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--language", help="given to both sides; each detects it if this is left out")
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--shortest", type=float, default=1.0, help="seconds of a clip")
    parser.add_argument("--long", type=float, default=120.0, help="seconds of a long recording")
    parser.add_argument("--recordings", type=int, default=2, help="how many long ones")
    parser.add_argument("--words", type=int, default=20, help="clips whose word times are compared")
    parser.add_argument("--warm-up", type=int, default=2, help="clips that are heard before time is taken")
    args = parser.parse_args()
    if args.model is None or args.speech is None:
        raise SystemExit("name a checkpoint by --model and a folder of human speech by --speech")
    clips = speech(args.speech, args.clips, args.shortest)
    give_both_the_same_draws()
    comparison = Comparison(args)
    name = pathlib.Path(args.model).stem
    found: dict[str, Any] = {
        "machine": machine(),
        "settings": {k: v for k, v in vars(args).items() if k not in ("model", "speech")} | {"model": name},
        "short": comparison.of(clips),
    }
    if args.recordings:
        found["long"] = comparison.of(recordings(clips, args.long, args.recordings))
    if args.words:
        found["words"] = comparison.of_words(clips[:: max(1, len(clips) // args.words)][: args.words])
    path = RESULTS / f"real_{args.device}_{name}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
