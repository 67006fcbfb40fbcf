"""Real weights on human speech: how often the engine says what `whisper.transcribe` says, and how fast.

    python -m benchmarks.real --model base.pt --speech flacs
    python -m benchmarks.real --model base.pt --speech flacs --device cuda --precisions float32 float16
    python -m benchmarks.real --model base.pt --speech flacs --languages 1000 --clips 0
    python -m benchmarks.real --model base.pt --speech flacs --beam 40 --clips 0 --precisions float32

The project ships neither weights nor speech: name a checkpoint that `whisper.load_model` reads, and a folder
of FLAC, one folder in it for each language.

Everything is compared with `whisper.transcribe` at float32, file by file, with its defaults: text, language,
segments with their times, log probability. Clips are taken evenly from the folders. Long recordings are clips
one after another. Where windows are sampled, above temperature 0, both sides are given the same random
numbers. Rates are told with their 95 % interval (Wilson 1927).

With --languages, the detected language alone is compared: that of the window which is transcribed, and
that of the window which Whisper takes, for clips under 30 s. With --beam, both sides search with a beam of
five, as the command `whisper` does.

With --margins, clips are also heard in half precision first, and at float32 again where a choice was closer
than each of these thresholds (`logit_margin_threshold`).
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
from whisper.audio import N_FRAMES, N_SAMPLES

from audio_assets.audio import decode_flac
from audio_assets.transcription import Transcriber, Transcript
from audio_assets.transcription.engine import Engine
from audio_assets.transcription.language import PROBABILITY_DECIMALS
from audio_assets.transcription.mel import log_mels
from audio_assets.transcription.options import Options
from audio_assets.transcription.transcribe_options import DEFAULTS
from benchmarks.agreement import give_both_the_same_draws
from benchmarks.common import RESULTS, flac_files, machine, transcripts

CERTAIN_FROM = DEFAULTS.language_detection_threshold or math.inf
BEAM_SIZE = 5
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
    for path in flac_files(folder):
        by_folder.setdefault(path.parent, []).append(path)
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


def by_whisper(model: whisper.Whisper, audio: np.ndarray, language: str | None, **options: Any) -> Heard:
    said: Any = model.transcribe(audio, language=language, fp16=False, **options)
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


@dataclasses.dataclass(frozen=True)
class Language:
    """What is detected in one clip: a language and its probability for each window, and Whisper's answer."""

    transcribed: tuple[str, float]
    padded: tuple[str, float]
    whisper: tuple[str, float]

    def by_engine(self, certain: float) -> tuple[str, float]:
        """The engine's answer, if it takes the transcribed window's from this probability on."""
        return self.transcribed if self.transcribed[1] >= certain else self.padded


def compared_languages(found: Sequence[Language], thresholds: Sequence[float]) -> dict[str, Any]:
    """How often the engine's language differs from Whisper's, by where it counts as certain."""

    def differ(certain: float) -> list[Language]:
        return [f for f in found if f.by_engine(certain)[0] != f.whisper[0]]

    return {
        "by_threshold": [
            {
                "certain_from": certain if certain < math.inf else None,
                "one_window": sum(f.transcribed[1] >= certain for f in found),
                "languages": rate(len(differ(certain)), len(found)),
            }
            for certain in (*thresholds, math.inf)
        ],
        "that_differ": [dataclasses.asdict(f) for f in differ(CERTAIN_FROM)],
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

    def whispers(self, clips: Sequence[np.ndarray], **options: Any) -> tuple[list[Heard], float]:
        started = time.perf_counter()
        heard = [by_whisper(self.stock, clip, self.args.language, **options) for clip in clips]
        return heard, seconds_of(self.device, started)

    def engines(
        self, clips: Sequence[np.ndarray], precision: str, **options: Any
    ) -> tuple[list[Heard], float, dict[str, int]]:
        """What the engine hears, its seconds, how many windows it sampled, and how many clips it heard again
        at float32."""
        language = self.args.language
        transcriber = Transcriber.load(
            self.args.model, device=self.device, language=language, precision=precision, **options
        )
        # What is compiled, or captured as a graph, is so in the first batch.
        transcripts(transcriber, clips[: self.args.warm_up])
        before = dataclasses.replace(transcriber.stats)
        started = time.perf_counter()
        said = transcripts(transcriber, clips)
        taken = seconds_of(self.device, started)
        counts = {
            "fallbacks": transcriber.stats.fallbacks - before.fallbacks,
            "float32_files": transcriber.stats.float32_files - before.float32_files,
        }
        return [by_engine(s) for s in said], taken, counts

    def of(
        self, clips: Sequence[np.ndarray], margins: Sequence[float] = (), **options: Any
    ) -> dict[str, Any]:
        theirs, stock_s = self.whispers(clips, **options)
        found: dict[str, Any] = {
            "clips": len(clips),
            "audio_s": round(sum(map(len, clips)) / 16_000, 1),
            "whisper_s": round(stock_s, 2),
        }

        def engines(name: str, precision: str, **options: Any) -> dict[str, Any]:
            ours, taken, counts = self.engines(clips, precision, **options)
            of = {"seconds": round(taken, 2), "times_whisper": round(stock_s / taken, 2), **counts}
            of |= compared(theirs, ours)
            brief = {k: v for k, v in of.items() if k != "texts_that_differ"}
            print(f"{len(clips)} recordings, {name}: {json.dumps(brief)}", flush=True)
            return of

        found |= {precision: engines(precision, precision, **options) for precision in self.args.precisions}
        if margins:
            found["margins"] = [
                {"threshold": m, **engines(f"margin {m}", "auto", logit_margin_threshold=m, **options)}
                for m in margins
            ]
        return found

    def of_languages(self, clips: Sequence[np.ndarray], precision: str) -> dict[str, Any]:
        options = Options(self.args.model, device=self.device, precision=precision).resolve()
        engine = Engine.load(options)

        def detect(window: torch.Tensor) -> tuple[str, float]:
            (said,) = engine.detect_languages(engine.encoder([window]))
            return said.language, said.probability

        def of(clip: np.ndarray) -> Language:
            (mel,) = log_mels([clip], engine.dims.n_mels, engine.device)
            theirs: Any = whisper.log_mel_spectrogram(clip, engine.dims.n_mels, padding=N_SAMPLES)
            window: Any = whisper.pad_or_trim(theirs, N_FRAMES)
            probabilities: Any = self.stock.detect_language(window.to(engine.device))[1]
            best = max(probabilities, key=probabilities.get)
            ours = detect(mel.window(0)), detect(mel.language_window())
            return Language(*ours, (best, round(probabilities[best], PROBABILITY_DECIMALS)))

        with torch.inference_mode():
            found = [of(clip) for clip in clips]
        compared = compared_languages(found, (0.5, 0.7, 0.8, CERTAIN_FROM, 0.95, 0.99))
        print(f"languages, {precision}: {json.dumps(compared)}", flush=True)
        return compared

    def of_words(self, clips: Sequence[np.ndarray]) -> dict[str, Any]:
        theirs, stock_s = self.whispers(clips, word_timestamps=True)
        ours, taken, _ = self.engines(clips, "float32", word_timestamps=True)
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
    parser.add_argument("--languages", type=int, default=0, help="clips whose language alone is compared")
    parser.add_argument("--beam", type=int, default=0, help="clips that both sides search with a beam of 5")
    parser.add_argument("--margins", type=float, nargs="*", default=[0.02, 0.05, 0.1], help="in logits")
    parser.add_argument("--warm-up", type=int, default=2, help="clips that are heard before time is taken")
    args = parser.parse_args()
    if args.model is None or args.speech is None:
        raise SystemExit("name a checkpoint by --model and a folder of human speech by --speech")
    give_both_the_same_draws()
    comparison = Comparison(args)
    name = pathlib.Path(args.model).stem
    path = RESULTS / f"real_{args.device}_{name}.json"
    # What this run does not measure stays as an earlier one left it.
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    settings = {k: v for k, v in vars(args).items() if k not in ("model", "speech")} | {"model": name}
    if args.clips:
        clips = speech(args.speech, args.clips, args.shortest)
        short = comparison.of(clips, margins=args.margins)
        found |= {"machine": machine(), "settings": settings, "short": short}
        if args.recordings:
            found["long"] = comparison.of(recordings(clips, args.long, args.recordings))
        if args.words:
            found["words"] = comparison.of_words(clips[:: max(1, len(clips) // args.words)][: args.words])
    if args.languages:
        clips = speech(args.speech, args.languages, args.shortest)
        found["languages"] = {
            "clips": len(clips),
            "audio_s": round(sum(map(len, clips)) / 16_000, 1),
            "machine": machine(),
            **{precision: comparison.of_languages(clips, precision) for precision in args.precisions},
        }
    if args.beam:
        clips = speech(args.speech, args.beam, args.shortest)
        found["beam"] = {"machine": machine(), "precisions": args.precisions}
        found["beam"] |= comparison.of(clips, beam_size=BEAM_SIZE)
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
