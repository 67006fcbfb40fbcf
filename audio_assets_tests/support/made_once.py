"""What Dagster and boto3 make anew each time although it never changes, made once for all tests of a process.

What is stored and what is read of it stays the same. Processes that tests start (the services, the demo, the
command line) have the libraries as they are.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping

import botocore.session
import dagster as dg
import pytest
import sqlalchemy
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from dagster.components.core import load_defs
from dagster.components.core.component_tree import ComponentTree
from sqlalchemy import event
from sqlalchemy.pool import NullPool

STORAGES = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)
DEFAULT_TIMEOUT_SECONDS = 5.0


@functools.lru_cache(maxsize=64)
def _engine(url: str, timeout: float) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args={"timeout": timeout})
    # No test cuts the power of this process, and a run waits for the disk for longer than it works.
    event.listen(engine, "connect", lambda made, _: made.execute("PRAGMA synchronous=OFF"))
    return engine


def _create_engine(
    url: str, poolclass: type[NullPool], connect_args: Mapping[str, float] | None = None
) -> sqlalchemy.Engine:
    """Dagster makes an engine for each connection, and each engine compiles all statements anew. An engine
    without a pool holds no connection, so all of a database may share one."""
    assert poolclass is NullPool
    return _engine(url, (connect_args or {}).get("timeout", DEFAULT_TIMEOUT_SECONDS))


@contextlib.contextmanager
def made_once() -> Iterator[None]:
    """Share database engines, migration scripts, the descriptions of components, those of AWS's services."""
    describe = load_defs.get_library_json_enriched_defs
    described = functools.cache(lambda: describe(None).metadata)

    def components(tree: ComponentTree | None) -> dg.Definitions:
        return dg.Definitions(metadata=described(), component_tree=tree)

    scripts = staticmethod(functools.cache(ScriptDirectory.from_config))
    # It keeps what it has read: a megabyte of JSON for each client of S3.
    loader = functools.cache(botocore.session.create_loader)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for storage in STORAGES:
            monkeypatch.setattr(storage, "create_engine", _create_engine)
        monkeypatch.setattr(ScriptDirectory, "from_config", scripts)
        monkeypatch.setattr(botocore.session, "create_loader", loader)
        monkeypatch.setattr(load_defs, "get_library_json_enriched_defs", components)
        yield
