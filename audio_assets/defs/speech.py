"""`transcripts` and `tokens`: one pass over the audio on the GPU, each of the two on its own if so asked."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import dagster as dg

from audio_assets import schema
from audio_assets.defs.internals.partition_metadata import add_partition_metadata
from audio_assets.defs.internals.pool import GPU, place_in_pool
from audio_assets.defs.metadata import TAGS, markdown_table, partition_metadata, table_metadata
from audio_assets.defs.partitions import backfill_policy, folder_minute, partitions_of
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.partition_rows import Finished
from audio_assets.speech import SpeechPass, Transcribing
from audio_assets.table import Table

if TYPE_CHECKING:
    from audio_assets.transcription import Stats
    from audio_assets.transcription.recogniser import Recogniser

SECONDS_BETWEEN_PROGRESS = 5

watchers: list[Callable[[Finished], None]] = []
"""Told of each partition that a run in this process is done with, as `audio-assets sync` shows it."""


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
            code_version="1",
            tags=TAGS,
            metadata=table_metadata("tokens", schema.TOKENS),
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
    tables = {table.name: table for table in (bucket.transcripts, bucket.tokens) if table.name in asked}
    transcribing = whisper.transcribing(tables["transcripts"]) if "transcripts" in tables else None
    tokenising = tokeniser.tokenising(tables["tokens"]) if "tokens" in tables else None
    done_before: dict[str, float] = {}
    if transcribing:
        transcribing = _logged(transcribing, context.log, done_before)
    speech_pass = SpeechPass(bucket.source.store, bucket.inventory, transcribing, tokenising)

    partitions = partitions_of(context)
    progress = _Progress(context.log, len(partitions))
    metadata: dict[str, dict[str, dict[str, dg.MetadataValue]]] = {name: {} for name in tables}
    with place_in_pool(context.instance, context.log):
        for finished in speech_pass.run(partitions):
            progress.add(finished)
            for name, table in tables.items():
                metadata[name][finished.partition.key] = _partition(finished, table)

    achieved = _achieved(speech_pass, progress, done_before)
    for name in tables:
        add_partition_metadata(context, name, metadata[name])
        yield dg.MaterializeResult(asset_key=name, metadata=achieved)


def _logged(transcribing: Transcribing, log: logging.Logger, done_before: dict[str, float]) -> Transcribing:
    """The same, with what loading takes in the log.

    Args:
        done_before: gets what the recogniser has done before this run: it may outlive one.
    """

    def load() -> "Recogniser":
        name = transcribing.identity
        # A first download of a large model takes minutes, in which a run would seem to hang.
        log.info(f"Loading {name[:1].upper()}{name[1:]}")
        started = time.monotonic()
        recogniser = transcribing.load()
        log.info(f"The model is on {recogniser.device} after {time.monotonic() - started:.1f} s")
        done_before.update(dataclasses.asdict(recogniser.stats))
        return recogniser

    return dataclasses.replace(transcribing, load=load)


@dataclasses.dataclass
class _Progress:
    """Counts what a run has done, and logs it every few seconds and at the end."""

    log: logging.Logger
    partitions: int
    done: int = 0
    computed: int = 0
    audio_s: float = 0.0
    reported: float = dataclasses.field(default_factory=time.monotonic)

    def add(self, finished: Finished) -> None:
        self.done += 1
        self.computed += finished.computed
        self.audio_s += finished.audio_s
        for watcher in watchers:
            watcher(finished)
        if time.monotonic() - self.reported > SECONDS_BETWEEN_PROGRESS or self.done == self.partitions:
            self.reported = time.monotonic()
            self.log.info(
                f"{self.done} of {self.partitions} partitions, {self.computed} clips,"
                f" {self.audio_s:.0f} s of audio"
            )


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


def _achieved(
    speech_pass: SpeechPass, progress: _Progress, done_before: dict[str, float]
) -> dict[str, dg.MetadataValue]:
    """What a run as a whole achieved; each partition says it, since Dagster has no other place for it."""
    achieved: dict[str, dg.MetadataValue] = {}
    if progress.computed:
        achieved["audio_s_per_s"] = dg.MetadataValue.float(progress.audio_s / speech_pass.seconds)
    if recogniser := speech_pass.recogniser:
        achieved["device"] = dg.MetadataValue.text(recogniser.device)
        achieved |= _stages(recogniser.stats, done_before)
    return achieved


def _stages(stats: "Stats", done_before: dict[str, float]) -> dict[str, dg.MetadataValue]:
    """What the engine did in this run: windows of 30 s, seconds of each stage, fallbacks, halved batches."""
    done = {name: value - done_before[name] for name, value in dataclasses.asdict(stats).items()}
    wanted = ("windows", "mel_s", "encode_s", "language_s", "decode_s", "fallbacks", "halvings")
    return {name: dg.MetadataValue.float(float(done[name])) for name in wanted}
