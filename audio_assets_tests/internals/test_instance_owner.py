"""An instance serves one source and table at a time."""

import pathlib
import time
from collections.abc import Iterator

import dagster as dg
import pytest

from audio_assets.defs.internals import instance_owner
from audio_assets.defs.internals.instance_owner import SILENT_S, claim
from audio_assets.errors import InstanceInUseError


@pytest.fixture
def instance(tmp_path: pathlib.Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as opened:
        yield opened


def other_process(monkeypatch: pytest.MonkeyPatch, *, alive: bool | None) -> None:
    monkeypatch.setattr(instance_owner, "this_process", lambda: "another one")
    monkeypatch.setattr(instance_owner, "is_alive", lambda process: alive)


def test_the_same_places_are_served_by_any_number_of_processes(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    claim(instance, "s3://a", "s3://t")
    other_process(monkeypatch, alive=True)
    claim(instance, "s3://a", "s3://t")


def test_a_process_may_move_to_other_places(instance: dg.DagsterInstance):
    claim(instance, "s3://a", "s3://t")
    claim(instance, "s3://b", "s3://t")


@pytest.mark.parametrize("places", [("s3://b", "s3://t"), ("s3://a", "s3://u")])
def test_other_places_are_refused_while_a_process_that_serves_lives(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, places: tuple[str, str]
):
    claim(instance, "s3://a", "s3://t")
    other_process(monkeypatch, alive=True)
    with pytest.raises(InstanceInUseError, match="serves s3://a with its table s3://t at the moment"):
        claim(instance, *places)
    other_process(monkeypatch, alive=False)
    claim(instance, *places)


def test_a_run_is_refused_as_a_tick_is_and_leaves_the_note_of_the_process_that_goes_on(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    claim(instance, "s3://a", "s3://t")
    note = instance.run_storage.get_cursor_values({instance_owner._NAME})
    other_process(monkeypatch, alive=True)
    claim(instance, "s3://a", "s3://t", for_a_run=True)
    assert instance.run_storage.get_cursor_values({instance_owner._NAME}) == note
    with pytest.raises(InstanceInUseError):
        claim(instance, "s3://b", "s3://t", for_a_run=True)
    other_process(monkeypatch, alive=False)
    claim(instance, "s3://b", "s3://t", for_a_run=True)
    # Nobody else serves others as long as the run lasts.
    monkeypatch.setattr(instance_owner, "this_process", lambda: "a third one")
    monkeypatch.setattr(instance_owner, "is_alive", lambda process: process == "another one")
    with pytest.raises(InstanceInUseError, match="serves s3://b"):
        claim(instance, "s3://a", "s3://t")


def test_a_process_of_another_host_is_taken_to_live_until_it_is_silent(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    claim(instance, "s3://a", "s3://t")
    other_process(monkeypatch, alive=None)
    with pytest.raises(InstanceInUseError):
        claim(instance, "s3://b", "s3://t")
    later = time.time() + SILENT_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    claim(instance, "s3://b", "s3://t")
