"""A real model on a real GPU: the same bucket without Ray, by one actor, and by two that share the GPU.

    python -m benchmarks.cluster_gpu --model base.pt --speech flacs

The project ships neither weights nor speech: name a checkpoint that `whisper.load_model` reads, and a folder
of FLAC. Each partition has `--clips` of its files; files are used again until there are enough. Every way
makes a few partitions first, so that models are loaded and CUDA graphs are captured, and then all of them.
Writes benchmarks/results/cluster_gpu.json. With `--device cpu`, actors take no GPU.
"""

import argparse
import itertools
import json
import pathlib
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from audio_assets.defs.resources import AudioTokeniser, Whisper
from audio_assets.partitions import FolderMinute
from benchmarks.cluster import Bench, cluster, on_cluster
from benchmarks.common import flac_files, machine, write_results

WARM_UP = 4
"""Partitions for each actor, of those that are made before time is taken."""


def filled(folder: pathlib.Path, args: argparse.Namespace) -> Bench:
    bodies = itertools.cycle([path.read_bytes() for path in flac_files(args.speech)])
    minutes = (list(itertools.islice(bodies, args.clips)) for _ in range(args.partitions))
    whisper = Whisper(model=args.model, device=args.device)
    return Bench.filled(folder, minutes, whisper, AudioTokeniser())


def embedded(bench: Bench, partitions: Sequence[FolderMinute]) -> dict[str, float]:
    """A run without Ray."""
    started = time.perf_counter()
    finished = list(bench.open_pass()().run(partitions))
    return {"work_s": time.perf_counter() - started, "audio_s": sum(f.audio_s for f in finished)}


def texts(bench: Bench) -> dict[str, str | None]:
    """What was heard in each object."""
    found: dict[str, str | None] = {}
    for partition in bench.partitions:
        rows = bench.bucket.transcripts.read(partition).rows
        assert rows is not None
        found |= zip(rows["Key"].to_pylist(), rows["transcribed_text"].to_pylist(), strict=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a checkpoint in OpenAI's format, or a name that Whisper downloads")
    parser.add_argument("--speech", type=pathlib.Path, help="a folder of FLAC")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--clips", type=int, default=50, help="in each partition")
    args = parser.parse_args()
    if args.model is None or args.speech is None:
        raise SystemExit("name a checkpoint by --model and a folder of human speech by --speech")
    whole = 1 if args.device == "cuda" else 0
    with tempfile.TemporaryDirectory() as folder, cluster(1) as address:
        bench = filled(pathlib.Path(folder), args)
        embedded(bench, bench.partitions[:WARM_UP])
        bench.forget()
        alone = embedded(bench, bench.partitions)
        said = texts(bench)
        bench.forget()
        print(json.dumps(alone), flush=True)
        rows: list[dict[str, Any]] = []
        for actors in (1, 2):
            cold = on_cluster(bench, address, actors, bench.partitions[: WARM_UP * actors], whole / actors)
            bench.forget()
            warm = on_cluster(bench, address, actors, bench.partitions, whole / actors)
            differ = sum(text != said[key] for key, text in texts(bench).items())
            bench.forget()
            rows.append(
                {
                    "actors": actors,
                    **warm,
                    "cold_first_partition_s": cold["first_partition_s"],
                    "cold_loads": cold["loads"],
                    "times_embedded": alone["work_s"] / warm["work_s"],
                    "texts_that_differ": differ,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    results = {
        "machine": machine(),
        "model": pathlib.Path(args.model).stem,
        "partitions": args.partitions,
        "clips": args.partitions * args.clips,
        "embedded": alone,
        "ray": rows,
    }
    write_results("cluster_gpu", results)


if __name__ == "__main__":
    main()
