"""A cluster of two logical GPUs, and a backfill whose tables are known from a run without a cluster."""

import dataclasses
import datetime as dt
import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from audio_assets.defs import speech as speech_module
from audio_assets.partition_rows import Finished
from audio_assets.settings import PROJECT
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.environment import clear_settings
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.ray_cluster import TOKEN, RayCluster
from audio_assets_tests.support.stand_in import TOKENISER, StandInWhisper, definitions

MINUTES = 12
GPUS = 2
SPEECH = ["transcripts", "tokens"]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """A head with two logical GPUs."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray: pip install 'audio-assets[ray]'")
    with RayCluster.running(gpus=GPUS) as cluster:
        yield cluster


@dataclasses.dataclass
class Backfill:
    """A bucket, and the runs over it.

    Attributes:
        expected: the tables' files without a cluster.
        log: what the last run has logged of its step `speech`.
    """

    project: Project
    place: LocalPlace
    expected: dict[str, bytes]
    log: list[str] = dataclasses.field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return self.project.partition_keys

    def files(self) -> dict[str, bytes]:
        """Those of `transcripts` and `tokens`."""
        return speech_files(self.place)

    def forget(self) -> None:
        """Remove what was made of the audio."""
        for name in SPEECH:
            shutil.rmtree(self.place.folder / "output_parquet" / name, ignore_errors=True)

    def run(
        self, whisper: StandInWhisper | None = None, partitions: tuple[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Make transcripts and tokens of a range of partitions, of all where None."""
        self.project.repository = definitions(whisper or StandInWhisper()).get_repository_def()
        made = self.project.run(*(partitions or (self.keys[0], self.keys[-1])), assets=SPEECH)
        records = self.project.instance.all_logs(made.run_id)
        self.log = [record.user_message for record in records if record.step_key == "speech"]
        return made


def speech_files(place: LocalPlace) -> dict[str, bytes]:
    tables = place.folder / "output_parquet"
    files = [path for name in SPEECH for path in (tables / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(tables)): path.read_bytes() for path in files}


@pytest.fixture(scope="package")
def made_backfill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfill]:
    """Audio in twelve partitions, one object cut off, one that is none, and the tables without Ray."""
    folder = tmp_path_factory.mktemp("backfill")
    place = LocalPlace(folder / "bucket")
    for minute in range(MINUTES):
        for clip in range(2):
            key = f"p{minute % 3}/{minute}_{clip}.flac"
            body = flac(0.1 + 0.05 * clip, seed=10 * minute + clip)
            place.put(key, body, UPLOADED + dt.timedelta(minutes=minute))
    place.put("p0/cut.flac", flac()[:500], UPLOADED)
    place.put("p0/notes.txt", b"hello", UPLOADED)
    home = folder / "home"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    with pytest.MonkeyPatch.context() as monkeypatch, dg.DagsterInstance.from_config(str(home)) as instance:
        clear_settings(monkeypatch)
        monkeypatch.setenv("AUDIO_SOURCE_URI", place.uri)
        monkeypatch.setenv("TOKENISER", TOKENISER)
        project = Project(place, instance)
        project.repository = definitions(StandInWhisper()).get_repository_def()
        [request] = project.tick()
        assert project.execute(request).success
        yield Backfill(project, place, speech_files(place))


@pytest.fixture
def backfill(
    made_backfill: Backfill, ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Backfill]:
    """The same, with nothing made of the audio yet, for runs on the cluster."""
    clear_settings(monkeypatch)
    monkeypatch.setenv("AUDIO_SOURCE_URI", made_backfill.place.uri)
    monkeypatch.setenv("TOKENISER", TOKENISER)
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    # The actors of the test before hold the GPUs.
    monkeypatch.setattr("audio_assets.cluster.actors._SECONDS_IDLE_TO_MAKE_ROOM", 0.5)
    made_backfill.forget()
    yield made_backfill
    speech_module.watchers.clear()


@pytest.fixture
def once_done() -> Callable[[int, Callable[[], object]], None]:
    """Does something once, when a run is done with so many partitions."""

    def note(partitions: int, act: Callable[[], object]) -> None:
        done = threading.Semaphore(partitions - 1)

        def watch(finished: Finished) -> None:
            if not done.acquire(blocking=False):
                speech_module.watchers.remove(watch)
                act()

        speech_module.watchers.append(watch)

    return note


def metadata(backfill: Backfill, key: str) -> dict[str, dg.MetadataValue]:
    """What stands beside a partition of `transcripts`."""
    [record] = backfill.project.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey("transcripts"), asset_partitions=[key]), limit=1
    ).records
    assert record.asset_materialization
    return dict(record.asset_materialization.metadata)
