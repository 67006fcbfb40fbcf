"""Which materialisation the result of an asset check is of, for results that are reported without a run.

Why private: `AssetCheckEvaluation` takes it, and Dagster 1.13 does not export its type. Without it the UI
goes by times, of which SQLite has whole seconds for a result: one that is reported within a second of the
materialisation would not be shown.
"""

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)


def target_of(made: dg.EventLogRecord) -> AssetCheckEvaluationTargetMaterializationData:
    """Names a materialisation as the one that a result is of."""
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=made.storage_id, run_id=made.run_id, timestamp=made.timestamp
    )
