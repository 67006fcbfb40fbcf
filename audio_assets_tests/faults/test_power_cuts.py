"""Power cuts: all processes are killed at once, in the middle of a run, and the services are started again.

Nothing is done by hand after that. The run's process is found dead, its place in the pool is free, and its
retry finishes what it had begun.
"""

import contextlib
import dataclasses
import pathlib
import random
import time
from collections.abc import Callable

import pytest

from audio_assets_tests.support.dagster_dev import DagsterDev, dagster_dev
from audio_assets_tests.support.faulty_bucket import SAMPLE, table_files
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.postgres import instance_yaml

FOLDERS = [f"p{i}" for i in range(4)]
SECONDS_UNTIL_FOUND = 60
ENDED = {"FAILURE", "CANCELED"}

RUNS = """{ runsOrError { ... on Runs { results { runId status parentRunId
           stepStats { stepKey status } } } } }"""


@dataclasses.dataclass
class Machine:
    """A folder with audio and an instance; the services run on it until the power goes."""

    folder: pathlib.Path
    place: LocalPlace
    home: pathlib.Path

    def services(self, slowly: bool = False) -> contextlib.AbstractContextManager[DagsterDev]:
        """Start them, with batches of two windows where the power shall go before the work is done."""
        environment = {"AUDIO_SOURCE_URI": self.place.uri} | ({"WHISPER_BATCH_SIZE": "2"} if slowly else {})
        return dagster_dev(self.folder, environment, self.home)


@pytest.fixture(params=["SQLite", pytest.param("Postgres", marks=pytest.mark.torture)])
def machine(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Machine:
    server = request.getfixturevalue("postgres_server") if request.param == "Postgres" else None
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(instance_yaml(server))
    place = LocalPlace(tmp_path / "bucket")
    for folder in FOLDERS:
        for i, clip in enumerate(SAMPLE):
            place.put(f"{folder}/{i}.flac", clip.read_bytes())
    return Machine(tmp_path, place, home)


def runs(dev: DagsterDev) -> list[dict]:
    return dev.query(RUNS)["runsOrError"]["results"]


def in_step(dev: DagsterDev, step: str) -> dict | None:
    """A run that is in a step."""
    for run in runs(dev):
        if any(stats["stepKey"] == step and stats["status"] == "IN_PROGRESS" for stats in run["stepStats"]):
            return run
    return None


def by_id(dev: DagsterDev, run_id: str) -> dict:
    return next(run for run in runs(dev) if run["runId"] == run_id)


def is_complete(place: LocalPlace) -> bool:
    files = [path for path in table_files(place) if path.startswith("output_parquet/audio_table/")]
    return sum(path.endswith(".parquet") for path in files) == len(FOLDERS)


def test_a_run_that_loses_power_in_the_middle_of_speech_is_retried_within_a_minute(machine: Machine):
    with machine.services(slowly=True) as dev:
        cut = dev.wait_for("run in step speech", lambda: in_step(dev, "speech"))
        dev.kill()
    assert not is_complete(machine.place)
    with machine.services() as dev:
        dev.wait_for("failed run", lambda: by_id(dev, cut["runId"])["status"] in ENDED, SECONDS_UNTIL_FOUND)
        retry = dev.wait_for(
            "retry that has the place in the pool",
            lambda: (run := in_step(dev, "speech")) and run["parentRunId"] == cut["runId"] and run,
            SECONDS_UNTIL_FOUND,
        )
        dev.wait_for("end of the retry", lambda: by_id(dev, retry["runId"])["status"] == "SUCCESS")
    assert is_complete(machine.place)


@pytest.mark.seeds(0, 15)
def test_whenever_the_power_goes_the_table_is_completed_by_itself(
    machine: Machine, seed: int, record_property: Callable[[str, object], None]
):
    chance = random.Random(seed)
    with machine.services(slowly=True) as dev:
        dev.wait_for("run", lambda: runs(dev))
        time.sleep(chance.uniform(0, 20))
        dev.kill()
    record_property("power cuts", 1)
    record_property("power cuts after which something was left to do", int(not is_complete(machine.place)))
    with machine.services() as dev:
        dev.wait_for(
            "end of what was cut",
            lambda: not any(run["status"] in {"STARTING", "CANCELING"} for run in runs(dev)),
            SECONDS_UNTIL_FOUND,
        )
        dev.wait_for("complete table", lambda: is_complete(machine.place))
