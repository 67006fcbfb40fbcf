"""The arithmetic of docs/capacity.md, on numbers that can be followed by hand."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_assets.settings import PROJECT
from benchmarks.capacity import Costs, Device, Needs, Prices, Workload, needs

COSTS = Costs(
    gets_per_object=1,
    gets_per_partition=10,
    puts_per_partition=4,
    lists_per_partition=0.5,
    records=9,
    sqlite_kb=20,
    postgres_kb=10,
    cpu_s=0.36,
)
DEVICE = Device("one", windows_per_s=10, how="", dollars_per_hour=2)
PRICES = Prices(get_per_1000=0.5, put_per_1000=5)


def needed(work: Workload, share: float = 0.5) -> Needs:
    return needs(work, DEVICE, days=2, costs=COSTS, prices=PRICES, share=share)


def test_a_bucket_that_can_be_counted_by_hand():
    work = Workload("", hours=8_000, clip_s=8, per_partition=100)
    assert (work.objects, work.windows, work.partitions, work.runs) == (3_600_000, 3_600_000, 36_000, 360)
    assert needed(work) == Needs(
        gpu_hours=200,
        gpus=200 / 48,
        gets=3_960_000,
        puts=144_000,
        lists=3_600 + 18_000,
        records=324_000,
        postgres_gb=0.36,
        sqlite_gb=0.72,
        run_cpu_hours=3.6,
        gpu_money=400,
        request_money=2_808,
    )


@pytest.mark.parametrize(
    ("clip_s", "windows_of_an_hour"), [(8, 450), (30, 120), (31, 3600 / 31 * 2), (600, 120)]
)
def test_a_clip_costs_whole_windows(clip_s: float, windows_of_an_hour: float):
    assert Workload("", 1, clip_s, 100).windows == pytest.approx(windows_of_an_hour)


def test_a_run_covers_no_more_objects_than_the_sensor_asks_for():
    assert Workload("", hours=1_000, clip_s=3.6, per_partition=1_000).runs == 50


@given(
    hours=st.floats(1, 1e7),
    clip_s=st.floats(0.1, 1e4),
    per_partition=st.floats(1, 1e5),
    share=st.floats(0.01, 1),
)
def test_twice_the_hours_need_twice_of_everything(
    hours: float, clip_s: float, per_partition: float, share: float
):
    once = dataclasses.asdict(needed(Workload("", hours, clip_s, per_partition), share))
    twice = dataclasses.asdict(needed(Workload("", 2 * hours, clip_s, per_partition), share))
    assert twice == pytest.approx({name: 2 * value for name, value in once.items()})


@pytest.mark.parametrize("share", [0, 1.01])
def test_a_share_that_cannot_be_is_refused(share: float):
    with pytest.raises(ValueError, match="share is at most 1"):
        needed(Workload("", 1, 8, 100), share)


def test_the_command_prints_what_your_own_numbers_need():
    command = [sys.executable, "-m", "benchmarks.capacity", "--hours", "3600", "--clip-s", "30"]
    own = ["--windows-per-s", "120", "--share", "1", "--gpu-price", "2.5"]
    said = subprocess.run([*command, *own], cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    rows = dict(line.split() for line in said.splitlines())
    assert (rows["gpu_hours"], rows["gpu_money"]) == ("1.0", "2.5")
