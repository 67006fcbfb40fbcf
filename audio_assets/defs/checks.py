"""Asset checks of `audio_table`, all from one reading of its files.

In a run they look at the run's partitions; executed on their own they look at the whole table.
"""

import concurrent.futures
from collections.abc import Iterator

import dagster as dg

from audio_assets import schema
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.metadata import markdown_table
from audio_assets.defs.resources import Bucket
from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute
from audio_assets.rows import identities
from audio_assets.table import THREADS

MAX_FAILED_SHARE = 0.05
MAX_EMPTY_SHARE = 0.05
SHOWN = 20


def _spec(name: str, description: str, *, blocking: bool = False) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=audio_table, description=description, blocking=blocking)


@dg.multi_asset_check(
    name="audio_table_checks",
    specs=[
        _spec("schema", "Every file has exactly the columns and types of the contract.", blocking=True),
        _spec("unique_keys", "No object has two rows.", blocking=True),
        _spec(
            "rows_equal_inventory", "Every object of the inventory has its row, and no other.", blocking=True
        ),
        _spec("failed_rows", f"At most {MAX_FAILED_SHARE:.0%} of the FLAC objects failed."),
        _spec("empty_transcripts", f"At most {MAX_EMPTY_SHARE:.0%} of the transcripts are empty."),
    ],
    # Without this, the UI refuses to execute them on their own.
    can_subset=True,
)
def audio_table_checks(
    context: dg.AssetCheckExecutionContext, bucket: Bucket
) -> Iterator[dg.AssetCheckResult]:
    table, inventory = bucket.audio_table, bucket.inventory
    run = context.op_execution_context
    if run.has_partition_key or run.has_partition_key_range:
        partitions = sorted(FolderMinute.parse(key) for key in run.partition_keys)
    else:
        partitions = table.partitions()

    wrong_schema: list[str] = []
    repeated: list[str] = []
    unequal: list[str] = []
    failed: list[dict] = []
    rows_seen = flac = recognised = empty = 0
    seen: set[str] = set()
    folder = None
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        read = map_ahead(
            pool, lambda p: (p, table.read_uncast(p), inventory.read(p).rows), partitions, ahead=64
        )
        for partition, rows, listed in read:
            if rows is None or not rows.schema.equals(table.schema):
                wrong_schema.append(partition.key)
                continue
            if partition.folder != folder:
                # The folder is part of the key, so that no key can repeat in another one.
                folder, seen = partition.folder, set()
            for row in rows.select(["Key", "transcribed_text", "status", "error"]).to_pylist():
                if row["Key"] in seen:
                    repeated.append(row["Key"])
                seen.add(row["Key"])
                flac += row["status"] != schema.NOT_FLAC
                recognised += row["status"] == schema.OK
                empty += row["status"] == schema.OK and not row["transcribed_text"]
                if row["status"] == schema.FAILED:
                    failed.append({"Key": row["Key"], "error": row["error"]})
            rows_seen += len(rows)
            inventoried = identities(listed) if listed is not None else []
            unequal += sorted(key for key, _ in set(identities(rows)) ^ set(inventoried))

    share_failed = len(failed) / flac if flac else 0.0
    share_empty = empty / recognised if recognised else 0.0
    reasons = markdown_table(failed or [{"Key": "none", "error": ""}])
    looked_at = {"partitions": len(partitions), "rows": rows_seen}
    results = [
        _result("schema", not wrong_schema, looked_at | {"wrong": _some(wrong_schema)}),
        _result("unique_keys", not repeated, looked_at | {"repeated": _some(repeated)}),
        _result("rows_equal_inventory", not unequal, looked_at | {"differing": _some(unequal)}),
        _result(
            "failed_rows",
            share_failed <= MAX_FAILED_SHARE,
            looked_at | {"failed": len(failed), "share": share_failed, "reasons": reasons},
            warn=True,
        ),
        _result(
            "empty_transcripts",
            share_empty <= MAX_EMPTY_SHARE,
            looked_at | {"empty": empty, "share": share_empty},
            warn=True,
        ),
    ]
    asked = run.selected_asset_check_keys
    yield from (
        result for result in results if dg.AssetCheckKey(audio_table.key, result.check_name or "") in asked
    )


def _result(name: str, passed: bool, metadata: dict, *, warn: bool = False) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=audio_table.key,
        check_name=name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        metadata=metadata,
    )


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(map(repr, keys[:SHOWN])) + more if keys else "none"
