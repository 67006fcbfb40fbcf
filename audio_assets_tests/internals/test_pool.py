"""One step at a time in the pool `gpu`."""

import logging
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from audio_assets.defs.internals.pool import GPU, SECONDS_BETWEEN_LOOKS, place_in_pool, wake_waiting_step
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.project import Project

LOG = logging.getLogger(__name__)


@pytest.fixture
def instance(tmp_path: pathlib.Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


class Step(threading.Thread):
    """Enters the pool and stays there until it is told to leave."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        super().__init__(daemon=True)
        self.instance = instance
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.start()

    def run(self) -> None:
        with place_in_pool(self.instance, LOG):
            self.entered.set()
            assert self.leave.wait(60)


def test_a_step_that_nobody_wakes_is_let_in_by_the_next_tick(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    storage = instance.event_log_storage
    storage.set_concurrency_slots(GPU, 1)
    assert storage.claim_concurrency_slot(GPU, "first", "speech").is_claimed
    queue = SqlEventLogStorage.add_pending_step

    def queue_too_late(storage: SqlEventLogStorage, *args: object, **kwargs: object) -> None:
        storage.free_concurrency_slot_for_step("first", "speech")
        queue(storage, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(SqlEventLogStorage, "add_pending_step", queue_too_late)
        assert not storage.claim_concurrency_slot(GPU, "second", "speech").is_claimed
    # As Dagster leaves it, for ever.
    assert not storage.claim_concurrency_slot(GPU, "second", "speech").is_claimed
    wake_waiting_step(instance)
    assert storage.claim_concurrency_slot(GPU, "second", "speech").is_claimed
    # Another one waits for its end.
    assert not storage.claim_concurrency_slot(GPU, "third", "speech").is_claimed
    wake_waiting_step(instance)
    assert not storage.claim_concurrency_slot(GPU, "third", "speech").is_claimed


@pytest.mark.parametrize("places", [1, 2])
def test_as_many_steps_as_the_pool_has_places_go_on_at_once(
    instance: dg.DagsterInstance, places: int, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    instance.event_log_storage.set_concurrency_slots(GPU, places)
    inside = [Step(instance) for _ in range(places)]
    assert all(step.entered.wait(60) for step in inside)
    last = Step(instance)
    deadline = time.monotonic() + 60
    while "Another step has this place" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not last.entered.wait(3 * SECONDS_BETWEEN_LOOKS)
    assert caplog.text.count("Another step has this place in the pool gpu") == 1
    inside[0].leave.set()
    assert last.entered.wait(60)
    for step in (*inside, last):
        step.leave.set()
        step.join(60)


def test_a_step_that_fails_leaves_its_place(instance: dg.DagsterInstance):
    instance.event_log_storage.set_concurrency_slots(GPU, 1)
    with pytest.raises(dg.Failure), place_in_pool(instance, LOG):
        raise dg.Failure
    step = Step(instance)
    assert step.entered.wait(60)
    step.leave.set()


def test_a_step_that_is_killed_leaves_its_place(instance: dg.DagsterInstance, tmp_path: pathlib.Path):
    instance.event_log_storage.set_concurrency_slots(GPU, 1)
    code = (
        "import dagster, logging, sys, time\n"
        "from audio_assets.defs.internals.pool import place_in_pool\n"
        "with dagster.DagsterInstance.from_config(sys.argv[1]) as instance:\n"
        "    with place_in_pool(instance, logging.getLogger()):\n"
        "        print('inside', flush=True)\n"
        "        time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"inside\n"
        step = Step(instance)
        assert not step.entered.wait(3 * SECONDS_BETWEEN_LOOKS)
        other.send_signal(signal.SIGKILL)
    assert step.entered.wait(60)
    step.leave.set()


def test_without_a_limit_nobody_waits(instance: dg.DagsterInstance):
    steps = [Step(instance) for _ in range(3)]
    assert all(step.entered.wait(60) for step in steps)
    for step in steps:
        step.leave.set()


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_run_of_the_project_waits_and_says_so(project: Project):
    project.place.put("p225/a.flac", flac())
    project.instance.event_log_storage.set_concurrency_slots(GPU, 1)
    other = Step(project.instance)
    assert other.entered.wait(60)
    waiting = "Another step has this place in the pool gpu; waiting for its end"

    def said() -> list[str]:
        runs = project.instance.get_run_ids()
        return [entry.user_message for run in runs for entry in project.instance.all_logs(run)]

    def leave_once_it_waits() -> None:
        while waiting not in said() and not project_ended.wait(0.1):
            pass
        other.leave.set()

    project_ended = threading.Event()
    threading.Thread(target=leave_once_it_waits, daemon=True).start()
    assert project.run("p225@2023-08-24-00:21", assets=["s3_inventory", "tokens"]).success
    project_ended.set()
    assert said().count(waiting) == 1
