"""What each actor of a run has done, and the names of actors."""

import collections
import datetime as dt
import pathlib
import shutil

import pytest

from audio_assets.cluster import actor_name
from audio_assets.cluster.actor_name import code_version, group_name, group_of
from audio_assets.cluster.fleet import Fleet
from audio_assets.cluster.messages import Report, Worker
from audio_assets.partition_rows import Finished
from audio_assets.partitions import FolderMinute

WORKER = Worker("10.0.0.1", 7, "code", 0)


def finished(audio_s: float) -> Finished:
    partition = FolderMinute("p", dt.datetime(2023, 8, 24, tzinfo=dt.UTC))
    return Finished(
        partition, {}, collections.defaultdict(collections.Counter), audio_s, 0, 1, 0, audio_s, {}
    )


def test_gpu_hours_are_those_in_which_actors_were_held() -> None:
    now = 0.0
    fleet = Fleet(0.5, lambda: now)
    fleet.joined("a", WORKER)
    fleet.joined("b", WORKER)
    now = 1800.0
    fleet.left("b")
    fleet.add("a", Report((finished(7200.0),), seconds=100.0, load_s=3.0, device="cuda:0"))
    now = 3600.0
    fleet.end()
    now = 9999.0
    assert fleet.gpu_hours == 0.75
    assert fleet.audio_hours_per_gpu_hour == pytest.approx(2 / 0.75)
    assert fleet.seconds == 3600.0
    assert fleet.loads == 1
    assert fleet.per_worker() == "a 72.0"


def test_an_actor_that_takes_the_place_of_one_that_died_goes_on_with_its_figures() -> None:
    fleet = Fleet(1.0, lambda: 0.0)
    fleet.joined("a", WORKER)
    fleet.add("a", Report((finished(1.0),), seconds=1.0, stats={"windows": 2}))
    fleet.left("a")
    fleet.joined("a", Worker("10.0.0.2", 8, "code", 0))
    fleet.add("a", Report((finished(1.0),), seconds=1.0, stats={"windows": 3}))
    assert fleet.workers["a"].partitions == 2
    assert fleet.workers["a"].worker.node == "10.0.0.2"
    assert fleet.stats == {"windows": 5}


def test_an_actor_of_another_model_setting_table_or_code_has_another_name() -> None:
    parts = ["model", "setting", "table", "code"]
    groups = {group_name(parts)}
    groups |= {group_name([*parts[:at], "another", *parts[at + 1 :]]) for at in range(len(parts))}
    # Parts do not run into each other.
    groups |= {group_name(["mode", "lsetting", *parts[2:]])}
    assert len(groups) == len(parts) + 2


def test_the_group_of_a_name_is_read_from_it() -> None:
    group = group_name(["model"])
    assert group_of(actor_name.actor_name(group, 12)) == group
    assert group_of("somebody-elses-3") is None
    assert group_of(group) is None


def test_the_code_version_changes_with_the_code(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "audio_assets"
    (package / "cluster").mkdir(parents=True)
    copy = package / "cluster" / "actor_name.py"
    shutil.copy(actor_name.__file__, copy)
    monkeypatch.setattr(actor_name, "__file__", str(copy))
    before = code_version.__wrapped__()
    assert before == code_version.__wrapped__()
    copy.write_text(copy.read_text() + "\n# changed\n")
    assert code_version.__wrapped__() != before
