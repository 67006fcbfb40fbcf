"""How fast one process hears a bucket beside a GPU: decoding in threads, in processes, and the engine alone.

    python -m benchmarks.decoding

A model of turbo's shape with scripted weights of 40 tokens, and the demo's speech at 48 kHz, cut and joined
to clips of 3 to 7.5 s, on a disk. All ways hear the same clips with the same warm model: the engine alone,
whose samples are in memory; a pass whose threads decode; a pass whose processes do. Each is timed `--rounds`
times, in turns. Writes benchmarks/results/decoding.json.
"""

import argparse
import collections
import dataclasses
import io
import itertools
import pathlib
import random
import statistics
import tempfile
import time

import numpy as np
import soundfile

from audio_assets.audio import decode_flac
from audio_assets.defs.resources import AudioTokeniser, Whisper
from audio_assets.demo.make_checkpoint import save
from benchmarks.cluster import Bench
from benchmarks.common import machine, write_results
from benchmarks.pipeline import sample_files
from benchmarks.scripted import SHAPES, scripted_whisper

DIFFERENT = 100


def clips() -> list[bytes]:
    """FLAC of 3 to 7.5 s at 48 kHz."""
    rng = random.Random(0)
    paths = sample_files()
    rate = soundfile.info(paths[0]).samplerate
    waves = [soundfile.read(path, dtype="int16")[0] for path in paths]
    bodies = []
    for _ in range(DIFFERENT):
        wave = np.concatenate(rng.choices(waves, k=4))[: int(rate * rng.uniform(3.0, 7.5))]
        soundfile.write(file := io.BytesIO(), wave, rate, format="FLAC", subtype="PCM_16")
        bodies.append(file.getvalue())
    return bodies


def seconds_of_pass(bench: Bench, *, processes: bool) -> float:
    """Transcripts and tokens of all partitions; processes: whether they decode rather than threads."""
    work = bench.open_pass()(log_load=lambda made: dataclasses.replace(made, on_gpu=processes))
    started = time.perf_counter()
    failed = sum(finished.statuses["transcripts"]["failed"] for finished in work.run(bench.partitions))
    taken = time.perf_counter() - started
    assert not failed
    bench.forget()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", choices=SHAPES, default="large-v3-turbo")
    parser.add_argument("--partitions", type=int, default=24)
    parser.add_argument("--clips", type=int, default=50, help="in each partition")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = pathlib.Path(folder, f"{args.shape}.pt")
        save(scripted_whisper(args.shape, 40), checkpoint)
        bodies = clips()
        all_bodies = list(itertools.islice(itertools.cycle(bodies), args.partitions * args.clips))
        minutes = [all_bodies[i : i + args.clips] for i in range(0, len(all_bodies), args.clips)]
        whisper = Whisper(model=str(checkpoint), device=args.device, language="en")
        bench = Bench.filled(pathlib.Path(folder), minutes, whisper, AudioTokeniser())
        decoded = {body: decode_flac(body) for body in bodies}
        recogniser = whisper.load()
        taken = collections.defaultdict(list)
        # The first turn captures CUDA graphs and starts the processes.
        for turn in range(args.rounds + 1):
            started = time.perf_counter()
            said = sum(1 for _ in recogniser.transcribe((0, decoded[body].samples) for body in all_bodies))
            assert said == len(all_bodies)
            alone = time.perf_counter() - started
            threads = seconds_of_pass(bench, processes=False)
            processes = seconds_of_pass(bench, processes=True)
            if turn:
                taken["engine"].append(alone)
                taken["threads"].append(threads)
                taken["processes"].append(processes)
                print({name: round(seconds[-1], 2) for name, seconds in taken.items()}, flush=True)
    results = {
        "machine": machine(),
        "settings": vars(args),
        "audio_s": sum(decoded[body].duration_s for body in all_bodies),
        "median_s": {name: statistics.median(seconds) for name, seconds in taken.items()},
        "seconds": taken,
    }
    write_results("decoding", results)


if __name__ == "__main__":
    main()
