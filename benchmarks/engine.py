"""The engine against its peers: same weights, same clips, same tokens, in turns.

    python -m benchmarks.engine                               # CPU: shapes tiny and base, the demo's model
    python -m benchmarks.engine --device cuda --shapes large-v3 large-v3-turbo --clips 256
    python -m benchmarks.engine --contenders cuda --shapes tiny --clips 8 --batch 4    # rehearses the latter
    python -m benchmarks.engine --without faster-whisper CTranslate2    # where these are not installed
    python -m benchmarks.engine --model base.pt --speech flacs/en --clips 32 --shortest 1 --longest 10

Every engine runs once per round, so that whatever else slows the machine slows all alike; figures are medians
over rounds, and ratios of them. Each engine's words are checked against the script that the model reads out;
the demo's model hears words, and the rate of wrong ones is told. On real weights and human speech, which the
project ships neither of, engines that detect the language take part beside those that are given English, and
words count as wrong that are not those of the seed's loop.
"""

import argparse
import dataclasses
import gc
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import whisper

from audio_assets.demo.make_checkpoint import CHECKPOINT
from audio_assets.transcription.layers import Linear
from benchmarks import peers
from benchmarks.common import RESULTS, machine, spoken_clips, word_error_rate
from benchmarks.real import speech
from benchmarks.scripted import SHAPES, script, scripted_whisper

DEMO = "demo"
"""The demo's checkpoint on clips of real words, so that words that are wrong show beside the speed."""
REAL = "real"
"""The checkpoint and the speech that --model and --speech name."""
DEMO_CLIPS = 8  # for each of --clips: they are short, and the model is small
OURS = "this engine"
SEED = "the seed's loop"
FROM_FILES = "the same, from FLAC files, with tokens"
COMPILED = "HF generate, compiled"
FILE_BY_FILE = "faster-whisper, file by file"


@dataclasses.dataclass
class Contender:
    name: str
    precision: str
    run: peers.Run
    language: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    peak_gb: float = 0.0
    word_error_rate: float = 0.0

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


Entry = tuple[str, str, Callable[[], peers.Run]]
"""Name, precision, and what makes it."""
GIVEN = "given"
DETECTED = "detected"


def contenders(model: whisper.Whisper, of: str, batch: int, without: Sequence[str]) -> list[Contender]:
    """Who takes part; a peer is made only if it does."""
    if of == REAL:
        entered = {DETECTED: _detecting(model, batch), GIVEN: _given_english(model, batch)}
    else:
        entered = {GIVEN: _on_cpu(model, batch) if of == "cpu" else _on_cuda(model, batch)}
    return [
        Contender(name, precision, make(), language)
        for language, entries in entered.items()
        for name, precision, make in entries
        if name not in without
    ]


def _detecting(model: whisper.Whisper, batch: int) -> list[Entry]:
    return [
        (SEED, "float32", lambda: peers.seed_loop(model)),
        ("HF generate", "float32", lambda: peers.hugging_face(model, "float32", batch, None)),
        ("HF generate", "bfloat16", lambda: peers.hugging_face(model, "bfloat16", batch, None)),
        (FILE_BY_FILE, "float32", lambda: peers.faster_whisper_by_file(model, "float32")),
        (FILE_BY_FILE, "int8", lambda: peers.faster_whisper_by_file(model, "int8")),
        ("CTranslate2", "float32", lambda: peers.ctranslate2_batched(model, "float32", batch, None)),
        ("CTranslate2", "int8", lambda: peers.ctranslate2_batched(model, "int8", batch, None)),
        (OURS, "float32", lambda: peers.ours(model, "float32", None)),
        (OURS, "bfloat16", lambda: peers.ours(model, "bfloat16", None)),
        (FROM_FILES, "float32", lambda: peers.ours_from_files(model, "float32", None)),
    ]


def _given_english(model: whisper.Whisper, batch: int) -> list[Entry]:
    return [(SEED, "float32", lambda: peers.seed_loop(model, "en")), *_batching(model, batch)]


def _on_cpu(model: whisper.Whisper, batch: int) -> list[Entry]:
    return [
        (SEED, "float32", lambda: peers.seed_loop(model)),
        ("the same, language given", "float32", lambda: peers.seed_loop(model, "en")),
        *_batching(model, batch),
        ("the same, language detected", "float32", lambda: peers.ours(model, "float32", None)),
        ("the same, language detected", "bfloat16", lambda: peers.ours(model, "bfloat16", None)),
        (FROM_FILES, "float32", lambda: peers.ours_from_files(model, "float32")),
        (FROM_FILES, "bfloat16", lambda: peers.ours_from_files(model, "bfloat16")),
    ]


def _batching(model: whisper.Whisper, batch: int) -> list[Entry]:
    """On a CPU, what takes many clips at once; English is given."""
    return [
        ("whisper.decode", "float32", lambda: peers.decode_batched(model, batch)),
        ("HF generate", "float32", lambda: peers.hugging_face(model, "float32", batch)),
        ("HF generate", "bfloat16", lambda: peers.hugging_face(model, "bfloat16", batch)),
        ("faster-whisper", "float32", lambda: peers.faster_whisper(model, "float32", batch)),
        ("faster-whisper", "int8", lambda: peers.faster_whisper(model, "int8", batch)),
        ("CTranslate2", "float32", lambda: peers.ctranslate2_batched(model, "float32", batch)),
        ("CTranslate2", "int8", lambda: peers.ctranslate2_batched(model, "int8", batch)),
        (OURS, "float32", lambda: peers.ours(model, "float32")),
        (OURS, "bfloat16", lambda: peers.ours(model, "bfloat16")),
    ]


def _on_cuda(model: whisper.Whisper, batch: int) -> list[Entry]:
    precision = "float16" if model.device.type == "cuda" else "float32"
    return [
        ("whisper.decode", precision, lambda: peers.decode_batched(model, batch)),
        ("HF generate", precision, lambda: peers.hugging_face(model, precision, batch)),
        (COMPILED, precision, lambda: peers.hugging_face(model, precision, batch, compiled=True)),
        ("faster-whisper", precision, lambda: peers.faster_whisper(model, precision, batch)),
        ("CTranslate2", precision, lambda: peers.ctranslate2_batched(model, precision, batch)),
        (OURS, precision, lambda: peers.ours(model, precision)),
    ]


def noises(count: int, shortest_s: float, longest_s: float) -> list[np.ndarray]:
    """float32 clips of evenly spread lengths in random order; the models say their script to anything."""
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.linspace(shortest_s, longest_s, count))
    return [rng.normal(0, 0.05, int(s * 16_000)).astype(np.float32) for s in lengths]


def task(shape: str, args: argparse.Namespace) -> tuple[whisper.Whisper, list[np.ndarray], list[str]]:
    """A model, clips, and what is said in each."""
    if shape == DEMO:
        said, heard = zip(*spoken_clips(DEMO_CLIPS * args.clips), strict=True)
        return whisper.load_model(str(CHECKPOINT), device=args.device), list(heard), list(said)
    if shape == REAL:
        clips = speech(args.speech, 2 * args.clips, args.shortest)
        clips = [clip for clip in clips if len(clip) <= args.longest * 16_000][: args.clips]
        return whisper.load_model(args.model, device=args.device), clips, []
    model = scripted_whisper(shape, args.tokens).to(args.device)
    tokenizer = peers.tokenizer_of(model)
    text = tokenizer.decode([t for t in script(tokenizer, args.tokens) if t < tokenizer.eot]).strip()
    return model, noises(args.clips, args.shortest, args.longest), [text] * args.clips


def measure(shape: str, args: argparse.Namespace) -> dict:
    model, clips, said = task(shape, args)
    audio_s = sum(map(len, clips)) / 16_000
    entered = contenders(model, REAL if shape == REAL else args.contenders, args.batch, args.without)
    clock = {"wall": time.perf_counter, "cpu": processor_s}[args.clock]
    for contender in entered:
        # What is compiled for a GPU is compiled for one batch size.
        contender.run(clips[: args.batch if args.contenders == "cuda" else 2])
    for turn in range(args.rounds):
        for contender in entered:
            gc.collect()
            if args.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            started = clock()
            texts = contender.run(clips)
            contender.seconds.append(clock() - started)
            if args.device == "cuda":
                contender.peak_gb = torch.cuda.max_memory_allocated() / 1e9
            # What real speech says is what the first of them hears, the seed's loop.
            said = said or texts
            if shape in (DEMO, REAL):
                contender.word_error_rate = word_error_rate(said, texts)
            elif [text.strip() for text in texts] != said:
                raise RuntimeError(f"{contender.name} {contender.precision} departs from the script")
        print(f"{shape}: round {turn + 1} of {args.rounds}", flush=True)
    # How many tokens are decoded is known of the script alone.
    limits = {} if shape in (DEMO, REAL) else rooflines(model.dims, args)
    return report(shape, entered, audio_s, limits)


def processor_s() -> float:
    """Seconds that this process and the ended ones that it started have had of a processor."""
    return sum(os.times()[:4])


def rooflines(dims: whisper.model.ModelDimensions, args: argparse.Namespace) -> dict[str, float]:
    """By precision, the least seconds that this machine could take, by its own products and reads."""
    if args.device == "cuda":
        return {"float16": roofline_s(dims, args.clips, args.tokens, *device_rates(), 2)}
    return {
        precision: roofline_s(
            dims, args.clips, args.tokens, *cpu_rates(getattr(torch, precision)), item_bytes
        )
        for precision, item_bytes in (("float32", 4), ("bfloat16", 2))
    }


def report(shape: str, entered: list[Contender], audio_s: float, limits: dict[str, float]) -> dict:
    seed = next((c.median_s for c in entered if c.name == SEED), None)
    rows = []
    print(f"\n{shape}, {audio_s:.0f} s of audio")
    for c in entered:
        row = {"engine": c.name, "precision": c.precision, "median_s": round(c.median_s, 3)}
        if shape == REAL:
            row["language"] = c.language
        row["audio_s_per_s"] = round(audio_s / c.median_s, 1)
        if seed:
            row["times_seed"] = round(seed / c.median_s, 2)
        if limit_s := limits.get(c.precision):
            row["share_of_roofline"] = round(limit_s / c.median_s, 3)
        if c.peak_gb:
            row["peak_gb"] = round(c.peak_gb, 1)
        if shape in (DEMO, REAL):
            row["word_error_rate"] = round(c.word_error_rate, 4)
        rows.append(row | {"seconds": [round(s, 3) for s in c.seconds]})
        print("  " + "  ".join(f"{k} {v}" for k, v in row.items()))

    leads: dict[str, dict] = {}
    for language in dict.fromkeys(c.language for c in entered):
        of = [c for c in entered if c.language == language]
        ending = f", language {language}" if shape == REAL else ""
        leads |= {f"{name}{ending}": lead for name, lead in leads_of(of).items()}
    for name, lead in leads.items():
        print(f"  lead at {name}: {lead}")
    return {"shape": shape, "audio_s": round(audio_s, 1), "engines": rows, "leads": leads}


def leads_of(entered: Sequence[Contender]) -> dict[str, dict]:
    """How far this engine is ahead of its fastest peer, both at float32 and each at its fastest precision."""

    def best(ours: bool, precision: str | None) -> Contender | None:
        named = [c for c in entered if not c.name.startswith("the same")]
        chosen = [c for c in named if (c.name == OURS) == ours and precision in (None, c.precision)]
        return min(chosen, key=lambda c: c.median_s, default=None)

    leads = {}
    for name, precision in (("float32", "float32"), ("each side's best", None)):
        mine = best(True, precision)
        peer = best(False, precision)
        if mine and peer:
            leads[name] = {"times_best_peer": round(peer.median_s / mine.median_s, 2), "peer": peer.name}
            leads[name] |= {"peer_precision": peer.precision, "our_precision": mine.precision}
    return leads


def roofline_s(
    d: whisper.model.ModelDimensions,
    clips: int,
    tokens: int,
    per_second: float,
    bytes_per_second: float,
    item_bytes: int,
) -> float:
    """The least time that a device could take, if it multiplied and read at its best throughout.

    The encoder and the cross-attention keys and values are bound by arithmetic, the decoder's steps by
    reading its weights, once for each batch of up to 256 clips, and each row's cross-attention cache.

    Args:
        clips: of 30 s each, padding included.
        tokens: that are decoded for each clip.
        per_second: operations at the precision.
        bytes_per_second: read from the device's memory.
        item_bytes: of a number at the precision.
    """
    width = d.n_audio_state
    flops = 2 * 3000 * 3 * d.n_mels * width + 2 * 1500 * 3 * width**2
    flops += d.n_audio_layer * (24 * 1500 * width**2 + 4 * 1500**2 * width)
    flops += d.n_text_layer * 4 * 1500 * width**2
    weights = item_bytes * (d.n_text_layer * 14 * width**2 + d.n_vocab * width)
    cache = item_bytes * d.n_text_layer * 2 * 1500 * width
    batches = -(-clips // 256)
    steps_s = tokens * (batches * weights + clips * cache) / bytes_per_second
    return clips * flops / per_second + steps_s


def cpu_rates(dtype: torch.dtype) -> tuple[float, float]:
    """Measured: operations per second in products of the encoder's form, and bytes per second in a sum."""
    product = Linear(torch.randn(2048, 2048), None, dtype, rows=1500)
    x = torch.randn(1500, 2048).to(dtype)
    big = torch.zeros(1 << 28)

    def fastest(work: Callable[[], object]) -> float:
        times = []
        for _ in range(10):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times)

    with torch.inference_mode():
        return 2 * 1500 * 2048**2 / fastest(lambda: product(x)), big.nbytes / fastest(big.sum)


def device_rates() -> tuple[float, float]:
    """Measured: half-precision operations per second in a large product, and bytes per second in a sum."""
    a = torch.randn(8192, 8192, dtype=torch.float16, device="cuda")
    big = torch.zeros(1 << 30, dtype=torch.float32, device="cuda")

    def fastest(work) -> float:
        times = []
        for _ in range(10):
            begin = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
        return min(times)

    return 2 * 8192**3 / fastest(lambda: a @ a), big.nbytes / fastest(big.sum)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=[*SHAPES, DEMO], default=["tiny", "base", DEMO])
    parser.add_argument("--model", help="real weights: a checkpoint in OpenAI's format")
    parser.add_argument("--speech", type=pathlib.Path, help="human speech: a folder of English FLAC")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--contenders",
        choices=("cpu", "cuda"),
        help="those of the other device, to see them say the same texts on this one; nothing is written",
    )
    parser.add_argument("--without", nargs="+", default=(), help="peers that do not take part, by name")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16, help="of the peers; ours chooses its own")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shortest", type=float, default=3.0, help="seconds")
    parser.add_argument("--longest", type=float, default=15.0, help="seconds")
    parser.add_argument("--threads", type=int, help="of each engine, on a CPU")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu counts the processor's seconds, for a machine that others use too; best with --threads 1",
    )
    args = parser.parse_args()
    rehearsal = args.contenders not in (None, args.device)
    args.contenders = args.contenders or args.device
    if args.threads:
        torch.set_num_threads(args.threads)
    RESULTS.mkdir(exist_ok=True)
    settings = {k: v for k, v in vars(args).items() if k not in ("shapes", "model", "speech")}
    if args.model:
        args.shapes = [REAL]
    for shape in args.shapes:
        result = {"machine": machine(), "settings": settings, **measure(shape, args)}
        if rehearsal:
            continue
        name = f"{REAL}_{pathlib.Path(args.model).stem}" if shape == REAL else shape
        path = RESULTS / f"engine_{args.device}_{name}_{args.clock}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {path}")


if __name__ == "__main__":
    main()
