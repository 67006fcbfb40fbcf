"""Codecs as tokenisers: speed against the library's own loop, what batches change, and the whole pass.

    python -m benchmarks.codecs                                   # CPU
    python -m benchmarks.codecs --device cuda --clips 256 --shape large-v3-turbo

The codecs have the published shapes and random weights: speed depends on the shape alone. Each way of running
takes its turn in each round; figures are medians over the rounds.

one by one   the loop of the library's documentation, on all cores: features, `encode`, the next clip
batches      the same on batches of clips of like length, padded as the library pads, without a mask
tokeniser    this project's, called by the threads of a pass
"""

import argparse
import concurrent.futures
import io
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soundfile
import torch
import whisper

from audio_assets.audio import SAMPLE_RATE_HZ, decode, read_flac
from audio_assets.parallel import map_ahead
from audio_assets.speech import OBJECTS_AHEAD
from audio_assets.table import THREADS
from audio_assets.tokenisation import Tokeniser, load_tokeniser
from audio_assets.tokenisation.codec import LoadedCodec, load_codec
from audio_assets.tokenisation.codec_name import CodecName, parse
from audio_assets_tests.support.codecs import make_codec, one_core
from benchmarks.common import RESULTS, machine, transcripts
from benchmarks.peers import our_transcriber
from benchmarks.scripted import SHAPES, scripted_whisper

CODECS = {"encodec": "bandwidth=6", "dac": "", "mimi": "codebooks=8"}
"""Which codecs, and how they are used."""
SOURCE_HZ = 48_000
BATCH = 16
ON_BOTH = 4
"""Clips whose tokens by a GPU are compared with those by a CPU."""

Codes = list[np.ndarray]


def recordings(count: int, shortest_s: float, longest_s: float, rate_hz: int) -> list[np.ndarray]:
    """float32 clips of evenly spread lengths in random order: noise that swells and fades like syllables."""
    rng = np.random.default_rng(0)
    made = []
    for length in rng.permutation(np.linspace(shortest_s, longest_s, count)):
        samples = round(length * rate_hz)
        swell = np.sin(np.linspace(0, 4 * np.pi * length, samples)) ** 2
        made.append((rng.normal(0, 0.1, samples) * swell).astype(np.float32))
    return made


# --- ways of running ------------------------------------------------------------------------------------


def one_by_one(loaded: LoadedCodec, options: CodecName, clips: Sequence[np.ndarray]) -> Codes:
    return [loaded.encode(clip, options) for clip in clips]


@torch.inference_mode()
def batches(loaded: LoadedCodec, options: CodecName, clips: Sequence[np.ndarray], batch: int) -> Codes:
    """Codes of clips that went through the codec beside others of like length; padding cut off."""
    order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        features = loaded._features(
            [clips[i] for i in chosen], sampling_rate=loaded._rate_hz, padding=True, return_tensors="pt"
        )
        values = features["input_values"].to(loaded._device)
        codes = _encode(loaded._model, values, options).cpu().numpy()
        for at, i in enumerate(chosen):
            found[i] = codes[at, :, : -(-len(clips[i]) // loaded._frame)]
    return [found[i] for i in range(len(clips))]


def _encode(model: Any, values: torch.Tensor, options: CodecName) -> torch.Tensor:
    """Codes [batch, codebooks, frames]."""
    kind = model.config.model_type
    if kind == "encodec":
        return model.encode(values, None, options.bandwidth).audio_codes[0]
    count = {"dac": "n_quantizers", "mimi": "num_quantizers"}[kind]
    return model.encode(values, **{count: options.codebooks}).audio_codes


def by_tokeniser(tokeniser: Tokeniser, clips: Sequence[np.ndarray]) -> Codes:
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda clip: tokeniser(clip, ""), clips))


# --- what is measured -----------------------------------------------------------------------------------


def differing(alone: Codes, other: Codes) -> dict[str, float]:
    """Shares of tokens, and of clips, that differ."""
    pairs = [(a[:, : b.shape[1]], b[:, : a.shape[1]]) for a, b in zip(alone, other, strict=True)]
    wrong = [int((a != b).sum()) for a, b in pairs]
    return {
        "tokens": sum(wrong) / sum(a.size for a, _ in pairs),
        "clips": sum(map(bool, wrong)) / len(pairs),
    }


def timed(device: str, run: Callable[[], Codes]) -> tuple[float, Codes]:
    started = time.perf_counter()
    made = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, made


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    options = parse(name)
    tokeniser = load_tokeniser(name, args.device)
    loaded = load_codec(options, args.device)
    clips = recordings(args.clips, args.shortest, args.longest, tokeniser.sample_rate_hz)
    audio_s = sum(map(len, clips)) / tokeniser.sample_rate_hz
    ways: dict[str, Callable[[], Codes]] = {
        "one by one": lambda: one_by_one(loaded, options, clips),
        "batches": lambda: batches(loaded, options, clips, BATCH),
        "tokeniser": lambda: by_tokeniser(tokeniser, clips),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    made: dict[str, Codes] = {}
    for way, run in ways.items():
        run() if args.device == "cuda" else one_by_one(loaded, options, clips[:1])
        del way
    for _ in range(args.rounds):
        for way, run in ways.items():
            taken, made[way] = timed(args.device, run)
            seconds[way].append(taken)
    with one_core():
        alone = one_by_one(loaded, options, clips)
    equal = [np.array_equal(a.T.reshape(-1), b) for a, b in zip(alone, made["tokeniser"], strict=True)]
    result = {
        "audio_s": round(audio_s, 1),
        "seconds": {way: round(statistics.median(taken), 3) for way, taken in seconds.items()},
        "tokeniser_equals_one_by_one": sum(equal) / len(equal),
        "batches_differ": differing(made["one by one"], made["batches"]),
        "token_values": len(np.unique(np.concatenate([codes.reshape(-1) for codes in made["one by one"]]))),
    }
    if args.device == "cuda":
        on_cpu = LoadedCodec(options, "cpu")
        few = clips[:ON_BOTH]
        result["cpu_differs"] = differing(one_by_one(on_cpu, options, few), made["one by one"][:ON_BOTH])
    else:
        result["cores_differ"] = differing(alone, made["one by one"])
    return result


def whole_pass(shape: str, names: dict[str, str], args: argparse.Namespace) -> dict[str, float]:
    """Seconds of a pass from FLAC to texts and tokens, by tokeniser, beside Whisper of a shape."""
    model = scripted_whisper(shape, args.tokens).to(args.device)
    precision = "float16" if args.device == "cuda" else "bfloat16"
    transcriber = our_transcriber(model, precision, "en")
    bodies = [_flac(clip) for clip in recordings(args.clips, args.shortest, args.longest, SOURCE_HZ)]
    ways = {"transcription alone": None} | {
        name: load_tokeniser(found, args.device) for name, found in names.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(args.rounds + 1):
        for name, tokeniser in ways.items():
            started = time.perf_counter()
            _pass(transcriber, bodies, tokeniser)
            # What is compiled or captured, is in the first round.
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: round(statistics.median(taken), 3) for name, taken in seconds.items()}


def _pass(transcriber: Any, bodies: Sequence[bytes], tokeniser: Tokeniser | None) -> None:
    def load(body: bytes) -> np.ndarray:
        rates = {tokeniser.sample_rate_hz} - {SAMPLE_RATE_HZ} if tokeniser else set()
        audio = decode(read_flac, body, rates_hz=sorted(rates))
        if tokeniser:
            tokeniser(audio.at(tokeniser.sample_rate_hz), "")
        return audio.samples

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        transcripts(transcriber, map_ahead(pool, load, bodies, ahead=OBJECTS_AHEAD))


def _flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.clip(-1, 1), SOURCE_HZ, format="FLAC")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--shortest", type=float, default=1.0, help="seconds")
    parser.add_argument("--longest", type=float, default=10.0, help="seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny", help="of the Whisper in the pass")
    parser.add_argument("--tokens", type=int, default=40, help="that it says for each clip")
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "whisper": whisper.__version__, "arguments": vars(args)}
    with tempfile.TemporaryDirectory() as root:
        names = {}
        for family, options in CODECS.items():
            folder = make_codec(family, pathlib.Path(root) / family, small=False)
            names[family] = f"{folder}?{options}" if options else folder
            found[family] = measure(names[family], args)
            print(family, json.dumps(found[family], indent=2), flush=True)
        found["pass"] = whole_pass(args.shape, names, args)
        print(json.dumps(found["pass"], indent=2))
    path = RESULTS / f"codecs_{args.device}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
