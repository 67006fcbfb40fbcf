"""Where the daemon that retries runs begins on a new instance."""

import logging

import dagster as dg
import pytest
from dagster._daemon.auto_run_reexecution.event_log_consumer import (
    DAGSTER_EVENT_TYPES,
    _fetch_persisted_cursors,
    _persist_cursors,
)

from audio_assets.defs.internals.daemon import begin_at_newest_event

LOG = logging.getLogger("daemon")


def test_a_daemon_begins_at_the_newest_event_of_a_new_instance_without_a_warning(
    instance_of_the_project: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
):
    instance = instance_of_the_project
    assert set(_fetch_persisted_cursors(instance, DAGSTER_EVENT_TYPES, LOG).values()) == {None}
    assert "ignoring older events" in caplog.text
    caplog.clear()

    instance.report_runless_asset_event(dg.AssetMaterialization("asset"))
    newest = instance.event_log_storage.get_maximum_record_id()
    assert newest
    begin_at_newest_event(instance)
    assert set(_fetch_persisted_cursors(instance, DAGSTER_EVENT_TYPES, LOG).values()) == {newest}
    assert caplog.text == ""


def test_a_daemon_goes_on_where_it_was(instance_of_the_project: dg.DagsterInstance):
    places = {event_type: at for at, event_type in enumerate(DAGSTER_EVENT_TYPES)}
    _persist_cursors(instance_of_the_project, places)
    begin_at_newest_event(instance_of_the_project)
    assert _fetch_persisted_cursors(instance_of_the_project, DAGSTER_EVENT_TYPES, LOG) == places
