"""The instance on Postgres by deploy/dagster.yaml, and the move there from the embedded SQLite."""

import datetime as dt
import pathlib
import shutil
from collections.abc import Iterator

import dagster as dg
import psycopg2
import pytest

from audio_assets.retire import retire
from audio_assets.settings import PROJECT
from audio_assets_tests.support.faulty_bucket import SAMPLE, fill, table_files
from audio_assets_tests.support.metadata import number
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.postgres import Server
from audio_assets_tests.support.project import Project

TRANSCRIPTS = dg.AssetKey("transcripts")
FIRST = "p225@2023-08-24-00:21"


@pytest.fixture
def place(local_place: LocalPlace) -> LocalPlace:
    fill(local_place)
    return local_place


@pytest.fixture
def on_postgres(
    postgres_server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """What whoever follows docs/operating.md has: the file in a new DAGSTER_HOME, and the variables."""
    for name, value in postgres_server.environment(postgres_server.new_database()).items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home on Postgres"
    home.mkdir()
    shutil.copy(PROJECT / "deploy" / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def clips_computed(instance: dg.DagsterInstance) -> int:
    """By all runs that the instance knows of."""
    records = instance.fetch_materializations(TRANSCRIPTS, limit=1_000).records
    made = [record.asset_materialization for record in records]
    return sum(number(of.metadata, "clips_computed") for of in made if of)


def test_the_move_to_postgres_computes_nothing_anew_and_loses_what_the_docs_say(
    project: Project, on_postgres: dg.DagsterInstance
):
    assert project.catch_up()
    assert clips_computed(project.instance) == 4
    retire(project.instance, [FIRST])
    project.instance.event_log_storage.set_concurrency_slots("gpu", 2)
    files = table_files(project.place)

    moved = Project(project.place, on_postgres)
    runs = moved.catch_up()

    assert runs == 1
    assert clips_computed(on_postgres) == 0
    assert table_files(project.place) == files
    assert len(on_postgres.get_runs()) == runs, "the history of runs is lost"
    assert FIRST in moved.partition_keys, "a retired partition comes back"
    gpu = on_postgres.event_log_storage.get_concurrency_info("gpu")
    assert gpu.slot_count == 1, "a pool's limit that was set by hand is lost"

    moved.place.put("p300/new.flac", SAMPLE[0].read_bytes(), dt.datetime(2023, 8, 25, tzinfo=dt.UTC))
    assert moved.catch_up() == 1
    assert clips_computed(on_postgres) == 1
    assert moved.table().set_index("Key").loc["p300/new.flac", "status"] == "ok"


def test_the_server_of_these_tests_refuses_another_password(
    postgres_server: Server, on_postgres: dg.DagsterInstance
):
    """So that an instance that opens shows that the right one arrives, with all of its characters."""
    where = postgres_server.environment("postgres")
    assert on_postgres.get_runs_count() == 0
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(
            host=where["DAGSTER_PG_HOST"],
            port=where["DAGSTER_PG_PORT"],
            user=where["DAGSTER_PG_USERNAME"],
            password="another",
        )
