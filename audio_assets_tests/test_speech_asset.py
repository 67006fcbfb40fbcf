"""`transcripts` and `tokens` as Dagster shows them: what is stale, what a partition and its run say."""

import os
import pathlib
import shutil
from collections.abc import Mapping

import dagster as dg
import numpy as np
import pytest
import torch
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from audio_assets.defs import resources
from audio_assets.partitions import FolderMinute
from audio_assets.settings import DEMO_CHECKPOINT
from audio_assets_tests.support.audio import MINUTE, flac
from audio_assets_tests.support.metadata import number
from audio_assets_tests.support.project import Project

ASSETS = ("s3_inventory", "transcripts", "tokens", "audio_table")
KEY = FolderMinute("p225", MINUTE).key

pytestmark = pytest.mark.parametrize("place", ["local"], indirect=True)


def two_tokens(audio: np.ndarray) -> list[int]:
    return [1, 2]


@pytest.fixture
def made(project: Project) -> Project:
    """A project that has one partition of one clip and one text."""
    project.place.put("p225/a.flac", flac(0.5))
    project.place.put("p225/notes.txt", b"hello")
    assert project.run(KEY).success
    return project


def shown(project: Project, name: str) -> Mapping[str, dg.MetadataValue]:
    [record] = project.instance.fetch_materializations(dg.AssetKey(name), limit=1).records
    assert record.asset_materialization
    return record.asset_materialization.metadata


# --- what is stale --------------------------------------------------------------------------------------


def statuses(project: Project) -> dict[str, str]:
    """What Dagster's partition page says of the partition of each asset."""
    context = LoadingContextForTest(project.instance)
    resolver = CachingStaleStatusResolver(project.instance, project.repository.asset_graph, context)
    return {name: resolver.get_status(dg.AssetKey(name), KEY).value for name in ASSETS}


ALL_FRESH = dict.fromkeys(ASSETS, "FRESH")


@pytest.mark.parametrize(
    ("setting", "value", "shaped"),
    [
        ("WHISPER_MODEL", "tiny", "transcripts"),
        ("WHISPER_LANGUAGE", "de", "transcripts"),
        ("WHISPER_WORD_TIMESTAMPS", "true", "transcripts"),
        ("WHISPER_LOGPROB_THRESHOLD", "-1", None),
        ("TOKENISER", f"{__name__}:two_tokens", "tokens"),
        # What no row is compared by.
        ("WHISPER_DEVICE", "cuda:7", None),
        ("WHISPER_BATCH_SIZE", "3", None),
        ("SETTLE_SECONDS", "7", None),
    ],
)
def test_a_change_of_a_setting_shows_exactly_what_it_shaped_as_stale(
    made: Project, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, shaped: str | None
):
    assert statuses(made) == ALL_FRESH
    monkeypatch.setenv(setting, value)
    made.reload()
    assert statuses(made) == ALL_FRESH | ({shaped: "STALE"} if shaped else {})
    monkeypatch.delenv(setting)
    made.reload()
    assert statuses(made) == ALL_FRESH


def test_what_is_stale_is_fresh_once_it_is_made_anew_and_then_the_table_is_stale(
    made: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOKENISER", f"{__name__}:two_tokens")
    made.reload()
    assert made.run(KEY, assets=["tokens"]).success
    assert statuses(made) == ALL_FRESH | {"audio_table": "STALE"}
    assert made.run(KEY, assets=["audio_table"]).success
    assert statuses(made) == ALL_FRESH


def test_a_change_of_a_tokenisers_code_shows_the_tokens_as_stale(
    project: Project, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "codec_of_theirs.py"
    code.write_text("def tokenise(audio): return [1]")
    monkeypatch.setenv("TOKENISER", "codec_of_theirs:tokenise")
    project.reload()
    project.place.put("p225/a.flac", flac(0.5))
    assert project.run(KEY).success
    code.write_text("def tokenise(audio): return [1, 2]")
    project.reload()
    assert statuses(project) == ALL_FRESH | {"tokens": "STALE"}


def test_a_checkpoint_that_is_replaced_in_place_shows_the_transcripts_as_stale_and_is_loaded_anew(
    project: Project, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoint = tmp_path / "model.pt"
    shutil.copy(DEMO_CHECKPOINT, checkpoint)
    monkeypatch.setenv("WHISPER_MODEL", str(checkpoint))
    project.reload()
    project.place.put("p225/a.flac", flac(0.5))
    assert project.run(KEY).success
    [before] = project.table()["whisper_model"]
    # Other weights of the same size, at another time.
    checkpoint.unlink()
    louder(DEMO_CHECKPOINT, checkpoint)
    project.reload()
    assert statuses(project) == ALL_FRESH | {"transcripts": "STALE"}
    assert project.run(KEY).success
    [after] = project.table()["whisper_model"]
    assert after != before
    [loaded] = resources._loaded.values()
    assert loaded.identity == after
    assert statuses(project) == ALL_FRESH


def louder(old: pathlib.Path, new: pathlib.Path) -> None:
    """A checkpoint with other weights."""
    checkpoint = torch.load(old, weights_only=True)
    checkpoint["model_state_dict"]["decoder.ln.weight"] *= 1.5
    torch.save(checkpoint, new)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("WHISPER_MODEL", "no such model"),
        ("WHISPER_MODEL", os.devnull),
        ("WHISPER_LANGUAGE", "Klingon"),
        ("TOKENISER", "no.such.module:f"),
        ("TOKENISER", ":"),
        ("TOKENISER", "..:f"),
    ],
)
def test_a_setting_that_is_wrong_stops_no_code_location_from_loading(
    project: Project, monkeypatch: pytest.MonkeyPatch, setting: str, value: str
):
    monkeypatch.setenv(setting, value)
    project.reload()
    name = "tokens" if setting == "TOKENISER" else "transcripts"
    assert value in str(project.repository.asset_graph.get(dg.AssetKey(name)).code_version)


# --- what a run is told ---------------------------------------------------------------------------------


def test_a_run_that_is_told_so_computes_every_row_anew(made: Project):
    job = made.repository.get_job("process_audio")
    for recompute, computed in ((False, 0), (True, 1)):
        config = {"ops": {"speech": {"config": {"recompute": recompute}}}}
        run = job.execute_in_process(run_config=config, instance=made.instance, partition_key=KEY)
        assert run.success
        assert number(shown(made, "transcripts"), "clips_computed") == computed


# --- what a partition says ------------------------------------------------------------------------------


def test_metadata_tells_of_the_file_first_and_of_the_run_after_it(made: Project):
    transcripts = list(shown(made, "transcripts").items())
    model = made.table()["whisper_model"].dropna().iloc[0]
    assert [(name, value.value) for name, value in transcripts[:11]] == [
        ("ok", 1),
        ("failed", 0),
        ("not_flac", 1),
        ("audio_hours", 0.0001),
        ("whisper_model", model),
        ("dagster/partition_row_count", 2),
        *located(made, "transcripts"),
        ("clips_computed", 1),
        ("clips_reused", 0),
        ("retries", 0),
    ]
    assert {name for name, _ in transcripts[11:]} == {
        *("audio_s_per_s", "device", "windows", "fallbacks", "halvings"),
        *("mel_s", "encode_s", "language_s", "decode_s", "align_s", "second_s", "float32_s"),
    }
    tokens = list(shown(made, "tokens").items())
    assert [(name, value.value) for name, value in tokens[:11]] == [
        ("ok", 1),
        ("failed", 0),
        ("not_flac", 1),
        ("tokens", len(made.table()["tokenized_info"].dropna().iloc[0])),
        ("tokeniser", "simulated"),
        ("dagster/partition_row_count", 2),
        *located(made, "tokens"),
        ("clips_computed", 1),
        ("clips_reused", 0),
        ("retries", 0),
    ]
    # The engine that hears has no part in tokens.
    assert {name for name, _ in tokens[11:]} == {"audio_s_per_s"}


def located(project: Project, name: str) -> list[tuple[str, str]]:
    """Where a partition's file is, as its metadata says: a path below the table, and the table."""
    return [
        ("file", FolderMinute.parse(KEY).path),
        ("dagster/uri", f"{project.place.uri}/output_parquet/{name}"),
    ]


def test_audio_table_says_why_objects_failed(made: Project):
    long_name = f"{'n' * 60}.flac"
    made.place.put(f"p225/{long_name}", flac(0.5)[:200])
    assert made.run(KEY).success
    metadata = shown(made, "audio_table")
    assert list(metadata) == [
        *("ok", "failed", "not_flac", "audio_hours", "whisper_model", "tokeniser", "failures", "preview"),
        *("dagster/partition_row_count", "file", "dagster/uri", "dagster/column_lineage"),
    ]
    rows = made.table().set_index("Key")
    [_, _, failure] = str(metadata["failures"].value).splitlines()
    assert failure == f"| {'n' * 19}…{'n' * 15}.flac | {rows.loc[f'p225/{long_name}', 'error']} |"


def test_a_run_that_finds_a_partition_unchanged_says_the_same_of_its_file(project: Project):
    project.place.put("p225/a.flac", flac(36.0))
    other = FolderMinute("p226", MINUTE).key
    assert project.run(KEY).success
    before = dict(shown(project, "transcripts"))
    assert before["audio_hours"].value == 0.01
    # A range whose other partition has work: what the engine did there is no business of this one.
    project.place.put("p226/a.flac", flac(0.5))
    assert project.run(KEY, other).success
    records = project.instance.fetch_materializations(dg.AssetKey("transcripts"), limit=2).records
    made = {r.partition_key: r.asset_materialization.metadata for r in records if r.asset_materialization}
    after = dict(made[KEY])
    assert number(after, "clips_computed") == 0
    assert "audio_s_per_s" not in after
    assert "device" not in after
    assert "device" in made[other]
    of_the_file = list(before)[:8]
    assert {name: after[name] for name in of_the_file} == {name: before[name] for name in of_the_file}
