"""The assets through Dagster, on S3 and on a local folder, with the demo's model."""

import datetime as dt
import hashlib
import importlib
import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import audio_assets.demo
from audio_assets.defs import resources
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.inventory import s3_inventory
from audio_assets.defs.speech import speech
from audio_assets.speech import Transcribing
from audio_assets.table import Table
from audio_assets.transcription import Stats, Transcriber, Transcript
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.project import Project

SAMPLE = pathlib.Path(audio_assets.demo.__file__).parent / "sample"
EIGHT = "p225/p225_001_mic1.flac"
THREE = "p228/p228_001_mic1.flac"
WORDS = {EIGHT: "eight", THREE: "three"}
CONFIDENCE = ("avg_logprob", "no_speech_prob", "compression_ratio", "temperature")
ASSETS = ["s3_inventory", "transcripts", "tokens", "audio_table"]
KEY = "p225@2023-08-24-00:21"

# Where S3 makes no difference.
on_disk = pytest.mark.parametrize("place", ["local"], indirect=True)


def put_sample(project: Project, key: str, minutes: int = 0, name: str | None = None) -> None:
    body = (SAMPLE / key).read_bytes()
    project.place.put(name or key, body, UPLOADED + dt.timedelta(minutes=minutes))


def spoken(text: str) -> str:
    return text.lower().rstrip(".")


def materialised(project: Project, asset: str) -> set[str]:
    return set(project.instance.get_materialized_partitions(dg.AssetKey(asset)))


@pytest.fixture
def model_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that are loaded, in order."""
    loads: list[str] = []
    load = Transcriber.load

    def counted(model: str, **options: object) -> Transcriber:
        loads.append(model)
        return load(model, **options)  # type: ignore[arg-type]

    resources._loaded.clear()
    monkeypatch.setattr(Transcriber, "load", counted)
    return loads


# --- what a run makes -----------------------------------------------------------------------------------


def test_one_partition_becomes_rows_of_words_and_tokens(project: Project):
    put_sample(project, EIGHT)
    put_sample(project, THREE)
    assert project.run(KEY).success
    [row] = project.table().to_dict("records")
    assert (row["Key"], row["FolderName"], row["status"]) == (EIGHT, "p225", "ok")
    assert spoken(row["transcribed_text"]) == "eight"
    assert 20 <= len(row["tokenized_info"]) <= 1000
    assert (row["sample_rate_hz"], row["channels"], row["language"]) == (48_000, 1, "en")
    assert row["avg_logprob"] < 0
    assert row["Size"] == (SAMPLE / EIGHT).stat().st_size
    assert row["LastModified"] == pd.Timestamp(UPLOADED)
    assert row["whisper_model"].startswith("whisper ")
    assert row["tokeniser"] == "simulated"
    assert "output_parquet/audio_table/" + (
        "FolderName=p225/LastModifiedDate=2023-08-24/LastModifiedHour=0/LastModifiedMinute=21/"
        "p225_2023-08-24_00-21.parquet"
    ) in project.place.all_keys("output_parquet/audio_table/")


def test_a_range_is_one_run_with_one_model_load(project: Project, model_loads: list[str]):
    put_sample(project, EIGHT)
    put_sample(project, EIGHT, minutes=1, name="p225/again.flac")
    put_sample(project, THREE, minutes=2)
    [request] = project.tick()
    keys = project.partition_keys
    assert keys == [KEY, "p225@2023-08-24-00:22", "p228@2023-08-24-00:23"]
    assert project.execute(request).success
    assert len(model_loads) == 1
    for asset in ASSETS:
        assert materialised(project, asset) == set(keys)
    heard = project.table(columns=["Key", "transcribed_text"])
    assert {row["Key"]: spoken(row["transcribed_text"]) for row in heard.to_dict("records")} == {
        EIGHT: "eight",
        "p225/again.flac": "eight",
        THREE: "three",
    }


@on_disk
def test_every_partition_says_how_many_rows_its_file_has(project: Project):
    for name in ("a.txt", "b.txt"):
        project.place.put(f"p225/{name}")
    project.place.put("p226/c.txt")
    project.catch_up()
    for asset in ASSETS:
        events = project.instance.fetch_materializations(dg.AssetKey(asset), limit=10).records
        counts = {
            e.partition_key: e.asset_materialization.metadata["dagster/partition_row_count"].value
            for e in events
            if e.asset_materialization
        }
        assert counts == {KEY: 2, "p226@2023-08-24-00:21": 1}


@on_disk
def test_transcripts_say_what_each_stage_took_in_their_own_run(project: Project):
    # The model stays loaded between the two runs, and with it what it has counted.
    for key in ("p225/a.flac", "p226/b.flac"):
        project.place.put(key, flac(1.0))
        project.catch_up()
        (event,) = project.instance.fetch_materializations(dg.AssetKey("transcripts"), limit=1).records
        assert event.asset_materialization
        metadata = event.asset_materialization.metadata
        assert metadata["clips_computed"].value == 1
        # The language is certain, so that the window that is transcribed tells it.
        assert metadata["windows"].value == 1
        assert metadata["halvings"].value == 0
        encode_s = metadata["encode_s"].value
        assert isinstance(encode_s, float)
        assert encode_s > 0


@on_disk
def test_tokens_alone_need_no_model(project: Project, model_loads: list[str]):
    put_sample(project, EIGHT)
    assert project.run(KEY, assets=["s3_inventory"]).success
    assert project.run(KEY, assets=["tokens"]).success
    assert model_loads == []
    assert materialised(project, "transcripts") == set()
    assert project.run(KEY, assets=["transcripts"]).success
    assert len(model_loads) == 1
    assert project.run(KEY, assets=["audio_table"]).success
    assert project.table()["status"].tolist() == ["ok"]


@on_disk
@pytest.mark.parametrize(
    ("asset", "missing"),
    [("transcripts", "s3_inventory"), ("tokens", "s3_inventory"), ("audio_table", "s3_inventory")],
)
def test_an_asset_before_its_inputs_says_what_to_materialise(project: Project, asset: str, missing: str):
    project.place.put("p225/a.txt")
    result = project.run(KEY, assets=[asset])
    assert not result.success
    [failure] = [e for e in result.all_events if e.is_step_failure]
    assert failure.step_failure_data.error
    causes = failure.step_failure_data.error.to_string()
    assert missing in causes
    assert "materialise that first" in causes
    assert KEY in causes


# --- objects that are no speech -------------------------------------------------------------------------


def test_bad_objects_and_other_files_keep_their_rows(project: Project):
    put_sample(project, EIGHT)
    whole = (SAMPLE / EIGHT).read_bytes()
    for name, body in {
        "corrupt.flac": whole[:200] + bytes(len(whole) - 200),
        "empty.flac": b"",
        "mp3.flac": b"ID3\x04" + bytes(3_000),
        "truncated.flac": whole[: len(whole) // 2],
        "notes.txt": b"hello",
    }.items():
        project.place.put(f"p225/{name}", body)
    assert project.run(KEY).success
    table = project.table("p225").set_index("Key")
    assert table["status"].to_dict() == {
        "p225/corrupt.flac": "failed",
        "p225/empty.flac": "failed",
        "p225/mp3.flac": "failed",
        "p225/notes.txt": "not_flac",
        EIGHT: "ok",
        "p225/truncated.flac": "failed",
    }
    others = table.drop(EIGHT)
    assert pd.isna(others["transcribed_text"].to_list()).all()
    assert pd.isna(others["tokenized_info"].to_list()).all()
    failed = others.drop("p225/notes.txt")
    assert all(len(error) > 10 for error in failed["error"])
    assert pd.isna(table.at["p225/notes.txt", "error"])


@on_disk
def test_flac_of_any_kind_is_accepted(project: Project):
    for rate, channels in ((8_000, 1), (44_100, 2), (192_000, 8)):
        project.place.put(f"p225/{rate}.flac", flac(0.3, rate=rate, channels=channels))
    assert project.run(KEY).success
    table = project.table()
    assert table["status"].tolist() == ["ok"] * 3
    assert table["sample_rate_hz"].tolist() == [192_000, 44_100, 8_000]
    assert table["channels"].tolist() == [8, 2, 1]


@on_disk
def test_a_clip_too_short_to_hear_has_an_empty_text_and_null_for_confidence(project: Project):
    project.place.put("p225/click.flac", flac(0.005))
    assert project.run(KEY).success
    [file] = project.place.all_keys("output_parquet/audio_table/")
    body, _ = project.place.store.read_latest(file) or (b"", "")
    [row] = pq.read_table(pa.BufferReader(body)).to_pylist()
    assert (row["status"], row["transcribed_text"]) == ("ok", "")
    assert [row[name] for name in CONFIDENCE] == [None] * 4


# --- running again --------------------------------------------------------------------------------------


def test_running_again_gives_the_same_table_and_computes_nothing(project: Project):
    put_sample(project, EIGHT)
    project.place.put("p225/bad.flac", b"junk")
    assert project.run(KEY).success
    first = project.table()
    files = project.place.all_keys("output_parquet/")
    versions = [project.place.store.read_latest(file) for file in files]
    result = project.run(KEY)
    assert result.success
    pd.testing.assert_frame_equal(project.table(), first)
    assert [project.place.store.read_latest(file) for file in files] == versions
    [made] = [
        found
        for found in result.asset_materializations_for_node("speech")
        if found.asset_key == dg.AssetKey("transcripts")
    ]
    assert made.metadata["dagster/partition_row_count"].value == 2


@on_disk
def test_a_table_that_was_lost_is_made_again_the_same(project: Project):
    put_sample(project, EIGHT)
    assert project.run(KEY).success
    first = project.table()
    for file in project.place.all_keys("output_parquet/"):
        project.place.delete(file)
    assert project.run(KEY).success
    pd.testing.assert_frame_equal(project.table(), first)


@on_disk
def test_another_tokeniser_makes_the_tokens_anew_and_keeps_the_text(
    project: Project, monkeypatch: pytest.MonkeyPatch, model_loads: list[str]
):
    put_sample(project, EIGHT)
    assert project.run(KEY).success
    first = project.table()
    monkeypatch.setenv("TOKENISER", f"{__name__}:two_tokens")
    project.reload()
    assert project.run(KEY).success
    [row] = project.table().to_dict("records")
    assert row["tokenized_info"].tolist() == [1, 2]
    # Its own code is part of its name, so that no row outlives a change of it.
    source = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()[:12]
    assert row["tokeniser"] == f"{__name__}:two_tokens sha256={source}"
    assert row["transcribed_text"] == first["transcribed_text"][0]
    assert len(model_loads) == 1


def two_tokens(audio: np.ndarray) -> list[int]:
    return [1, 2]


@on_disk
def test_tokens_do_not_survive_a_change_of_the_tokenisers_code(
    project: Project, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    put_sample(project, EIGHT)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TOKENISER", "codec_of_ours:tokenise")
    project.reload()

    def computed(source: str) -> tuple[int, list[int]]:
        """How many clips a run in a new process computes with this code, and what it makes of one."""
        (tmp_path / "codec_of_ours.py").write_text(source)
        sys.modules.pop("codec_of_ours", None)
        importlib.invalidate_caches()
        assert project.run(KEY, assets=["s3_inventory", "tokens"]).success
        latest = project.instance.fetch_materializations(dg.AssetKey("tokens"), limit=1).records[0]
        assert latest.asset_materialization
        [row] = [row for rows in _token_rows(project) for row in rows]
        clips = latest.asset_materialization.metadata["clips_computed"].value
        assert isinstance(clips, int)
        return clips, row["tokenized_info"]

    assert computed("def tokenise(audio): return [1]") == (1, [1])
    assert computed("def tokenise(audio): return [1]") == (0, [1])
    assert computed("def tokenise(audio): return [1, 2]") == (1, [1, 2])


def _token_rows(project: Project) -> Iterator[list[dict[str, Any]]]:
    for key in project.place.all_keys("output_parquet/tokens/"):
        body, _ = project.place.store.read_latest(key) or (b"", "")
        yield pq.read_table(pa.BufferReader(body)).to_pylist()


# --- another recogniser ---------------------------------------------------------------------------------

K = TypeVar("K")


class LengthRecogniser:
    """Hears how long each clip is."""

    identity = "length of the audio, version 1"
    device = "abacus"

    def __init__(self) -> None:
        self.stats = Stats()

    def transcribe(self, audio: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Transcript | Exception]]:
        for key, samples in audio:
            if len(samples) < 1_600:
                yield key, ValueError("too short to count")
            else:
                yield key, Transcript(f"{len(samples) / 16_000} s", "en", -0.1, 0.0, 1.0, 0.0, ())


class LengthResource(dg.ConfigurableResource):
    """Takes the place of `whisper` in the Dagster project."""

    def transcribing(self, table: Table) -> Transcribing:
        return Transcribing(table, LengthRecogniser.identity, LengthRecogniser)


@on_disk
def test_another_recogniser_is_plugged_in_as_a_resource(project: Project, model_loads: list[str]):
    for name, seconds in (("a.flac", 0.5), ("short.flac", 0.05)):
        project.place.put(f"p225/{name}", flac(seconds))
    project.instance.add_dynamic_partitions("folder_minute", [KEY])
    result = dg.materialize(
        [s3_inventory, speech, audio_table],
        instance=project.instance,
        partition_key=KEY,
        resources={**(resources.resources().resources or {}), "whisper": LengthResource()},
    )
    assert result.success
    heard, short = project.table().sort_values("Key").to_dict("records")
    assert [row["whisper_model"] for row in (heard, short)] == [LengthRecogniser.identity] * 2
    assert (heard["status"], heard["transcribed_text"]) == ("ok", "0.5 s")
    assert (short["status"], short["error"]) == ("failed", "Whisper failed on it: too short to count")
    [made] = [
        found
        for found in result.asset_materializations_for_node("speech")
        if found.asset_key == dg.AssetKey("transcripts")
    ]
    assert made.metadata["device"].value == "abacus"
    assert model_loads == []
