"""The pool `gpu`, which lets one step on the GPU at a time."""

import logging
import time

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

GPU = "gpu"
# By how much the second name may come after the first.
SECONDS_TO_SETTLE = 0.1
SECONDS_BETWEEN_LOOKS = 0.5


def hold_place(instance: dg.DagsterInstance, run_id: str, step_key: str, log: logging.Logger) -> None:
    """Wait until a step that Dagster let into the pool has its place there to itself.

    Dagster reads which place is free and then writes a name on it. SQLite locks no rows, so that two steps
    which do so at the same moment, as those of runs that are dequeued together, both go on. The place bears
    the name of the second one; the first one waits here. Databases with locks need none of this, and a step
    that was started without the pool passes.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage) or not storage.has_pending_step(GPU, run_id, step_key):
        return
    waits = False
    while True:
        if not storage.claim_concurrency_slot(GPU, run_id, step_key).is_claimed:
            if not waits:
                log.info(f"Another step has this place in the pool {GPU}; waiting for its end")
            waits = True
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        time.sleep(SECONDS_TO_SETTLE)
        if storage.check_concurrency_claim(GPU, run_id, step_key).is_claimed:
            return
