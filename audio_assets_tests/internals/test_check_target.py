"""The result of an asset check that is reported without a run, shown whatever the second."""

from collections.abc import Iterator

import dagster as dg
import pytest

from audio_assets.defs.internals.check_target import target_of
from audio_assets_tests.support.checks import shown_result

ASSET = dg.AssetKey("letters")
CHECK = dg.AssetCheckKey(ASSET, "fine")


@pytest.fixture
def instance(tmp_path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@dg.asset
def letters() -> None: ...


def materialise(instance: dg.DagsterInstance) -> dg.EventLogRecord:
    dg.materialize([letters], instance=instance)
    return instance.fetch_materializations(ASSET, limit=1).records[0]


def test_a_result_is_shown_for_the_materialisation_that_it_names_and_for_no_later_one(
    instance: dg.DagsterInstance,
):
    for _ in range(3):
        made = materialise(instance)
        result = dg.AssetCheckEvaluation(
            asset_key=ASSET,
            check_name="fine",
            passed=True,
            metadata={},
            target_materialization_data=target_of(made),
        )
        instance.report_runless_asset_event(result)
        assert shown_result(instance, CHECK)
    materialise(instance)
    assert shown_result(instance, CHECK) is None
