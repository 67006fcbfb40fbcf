"""Rows of other settings than today's: seen by the sensor, redone by it if so set, never joined unseen."""

import dagster as dg
import numpy as np
import pytest

from audio_assets.partitions import FolderMinute
from audio_assets_tests.support.audio import MINUTE, flac
from audio_assets_tests.support.project import Project

KEY = FolderMinute("p225", MINUTE).key
pytestmark = pytest.mark.parametrize("place", ["local"], indirect=True)


def one_token(audio: np.ndarray) -> list[int]:
    return [len(audio) // 16_000]


@pytest.fixture
def made(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A partition in the table whose tokens another tokeniser made than the one that is set now."""
    project.place.put("p225/a.flac", flac())
    assert project.catch_up() == 1
    monkeypatch.setenv("TOKENISER", f"{__name__}:one_token")
    project.reload()
    return project


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert event.step_failure_data.error is not None
    return event.step_failure_data.error.message


def test_the_sensor_says_what_is_stale_and_leaves_it(made: Project):
    assert made.tick() == []
    assert "1 partitions have rows made by other settings" in (made.evaluated.skip_message or "")
    assert made.table()["tokeniser"].tolist() == ["simulated"]


def test_the_sensor_makes_it_anew_if_so_set(made: Project, monkeypatch: pytest.MonkeyPatch):
    text = made.table()["transcribed_text"].tolist()
    monkeypatch.setenv("REDO_STALE", "sensor")
    assert made.catch_up() == 1
    [tokeniser] = made.table()["tokeniser"]
    assert tokeniser.startswith(f"{__name__}:one_token sha256=")
    assert made.table()["transcribed_text"].tolist() == text
    assert made.catch_up() == 0
    assert "other settings" not in (made.evaluated.skip_message or "")


def test_audio_table_alone_does_not_join_rows_of_other_settings(made: Project):
    result = made.run(KEY, assets=["audio_table"])
    assert not result.success
    assert f"{KEY}: 1 of 1 rows were made by other settings" in failure(result)
    assert "launch the job redo_stale" in failure(result)
    assert made.run(KEY, assets=["tokens", "audio_table"]).success
    assert made.run(KEY, assets=["audio_table"]).success


def test_a_bucket_without_audio_is_said_to_be_one(project: Project):
    project.place.put("p225/a.wav", b"RIFF")
    assert project.catch_up() == 1
    assert "no object is of an audio format" in (project.evaluated.skip_message or "")
    project.place.put("p225/a.flac", flac())
    assert project.catch_up() == 1
    assert "audio format" not in (project.evaluated.skip_message or "")
