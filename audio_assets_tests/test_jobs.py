"""Trying failed objects again, and only these."""

import pathlib

import numpy as np
import pytest
from dagster._core.execution.backfill import PartitionBackfill

from audio_assets.definitions import defs
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.project import Project

KEY = "p225@2023-08-24-00:21"
on_disk = pytest.mark.parametrize("place", ["local"], indirect=True)
broken = pathlib.Path("broken")


def fails_while_broken(audio: np.ndarray) -> list[int]:
    """A tokeniser that fails at clips of more than a quarter of a second, as long as a file says so."""
    if len(audio) > 4_000 and broken.exists():
        raise RuntimeError("out of order")
    return [len(audio) // 16]


def retry(project: Project) -> PartitionBackfill | None:
    """Launch the job as the UI does; gives the backfill that it asks for."""
    before = {b.backfill_id for b in project.instance.get_backfills()}
    job = project.repository.get_job("retry_failed_objects")
    assert job.execute_in_process(instance=project.instance).success
    asked = [b for b in project.instance.get_backfills() if b.backfill_id not in before]
    return asked[0] if asked else None


def test_jobs_say_who_owns_them():
    repository = defs().get_repository_def()
    for name in ("process_audio", "retry_failed_objects"):
        assert repository.get_job(name).owners == ["team:speech"]


@on_disk
def test_only_failed_objects_are_tried_again(
    project: Project, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(f"{__name__}.broken", tmp_path / "broken")
    monkeypatch.setenv("TOKENISER", f"{__name__}:fails_while_broken")
    project.reload()
    broken.touch()
    project.place.put("p225/short.flac", flac(0.1))
    project.place.put("p225/long.flac", flac(0.5))
    project.place.put("p226/short.flac", flac(0.1))
    project.catch_up()
    table = project.table().set_index("Key")
    assert table["status"].to_dict() == {
        "p225/long.flac": "failed",
        "p225/short.flac": "ok",
        "p226/short.flac": "ok",
    }
    assert table["error"].to_dict()["p225/long.flac"] == "the tokeniser failed on it: out of order"

    broken.unlink()
    asked = retry(project)
    assert asked
    data = asked.get_asset_backfill_data(project.repository.asset_graph)
    targets = data.target_subset.iterate_asset_partitions()
    assert {(t.asset_key.to_user_string(), t.partition_key) for t in targets} == {
        (asset, KEY) for asset in ("s3_inventory", "transcripts", "tokens", "audio_table")
    }
    result = project.run(KEY)
    [made] = {m.partition: m for m in result.asset_materializations_for_node("speech")}.values()
    assert made.metadata["clips_computed"].value == 1
    assert set(project.table()["status"]) == {"ok"}
    assert retry(project) is None
