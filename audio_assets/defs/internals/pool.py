"""The pool `gpu`, which lets one step on the GPU at a time.

Why private: Dagster's own pool lets two steps in at once on SQLite, and only the storage's class tells that
it is SQLite. It can also leave a step waiting beside a free place, and only the storage lets it go on.
"""

import contextlib
import logging
import pathlib
import time
from collections.abc import Iterator

import dagster as dg
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from filelock import FileLock, Timeout

GPU = "gpu"
SECONDS_BETWEEN_LOOKS = 0.5


@contextlib.contextmanager
def place_in_pool(instance: dg.DagsterInstance, log: logging.Logger) -> Iterator[None]:
    """Hold one of the pool's places, once Dagster has let the step into the pool.

    Dagster reads which place is free and then writes a name on it. SQLite locks no rows, so that two steps
    which do so at the same moment, as those of runs that are dequeued together, both go on. A file's lock
    for each place, which the kernel takes back from a process that dies, lets one of them wait here. SQLite
    serves a single machine; databases that serve more have locks and need none of this.
    """
    storage = instance.event_log_storage
    limit = storage.get_concurrency_info(GPU).slot_count if isinstance(storage, SqliteEventLogStorage) else 0
    if not limit:
        yield
        return
    folder = pathlib.Path(instance.storage_directory())
    folder.mkdir(parents=True, exist_ok=True)
    places = [FileLock(folder / f"pool_{GPU}_{place}.lock", blocking=False) for place in range(limit)]
    waits = False
    while not (held := next(filter(_acquire, places), None)):
        if not waits:
            log.info(f"Another step has this place in the pool {GPU}; waiting for its end")
        waits = True
        time.sleep(SECONDS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        held.release()


def wake_waiting_step(instance: dg.DagsterInstance) -> None:
    """Let the next waiting step into the pool where a place is free.

    A step reads that no place is free, then queues. Where the last place is given back between the two,
    nobody is left to wake the step: it waits until another step has come and gone, which may be for ever.
    """
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage) and storage.has_unassigned_slots(GPU):
        storage.assign_pending_steps([GPU])


def _acquire(place: FileLock) -> bool:
    try:
        place.acquire()
    except Timeout:
        return False
    return True
