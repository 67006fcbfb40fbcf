"""What a large bucket needs: GPUs, days, requests, records and money; and what the arithmetic starts from.

    python -m benchmarks.capacity --hours 1000000 --clip-s 8 --days 30 --gpu-price 4.00    # your own plan
    python -m benchmarks.capacity --measure    # what a partition costs; two minutes

Measured are the requests, the records and the processor's time of a partition, on an S3 server and on both
databases (benchmarks/results/capacity.json). Rates of GPUs are published ones, of other engines, or
arithmetic: `Device` says which. docs/capacity.md shows the tables.
"""

import argparse
import dataclasses
import json
import math
import pathlib

RESULTS = pathlib.Path(__file__).with_name("results")
WINDOW_S = 30
"""Whisper hears windows of 30 s; a shorter clip costs a whole one."""
KEYS_PER_LIST = 1000
HOUR_S = 3600
RUN_PARTITIONS = 100
RUN_OBJECTS = 20_000
"""What a run covers by default."""


@dataclasses.dataclass(frozen=True)
class Device:
    """What one device does.

    Attributes:
        windows_per_s: windows of up to 30 s, each decoded once.
        how: where that figure comes from.
        dollars_per_hour: an example.
    """

    name: str
    windows_per_s: float
    how: str
    dollars_per_hour: float


@dataclasses.dataclass(frozen=True)
class Workload:
    """A bucket.

    Attributes:
        hours: of audio.
        clip_s: mean length of an object, in seconds.
        per_partition: objects that share a folder and a minute, in the mean.
    """

    name: str
    hours: float
    clip_s: float
    per_partition: float

    @property
    def objects(self) -> float:
        return self.hours * HOUR_S / self.clip_s

    @property
    def windows(self) -> float:
        """Of one decode each. Whisper's windows overlap a little in long audio, which is left out."""
        return self.objects * math.ceil(self.clip_s / WINDOW_S)

    @property
    def partitions(self) -> float:
        return self.objects / self.per_partition

    @property
    def runs(self) -> float:
        """At the default size of the sensor's ranges."""
        return self.partitions / min(RUN_PARTITIONS, RUN_OBJECTS / self.per_partition)


@dataclasses.dataclass(frozen=True)
class Prices:
    """Of requests, in dollars for 1,000; examples, like those of devices."""

    get_per_1000: float = 0.0004
    put_per_1000: float = 0.005


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a partition costs beside the GPU, measured.

    Attributes:
        gets_per_object, gets_per_partition: GET and HEAD.
        puts_per_partition, lists_per_partition: PUT and DELETE; LIST.
        records: of the instance, for each partition.
        sqlite_kb, postgres_kb: what these take.
        cpu_s: of the process of a run.
    """

    gets_per_object: float
    gets_per_partition: float
    puts_per_partition: float
    lists_per_partition: float
    records: float
    sqlite_kb: float
    postgres_kb: float
    cpu_s: float

    @classmethod
    def measured(cls) -> "Costs":
        return cls(**json.loads((RESULTS / "capacity.json").read_text())["partition"])


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a workload needs; requests are counted, money is dollars."""

    gpu_hours: float
    gpus: float
    gets: float
    puts: float
    lists: float
    records: float
    postgres_gb: float
    sqlite_gb: float
    run_cpu_hours: float
    gpu_money: float
    request_money: float


def needs(
    work: Workload, device: Device, days: float, *, costs: Costs, prices: Prices, share: float
) -> Needs:
    """What it takes to make a bucket's table once.

    Args:
        days: in which it is to be done.
        share: how much of a device's rate the fleet reaches, above 0 and at most 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not (0 < share <= 1 and days > 0 and work.hours > 0 and work.clip_s > 0 and work.per_partition > 0):
        raise ValueError("hours, lengths, objects and days are above 0, and share is at most 1")
    gpu_hours = work.windows / device.windows_per_s / share / HOUR_S
    gets = work.objects * costs.gets_per_object + work.partitions * costs.gets_per_partition
    puts = work.partitions * costs.puts_per_partition
    lists = work.objects / KEYS_PER_LIST + work.partitions * costs.lists_per_partition
    return Needs(
        gpu_hours=gpu_hours,
        gpus=gpu_hours / (days * 24),
        gets=gets,
        puts=puts,
        lists=lists,
        records=work.partitions * costs.records,
        postgres_gb=work.partitions * costs.postgres_kb / 1e6,
        sqlite_gb=work.partitions * costs.sqlite_kb / 1e6,
        run_cpu_hours=work.partitions * costs.cpu_s / HOUR_S,
        gpu_money=gpu_hours * device.dollars_per_hour,
        request_money=(gets * prices.get_per_1000 + (puts + lists) * prices.put_per_1000) / 1000,
    )


SHARE = 0.95
"""What a fleet of eight workers is to reach of eight times one worker (docs/ray.md)."""
GETS_PER_S = 5500
"""At least, for each partitioned prefix (Amazon S3 User Guide, "Optimizing Amazon S3 performance")."""
WORKLOADS = (
    Workload("clips of 8 s", 1_000_000, 8, 100),
    Workload("clips of 30 s", 1_000_000, 30, 100),
    Workload("recordings of 10 min", 1_000_000, 600, 10),
)


def devices() -> list[Device]:
    """Those of the page."""
    mlperf = "published: MLPerf Inference, whisper-large-v3, offline"
    base = json.loads((RESULTS / "engine_cpu_base_wall.json").read_text())
    [ours] = [e for e in base["engines"] if (e["engine"], e["precision"]) == ("this engine", "float32")]
    gpu = json.loads((RESULTS / "engine_cuda_large-v3-turbo_wall.json").read_text())
    [on_gpu] = [e for e in gpu["engines"] if e["engine"] == "this engine"]
    return [
        Device("H200, large-v3", 67.9, f"{mlperf}, TensorRT-LLM", 4.00),
        Device("L40S, large-v3", 24.3, f"{mlperf}, vLLM, 8-bit cache", 1.00),
        # 2.93 ms of encoder and 0.26 ms of decoder for each window.
        Device("H200, turbo", 0.5 * 1000 / (2.93 + 0.26), "arithmetic: half of the roofline", 4.00),
        Device(
            "H100, turbo",
            round(gpu["settings"]["clips"] / on_gpu["median_s"], 1),
            f"measured: this engine, float16, {gpu['settings']['tokens']} tokens a window",
            3.00,
        ),
        Device(
            "2 CPU cores, base",
            round(base["settings"]["clips"] / ours["median_s"], 1),
            "measured: this engine, float32",
            0.08,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1_000_000, help="of audio")
    parser.add_argument("--clip-s", type=float, default=8, help="mean length of an object")
    parser.add_argument("--per-partition", type=float, default=100, help="objects of a folder and minute")
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--windows-per-s", type=float, default=30, help="of one GPU; see benchmarks.engine")
    parser.add_argument("--share", type=float, default=SHARE, help="of that rate which the fleet reaches")
    parser.add_argument("--gpu-price", type=float, default=4.00, help="dollars an hour")
    parser.add_argument("--get-price", type=float, default=Prices.get_per_1000, help="dollars for 1,000 GET")
    parser.add_argument("--put-price", type=float, default=Prices.put_per_1000, help="for 1,000 PUT or LIST")
    parser.add_argument("--measure", action="store_true", help="what a partition costs, anew")
    args = parser.parse_args()
    if args.measure:
        # What runs the project is not needed for arithmetic.
        from benchmarks.partition_costs import measure

        (RESULTS / "capacity.json").write_text(json.dumps(measure(), indent=1) + "\n")
        return
    found = needs(
        Workload("yours", args.hours, args.clip_s, args.per_partition),
        Device("yours", args.windows_per_s, "given", args.gpu_price),
        args.days,
        costs=Costs.measured(),
        prices=Prices(args.get_price, args.put_price),
        share=args.share,
    )
    for name, value in dataclasses.asdict(found).items():
        print(f"{name:14} {value:18,.1f}")


if __name__ == "__main__":
    main()
