"""Deleting what runs have logged, without what they have made.

Why private: `DagsterInstance.delete_run` deletes a run with the materialisations, observations and check
results that it recorded, so that partitions would no longer count as made. Dagster has nothing that deletes
logs alone. So the tables of the event log are thinned here.

Kept of each run: the run itself with its tags, when it started and how it ended, and everything that belongs
to an asset or a check. SQLite keeps the latter in a database of its own, and a copy in the run's database,
which is deleted; Postgres has one table.
"""

import datetime as dt
import logging
import pathlib
from collections.abc import Iterator, Sequence

import dagster as dg
import sqlalchemy as sa
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

RUNS_AT_A_TIME = 100
CURSOR = "audio_assets/run_logs_purged_until"
_RUN_EVENTS = sorted(event.value for event in EVENT_TYPE_TO_PIPELINE_RUN_STATUS)
_ASSET_EVENTS = sorted(event.value for event in ASSET_EVENTS | ASSET_CHECK_EVENTS)


def purge_run_logs(instance: dg.DagsterInstance, before: dt.datetime, log: logging.Logger) -> int:
    """Delete the logs of runs that were created before a time and have ended.

    Where the last call ended, this one goes on. A run that was under way then keeps its logs.

    Returns:
        How many runs it looked at.
    """
    seen = 0
    for runs in _ended(instance, before):
        ids = [run.dagster_run.run_id for run in runs]
        storage = instance.event_log_storage
        if isinstance(storage, SqliteEventLogStorage):
            for run_id in ids:
                _thin_database(pathlib.Path(storage.path_for_shard(run_id)))
        elif isinstance(storage, SqlEventLogStorage):
            with storage.index_transaction() as connection:
                connection.execute(_delete(_RUN_EVENTS + _ASSET_EVENTS).where(Events.c.run_id.in_(ids)))
        for run_id in ids:
            instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.daemon_cursor_storage.set_cursor_values({CURSOR: runs[-1].create_timestamp.isoformat()})
        seen += len(ids)
        log.info(f"The logs of {seen} runs are deleted, up to {runs[-1].create_timestamp:%Y-%m-%d %H:%M}")
    return seen


def _ended(instance: dg.DagsterInstance, before: dt.datetime) -> Iterator[Sequence[dg.RunRecord]]:
    """Runs that have ended, the oldest first, some at a time."""
    while True:
        cursor = instance.daemon_cursor_storage.get_cursor_values({CURSOR}).get(CURSOR)
        asked = dg.RunsFilter(
            statuses=FINISHED_STATUSES,
            created_before=before,
            created_after=dt.datetime.fromisoformat(cursor) if cursor else None,
        )
        runs = instance.get_run_records(asked, limit=RUNS_AT_A_TIME, ascending=True)
        if not runs:
            return
        yield runs


def _thin_database(path: pathlib.Path) -> None:
    """Empty a run's own database, which other processes may have open: so the file is not deleted."""
    if not path.exists():
        return
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(_delete(_RUN_EVENTS))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM"))
        connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
    engine.dispose()


def _delete(kept: Sequence[str]) -> sa.Delete:
    """Delete all events but some. What Python code logs has no type at all."""
    of_type = Events.c.dagster_event_type
    return Events.delete().where(sa.or_(of_type.is_(None), of_type.not_in(kept)))
