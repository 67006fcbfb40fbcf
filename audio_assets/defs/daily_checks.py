"""The asset check of `audio_table_daily`: it describes the whole copy, always.

What is compared is in `daily_comparison.py`; which difference is a fault is said here.
"""

import datetime as dt
import time

import dagster as dg

from audio_assets.daily_comparison import DailyDifferences, compare
from audio_assets.defs.audio_table_daily import EQUALS_AUDIO_TABLE, audio_table_daily, look_at_days
from audio_assets.defs.check_results import CHECKED_AT
from audio_assets.defs.metadata import markdown_table
from audio_assets.defs.resources import Bucket
from audio_assets.settings import DAILY_INTERVAL_MINUTES

SENSOR_SECONDS = 120
"""How long the sensor is given to notice a change of the minutes: two of its ticks."""


@dg.asset_check(
    asset=audio_table_daily,
    name=EQUALS_AUDIO_TABLE,
    description="Every day holds exactly the rows of its minutes in audio_table, in their order, and no other"
    " files lie in the copy. Days that are to be compacted are waiting.",
)
def equals_audio_table(context: dg.AssetCheckExecutionContext, bucket: Bucket) -> dg.AssetCheckResult:
    return look_at_copy(context.instance, bucket, SENSOR_SECONDS)


def look_at_copy(instance: dg.DagsterInstance, bucket: Bucket, patience_s: float) -> dg.AssetCheckResult:
    """The result of the check, from one reading of the whole copy and of the minutes.

    Args:
        patience_s: seconds that are waited before what differs is looked at again; 0 where no sensor is there
            to notice a change meanwhile.

    Raises:
        StorageError: copy or table cannot be read.
    """
    now = dt.datetime.now(dt.UTC)
    found = compare(bucket.audio_table_daily, bucket.audio_table)
    neglected = _not_waiting(instance, bucket, found)
    if neglected and patience_s:
        time.sleep(patience_s)
        found = compare(bucket.audio_table_daily, bucket.audio_table)
        neglected &= _not_waiting(instance, bucket, found)
    wrong = [{"day": day.isoformat(), "what": what} for day, what in found.wrong.items()]
    wrong += [
        {
            "day": day.isoformat(),
            "what": "its minutes have changed, and no run compacts it: is the sensor"
            " changed_days on, and do its runs succeed?",
        }
        for day in sorted(neglected)
    ]
    said = [f"{len(wrong)} days are not what audio_table says"] if wrong else []
    if found.strays:
        said.append(f"{len(found.strays)} files are no day's and would be read with the copy; delete them")
    return dg.AssetCheckResult(
        check_name=EQUALS_AUDIO_TABLE,
        passed=not said,
        metadata={
            CHECKED_AT: dg.MetadataValue.timestamp(now),
            "days": found.days,
            "rows": found.rows,
            "waiting": len(set(found.stale) - neglected),
            "wrong": markdown_table(wrong or [{"day": "none", "what": ""}], characters=1000),
            "strays": dg.MetadataValue.json(found.strays[:10]),
        },
        description="; ".join(said) or None,
    )


def _not_waiting(instance: dg.DagsterInstance, bucket: Bucket, found: DailyDifferences) -> set[dt.date]:
    """The stale days that wait neither for a run that is under way nor for the end of their interval."""
    if not found.stale:
        return set()
    outcome = look_at_days(instance, bucket, dt.datetime.now(dt.UTC), DAILY_INTERVAL_MINUTES.get())
    return {day for day in found.stale if day.isoformat() not in outcome.plan.waiting}
