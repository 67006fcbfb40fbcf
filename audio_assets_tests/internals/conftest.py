"""Instances on both databases that Dagster is run with."""

import pathlib
from collections.abc import Iterator

import dagster as dg
import pytest

from audio_assets_tests.support.postgres import instance_yaml


@pytest.fixture(params=["SQLite", "Postgres"])
def instance_of_the_project(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> Iterator[dg.DagsterInstance]:
    """An instance as dagster.yaml describes it."""
    server = request.getfixturevalue("postgres_server") if request.param == "Postgres" else None
    (tmp_path / "dagster.yaml").write_text(instance_yaml(server))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance
