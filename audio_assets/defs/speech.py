"""`transcripts` and `tokens`: one pass over the audio on the GPU, each of the two on its own if so asked."""

import collections
import time
from collections.abc import Iterator

import dagster as dg

from audio_assets import schema
from audio_assets.defs.metadata import column_schema, partition_metadata
from audio_assets.defs.partitions import backfill_policy, folder_minute, partitions_of
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.speech import SpeechPass

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
    pool="gpu",
)
def speech(
    context: dg.AssetExecutionContext, bucket: Bucket, whisper: Whisper, tokeniser: AudioTokeniser
) -> Iterator[dg.MaterializeResult]:
    """Fetch and decode each object once, batch across partitions, write each partition as it completes."""
    asked = {key.to_user_string() for key in context.selected_asset_keys}
    tables = {t.name: t for t in (bucket.transcripts, bucket.tokens) if t.name in asked}
    transcribing = whisper.transcribing(tables["transcripts"]) if "transcripts" in tables else None
    tokenising = tokeniser.tokenising(tables["tokens"]) if "tokens" in tables else None
    speech_pass = SpeechPass(bucket.source.store, bucket.inventory, transcribing, tokenising)

    partitions = partitions_of(context)
    done = computed = 0
    audio_s, reported = 0.0, time.monotonic()
    statuses: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in tables}
    for finished in speech_pass.run(partitions):
        done, computed = done + 1, computed + finished.computed
        audio_s += finished.audio_s
        for name, table in tables.items():
            counts = finished.statuses[name]
            statuses[name] += counts
            metadata = partition_metadata(table, table.path(finished.partition), counts.total())
            metadata["failed"] = dg.MetadataValue.int(counts[schema.FAILED])
            context.add_asset_metadata(metadata, asset_key=name, partition_key=finished.partition.key)
        if time.monotonic() - reported > SECONDS_BETWEEN_PROGRESS or done == len(partitions):
            reported = time.monotonic()
            context.log.info(
                f"{done} of {len(partitions)} partitions, {computed} clips, {audio_s:.0f} s of audio"
            )

    for name in tables:
        yield dg.MaterializeResult(
            asset_key=name,
            metadata={
                "clips_computed": computed,
                "rows_by_status": dict(statuses[name]),
                "audio_s": audio_s,
                "audio_s_per_s": audio_s / speech_pass.seconds if speech_pass.seconds else 0.0,
                **({"device": speech_pass.transcriber.device} if speech_pass.transcriber else {}),
            },
        )
