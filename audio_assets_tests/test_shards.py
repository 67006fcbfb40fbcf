"""Shards and manifests hold exactly the rows that were selected, with the bytes of their objects, and follow
the table; the libraries that people train with read them."""

import collections
import dataclasses
import datetime as dt
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings

from audio_assets.daily_compaction import compact
from audio_assets.errors import ArgumentError
from audio_assets.partitions import day_of_shard, shard_path
from audio_assets.read import daily_copy
from audio_assets.shards import Selection, Splits, export_manifests
from audio_assets.shards.columns import COLUMNS, SCHEMA
from audio_assets.shards.files import GONE
from audio_assets.shards.manifests import LHOTSE, NEMO
from audio_assets.shards.splits import SPLITS, file_of, files_for
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectStore
from audio_assets_tests.support.audio import MINUTE, UPLOADED, flac
from audio_assets_tests.support.places import LocalPlace, Place
from audio_assets_tests.support.rows import at, row, rows
from audio_assets_tests.support.training import RATE, Corpus, keys_of


@pytest.fixture
def corpus(local_place: Place) -> Corpus:
    return Corpus(local_place)


# --- the selection --------------------------------------------------------------------------------------


def test_each_row_is_taken_or_counted_by_the_first_rule_that_refuses_it():
    made = rows(
        row("a/ok", avg_logprob=-0.5, duration_s=5.0, language="en"),
        row("a/failed", status="failed"),
        row("a/german", avg_logprob=-0.5, duration_s=5.0, language="de"),
        row("a/short", avg_logprob=-0.5, duration_s=0.5, language="en"),
        row("a/long", avg_logprob=-9.0, duration_s=50.0, language="en"),
        row("a/unsure", avg_logprob=-2.0, duration_s=5.0, language="en"),
        row("a/nan", avg_logprob=float("nan"), duration_s=5.0, language="en"),
        row("a/null", avg_logprob=None, duration_s=5.0, language="en"),
        row("a/silent", avg_logprob=-0.5, duration_s=5.0, language="en", no_speech_prob=0.9),
        row("a/large", avg_logprob=-0.5, duration_s=5.0, language="en", Size=10**9),
        row("b/ok", avg_logprob=-0.5, duration_s=5.0, language="en"),
    )
    folders = pa.array([key.partition("/")[0] for key in made["Key"].to_pylist()])
    made = made.append_column("FolderName", folders)
    selection = Selection(
        min_avg_logprob=-1,
        min_duration_s=1,
        max_duration_s=30,
        languages=("en",),
        folders=("a",),
        filter=(("Key", "!=", "a/silent"),),
    )

    taken, refused = selection.split(made)

    assert taken["Key"].to_pylist() == ["a/ok"]
    assert refused == {
        "status is not ok": 1,
        "another folder": 1,
        "another language": 1,
        "shorter than 1 s": 1,
        "longer than 30 s": 1,
        "avg_logprob below -1": 3,
        "refused by the filter": 1,
        "larger than 100 MB": 1,
    }
    assert refused.total() + len(taken) == len(made)


def test_a_selection_is_said_in_json():
    said = {"min_duration_s": 1, "languages": ["en", "de"], "filter": [["no_speech_prob", "<", 0.5]]}
    selection = Selection.parse(json.loads(json.dumps(said)))
    assert selection == Selection(
        min_duration_s=1, languages=("en", "de"), filter=(("no_speech_prob", "<", 0.5),)
    )
    either = Selection.parse({"filter": [[["Key", "in", ["a", "b"]]], [["Size", ">", 3]]]})
    taken, _ = either.split(rows(row("a"), row("c"), row("d", Size=4)))
    assert taken["Key"].to_pylist() == ["a", "d"]
    assert {"Key", "Size", "status"} <= set(either.columns)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"min_duration": 1}, "min_duration is no part of a selection; there are min_avg_logprob, "),
        ({"min_duration_s": "1"}, "min_duration_s='1' is not a number"),
        ({"languages": "en"}, "languages='en' is not a list of texts"),
        ({"filter": ["Size", ">", 3]}, "filter=['Size', '>', 3] is not a list such as"),
        ({"filter": [["size", ">", 3]]}, "does not fit the columns"),
    ],
)
def test_a_wrong_selection_is_refused_in_words(said: dict[str, Any], message: str):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        Selection.parse(said)


# --- splits and files -----------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=8)


@given(st.lists(st.tuples(names, names), unique=True), st.lists(st.tuples(names, names)), st.integers())
def test_no_row_leaves_its_split_whatever_comes_and_whatever_the_seed(
    some: list[tuple[str, str]], more: list[tuple[str, str]], seed: int
):
    splits = Splits(validation=0.3, test=0.3)
    before = {both: splits.of(*both) for both in some}
    again = Splits(validation=0.3, test=0.3, seed=seed)
    after = {both: again.of(*both) for both in [*more, *some]}
    assert {both: after[both] for both in some} == before
    of_folder = collections.defaultdict(set)
    for (folder, _), split in after.items():
        of_folder[folder].add(split)
    assert all(len(found) == 1 for found in of_folder.values())


def test_the_splits_have_about_the_shares_that_were_asked_for():
    splits = Splits(validation=0.1, test=0.2, by="key")
    found = collections.Counter(splits.of("f", str(i)) for i in range(10_000))
    assert {split: round(found[split] / 10_000, 1) for split in SPLITS} == {
        "train": 0.7,
        "validation": 0.1,
        "test": 0.2,
    }


@given(names, st.integers(0, 6))
def test_a_row_moves_to_one_of_two_files_when_their_number_doubles(key: str, power: int):
    now = file_of(key, 2**power)
    assert 0 <= now < 2**power
    assert file_of(key, 2 ** (power + 1)) // 2 == now


@pytest.mark.parametrize(("size", "files"), [(0, 1), (100, 1), (101, 2), (201, 4), (400, 4)])
def test_the_number_of_files_is_a_power_of_2(size: int, files: int):
    assert files_for(size, 100) == files


@settings(max_examples=30)
@given(st.permutations([f"k{i}" for i in range(20)]), st.integers(0, 3))
def test_the_order_of_rows_depends_on_keys_and_seed_alone(keys: list[str], seed: int):
    splits = Splits(seed=seed)
    found = [keys[i] for i in splits.order(keys)]
    expected = sorted(keys)
    assert found == [expected[i] for i in splits.order(expected)]
    assert found != [keys[i] for i in Splits(seed=seed + 1).order(keys)]


@pytest.mark.parametrize(
    "said", [{"validation": 2}, {"validation": 0.6, "test": 0.6}, {"by": "speaker"}, {"seed": "x"}, {"a": 1}]
)
def test_wrong_splits_are_refused(said: dict[str, Any]):
    with pytest.raises(ArgumentError):
        Splits.parse(said)


def test_the_path_of_a_shard_is_known_and_no_other_is():
    path = shard_path(dt.date(2023, 8, 24), "train", 3, 4)
    assert path == "LastModifiedDate=2023-08-24/train-00003-of-00004.parquet"
    assert day_of_shard(f"x/{path}") == dt.date(2023, 8, 24)
    assert day_of_shard(path.replace("train", "mine")) is None
    assert day_of_shard(path.replace("08-24", "08-32")) is None


# --- the shards of a slice ------------------------------------------------------------------------------


def test_shards_hold_every_selected_row_once_with_the_bytes_of_its_object(place: Place):
    corpus = Corpus(place)
    corpus.put(at("p1"), *keys_of("p1", 20))
    corpus.put(at("p2", 1440), *keys_of("p2", 10))

    made = corpus.export()

    corpus.assert_equal(*keys_of("p1", 20), *keys_of("p2", 10))
    assert made.rows.total() == 30
    assert made.duration_s == pytest.approx(1.5)
    assert sorted(made.written) == sorted(corpus.shards())
    assert made.size == sum(len((place.store.read_latest(p) or (b"",))[0]) for p in corpus.versions())
    for path, shard in corpus.shards().items():
        assert day_of_shard(path) in (dt.date(2023, 8, 24), dt.date(2023, 8, 25))
        assert set(shard["split"].to_pylist()) == {path.partition("/")[2].partition("-")[0]}


def test_late_changed_and_deleted_objects_are_followed_and_other_files_are_left_as_they_are(place: Place):
    corpus = Corpus(place)
    corpus.put(at("p1"), *keys_of("p1", 12))
    corpus.put(at("p2", 1440), *keys_of("p2", 12))
    corpus.export()
    before = corpus.versions()
    # Unchanged.
    again = corpus.export()
    assert (again.written, again.deleted, corpus.versions()) == ([], [], before)
    assert again.rows.total() == 24
    # One late object changes one file.
    corpus.put(at("p3", 3), "p3/late.flac")
    late = corpus.export()
    assert len(late.written) == 1
    changed = {path for path, version in corpus.versions().items() if before.get(path) != version}
    assert changed == {f"{corpus.files.folder}{path}" for path in late.written}
    corpus.assert_equal(*keys_of("p1", 12), *keys_of("p2", 12), "p3/late.flac")
    # Deleted objects, at last all of a day.
    corpus.put(at("p1"), *keys_of("p1", 6))
    corpus.put(at("p3", 3))
    corpus.export()
    corpus.assert_equal(*keys_of("p1", 6), *keys_of("p2", 12))
    corpus.put(at("p2", 1440))
    gone = corpus.export()
    assert gone.deleted
    assert corpus.files.days() == {dt.date(2023, 8, 24)}
    corpus.assert_equal(*keys_of("p1", 6))


def test_the_same_rows_give_the_same_bytes(corpus: Corpus):
    corpus.put(at("p1"), *keys_of("p1", 15))
    corpus.export()
    before = {path: shard["id"].to_pylist() for path, shard in corpus.shards().items()}
    bodies = [corpus.place.store.read_latest(path) for path in corpus.versions()]
    for path in corpus.versions():
        corpus.place.delete(path)
    corpus.export()
    assert [(corpus.place.store.read_latest(path) or [b""])[0] for path in corpus.versions()] == [
        body[0] for body in bodies if body
    ]
    # Shuffled, and another way by another seed.
    assert any(ids != sorted(ids) for ids in before.values())
    corpus.splits = dataclasses.replace(corpus.splits, seed=1)
    corpus.export()
    after = {path: shard["id"].to_pylist() for path, shard in corpus.shards().items()}
    assert {path: sorted(ids) for path, ids in after.items()} == {p: sorted(i) for p, i in before.items()}
    assert after != before


def test_rows_of_the_daily_copy_give_the_files_that_rows_of_the_minutes_give(corpus: Corpus):
    for minute in range(9):
        corpus.put(at("p1", minute), *keys_of("p1", 3, first=3 * minute), compression_ratio=minute or None)
    corpus.export()
    before = corpus.versions()
    compact(daily_copy(corpus.table), corpus.table, MINUTE.date(), corpus.table.partitions)
    # Only the daily copy has the bytes now.
    for path in list(corpus.place.all_keys("tables/audio_table/")):
        assert isinstance(corpus.place, LocalPlace)
        file = corpus.place.folder / path
        stat = file.stat()
        file.write_bytes(bytes(stat.st_size))
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert corpus.export().written == []
    assert corpus.versions() == before


def test_an_object_that_is_gone_is_counted_and_its_file_is_made_again(corpus: Corpus):
    corpus.put(at("p1"), *keys_of("p1", 3))
    corpus.splits = Splits(validation=0, test=0)
    corpus.place.put("p1/000.flac", b"another by now")

    made = corpus.export()

    assert (made.refused, made.rows) == ({GONE: 1}, {"train": 2})
    # The bytes come back; no row has changed.
    corpus.put(at("p1"), *keys_of("p1", 3))
    assert corpus.export().rows == {"train": 3}
    corpus.assert_equal(*keys_of("p1", 3))


def test_no_file_is_left_where_all_objects_are_gone(corpus: Corpus):
    corpus.put(at("p1"), "p1/a.flac")
    corpus.place.delete("p1/a.flac")
    made = corpus.export()
    assert (made.refused, made.written, corpus.shards()) == ({GONE: 1}, [], {})


def test_a_day_beyond_the_size_of_a_file_is_cut_and_its_row_groups_are_bounded(corpus: Corpus):
    corpus.splits = Splits(validation=0, test=0)
    corpus.file_bytes = 10_000
    corpus.row_group_bytes = 3_000
    corpus.put(at("p1"), *keys_of("p1", 30))

    made = corpus.export()

    assert len(made.written) == files_for(sum(r["Size"] for r in sizes(corpus)), 10_000) > 1
    corpus.assert_equal(*keys_of("p1", 30))
    for path in corpus.versions():
        found = pq.ParquetFile(io.BytesIO((corpus.place.store.read_latest(path) or [b""])[0]))
        for i in range(found.num_row_groups):
            group = found.read_row_group(i)
            audio = sum(len(one["bytes"]) for one in group["audio"].to_pylist())
            assert audio <= 3_000 or len(group) == 1
            assert found.metadata.row_group(i).column(0).has_offset_index
            assert not found.metadata.row_group(i).column(0).is_stats_set
            assert found.metadata.row_group(i).column(2).is_stats_set
    # Fewer rows in fewer files; the others go.
    corpus.put(at("p1"), *keys_of("p1", 2))
    assert corpus.export().deleted
    corpus.assert_equal(*keys_of("p1", 2))


def sizes(corpus: Corpus) -> list[dict[str, Any]]:
    found = corpus.table.read(at("p1")).rows
    assert found is not None
    return found.select(["Size"]).to_pylist()


def test_an_edited_file_is_made_again_and_files_of_others_are_left(corpus: Corpus):
    corpus.put(at("p1"), "p1/a.flac")
    [path] = corpus.export().written
    corpus.place.put(f"{corpus.files.folder}{path}", b"no Parquet file")
    theirs = f"{corpus.files.folder}LastModifiedDate=2023-08-24/notes.txt"
    corpus.place.put(theirs, b"mine")
    assert corpus.export().written == [path]
    assert corpus.place.all_keys(corpus.files.folder) == sorted([theirs, f"{corpus.files.folder}{path}"])


def test_a_slice_leaves_shards_of_other_days_alone(corpus: Corpus):
    corpus.put(at("p1"), "p1/a.flac")
    corpus.put(at("p1", 1440), "p1/b.flac")
    corpus.export()
    corpus.put(at("p1"))
    corpus.put(at("p1", 1440))
    corpus.export(start="2023-08-25", end="2023-08-26")
    corpus.assert_equal("p1/a.flac")
    corpus.export(end="2023-08-24")
    corpus.assert_equal("p1/a.flac")
    corpus.export()
    assert corpus.shards() == {}


def test_shards_inside_of_the_source_are_no_audio(local_place: Place):
    corpus = Corpus(local_place)
    corpus.put(at("p1"), "p1/a.flac")
    corpus.export()
    source = AudioSource(local_place.store, ObjectStore(f"{local_place.uri}/elsewhere"))
    digests, _ = source.digests(source.spans())
    assert [partition.folder for partition in digests] == ["p1"]


# --- the readers ----------------------------------------------------------------------------------------


@pytest.fixture
def shards(corpus: Corpus) -> pathlib.Path:
    """Shards on a disk, of 40 clips of two days."""
    corpus.put(at("p1"), *keys_of("p1", 30))
    corpus.put(at("p2", 1440), *keys_of("p2", 10))
    corpus.export()
    assert isinstance(corpus.place, LocalPlace)
    return corpus.place.folder / "tables" / "training_shards"


def test_the_features_in_the_schema_are_those_that_datasets_writes_itself():
    import datasets

    assert datasets.Features.from_arrow_schema(SCHEMA) == datasets.Features(
        {
            "audio": datasets.Audio(),
            **{field.name: feature_of(field) for field in COLUMNS if field.name != "audio"},
        }
    )


def feature_of(field: pa.Field):
    import datasets

    kind = {"double": "float64", "float": "float32"}.get(str(field.type), str(field.type))
    return datasets.Value(kind)


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets_reads_the_shards_and_their_splits(
    shards: pathlib.Path, tmp_path: pathlib.Path, streaming: bool
):
    import datasets

    loaded: Any = datasets.load_dataset(str(shards), streaming=streaming, cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded["train"].features["audio"], datasets.Audio)
    found: dict[str, str] = {}
    for split in loaded:
        for one in loaded[split].cast_column("audio", datasets.Audio(decode=False)):
            samples, rate = soundfile.read(io.BytesIO(one["audio"]["bytes"]))
            assert (len(samples), rate, one["duration"]) == (800, RATE, 0.05)
            assert one["text"] == f"Text of {one['id']}"
            found[one["id"]] = split
    splits = Splits(validation=0.2, test=0.2, by="key")
    keys = [*keys_of("p1", 30), *keys_of("p2", 10)]
    assert found == {key: splits.of("", key) for key in keys}


def test_lhotse_reads_the_shards_through_datasets(shards: pathlib.Path, tmp_path: pathlib.Path):
    from lhotse import CutSet

    cuts = CutSet.from_huggingface_dataset(
        str(shards),
        split="train",
        streaming=True,
        cache_dir=str(tmp_path / "cache"),
        text_key="text",
        lang_key="lang",
    )
    found = list(cuts)
    assert found
    for cut in found:
        assert cut.load_audio().shape == (1, 800)
        [supervision] = cut.supervisions
        assert supervision.text == f"Text of {cut.custom['id']}"
        assert supervision.language == "en"
        assert cut.custom["avg_logprob"] == pytest.approx(-0.5)


def test_lhotse_reads_its_manifest_and_opens_the_audio(corpus: Corpus, tmp_path: pathlib.Path):
    from lhotse import CutSet

    corpus.put(at("p 1ü"), *keys_of("p 1ü", 10))
    out = ObjectStore((tmp_path / "out").as_uri())
    made = export_manifests(
        corpus.table, out, corpus.place.uri, LHOTSE, Selection(), Splits(validation=0, test=0)
    )
    assert (made.written, made.rows) == (["train.jsonl.gz"], {"train": 10})
    cuts = CutSet.from_jsonl_lazy(tmp_path / "out" / "train.jsonl.gz")
    found = {cut.id: cut for cut in cuts}
    assert sorted(found) == keys_of("p 1ü", 10)
    for key, cut in found.items():
        assert cut.load_audio().shape == (1, 800)
        assert cut.recording.num_samples == 800
        [supervision] = cut.supervisions
        assert (supervision.text, supervision.speaker) == (f"Text of {key}", "p 1ü")
        assert cut.custom["avg_logprob"] == pytest.approx(-0.5)


def test_a_cut_of_several_channels_is_one_that_lhotse_accepts(corpus: Corpus, tmp_path: pathlib.Path):
    from lhotse import CutSet
    from lhotse.cut import MultiCut

    corpus.put(at("p1"), "p1/a.flac", channels=2)
    corpus.place.put("p1/a.flac", flac(0.05, channels=2), UPLOADED)
    out = ObjectStore((tmp_path / "out").as_uri())
    export_manifests(corpus.table, out, corpus.place.uri, LHOTSE, Selection(), Splits(validation=0, test=0))
    [cut] = CutSet.from_jsonl_lazy(tmp_path / "out" / "train.jsonl.gz")
    assert isinstance(cut, MultiCut)
    samples = cut.load_audio()
    assert samples is not None
    assert samples.shape == (2, 800)


def test_a_manifest_for_nemo_names_what_its_reader_asks_for(place: Place, tmp_path: pathlib.Path):
    corpus = Corpus(place)
    corpus.put(at("p1"), "p1/mono.flac")
    corpus.put(at("p1", 1), "p1/stereo.flac", channels=2)
    out = ObjectStore((tmp_path / "out").as_uri())
    made = export_manifests(
        corpus.table, out, place.uri, NEMO, Selection(), Splits(validation=0, test=0), start="2023-08-24"
    )
    assert made.duration_s == pytest.approx(0.1)
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    mono, stereo = sorted(lines, key=lambda line: line["id"])
    where = str(place.folder) if isinstance(place, LocalPlace) else place.uri
    assert mono == {
        "audio_filepath": f"{where}/p1/mono.flac",
        "duration": 0.05,
        "text": "Text of p1/mono.flac",
        "lang": "en",
        "id": "p1/mono.flac",
        "speaker": "p1",
        "split": "train",
        "avg_logprob": -0.5,
        "no_speech_prob": None,
        "compression_ratio": None,
        "whisper_model": "m",
        "sampling_rate": RATE,
    }
    assert "sampling_rate" not in stereo
    if where.startswith("/"):
        assert soundfile.info(mono["audio_filepath"]).frames == 800


@pytest.mark.nemo
def test_nemo_reads_each_row_of_shards_and_of_manifests(
    corpus: Corpus, shards: pathlib.Path, tmp_path: pathlib.Path, request: pytest.FixtureRequest
):
    assert isinstance(corpus.place, LocalPlace)
    out = ObjectStore((tmp_path / "out").as_uri())
    export_manifests(corpus.table, out, corpus.place.uri, NEMO, Selection(), Splits(validation=0, test=0))
    script = pathlib.Path(__file__).with_name("support") / "nemo_reader.py"

    def read_by_nemo(kind: str, *files: pathlib.Path) -> list[dict[str, Any]]:
        command = [request.config.getoption("--nemo"), str(script), kind, *map(str, files)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        # NeMo prints lines of its own, too.
        found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        return sorted(found, key=lambda one: one["id"])

    expected = []
    for key in sorted([*keys_of("p1", 30), *keys_of("p2", 10)]):
        samples, rate = soundfile.read(corpus.place.folder / key, dtype="float32")
        expected.append(
            {
                "id": key,
                "samples": hashlib.sha256(samples.tobytes()).hexdigest(),
                "rate": rate,
                "duration": 0.05,
                "text": f"Text of {key}",
                "language": "en",
                "avg_logprob": -0.5,
            }
        )
    assert read_by_nemo("parquet", *sorted(shards.rglob("*.parquet"))) == expected
    assert read_by_nemo("nemo", tmp_path / "out" / "train.jsonl") == expected


@pytest.mark.parametrize("kind", [NEMO, LHOTSE])
def test_a_manifest_is_the_same_again_and_goes_with_its_last_row(
    corpus: Corpus, tmp_path: pathlib.Path, kind: str
):
    out = ObjectStore((tmp_path / "out").as_uri())

    def export():
        return export_manifests(corpus.table, out, corpus.place.uri, kind, Selection())

    corpus.put(at("p1"), *keys_of("p1", 3))
    [name] = export().written
    before = (tmp_path / "out" / name).read_bytes()
    export()
    assert (tmp_path / "out" / name).read_bytes() == before
    corpus.put(at("p1"))
    assert export().deleted == [name]
    assert list(out.list_files("")) == []
