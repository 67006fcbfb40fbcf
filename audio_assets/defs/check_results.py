"""What Dagster has on record of the checks of a table, and how a result is kept in sight.

A result says in its metadata when the table was last looked at, under CHECKED_AT. What the checks look at
is a matter of `checks.py`.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from audio_assets.defs.internals.check_target import target_of
from audio_assets.defs.partitions import AUDIO_TABLE

CHECKED_AT = "checked_at"
# A run that was planned earlier and ends later does not hide what others found meanwhile.
LOOKED_BACK = 20
REPEATED_AFTER_SECONDS = 300
"""While runs are under way, a result is repeated no more often than this."""


def latest_results(
    instance: dg.DagsterInstance, names: Sequence[str], asset: dg.AssetKey = AUDIO_TABLE
) -> Mapping[str, dg.AssetCheckEvaluation]:
    """By check, the evaluation that looked at the table last; a check without any is left out."""
    found: dict[str, dg.AssetCheckEvaluation] = {}
    for name in names:
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(asset, name), limit=LOOKED_BACK
        )
        looked = [e for e in map(_evaluation, history) if e is not None and CHECKED_AT in e.metadata]
        if looked:
            found[name] = max(looked, key=_checked_at)
    return found


def _checked_at(evaluation: dg.AssetCheckEvaluation) -> float:
    value = evaluation.metadata[CHECKED_AT].value
    return float(value) if isinstance(value, int | float) else 0.0


def last_looked(
    instance: dg.DagsterInstance, names: Sequence[str], asset: dg.AssetKey = AUDIO_TABLE
) -> dt.datetime | None:
    """When the table was last looked at by all of some checks; None where one never did."""
    latest = latest_results(instance, names, asset)
    if len(latest) < len(names):
        return None
    return dt.datetime.fromtimestamp(min(map(_checked_at, latest.values())), dt.UTC)


def put_on_record(
    instance: dg.DagsterInstance,
    results: Iterable[dg.AssetCheckResult],
    asset: dg.AssetKey = AUDIO_TABLE,
) -> None:
    """Put results on record without a run."""
    made = _last_made(instance, asset)
    for result in results:
        instance.report_runless_asset_event(_event(result, asset, made))


def repeated(evaluation: dg.AssetCheckEvaluation) -> dg.AssetCheckResult:
    """The same result once more, for a run that did not look at the table."""
    return dg.AssetCheckResult(
        asset_key=evaluation.asset_key,
        check_name=evaluation.check_name,
        passed=evaluation.passed,
        severity=evaluation.severity,
        metadata=evaluation.metadata,
        description=evaluation.description,
    )


def report(
    instance: dg.DagsterInstance,
    results: Sequence[dg.AssetCheckResult],
    names: Sequence[str],
    asset: dg.AssetKey = AUDIO_TABLE,
    *,
    working: bool,
) -> list[str]:
    """Put on record, without a run, what has changed; and repeat what the UI no longer shows.

    The UI shows a result only until the table is materialised again, be it a single partition of it. So
    that a run of the sensor does not leave the checks "not evaluated", their last results are repeated.

    Args:
        results: what was found just now, with CHECKED_AT. Put on record where the check passes or warns and
            did not before, or where its description is another.
        names: the checks whose last results are repeated.
        asset: the table that they are of.
        working: whether runs are under way that will materialise more.

    Returns:
        The checks that were reported.
    """
    now = {str(result.check_name): result for result in results}
    wanted = list(dict.fromkeys([*now, *names]))
    keys = {name: dg.AssetCheckKey(asset, name) for name in wanted}
    shown = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys.values()))
    made = _last_made(instance, asset)
    reported: list[str] = []
    for name, key in keys.items():
        record = shown.get(key)
        if record is not None and _evaluation(record) is None and _is_under_way(instance, record.run_id):
            # Its result takes the place of what was planned, and would stand behind what is reported here.
            continue
        result = now.get(name)
        if result is None or (record is not None and _is_the_same(_evaluation(record), result)):
            result = _hidden(instance, record, made, key, working=working)
        if result is not None:
            instance.report_runless_asset_event(_event(result, asset, made))
            reported.append(name)
    return reported


def _is_under_way(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished


def _is_the_same(before: dg.AssetCheckEvaluation | None, result: dg.AssetCheckResult) -> bool:
    return before is not None and (before.passed, before.severity, before.description) == (
        result.passed,
        result.severity,
        result.description,
    )


def _hidden(
    instance: dg.DagsterInstance,
    record: Any,
    made: dg.EventLogRecord | None,
    key: dg.AssetCheckKey,
    *,
    working: bool,
) -> dg.AssetCheckResult | None:
    """A check's last result where the UI does not show it; None where it does, or where there is none.

    Args:
        record: the last execution on record, None for none.
        made: the last materialisation, None for none.
    """
    if record is None or made is None or _is_shown(record, made):
        return None
    if working and made.timestamp < record.create_timestamp + REPEATED_AFTER_SECONDS:
        return None
    latest = latest_results(instance, [key.name], key.asset_key).get(key.name)
    return None if latest is None else repeated(latest)


def _is_shown(record: Any, made: dg.EventLogRecord) -> bool:
    """Whether an execution is one "for the latest materialisation", as Dagster decides it for its UI."""
    evaluation = _evaluation(record)
    if evaluation is None:
        return False
    if record.run_id == made.run_id:
        return True
    target = evaluation.target_materialization_data
    return target.storage_id == made.storage_id if target else made.timestamp < record.create_timestamp


def _evaluation(record: Any) -> dg.AssetCheckEvaluation | None:
    """What an execution on record found; None where it is only planned, or was given up."""
    return record.evaluation if isinstance(record.evaluation, dg.AssetCheckEvaluation) else None


def _last_made(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dg.EventLogRecord | None:
    """The last materialisation of a table, None where there is none."""
    return next(iter(instance.fetch_materializations(asset, limit=1).records), None)


def _event(
    result: dg.AssetCheckResult, asset: dg.AssetKey, made: dg.EventLogRecord | None
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=str(result.check_name),
        passed=result.passed,
        severity=result.severity,
        metadata=result.metadata or {},
        description=result.description,
        target_materialization_data=target_of(made) if made else None,
    )
