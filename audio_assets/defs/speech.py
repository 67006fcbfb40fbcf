"""`transcripts` and `tokens`: one pass over the audio on the GPU, each of the two on its own if so asked."""

import dataclasses
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from audio_assets import schema
from audio_assets.defs.internals.pool import GPU, place_in_pool
from audio_assets.defs.metadata import (
    add_partition_metadata,
    column_schema,
    markdown_table,
    partition_metadata,
)
from audio_assets.defs.partitions import backfill_policy, folder_minute, partitions_of
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.speech import Finished, SpeechPass
from audio_assets.table import Table

if TYPE_CHECKING:
    from audio_assets.transcription import Stats, Transcriber

SECONDS_BETWEEN_PROGRESS = 5


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
            code_version="1",
            metadata=column_schema(schema.TRANSCRIPTS),
        ),
        dg.AssetSpec(
            "tokens",
            deps=["s3_inventory"],
            description="Each object's audio as a sequence of int16 tokens.",
            group_name="audio",
            kinds={"pytorch", "parquet"},
            owners=["team:speech"],
            code_version="1",
            metadata=column_schema(schema.TOKENS),
        ),
    ],
    can_subset=True,
    partitions_def=folder_minute,
    backfill_policy=backfill_policy,
    pool=GPU,
)
def speech(
    context: dg.AssetExecutionContext, bucket: Bucket, whisper: Whisper, tokeniser: AudioTokeniser
) -> Iterator[dg.MaterializeResult]:
    """Fetch and decode each object once, batch across partitions, write each partition as it completes."""
    bucket.check(context.log)
    asked = {key.to_user_string() for key in context.selected_asset_keys}
    tables = {t.name: t for t in (bucket.transcripts, bucket.tokens) if t.name in asked}
    transcribing = whisper.transcribing(tables["transcripts"]) if "transcripts" in tables else None
    before: dict[str, float] = {}
    if transcribing:
        transcribing = dataclasses.replace(transcribing, load=lambda: _load(context, whisper, before))
    tokenising = tokeniser.tokenising(tables["tokens"]) if "tokens" in tables else None
    speech_pass = SpeechPass(bucket.source.store, bucket.inventory, transcribing, tokenising)

    partitions = partitions_of(context)
    done = computed = 0
    audio_s, reported = 0.0, time.monotonic()
    metadata: dict[str, dict[str, dict[str, dg.MetadataValue]]] = {name: {} for name in tables}
    with place_in_pool(context.instance, context.log):
        for finished in speech_pass.run(partitions):
            done, computed = done + 1, computed + finished.computed
            audio_s += finished.audio_s
            for name, table in tables.items():
                metadata[name][finished.partition.key] = _partition(finished, table)
            if time.monotonic() - reported > SECONDS_BETWEEN_PROGRESS or done == len(partitions):
                reported = time.monotonic()
                context.log.info(
                    f"{done} of {len(partitions)} partitions, {computed} clips, {audio_s:.0f} s of audio"
                )

    # What a run as a whole achieved; each of its partitions says it, since Dagster has no other place for it.
    achieved: dict[str, dg.MetadataValue] = {}
    if computed:
        achieved["audio_s_per_s"] = dg.MetadataValue.float(audio_s / speech_pass.seconds)
    if speech_pass.transcriber:
        achieved["device"] = dg.MetadataValue.text(speech_pass.transcriber.device)
        achieved |= _stages(speech_pass.transcriber.stats, before)
    for name in tables:
        add_partition_metadata(context, name, metadata[name])
        yield dg.MaterializeResult(asset_key=name, metadata=achieved)


def _load(context: dg.AssetExecutionContext, whisper: Whisper, before: dict[str, float]) -> "Transcriber":
    """Load the model and note in `before` what it has done so far: it outlives the run."""
    # A first download of a large model takes minutes, in which a run would seem to hang.
    context.log.info(f"Loading Whisper {whisper.model}")
    started = time.monotonic()
    transcriber = whisper.load()
    context.log.info(f"Whisper is on {transcriber.device} after {time.monotonic() - started:.1f} s")
    before |= dataclasses.asdict(transcriber.stats)
    return transcriber


def _partition(finished: Finished, table: Table) -> dict[str, dg.MetadataValue]:
    """What the run did to one partition of one table."""
    counts = finished.statuses[table.name]
    metadata = partition_metadata(table, table.path(finished.partition), counts.total()) | {
        "failed": dg.MetadataValue.int(counts[schema.FAILED]),
        "clips_computed": dg.MetadataValue.int(finished.computed),
        "audio_s": dg.MetadataValue.float(finished.audio_s),
        "retries": dg.MetadataValue.int(sum(map(len, finished.retries.values()))),
    }
    if finished.retries:
        metadata["retried"] = markdown_table(
            [
                {"Key": key, "retries": len(reasons), "last reason": reasons[-1]}
                for key, reasons in finished.retries.items()
            ]
        )
    return metadata


def _stages(stats: "Stats", before: dict[str, float]) -> dict[str, dg.MetadataValue]:
    """What the engine did in this run: windows of 30 s, seconds of each stage, fallbacks, halved batches."""
    done = {name: value - before[name] for name, value in dataclasses.asdict(stats).items()}
    wanted = ("windows", "mel_s", "encode_s", "language_s", "decode_s", "fallbacks", "halvings")
    return {name: dg.MetadataValue.float(float(done[name])) for name in wanted}
