"""Asset checks of `audio_table`, all from one reading of its files.

In a run they look at the run's partitions; executed on their own they look at the whole table. What they
count is in `quality.py`; which of it fails a check, and how badly, is said here.
"""

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import dagster as dg

from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.metadata import markdown_table
from audio_assets.defs.resources import Bucket
from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute
from audio_assets.quality import Findings
from audio_assets.table import THREADS

MAX_FAILED_SHARE = 0.05
MAX_EMPTY_SHARE = 0.05
SHOWN = 20


def _spec(name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=audio_table, description=description, blocking=blocking)


@dg.multi_asset_check(
    name="audio_table_checks",
    specs=[
        _spec(
            "schema",
            "Every file has exactly the columns and types of the contract, but for nullable columns that are "
            "younger than the file.",
            blocking=True,
        ),
        _spec("unique_keys", "No object has two rows.", blocking=True),
        _spec(
            "rows_equal_inventory", "Every object of the inventory has its row, and no other.", blocking=True
        ),
        _spec("allowed_values", "Every value is one of those, or in the range, that its column allows."),
        _spec("failed_rows", f"At most {MAX_FAILED_SHARE:.0%} of the FLAC objects failed."),
        _spec("empty_transcripts", f"At most {MAX_EMPTY_SHARE:.0%} of the transcripts are empty."),
    ],
    # Without this, the UI refuses to execute them on their own.
    can_subset=True,
)
def audio_table_checks(
    context: dg.AssetCheckExecutionContext, bucket: Bucket
) -> Iterator[dg.AssetCheckResult]:
    run = context.op_execution_context
    if run.has_partition_key or run.has_partition_key_range:
        partitions = sorted(FolderMinute.parse(key) for key in run.partition_keys)
    else:
        partitions = bucket.audio_table.partitions()
    findings = _look(bucket, partitions)
    for result in _results(findings):
        if dg.AssetCheckKey(audio_table.key, result.check_name or "") in run.selected_asset_check_keys:
            yield result


def _look(bucket: Bucket, partitions: list[FolderMinute]) -> Findings:
    table = bucket.audio_table
    inventory = bucket.inventory
    findings = Findings()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        read = map_ahead(
            pool, lambda p: (p, table.read_uncast(p), inventory.read(p).rows), partitions, ahead=64
        )
        for partition, rows, listed in read:
            findings.add(partition, rows, listed)
    return findings


def _results(found: Findings) -> Iterator[dg.AssetCheckResult]:
    looked_at = {"partitions": found.partitions, "rows": found.rows}

    def result(
        name: str, passed: bool, metadata: dict[str, Any], *, warn: bool = False
    ) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            asset_key=audio_table.key,
            check_name=name,
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
            metadata=looked_at | metadata,
        )

    yield result("schema", not found.wrong_schema, {"wrong": _some(found.wrong_schema)})
    yield result("unique_keys", not found.repeated, {"repeated": _some(found.repeated)})
    yield result("rows_equal_inventory", not found.differing, {"differing": _some(found.differing)})
    yield result(
        "allowed_values",
        not found.disallowed,
        {"disallowed": found.disallowed, "examples": markdown_table(found.examples or [_NO_VALUE])},
        # A warning: the row is odd, but neither missing nor doubled, and the rows beside it are right.
        warn=True,
    )
    yield result(
        "failed_rows",
        found.failed_share <= MAX_FAILED_SHARE,
        {
            "failed": len(found.failed),
            "share": found.failed_share,
            "reasons": markdown_table(found.failed or [_NO_FAILURE]),
        },
        warn=True,
    )
    yield result(
        "empty_transcripts",
        found.empty_share <= MAX_EMPTY_SHARE,
        {"empty": found.empty, "share": found.empty_share},
        warn=True,
    )


_NO_VALUE = {"Key": "none", "column": "", "value": "", "allowed": ""}
_NO_FAILURE = {"Key": "none", "error": ""}


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(map(repr, keys[:SHOWN])) + more if keys else "none"
