"""The jobs: the sensor asks for `process_audio`, a schedule for `check_audio_table`, a person for others."""

import concurrent.futures
from collections.abc import Callable, Sequence

import dagster as dg
import pyarrow as pa

from audio_assets.defs import speech
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.audio_table_daily import audio_table_daily
from audio_assets.defs.failures import known_errors
from audio_assets.defs.internals.backfill import launch_backfill
from audio_assets.defs.inventory import s3_inventory
from audio_assets.defs.metadata import markdown_table
from audio_assets.defs.partitions import ASSETS, FOLDER_MINUTE
from audio_assets.defs.producers import current_producers
from audio_assets.defs.records import UNFINISHED
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.parallel import map_ahead
from audio_assets.schema import FAILED
from audio_assets.staleness import COLUMNS
from audio_assets.table import THREADS

OWNERS = ["team:speech"]

process_audio = dg.define_asset_job(
    "process_audio",
    # A run says nothing of the whole table, which is what the checks are about.
    selection=dg.AssetSelection.assets(*ASSETS).without_checks(),
    description="From objects to rows, for a partition or a range of them.",
    owners=OWNERS,
)

check_audio_table = dg.define_asset_job(
    "check_audio_table",
    selection=dg.AssetSelection.checks_for_assets(audio_table, audio_table_daily),
    description="Compares the whole of audio_table with the bucket, looks at each of its rows, and compares"
    " audio_table_daily with it.",
    owners=OWNERS,
)


@dg.schedule(
    job=check_audio_table,
    name="check_audio_table_hourly",
    cron_schedule="0 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Checks the whole of audio_table every hour, unless the last time is still under way.",
)
def check_audio_table_hourly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    unfinished = dg.RunsFilter(job_name=check_audio_table.name, statuses=UNFINISHED)
    if context.instance.get_runs(unfinished, limit=1):
        return dg.SkipReason("The last check of audio_table is still queued or under way")
    return dg.RunRequest()


def _redo(
    context: dg.OpExecutionContext,
    bucket: Bucket,
    title: str,
    columns: Sequence[str],
    count: Callable[[pa.Table], int],
    what: str,
) -> None:
    """Launch a backfill of the partitions that have certain rows; all other rows are reused by it.

    Args:
        title: of the backfill.
        columns: that `count` looks at.
        count: how many of some rows are to be made anew.
        what: such rows, in words.
    """
    with known_errors():
        bucket.claim_for_run()
    table = bucket.audio_table
    registered = set(context.instance.get_dynamic_partitions(FOLDER_MINUTE))
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        read = map_ahead(
            pool,
            lambda p: (table.with_full_name(p).key, count(table.scan([p], columns))),
            table.partitions(),
            ahead=64,
        )
        # Partitions that were retired from Dagster keep their rows as they are.
        found = {key: rows for key, rows in read if rows and key in registered}
    context.add_output_metadata(
        {
            "partitions": len(found),
            "rows": sum(found.values()),
            "found": markdown_table([{"partition": key, "rows": rows} for key, rows in found.items()]),
        }
    )
    if not found:
        context.log.info(f"Nothing to redo: there are no {what}")
        return
    description = f"{sum(found.values())} {what} in {len(found)} partitions"
    backfill = launch_backfill(
        context.instance,
        [s3_inventory, speech.speech, audio_table],
        list(found),
        title=title,
        description=description,
    )
    context.log.info(f"Backfill {backfill} makes {description} anew; see Runs, Backfills")


@dg.op(name="ask_for_failed_objects", out=dg.Out(dg.Nothing))
def ask_for_failed_objects(context: dg.OpExecutionContext, bucket: Bucket) -> None:
    """Launch a backfill of the partitions that have failed rows."""

    def failed(rows: pa.Table) -> int:
        return rows["status"].to_pylist().count(FAILED)

    _redo(context, bucket, "retry_failed_objects", ["status"], failed, "failed rows")


@dg.job(
    description="Tries every failed object again, by a backfill of the partitions that have one.",
    owners=OWNERS,
)
def retry_failed_objects() -> None:
    ask_for_failed_objects()


@dg.op(name="ask_for_stale_rows", out=dg.Out(dg.Nothing))
def ask_for_stale_rows(
    context: dg.OpExecutionContext, bucket: Bucket, whisper: Whisper, tokeniser: AudioTokeniser
) -> None:
    """Launch a backfill of the partitions that have rows which today's settings would make otherwise."""
    producers = current_producers(whisper, tokeniser).cached()
    _redo(context, bucket, "redo_stale", COLUMNS, producers.stale_rows, "rows made by other settings")


@dg.job(
    description="Makes every row anew that was made by other settings than today's (WHISPER_MODEL, "
    "WHISPER_LANGUAGE, TOKENISER, decoders), by a backfill of the partitions that have one.",
    owners=OWNERS,
)
def redo_stale() -> None:
    ask_for_stale_rows()
