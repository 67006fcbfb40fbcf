"""What the jobs cover, when they run by themselves, and what they make anew: just what needs it."""

import dataclasses
import datetime as dt
import pathlib

import dagster as dg
import numpy as np
import pytest
from dagster._core.execution.backfill import PartitionBackfill

from audio_assets.audio import DECODERS, read_flac
from audio_assets.definitions import defs
from audio_assets.defs.check_rules import CHECKS
from audio_assets.defs.partitions import ASSETS, FOLDER_MINUTE
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.encoded import FORMATS, encode, speech
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.rows import at

KEY = at("p225").key
on_disk = pytest.mark.parametrize("place", ["local"], indirect=True)
broken = pathlib.Path("broken")


def fails_while_broken(audio: np.ndarray) -> list[int]:
    """A tokeniser that fails at clips of more than a quarter of a second, as long as a file says so."""
    if len(audio) > 4_000 and broken.exists():
        raise RuntimeError("out of order")
    return [len(audio) // 16]


def first_tokeniser(audio: np.ndarray) -> list[int]:
    return [1, len(audio) // 16]


def second_tokeniser(audio: np.ndarray) -> list[int]:
    return [2, len(audio) // 16]


first_tokeniser.identity = "first"  # type: ignore[attr-defined]
second_tokeniser.identity = "second"  # type: ignore[attr-defined]


@dataclasses.dataclass
class Asked:
    """What a job has asked for.

    Attributes:
        backfill: None where there is nothing to redo.
        partitions, rows: as the job's metadata says.
    """

    backfill: PartitionBackfill | None
    partitions: int
    rows: int

    def targets(self, project: Project) -> set[tuple[str, str]]:
        """Names of assets, each with a partition key."""
        assert self.backfill
        data = self.backfill.get_asset_backfill_data(project.repository.asset_graph)
        targets = data.target_subset.iterate_asset_partitions()
        return {(t.asset_key.to_user_string(), str(t.partition_key)) for t in targets}


def launch(project: Project, name: str) -> Asked:
    """Launch a job as the UI does."""
    before = {b.backfill_id for b in project.instance.get_backfills()}
    result = project.repository.get_job(name).execute_in_process(instance=project.instance)
    assert result.success
    asked = [b for b in project.instance.get_backfills() if b.backfill_id not in before]
    [output] = [e for e in result.all_events if e.is_successful_output]
    said = output.step_output_data.metadata
    partitions = said["partitions"]
    rows = said["rows"]
    assert isinstance(partitions, dg.IntMetadataValue)
    assert isinstance(rows, dg.IntMetadataValue)
    if asked:
        assert asked[0].title == name
    return Asked(asked[0] if asked else None, partitions.value or 0, rows.value or 0)


def all_assets(*keys: str) -> set[tuple[str, str]]:
    return {(asset.to_user_string(), key) for asset in ASSETS for key in keys}


@pytest.mark.parametrize("name", ["process_audio", "check_audio_table", "retry_failed_objects", "redo_stale"])
def test_jobs_say_who_owns_them_and_what_they_do(name: str):
    job = defs().get_repository_def().get_job(name)
    assert job.owners == ["team:speech"]
    assert job.description


# --- checking -----------------------------------------------------------------------------------------------


def test_the_sensors_job_makes_rows_and_one_job_checks_them_all():
    repository = defs().get_repository_def()
    process_audio = repository.get_job("process_audio").asset_layer
    assert process_audio.executable_asset_keys == set(ASSETS)
    assert not process_audio.asset_graph.asset_check_keys
    check_audio_table = repository.get_job("check_audio_table")
    checked = {key.name for key in check_audio_table.asset_layer.asset_graph.asset_check_keys}
    assert checked == {*CHECKS, "equals_audio_table"}
    assert not check_audio_table.asset_layer.executable_asset_keys
    assert check_audio_table.partitions_def is None


def test_the_table_is_checked_every_hour_from_the_start_unless_it_is_being_checked():
    repository = defs().get_repository_def()
    schedule = repository.get_schedule_def("check_audio_table_hourly")
    assert schedule.cron_schedule == "0 * * * *"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    job = repository.get_job("check_audio_table")
    with dg.DagsterInstance.local_temp() as instance:
        with dg.build_schedule_context(instance) as context:
            assert len(schedule.evaluate_tick(context).run_requests or []) == 1
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        instance.create_run_for_job(
            repository.get_job("retry_failed_objects"), status=dg.DagsterRunStatus.STARTED
        )
        with dg.build_schedule_context(instance) as context:
            data = schedule.evaluate_tick(context)
        assert not data.run_requests
        assert "still" in str(data.skip_message)
        instance.report_run_canceled(run)
        with dg.build_schedule_context(instance) as context:
            assert len(schedule.evaluate_tick(context).run_requests or []) == 1


# --- failed objects -----------------------------------------------------------------------------------------


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
    asked = launch(project, "retry_failed_objects")
    assert (asked.partitions, asked.rows) == (1, 1)
    assert asked.targets(project) == all_assets(KEY)
    result = project.run(KEY)
    [made] = {m.partition: m for m in result.asset_materializations_for_node("speech")}.values()
    assert made.metadata["clips_computed"].value == 1
    assert set(project.table()["status"]) == {"ok"}
    assert launch(project, "retry_failed_objects") == Asked(None, 0, 0)


# --- other settings -----------------------------------------------------------------------------------------


@on_disk
def test_rows_made_by_other_settings_are_made_anew_and_no_others(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOKENISER", f"{__name__}:first_tokeniser")
    project.reload()
    project.place.put("p225/a.flac", flac(0.1))
    project.place.put("p225/b.flac", flac(0.1, 1))
    project.place.put("p226/a.flac", flac(0.1, 2))
    project.place.put("p226/notes.txt", b"text")
    project.place.put("p227/notes.txt", b"text")
    project.catch_up()
    assert launch(project, "redo_stale") == Asked(None, 0, 0)

    monkeypatch.setenv("TOKENISER", f"{__name__}:second_tokeniser")
    project.reload()
    project.place.put("p225/c.flac", flac(0.1, 3), UPLOADED + dt.timedelta(minutes=5))
    project.catch_up()
    asked = launch(project, "redo_stale")
    assert (asked.partitions, asked.rows) == (2, 3)
    keys = [at("p225").key, at("p226").key]
    assert asked.targets(project) == all_assets(*keys)
    for key in keys:
        result = project.run(key)
        for made in result.asset_materializations_for_node("speech"):
            assert made.metadata["clips_computed"].value == {keys[0]: 2, keys[1]: 1}[key]
    assert set(project.table()["tokeniser"].dropna()) == {f"{__name__}:second_tokeniser second"}
    assert launch(project, "redo_stale") == Asked(None, 0, 0)


@on_disk
def test_objects_whose_format_has_a_decoder_by_now_are_made_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    project.place.put("p225/a.flac", flac(0.1))
    project.place.put("p226/a.fla", flac(0.1))
    project.place.put("p226/notes.txt", b"text")
    project.catch_up()
    assert launch(project, "redo_stale").backfill is None
    monkeypatch.setitem(DECODERS, ".fla", read_flac)
    asked = launch(project, "redo_stale")
    assert (asked.partitions, asked.rows) == (1, 1)
    assert asked.targets(project) == all_assets(at("p226").key)
    project.tick()
    assert "1 partitions have rows made by other settings" in (project.evaluated.skip_message or "")
    project.run(at("p226").key)
    assert launch(project, "redo_stale").backfill is None


@on_disk
def test_a_format_that_is_enabled_later_makes_the_rows_of_its_objects_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    for form in FORMATS:
        project.place.put(f"p225/a.{form}", encode(form, speech(0.3)))
    project.place.put("p226/a.flac", flac(0.1))
    project.place.put("p225/b.opus", b"junk")
    monkeypatch.setenv("AUDIO_FORMATS", ",".join(form for form in FORMATS if form != "opus"))
    project.catch_up()
    before = project.table().set_index("Key")
    assert before["status"].to_dict() == {f"p225/a.{form}": "ok" for form in FORMATS} | {
        "p226/a.flac": "ok",
        "p225/a.opus": "not_flac",
        "p225/b.opus": "not_flac",
    }
    monkeypatch.setenv("AUDIO_FORMATS", ",".join(FORMATS))
    asked = launch(project, "redo_stale")
    assert (asked.partitions, asked.rows) == (1, 2)
    run = project.run(at("p225").key)
    for made in run.asset_materializations_for_node("speech"):
        assert made.metadata["clips_computed"].value == 1
    rows = project.table().set_index("Key")
    assert (rows.loc["p225/a.opus", "status"], rows.loc["p225/b.opus", "status"]) == ("ok", "failed")
    assert rows.loc["p225/b.opus", "error"].startswith("not Ogg inside but")
    assert launch(project, "redo_stale").backfill is None
    # Taken from the list, rows stay until their partition is run.
    monkeypatch.setenv("AUDIO_FORMATS", "flac")
    project.run(at("p225").key)
    kept = project.table().query("status == 'ok'")["Key"].tolist()
    assert kept == ["p225/a.flac", "p226/a.flac"]


@on_disk
def test_what_was_retired_keeps_its_rows(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOKENISER", f"{__name__}:first_tokeniser")
    project.reload()
    project.place.put("p225/a.flac", flac(0.1))
    project.catch_up()
    project.instance.delete_dynamic_partition(FOLDER_MINUTE, at("p225").key)
    monkeypatch.setenv("TOKENISER", f"{__name__}:second_tokeniser")
    project.reload()
    assert launch(project, "redo_stale").backfill is None
