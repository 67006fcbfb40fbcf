"""The listening page: its data is exactly the rows, and what is written is whole or not there."""

import base64
import datetime as dt
import json
import math
import pathlib
import re
from typing import Any

import boto3
import dagster as dg
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from audio_assets import schema
from audio_assets.listening import Slice, make_page
from audio_assets.listening.clips import audio_url, copy_name
from audio_assets.listening.columns import CODES, COLUMNS, NUMBERS, Dictionaries, numbers_script, script
from audio_assets.listening.publish import GENERATOR
from audio_assets.listening.selection import NoRowsError
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectStore
from audio_assets.table import Table
from audio_assets_tests.support.audio import MINUTE, flac
from audio_assets_tests.support.places import LocalPlace, Place, S3Place
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.rows import at, row, write

HEARD = dict(avg_logprob=-0.25, duration_s=1.5, language="en", transcribed_text=" One two.")


def arguments(body: bytes) -> list[Any]:
    """What a script hands to the page."""
    called = re.fullmatch(r"listeningPage\.\w+\((.*)\)\n", body.decode(), re.DOTALL)
    assert called
    return json.loads(f"[{called[1]}]")


def files(store: ObjectStore, folder: str = "page/") -> dict[str, str]:
    return {path.removeprefix(folder): version for path, version in store.list_files(folder)}


def body_of(store: ObjectStore, path: str) -> bytes:
    found = store.read_latest(f"page/{path}")
    assert found
    return found[0]


def table_of(place: Place) -> Table:
    return Table(place.store, "output_parquet/audio_table", schema.AUDIO_TABLE)


def meta_of(store: ObjectStore) -> dict[str, Any]:
    [path] = [path for path in files(store) if path.startswith("data/meta")]
    return arguments(body_of(store, path))[0]


# --- the data -------------------------------------------------------------------------------------------

texts = st.text(max_size=20)
numbers = st.none() | st.floats(-100, 100, width=32)


@settings(max_examples=40)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "Key": texts,
                "FolderName": texts,
                "status": st.sampled_from(schema.STATUSES),
                "language": st.none() | texts,
                "avg_logprob": numbers,
                "duration_s": numbers,
                "transcribed_text": st.none() | texts,
            }
        ),
        min_size=1,
        max_size=10,
    )
)
def test_the_numbers_of_a_page_are_those_of_the_rows(made: list[dict[str, Any]]):
    fields = schema.with_partition_columns(schema.AUDIO_TABLE)
    rows = pa.Table.from_pylist(
        [row("k") | {"LastModified": MINUTE} | one for one in made],
        pa.schema([fields.field(name) for name in COLUMNS]),
    )
    dictionaries = Dictionaries()
    i, found = arguments(numbers_script(3, rows, dictionaries))
    assert (i, found["rows"]) == (3, len(made))
    columns = {
        name: np.frombuffer(base64.b64decode(found["columns"][name]), kind)
        for name, kind in (NUMBERS | CODES).items()
    }
    assert set(columns) == set(found["columns"])
    for k, one in enumerate(made):
        for name in ("avg_logprob", "duration_s"):
            value = columns[name][k]
            assert math.isnan(value) if one[name] is None else value == np.float32(one[name])
        for name in ("FolderName", "status", "language"):
            code = columns[name][k]
            none = np.iinfo(CODES[name]).max
            assert (None if code == none else dictionaries.lists[name][code]) == one[name]
        assert columns["LastModified"][k] == MINUTE.timestamp() * 1000


@given(st.recursive(st.text() | st.none() | st.integers(), st.lists, max_leaves=5))
def test_a_script_says_what_it_was_given_and_nothing_can_end_it(value: object):
    body = script("texts", value)
    assert arguments(body) == [value]
    assert not {"<", "\u2028", "\u2029"} & set(body.decode())


def test_the_texts_lie_beside_the_numbers_in_the_same_order(local_place: LocalPlace):
    table = table_of(local_place)
    write(table, at("p225"), row("p225/a.flac", **HEARD), row("p225/b.txt", status="not_flac"))
    write(table, at("p226"), row("p226/bad.flac", status="failed", error="cut off"))
    made = make_page(table, local_place.store, local_place.store, "page/", audio="none")
    meta = meta_of(local_place.store)
    [chunk] = meta["chunks"]
    _, found = arguments(body_of(local_place.store, chunk["texts"]))
    assert found["Key"] == ["p225/a.flac", "p225/b.txt", "p226/bad.flac"]
    assert found["transcribed_text"] == [" One two.", None, None]
    assert found["error"] == [None, None, "cut off"]
    assert meta["coverage"] == [["p225", "2023-08-24", 2, 0, 1.5], ["p226", "2023-08-24", 1, 1, 0.0]]
    assert (made.rows, made.total, made.clips) == (3, 3, 0)


def test_a_page_of_too_many_rows_shows_those_that_need_an_ear_and_counts_all(local_place: LocalPlace):
    table = table_of(local_place)
    sure = [row(f"p225/{i}.flac", avg_logprob=-i / 10, duration_s=1.0) for i in range(6)]
    write(table, at("p225"), *sure, row("p225/bad.flac", status="failed", error="cut off"))
    write(table, at("p226"), row("p226/a.txt", status="not_flac"))
    made = make_page(table, local_place.store, local_place.store, "page/", Slice(rows=3), audio="none")
    meta = meta_of(local_place.store)
    _, found = arguments(body_of(local_place.store, meta["chunks"][0]["texts"]))
    assert found["Key"] == ["p225/4.flac", "p225/5.flac", "p225/bad.flac"]
    assert (made.rows, made.total, meta["rows"], meta["total"]) == (3, 8, 3, 8)
    assert [one[2] for one in meta["coverage"]] == [7, 1]


def test_a_page_is_of_the_folder_and_minutes_asked_for(local_place: LocalPlace):
    table = table_of(local_place)
    for minutes in range(3):
        write(table, at("p225", minutes), row(f"p225/{minutes}.flac"))
    write(table, at("p226", 1), row("p226/1.flac"))
    later = MINUTE + dt.timedelta(minutes=1)
    wanted = Slice("p225", later, later + dt.timedelta(minutes=1))
    assert make_page(table, local_place.store, local_place.store, "page/", wanted).rows == 1
    with pytest.raises(NoRowsError, match="no rows of folder 'p999'"):
        make_page(table, local_place.store, local_place.store, "page/", Slice("p999"))


# --- the files ------------------------------------------------------------------------------------------


def test_a_page_is_made_anew_in_place_and_leaves_nothing_behind(place: Place):
    table = table_of(place)
    place.put("p225/a.flac", flac())
    write(table, at("p225"), row("p225/a.flac", **HEARD))
    make_page(table, place.store, place.store, "page/", audio="none")
    first = files(place.store)
    place.put("page/data/mine.txt", b"somebody's")
    write(table, at("p226"), row("p226/b.flac", **HEARD))
    made = make_page(table, place.store, place.store, "page/", audio="none")
    second = files(place.store)
    assert second.pop("data/mine.txt")
    assert len(second) == len(first) == made.files
    kept = {path for path in first if second.get(path) == first[path]}
    assert {path for path in first if path.startswith("static/")} <= kept
    said = body_of(place.store, "index.html").decode() + json.dumps(meta_of(place.store))
    assert all(path in said for path in second if path != "index.html")


def test_no_page_replaces_what_is_none(local_place: LocalPlace):
    table = table_of(local_place)
    write(table, at("p225"), row("p225/a.flac"))
    local_place.put("page/index.html", b"<h1>mine</h1>")
    with pytest.raises(ValueError, match="is no listening page"):
        make_page(table, local_place.store, local_place.store, "page/")
    assert files(local_place.store).keys() == {"index.html"}


def test_browsers_are_told_by_s3_what_each_file_is(s3_place: S3Place):
    table = table_of(s3_place)
    write(table, at("p225"), row("p225/a.flac"))
    make_page(table, s3_place.store, s3_place.store, "page/", audio="none")
    client = boto3.client("s3")
    kinds = {
        path.rpartition(".")[2]: client.head_object(
            Bucket=s3_place.bucket, Key=f"{s3_place.prefix}page/{path}"
        )["ContentType"]
        for path in files(s3_place.store)
    }
    assert kinds == {
        "html": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
    }


def test_a_page_that_tables_left_behind_in_the_source_is_no_audio(
    local_place: LocalPlace, tmp_path: pathlib.Path
):
    local_place.put("p225/a.flac", flac())
    local_place.put("p225/listening_page/notes.html")
    table = Table(local_place.store, "old/audio_table", schema.AUDIO_TABLE)
    write(table, at("p225"), row("p225/a.flac"))
    make_page(table, local_place.store, local_place.store, "old/listening_page/", audio="copy")
    source = AudioSource(local_place.store, ObjectStore(tmp_path.as_uri() + "/new"))
    found, _ = source.digests(source.spans())
    assert {partition.folder for partition in found} == {"p225", "p225/listening_page"}


# --- the audio ------------------------------------------------------------------------------------------


def test_copies_are_of_the_version_in_the_table(place: Place):
    table = table_of(place)
    for key in ("p225/a.flac", "p225/changed.flac", "p225/c.txt"):
        place.put(key, flac(seed=len(key)))
    now = {info.key: info for _, page in place.store.scan() for info in page}
    same = now["p225/a.flac"]
    write(
        table,
        at("p225"),
        row(same.key, ETag=same.etag, Size=same.size, LastModified=same.last_modified),
        row("p225/c.txt", ETag=now["p225/c.txt"].etag, Size=now["p225/c.txt"].size, status="not_flac"),
        row("p225/changed.flac", ETag="another", Size=now["p225/changed.flac"].size),
        row("p225/gone.flac", ETag="another", Size=3),
    )
    made = make_page(table, place.store, place.store, "page/")
    meta = meta_of(place.store)
    _, found = arguments(body_of(place.store, meta["chunks"][0]["texts"]))
    name = copy_name(same.key, same.etag)
    assert dict(zip(found["Key"], found["clip"], strict=True)) == {
        same.key: name,
        "p225/c.txt": None,
        "p225/changed.flac": None,
        "p225/gone.flac": None,
    }
    assert (made.clips, meta["audio"]) == (1, {"kind": "copy", "url": None})
    said, body = arguments(body_of(place.store, f"clips/{name}.js"))
    assert (said, base64.b64decode(body)) == (name, flac(seed=len(same.key)))


@pytest.mark.parametrize(
    ("source", "page", "url"),
    [
        ("file:///data/wavs", "file:///data/wavs/tables/listening_page", "../.."),
        ("file:///data/wavs", "file:///home/me/page", "../../../data/wavs"),
        ("file:///data/my%20wavs", "file:///data/page", "../my%20wavs"),
        ("s3://a/wavs 1", "s3://a/tables/page", "../../wavs%201"),
        ("s3://a", "s3://a/tables/page", "../.."),
        ("s3://a/wavs", "s3://b/page", None),
        ("s3://a/wavs", "file:///home/me/page", None),
    ],
)
def test_a_page_links_to_audio_by_the_way_from_where_it_lies(source: str, page: str, url: str | None):
    assert audio_url(source, page) == url
    assert audio_url(source, page, "https://audio.example.com/wavs/") == "https://audio.example.com/wavs"


# --- the asset ------------------------------------------------------------------------------------------


def materialize(project: Project) -> dg.ExecuteInProcessResult:
    return project.repository.get_implicit_global_asset_job_def().execute_in_process(
        instance=project.instance, asset_selection=[dg.AssetKey("listening_page")], raise_on_error=False
    )


def test_the_asset_makes_the_page_beside_the_tables(project: Project, monkeypatch: pytest.MonkeyPatch):
    failed = materialize(project)
    assert not failed.success
    project.place.put("p225/a.flac", flac())
    write(table_of(project.place), at("p225"), row("p225/a.flac", **HEARD))
    monkeypatch.setenv("LISTENING_PAGE_URL", "https://page.example.com")
    result = materialize(project)
    assert result.success
    [event] = result.asset_materializations_for_node("listening_page")
    assert event.metadata["dagster/row_count"].value == 1
    assert event.metadata["page"].value == "https://page.example.com/index.html"
    found = project.place.store.read_latest("output_parquet/listening_page/index.html")
    assert found
    assert GENERATOR in found[0]
    # Neither the sensor nor its runs know of it.
    assert all("listening" not in key for key in project.partition_keys)
    assert project.tick() == [] or "listening" not in "".join(project.partition_keys)
