"""How well the pipeline keeps the engine fed, and how its memory grows.

    python -m benchmarks.pipeline

In turns: the bare engine on arrays that are decoded beforehand, and the whole way from a bucket on an S3
server to `audio_table` (list, GET, FLAC decode, resample, mel, engine, tokens, Parquet, many partitions,
through Dagster). Same model, same clips. Then the peak memory of the whole way at two numbers of objects,
each in a process of its own. Writes benchmarks/results/pipeline.json.
"""

import argparse
import contextlib
import importlib.metadata
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import obstore

from audio_assets.demo.make_checkpoint import CHECKPOINT, save
from audio_assets.demo.make_sample import SAMPLE
from audio_assets.settings import SETTINGS
from benchmarks.canned_s3 import TABLES, Shape, canned_s3, canned_store

RESULTS = pathlib.Path(__file__).with_name("results") / "pipeline.json"
CLIPS_PER_PARTITION = 40


def sample_files() -> list[pathlib.Path]:
    """The sound files of the demo's speech, in order: FLAC at 48 kHz."""
    return [path for path in sorted(SAMPLE.rglob("*.flac")) if "damaged" not in path.name]


@contextlib.contextmanager
def bucket_of(clips: int) -> Iterator[dict[str, bytes]]:
    """A bucket on an S3 server on the loopback, and the environment that names it.

    Yields:
        By key, `clips` objects of the sample's speech at 48 kHz, `CLIPS_PER_PARTITION` to each folder.
    """
    sources = [path.read_bytes() for path in sample_files()]
    keys = (f"p{i // CLIPS_PER_PARTITION:04}/{i:06}.flac" for i in range(clips))
    objects = dict(zip(keys, itertools.cycle(sources), strict=False))
    with canned_s3(Shape(0, 1)) as settings:
        # The minute of the upload counts as closed although it is not over.
        os.environ |= settings | {"SETTLE_SECONDS": "-120"}
        store = canned_store(settings["AWS_ENDPOINT_URL"])
        for key, body in objects.items():
            obstore.put(store, key, body)
        yield objects


def whole_way(home: pathlib.Path) -> float:
    """Seconds from the sensor's first look to the last row, on a new instance and without old tables."""
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    os.environ |= {"DAGSTER_HOME": str(home), "AUDIO_TABLE_URI": f"s3://{TABLES}/{home.name}"}
    from audio_assets.cli.project import open_project
    from audio_assets.cli.sync import Sync
    from audio_assets.cli.sync_display import Display
    from audio_assets.definitions import defs

    with open_project(defs()) as project:
        # Its databases are made once in an instance's life.
        project.instance.get_run_records(limit=1)
        started = time.perf_counter()
        assert not Sync(project, Display(), wait=False, retries=0).run().failed
        return time.perf_counter() - started


def feed(model: str, objects: dict[str, bytes], rounds: int) -> dict[str, float]:
    """Median seconds of both, and of what the whole way spends in the engine's own pass over the audio."""
    os.environ |= {"WHISPER_MODEL": model, "WHISPER_LANGUAGE": "en"}
    with tempfile.TemporaryDirectory() as folder:
        from audio_assets.audio import decode_flac
        from audio_assets.transcription import Transcriber

        decoded = {key: decode_flac(body) for key, body in objects.items()}
        audio_s = sum(audio.duration_s for audio in decoded.values())
        transcriber = Transcriber.load(model, language="en")
        taken: dict[str, list[float]] = {"engine": [], "pipeline": []}
        for turn in range(rounds + 1):
            started = time.perf_counter()
            said = sum(1 for _ in transcriber.transcribe((k, a.samples) for k, a in decoded.items()))
            assert said == len(objects)
            engine = time.perf_counter() - started
            pipeline = whole_way(pathlib.Path(folder, f"{pathlib.Path(model).stem}-{turn}"))
            # The first turn warms caches and loads models on both sides.
            if turn:
                taken["engine"].append(engine)
                taken["pipeline"].append(pipeline)
        from audio_assets import read_table

        statuses = read_table(columns=["status"])["status"].value_counts().to_dict()
        assert statuses == {"ok": len(objects)}, statuses
    ratios = [e / p for e, p in zip(taken["engine"], taken["pipeline"], strict=True)]
    return {name: statistics.median(s) for name, s in taken.items()} | {
        "audio_s": audio_s,
        "share": statistics.median(ratios),
    }


def peak_memory_mb(clips: int, model: str) -> float:
    """Peak resident memory of the whole way, measured in this process (Linux only)."""
    os.environ |= {"WHISPER_MODEL": model, "WHISPER_LANGUAGE": "en"}
    with tempfile.TemporaryDirectory() as folder, bucket_of(clips) as objects:
        objects.clear()
        whole_way(pathlib.Path(folder, "home"))
    # Not getrusage: its maximum is inherited from the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def in_process_of_its_own(clips: int) -> float:
    command = [sys.executable, "-m", "benchmarks.pipeline", "--peak-memory-of", str(clips)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shapes", nargs="*", default=["tiny", "base"])
    parser.add_argument("--memory", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--peak-memory-of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    # What is measured does not depend on the shell.
    for setting in SETTINGS:
        os.environ.pop(setting.name, None)
    if args.peak_memory_of:
        print(peak_memory_mb(args.peak_memory_of, str(CHECKPOINT)))
        return

    results: dict = {
        "command": "python -m benchmarks.pipeline",
        "machine": {"cpus": os.cpu_count(), "dagster": importlib.metadata.version("dagster")},
        "settings": {
            "clips": args.clips,
            "clips_per_partition": CLIPS_PER_PARTITION,
            "rounds": args.rounds,
        },
        "models": {},
        "peak_memory_mb": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        models = {"the demo's checkpoint": str(CHECKPOINT)}
        for shape in args.shapes:
            from benchmarks.scripted import scripted_whisper

            path = pathlib.Path(folder, f"{shape}.pt")
            save(scripted_whisper(shape, 40), path)
            models[f"{shape} shape, 40 tokens a clip"] = str(path)
        # One server for all: the project keeps its connection for as long as a process lives.
        with bucket_of(args.clips) as objects:
            for name, model in models.items():
                got = feed(model, objects, args.rounds)
                results["models"][name] = {
                    "engine_audio_s_per_s": got["audio_s"] / got["engine"],
                    "pipeline_audio_s_per_s": got["audio_s"] / got["pipeline"],
                    "share": got["share"],
                }
                print(name, results["models"][name], flush=True)
    for clips in args.memory:
        results["peak_memory_mb"][str(clips)] = in_process_of_its_own(clips)
        print(clips, results["peak_memory_mb"][str(clips)], "MB", flush=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
