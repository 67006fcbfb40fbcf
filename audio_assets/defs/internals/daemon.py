"""Dagster's daemon, which begins on a new instance without warnings.

    python -m audio_assets.defs.internals.daemon run --workspace workspace.yaml

takes what `python -m dagster._daemon` takes.

Why private: the daemon that retries runs keeps in the instance up to which event it has looked. On a new
instance it finds no such place, warns of it once for each type of event, and begins at the newest event. The
place is given here before it starts. Which types it looks at, and where it keeps the places, are private
names.
"""

import dagster as dg


def begin_at_newest_event(instance: dg.DagsterInstance) -> None:
    """Let the daemon begin at the newest event, for each type of event that it has not looked at before."""
    # Here, because the code location loads this module too, and has no use for the daemon.
    from dagster._daemon.auto_run_reexecution.event_log_consumer import (
        DAGSTER_EVENT_TYPES,
        _create_cursor_key,
    )

    storage = instance.daemon_cursor_storage
    places = {_create_cursor_key(event_type) for event_type in DAGSTER_EVENT_TYPES}
    if missing := places - storage.get_cursor_values(places).keys():
        newest = instance.event_log_storage.get_maximum_record_id() or 0
        storage.set_cursor_values(dict.fromkeys(missing, str(newest)))


def main() -> None:
    from dagster._daemon.cli import main as run_daemon

    with dg.DagsterInstance.get() as instance:
        begin_at_newest_event(instance)
    run_daemon()


if __name__ == "__main__":
    main()
