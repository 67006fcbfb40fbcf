"""One step at a time in the pool `gpu`."""

import logging
import pathlib
import threading
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.storage.event_log.schema import ConcurrencySlotsTable

from audio_assets.defs.pool import GPU, SECONDS_BETWEEN_LOOKS, SECONDS_TO_SETTLE, hold_place

STEP = "speech"
LOG = logging.getLogger(__name__)


@pytest.fixture
def instance(tmp_path: pathlib.Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.event_log_storage.set_concurrency_slots(GPU, 1)
        yield instance


def test_of_two_steps_that_dagster_gave_one_place_one_waits_for_the_other(
    instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    storage = instance.event_log_storage
    assert storage.claim_concurrency_slot(GPU, "first", STEP).is_claimed
    # The second one saw the place free, and writes its name only now.
    storage.add_pending_step(GPU, "second", STEP, should_assign=True)
    with storage.index_connection() as connection:
        connection.execute(ConcurrencySlotsTable.update().values(run_id="second", step_key=STEP))

    first = threading.Thread(target=hold_place, args=(instance, "first", STEP, LOG), daemon=True)
    first.start()
    hold_place(instance, "second", STEP, LOG)
    first.join(2 * (SECONDS_BETWEEN_LOOKS + SECONDS_TO_SETTLE))
    assert first.is_alive()
    assert caplog.text.count("Another step has this place in the pool gpu") == 1
    storage.free_concurrency_slot_for_step("second", STEP)
    first.join(60)
    assert not first.is_alive()
    assert storage.get_concurrency_info(GPU).active_run_ids == {"first"}


def test_a_step_that_is_alone_in_its_place_goes_on(instance: dg.DagsterInstance):
    assert instance.event_log_storage.claim_concurrency_slot(GPU, "one", STEP).is_claimed
    hold_place(instance, "one", STEP, LOG)
    assert instance.event_log_storage.get_concurrency_info(GPU).active_run_ids == {"one"}


def test_a_step_that_was_started_without_the_pool_takes_no_place(instance: dg.DagsterInstance):
    assert instance.event_log_storage.claim_concurrency_slot(GPU, "one", STEP).is_claimed
    hold_place(instance, "other", STEP, LOG)
    info = instance.event_log_storage.get_concurrency_info(GPU)
    assert info.active_run_ids == {"one"}
    assert not info.pending_run_ids - {"one"}
