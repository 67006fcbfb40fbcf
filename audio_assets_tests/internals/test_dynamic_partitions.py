"""Many partition keys are deleted at once, and no other."""

import pathlib
from collections.abc import Iterator

import dagster as dg
import pytest

from audio_assets.defs.internals import dynamic_partitions
from audio_assets.defs.internals.dynamic_partitions import delete_partition_keys


@pytest.fixture(params=["SQLite", "in memory"])
def instance(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[dg.DagsterInstance]:
    on_disk = request.param == "SQLite"
    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) if on_disk else dg.DagsterInstance.ephemeral()
    ) as instance:
        yield instance


def test_keys_are_deleted_and_no_other(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dynamic_partitions, "KEYS_AT_A_TIME", 2)
    keys = [f"p{i}" for i in range(8)]
    instance.add_dynamic_partitions("one", keys)
    instance.add_dynamic_partitions("other", keys)
    delete_partition_keys(instance, "one", ["p0", "p3", "p4", "p5", "p7", "unknown"])
    assert list(instance.get_dynamic_partitions("one")) == ["p1", "p2", "p6"]
    assert list(instance.get_dynamic_partitions("other")) == keys
    delete_partition_keys(instance, "one", [])
    assert list(instance.get_dynamic_partitions("one")) == ["p1", "p2", "p6"]


def test_all_are_deleted_or_none(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dynamic_partitions, "KEYS_AT_A_TIME", 1)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("one", ["a", "b"])
        with pytest.raises(Exception, match=r"type 'dict' is not supported|Error binding parameter"):
            delete_partition_keys(instance, "one", ["a", {}])  # type: ignore[list-item]
        assert list(instance.get_dynamic_partitions("one")) == ["a", "b"]
