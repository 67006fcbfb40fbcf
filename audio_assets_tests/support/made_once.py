"""What Dagster, boto3 and moto make anew each time although it never changes, made once for all tests.

What is stored and what is read of it stays the same. Processes that tests start (the services, the demo, the
command line) have the libraries as they are.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import TextIO

import botocore.session
import dagster as dg
import pytest
import sqlalchemy
from alembic.script import ScriptDirectory
from dagster._core.execution import compute_logs
from dagster._core.storage import local_compute_log_manager
from dagster._core.storage.defs_state.blob_storage_state_storage import UPathDefsStateStorage
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from dagster._utils import ensure_file
from dagster.components.core import component_tree, load_defs
from dagster.components.core.component_tree import ComponentTree
from dagster.components.utils import project_paths
from dagster_shared.utils import config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from sqlalchemy import event
from sqlalchemy.pool import NullPool, QueuePool

STORAGES = (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage)
DEFAULT_TIMEOUT_SECONDS = 5.0


class _KeepsConnections(sqlalchemy.Engine):
    """Dagster disposes of an engine after each event. Opening a database takes longer than writing to it."""

    def dispose(self, close: bool = True) -> None:
        """Leave the connections open: they are closed when nothing refers to the engine."""


@functools.lru_cache(maxsize=64)
def _engine(url: str, timeout: float) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(
        url,
        poolclass=QueuePool,
        max_overflow=-1,
        connect_args={"timeout": timeout, "check_same_thread": False},
    )
    # No test cuts the power of this process, and a run waits for the disk for longer than it works.
    event.listen(engine, "connect", lambda made, _: made.execute("PRAGMA synchronous=OFF"))
    engine.__class__ = _KeepsConnections
    return engine


def _create_engine(
    url: str, poolclass: type[NullPool], connect_args: Mapping[str, float] | None = None
) -> sqlalchemy.Engine:
    """Dagster makes an engine for each connection, and each engine compiles all statements anew."""
    assert poolclass is NullPool
    return _engine(url, (connect_args or {}).get("timeout", DEFAULT_TIMEOUT_SECONDS))


@contextlib.contextmanager
def _to_file_alone(stream: TextIO, path: str) -> Iterator[None]:
    """Keep what a step prints, without showing it: that takes four more processes for each step."""
    ensure_file(path)
    with compute_logs.redirect_to_file(stream, path):
        yield


@contextlib.contextmanager
def made_once() -> Iterator[None]:
    """Share database engines, migration scripts, the project's file, the descriptions of components, those of
    AWS's services, and which of these a host is."""
    describe = load_defs.get_library_json_enriched_defs
    described = functools.cache(lambda: describe(None).metadata)

    def components(tree: ComponentTree | None) -> dg.Definitions:
        return dg.Definitions(metadata=described(), component_tree=tree)

    project_file = functools.cache(config.load_toml_as_dict)
    scripts = staticmethod(functools.cache(ScriptDirectory.from_config))
    # The S3 server lists the folders of its package in each request, one request after the other.
    service_of_host = functools.cache(DomainDispatcherApplication.get_backend_for_host)
    # It keeps what it has read: a megabyte of JSON for each client of S3.
    loader = functools.cache(botocore.session.create_loader)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for storage in STORAGES:
            monkeypatch.setattr(storage, "create_engine", _create_engine)
        monkeypatch.setattr(local_compute_log_manager, "mirror_stream_to_file", _to_file_alone)
        for module in (component_tree, project_paths, config):
            monkeypatch.setattr(module, "load_toml_as_dict", project_file)
        # The project has no components whose state is stored.
        monkeypatch.setattr(UPathDefsStateStorage, "get_latest_defs_state_info", lambda _: None)
        monkeypatch.setattr(ScriptDirectory, "from_config", scripts)
        monkeypatch.setattr(botocore.session, "create_loader", loader)
        monkeypatch.setattr(DomainDispatcherApplication, "get_backend_for_host", service_of_host)
        monkeypatch.setattr(load_defs, "get_library_json_enriched_defs", components)
        yield
