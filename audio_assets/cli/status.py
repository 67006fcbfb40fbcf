"""How things stand: what waits, what failed, what is stale, what runs, and who looks at the bucket.

Nothing here changes anything: it looks as the sensor does, and asks for nothing.
"""

import collections
import dataclasses
import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import dagster as dg
from rich.console import Console

from audio_assets.cli.counts import Counts, count
from audio_assets.cli.project import Project
from audio_assets.cli.rows import small_table
from audio_assets.cli.sync import LOOKED, SENSOR
from audio_assets.defs.producers import current_producers
from audio_assets.defs.records import UNFINISHED, InstanceRecords, covered
from audio_assets.defs.sensor import tick_inputs
from audio_assets.partitions import folder_of_partition
from audio_assets.sensor.tick import TickOutcome, tick
from audio_assets.staleness import stale_partitions

# Runs that failed longer ago are no news.
NEWS = dt.timedelta(days=7)
MOST_RUNS = 20
# The daemon says every 30 s that it lives.
DEAD_AFTER = dt.timedelta(seconds=120)
MOST_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is under way or has failed.

    Attributes:
        id: as the UI shows it.
        status: Dagster's.
        since: when it began or, if it has ended, when that was; ISO 8601.
        partitions: that it covers.
        error: why it failed.
    """

    id: str
    status: str
    since: str
    partitions: int
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Status:
    """How things stand.

    Attributes:
        source, table: their URIs.
        rows: by `status`.
        hours: of audio in the table.
        waiting: partition keys of closed minutes in which bucket and table differ.
        open: how many partitions wait for their minute to close.
        running: runs that are queued or under way.
        failed_rows: partition, object and error of each row that failed.
        failed_runs: the last ones, the newest first.
        stale: rows by partition key that a run would make otherwise now, at the least.
        looked: when the sensor or a sync last looked at the bucket, ISO 8601; None for never.
        daemon: when Dagster's daemon last said that it lives; None for never.
        daemon_lives: whether that was just now.
    """

    source: str
    table: str
    rows: Mapping[str, int]
    hours: float
    waiting: list[str]
    open: int
    running: list[Run]
    failed_rows: list[Mapping[str, str]]
    failed_runs: list[Run]
    stale: Mapping[str, int]
    looked: str | None
    daemon: str | None
    daemon_lives: bool

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def status(project: Project) -> Status:
    """Look at bucket, table and instance.

    Raises:
        ValueError: a setting is wrong.
        StorageError: bucket or table cannot be read.
    """
    instance = project.instance
    outcome, counts = _look(project)
    registered = InstanceRecords(instance).registered()
    beat = _last_heartbeat(instance)
    return Status(
        source=project.bucket.source_uri,
        table=project.bucket.audio_table.uri,
        rows=dict(counts.statuses),
        hours=counts.audio_s / 3600,
        waiting=sorted(outcome.pending),
        open=outcome.open,
        running=[_run(record, registered) for record in _records(instance, UNFINISHED)],
        failed_rows=[dataclasses.asdict(row) for row in counts.failed],
        failed_runs=_failed_runs(instance, registered),
        stale=_stale(project, counts),
        looked=_iso(_last_look(instance)),
        daemon=_iso(beat),
        daemon_lives=beat is not None and _now() - beat < DEAD_AFTER,
    )


# --- what is looked at ----------------------------------------------------------------------------------


def _look(project: Project) -> tuple[TickOutcome, Counts]:
    """Everything that is read of bucket and table."""
    records = InstanceRecords(project.instance)
    outcome = tick(tick_inputs(project.bucket, records, _now()))
    return outcome, count(project.bucket.audio_table, records.records())


def _stale(project: Project, counts: Counts) -> dict[str, int]:
    """Rows by partition key that other settings than today's made, at the least."""
    producers = current_producers(project.resources.whisper, project.resources.tokeniser)
    return dict(sorted(stale_partitions(counts.records, producers).items()))


def _records(instance: dg.DagsterInstance, statuses: Collection[dg.DagsterRunStatus]) -> list[dg.RunRecord]:
    return list(instance.get_run_records(dg.RunsFilter(statuses=list(statuses)), limit=MOST_RUNS))


def _run(record: dg.RunRecord, registered: list[str], error: str = "") -> Run:
    run = record.dagster_run
    moment = record.end_time or record.start_time
    since = dt.datetime.fromtimestamp(moment, dt.UTC) if moment else record.create_timestamp
    return Run(run.run_id, run.status.value, _iso(since) or "", len(covered([run], registered)), error)


def _failed_runs(instance: dg.DagsterInstance, registered: list[str]) -> list[Run]:
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=_now() - NEWS)
    records = instance.get_run_records(wanted, limit=MOST_RUNS)
    return [_run(record, registered, _error(instance, record.dagster_run.run_id)) for record in records]


def _error(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed, in one sentence."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        error = event.step_failure_data.error if event is not None else None
        if error is not None:
            return (error.cause or error).message.strip()
    return "it did not get as far as a step that failed"


def _last_look(instance: dg.DagsterInstance) -> dt.datetime | None:
    """When the sensor's last tick or the last sync's last look was."""
    moments = [
        found.timestamp
        for state in instance.all_instigator_state()
        if state.instigator_name == SENSOR
        for found in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    ]
    if synced := instance.daemon_cursor_storage.get_cursor_values({LOOKED}).get(LOOKED):
        moments.append(float(synced))
    return dt.datetime.fromtimestamp(max(moments), dt.UTC) if moments else None


def _last_heartbeat(instance: dg.DagsterInstance) -> dt.datetime | None:
    beats = [beat.timestamp for beat in instance.get_daemon_heartbeats().values()]
    return dt.datetime.fromtimestamp(max(beats), dt.UTC) if beats else None


# --- how it is shown ------------------------------------------------------------------------------------


def show(console: Console, found: Status) -> None:
    """Print tables of what there is to know, the longest ones cut."""
    console.print(f"bucket {found.source}\ntable  {found.table}", markup=False, soft_wrap=True)
    small_table(console, "Rows", ["status", "rows"], sorted(found.rows.items()))
    small_table(console, "State", ["what", "how it is"], _state(found))
    _by_folder(console, "Waiting partitions", "partitions", collections.Counter(found.waiting))
    small_table(
        console,
        "Running",
        ["run", "status", "since", "partitions"],
        ((run.id, run.status, run.since, run.partitions) for run in found.running),
    )
    errors = collections.Counter(row["error"] for row in found.failed_rows)
    example = {row["error"]: f"{row['key']} in {row['partition']}" for row in reversed(found.failed_rows)}
    small_table(
        console,
        "Failed rows by error",
        ["rows", "error", "for example"],
        ((rows, error, example[error]) for error, rows in errors.most_common(MOST_SHOWN)),
    )
    small_table(
        console,
        f"Failed runs of the last {NEWS.days} days",
        ["run", "ended", "partitions", "error"],
        ((run.id, run.since, run.partitions, run.error) for run in found.failed_runs),
    )
    _by_folder(console, "Stale rows", "rows", collections.Counter(found.stale))


def _state(found: Status) -> Iterable[tuple[str, str]]:
    yield "hours of audio", f"{found.hours:,.2f}"
    yield "partitions to make", f"{len(found.waiting):,}"
    yield "open minutes", f"{found.open:,}"
    yield "bucket last looked at", found.looked or "never"
    if found.daemon_lives:
        yield "daemon", "lives"
    else:
        last = f"; it last said that it lives at {found.daemon}" if found.daemon else ""
        yield "daemon", f"none lives{last}: start it with make dev, or use audio-assets sync"


def _by_folder(console: Console, title: str, what: str, by_partition: collections.Counter[str]) -> None:
    """One line for a folder, with its first partition."""
    by_folder: dict[str, list[str]] = {}
    for key in by_partition:
        by_folder.setdefault(folder_of_partition(key) or key, []).append(key)
    lines = [
        (folder, sum(by_partition[key] for key in keys), min(keys), max(keys))
        for folder, keys in sorted(by_folder.items())
    ]
    small_table(console, title, ["folder", what, "first", "last"], lines[:MOST_SHOWN])
    if len(lines) > MOST_SHOWN:
        console.print(f"  … and {len(lines) - MOST_SHOWN} folders more; --json lists all")


def _iso(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(dt.UTC).isoformat(" ", "seconds")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
