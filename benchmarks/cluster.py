"""How much of ideal a Ray cluster reaches, with a recogniser of known duration in the model's place.

    python -m benchmarks.cluster

Logical GPUs on this machine, so that two cores can carry eight workers: what is measured is everything but
the engine. For each number of workers, a first run starts the actors, whose model takes 3 s to load; a second
one finds them warm and is measured. The same without Ray beside it. Writes benchmarks/results/cluster.json.
Takes about five minutes.
"""

import argparse
import contextlib
import dataclasses
import datetime as dt
import itertools
import json
import logging
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence

from dagster_aws.s3 import S3Resource

from audio_assets.defs.passes import PassOfRun, rebuilt
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.digest import group
from audio_assets.partitions import FolderMinute
from audio_assets.rows import inventory_rows
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.ray_cluster import TOKEN, RayCluster
from audio_assets_tests.support.stand_in import TOKENISER, StandInWhisper

RESULTS = pathlib.Path(__file__).with_name("results") / "cluster.json"
CLIPS = 2
CLIP_S = 0.25
LOAD_S = 3.0
LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Bench:
    """A bucket on the disk whose inventory is made, and what works on it."""

    place: LocalPlace
    bucket: Bucket
    partitions: Sequence[FolderMinute]
    whisper: Whisper
    tokeniser: AudioTokeniser

    @classmethod
    def filled(
        cls,
        folder: pathlib.Path,
        minutes: Iterable[Sequence[bytes]],
        whisper: Whisper,
        tokeniser: AudioTokeniser,
    ) -> "Bench":
        """minutes: the objects of each partition."""
        place = LocalPlace(folder / "bucket")
        for minute, bodies in enumerate(minutes):
            for clip, body in enumerate(bodies):
                uploaded = UPLOADED + dt.timedelta(minutes=minute)
                place.put(f"p{minute % 10}/{minute}_{clip}.flac", body, uploaded)
        bucket = Bucket(source_uri=place.uri, table_uri=(folder / "tables").as_uri(), s3=S3Resource())
        (folder / "tables").mkdir()
        found = {}
        for number in range(10):
            for page in bucket.source.objects(f"p{number}"):
                for partition, objects in group(page).items():
                    found.setdefault(partition, []).extend(objects)
        for partition, objects in found.items():
            snapshot = bucket.inventory.read(partition)
            bucket.inventory.replace(partition, inventory_rows(objects), snapshot)
        return cls(place, bucket, sorted(found), whisper, tokeniser)

    def open_pass(self) -> PassOfRun:
        resources = rebuilt(self.bucket), rebuilt(self.whisper), rebuilt(self.tokeniser)
        return PassOfRun(*resources, frozenset({"transcripts", "tokens"}), recompute=False)

    def forget(self) -> None:
        for name in ("transcripts", "tokens"):
            shutil.rmtree(self.place.folder.parent / "tables" / name, ignore_errors=True)


def on_cluster(
    bench: Bench, address: str, workers: int, partitions: Sequence[FolderMinute], gpus: float = 1
) -> dict[str, float]:
    """One run of the driver; gpus: that a worker takes."""
    # Ray reads its token when it is imported.
    from audio_assets.cluster.driver import ClusterPass
    from audio_assets.cluster.messages import ActorOptions

    options = ActorOptions(gpus=gpus, cpus=0, most=workers, idle_s=600)
    run = ClusterPass(address, ["benchmark"], bench.open_pass(), bench.bucket.inventory, options, LOG)
    started = time.perf_counter()
    cpu = time.process_time()
    first = None
    for _ in run.run(partitions):
        first = first or time.perf_counter() - started
    wall = time.perf_counter() - started
    return {
        "wall_s": wall,
        "first_partition_s": first or wall,
        "work_s": run.fleet.seconds,
        "driver_cpu_s": time.process_time() - cpu,
        "loads": run.fleet.loads,
        "audio_s": run.fleet.audio_s,
    }


def without_ray(bench: Bench, partitions: Sequence[FolderMinute]) -> dict[str, float]:
    started = time.perf_counter()
    for _ in bench.open_pass()().run(partitions):
        pass
    return {"wall_s": time.perf_counter() - started - LOAD_S}


def measure(bench: Bench, address: str, workers: int, each: int) -> dict[str, float]:
    """A cold run over a few partitions, a warm one over `each` for a worker, and one that finds all done."""
    cold = on_cluster(bench, address, workers, bench.partitions[: 2 * workers])
    bench.forget()
    partitions = bench.partitions[: each * workers]
    warm = on_cluster(bench, address, workers, partitions)
    done = on_cluster(bench, address, workers, partitions)
    bench.forget()
    ideal = len(partitions) * CLIPS * CLIP_S / workers
    return {
        "workers": workers,
        "partitions": len(partitions),
        "ideal_s": ideal,
        "work_s": warm["work_s"],
        "share_of_ideal": ideal / warm["work_s"],
        "partitions_per_minute": 60 * len(partitions) / warm["work_s"],
        "orchestration_s_per_partition": (warm["wall_s"] - ideal) / len(partitions),
        "driver_cpu_s_per_partition": warm["driver_cpu_s"] / len(partitions),
        "cold_first_partition_s": cold["first_partition_s"],
        "warm_first_partition_s": warm["first_partition_s"],
        "cold_loads": cold["loads"],
        "warm_loads": warm["loads"],
        "nothing_to_do_s_per_partition": done["wall_s"] / len(partitions),
    }


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[str]:
    """A cluster of logical GPUs, and the environment of somebody who has its token."""
    with RayCluster.running(gpus=workers) as running:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        yield running.address


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--each", type=int, default=60, help="partitions for each worker")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cluster(sum(args.workers)) as address:
        minutes = itertools.repeat([flac(0.2)] * CLIPS, args.each * max(args.workers))
        stand_in = StandInWhisper(seconds=CLIP_S, load_s=LOAD_S)
        bench = Bench.filled(pathlib.Path(folder), minutes, stand_in, AudioTokeniser(name=TOKENISER))
        embedded = without_ray(bench, bench.partitions[: args.each])
        bench.forget()
        results = {
            "command": "python -m benchmarks.cluster",
            "machine": {"cpus": os.cpu_count(), "note": args.note},
            "settings": {"clips": CLIPS, "clip_s": CLIP_S, "load_s": LOAD_S, "each": args.each},
            "embedded": {
                "partitions": args.each,
                "share_of_ideal": args.each * CLIPS * CLIP_S / embedded["wall_s"],
                "partitions_per_minute": 60 * args.each / embedded["wall_s"],
            },
            "workers": [measure(bench, address, workers, args.each) for workers in args.workers],
        }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
