"""`transcripts` and `tokens`: one pass over the audio on the GPU, each of the two on its own if so asked."""

from collections.abc import Callable, Iterator

import dagster as dg

from audio_assets import schema, settings
from audio_assets.defs.failures import known_errors
from audio_assets.defs.internals.partition_metadata import add_partition_metadata
from audio_assets.defs.internals.pool import GPU, place_in_pool
from audio_assets.defs.metadata import (
    TAGS,
    audio_hours,
    markdown_table,
    partition_metadata,
    status_counts,
    table_metadata,
)
from audio_assets.defs.partitions import backfill_policy, folder_minute, partitions_of
from audio_assets.defs.passes import pass_of_run
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper, whisper_options
from audio_assets.partition_rows import Finished
from audio_assets.table import Table

watchers: list[Callable[[Finished], None]] = []
"""Told of each partition that a run in this process is done with, as `audio-assets sync` shows it."""


RECOMPUTE = dg.Field(
    bool, default_value=False, description="Compute every row anew, though nothing has changed."
)


@dg.multi_asset(
    name="speech",
    specs=[
        dg.AssetSpec(
            "transcripts",
            deps=["s3_inventory"],
            description="What Whisper heard in each object, and how sure it was.",
            group_name="audio",
            kinds={"whisper", "pytorch", "parquet"},
            owners=["team:speech"],
            tags=TAGS,
            metadata=table_metadata("transcripts", schema.TRANSCRIPTS),
        ),
        dg.AssetSpec(
            "tokens",
            deps=["s3_inventory"],
            description="Each object's audio as a sequence of int16 tokens.",
            group_name="audio",
            kinds={"pytorch", "parquet"},
            owners=["team:speech"],
            tags=TAGS,
            metadata=table_metadata("tokens", schema.TOKENS),
        ),
    ],
    can_subset=True,
    partitions_def=folder_minute,
    backfill_policy=backfill_policy,
    pool=GPU,
    config_schema={"recompute": RECOMPUTE},
)
def speech(
    context: dg.AssetExecutionContext,
    bucket: Bucket,
    whisper: Whisper,
    tokeniser: AudioTokeniser,
) -> Iterator[dg.MaterializeResult]:
    """Fetch and decode each object once, batch across partitions, write each partition as it completes."""
    with known_errors():
        bucket.check(context.log)
        asked = {key.to_user_string() for key in context.selected_asset_keys}
        tables = {table.name: table for table in (bucket.transcripts, bucket.tokens) if table.name in asked}
        recompute = context.op_execution_context.op_config["recompute"]
        work = pass_of_run(bucket, whisper, tokeniser, tables, context.log, recompute=recompute)

        partitions = partitions_of(context)
        done: list[Finished] = []
        with place_in_pool(context.instance, context.log):
            for finished in work.run(partitions):
                for watcher in watchers:
                    watcher(finished)
                done.append(finished)

    for name, table in tables.items():
        achieved = work.figures(name)
        metadata = {finished.partition.key: _describe(finished, table, achieved) for finished in done}
        add_partition_metadata(context, name, metadata)
        yield dg.MaterializeResult(asset_key=name)


@dg.definitions
def speech_today() -> dg.Definitions:
    """The assets with what shapes them today, so that Dagster shows as stale what other settings made.

    They take the place of `speech`. A module of `defs/` that imports that by its name defines it a second
    time.
    """
    versions = {
        "transcripts": Whisper(
            model=settings.WHISPER_MODEL.text,
            language=settings.WHISPER_LANGUAGE.text,
            options=whisper_options(),
        ).code_version,
        "tokens": AudioTokeniser(name=settings.TOKENISER.text).code_version,
    }

    def today(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(code_version=versions[spec.key.to_user_string()])

    return dg.Definitions(assets=[speech.map_asset_specs(today)])


def _describe(
    finished: Finished, table: Table, achieved: dict[str, dg.MetadataValue]
) -> dict[str, dg.MetadataValue]:
    """What the UI shows of a partition: first its file, then the run that looked at it last."""
    rows = finished.statuses[table.name].total()
    general = partition_metadata(table, finished.partition, rows)
    return _file(finished, table) | general | _work(finished, achieved)


def _file(finished: Finished, table: Table) -> dict[str, dg.MetadataValue]:
    """What a partition's file holds, whichever run made it."""
    metadata = status_counts(finished.statuses[table.name])
    producer = "; ".join(finished.producers[table.name])
    if table.name == "transcripts":
        metadata["audio_hours"] = audio_hours(finished.duration_s)
        metadata["whisper_model"] = dg.MetadataValue.text(producer)
    else:
        metadata["tokens"] = dg.MetadataValue.int(finished.tokens)
        metadata["tokeniser"] = dg.MetadataValue.text(producer)
    return metadata


def _work(finished: Finished, achieved: dict[str, dg.MetadataValue]) -> dict[str, dg.MetadataValue]:
    """What the run did to a partition; `achieved` belongs to those for which it did something."""
    work: dict[str, dg.MetadataValue] = {
        "clips_computed": dg.MetadataValue.int(finished.computed),
        "clips_reused": dg.MetadataValue.int(finished.reused),
        "retries": dg.MetadataValue.int(sum(map(len, finished.retries.values()))),
    }
    if finished.retries:
        work["retried"] = markdown_table(
            [
                {"Key": key, "retries": len(reasons), "last reason": reasons[-1]}
                for key, reasons in finished.retries.items()
            ]
        )
    return work | achieved if finished.computed else work
