"""The documentation is held to the code: modules, columns, checks, snippets, commands, links and figures."""

import dataclasses
import importlib
import importlib.util
import io
import json
import pathlib
import re
import sys
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import soundfile

import audio_assets.audio
import audio_assets.storage
from audio_assets import read_table
from audio_assets.daily_compaction import compact
from audio_assets.defs.checks import audio_table_checks
from audio_assets.demo.make_checkpoint import CHECKPOINT
from audio_assets.partitions import FolderMinute
from audio_assets.read import daily_copy
from audio_assets.schema import AUDIO_TABLE, DAY_COLUMN, NOT_FLAC, of_day, with_partition_columns
from audio_assets.shards import Selection, export_manifests
from audio_assets.shards.columns import SCHEMA
from audio_assets.shards.manifests import LHOTSE
from audio_assets.storage import ObjectStore
from audio_assets.table import Snapshot, Table
from audio_assets.tokenisation import load_tokeniser
from audio_assets_tests.support.audio import MINUTE
from audio_assets_tests.support.codecs import make_codec
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.rows import at, row, write
from audio_assets_tests.support.training import Corpus, keys_of
from benchmarks import include

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "audio_assets"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "AGENTS.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "deploy" / "README.md",
    ROOT / "fuzz" / "README.md",
]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
BY_HAND = 9
"""How many tables of figures are marked `<!-- figures by hand: why -->`."""


def name_of(document: pathlib.Path) -> str:
    return str(document.relative_to(ROOT))


all_documents = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


@pytest.fixture
def place(local_place: LocalPlace) -> LocalPlace:
    """Documentation is tried on a local folder only."""
    return local_place


@dataclasses.dataclass(frozen=True)
class Snippet:
    """A fenced block of a document."""

    document: pathlib.Path
    text: str

    def __str__(self) -> str:
        first = self.text.strip().splitlines()[0]
        return f"{name_of(self.document)}: {first}"


def snippets(language: str) -> list[Snippet]:
    block = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
    return [
        Snippet(document, text)
        for document in DOCUMENTS
        for found, text in block.findall(document.read_text())
        if found == language
    ]


def prose(document: pathlib.Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)


def rows_below(document: pathlib.Path, head: str) -> list[list[str]]:
    """The cells of the Markdown tables with this head."""
    lines = iter(document.read_text().splitlines())
    rows = []
    for line in lines:
        if line == head:
            next(lines)
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]])
    assert rows, f"{name_of(document)} has no table {head}"
    return rows


# --- the map --------------------------------------------------------------------------------------------


def modules_of(folder: pathlib.Path) -> set[str]:
    """Modules right in a package, and packages in it as `name/`."""
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    return files | {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}


def mapped_by(package: pathlib.Path) -> list[str]:
    """The modules that the docstring of a package lists, in lines such as `name.py   what it does`."""
    name = ".".join(package.relative_to(ROOT).parts)
    docstring = importlib.import_module(name).__doc__ or ""
    return re.findall(r"^ *(\w+(?:\.py|/)) {2,}\S", docstring, re.MULTILINE)


def test_every_module_of_the_package_stands_in_the_map_of_architecture_md() -> None:
    listed = [
        row[0].strip("`") for row in rows_below(ROOT / "docs" / "architecture.md", "| file | what it does |")
    ]

    assert sorted(listed) == sorted(modules_of(PACKAGE))


@pytest.mark.parametrize(
    "package",
    [path.parent for path in sorted(PACKAGE.rglob("__init__.py")) if path.parent != PACKAGE],
    ids=name_of,
)
def test_every_module_of_a_room_stands_in_the_map_of_its_docstring(package: pathlib.Path) -> None:
    assert sorted(mapped_by(package)) == sorted(modules_of(package))


# --- the table ------------------------------------------------------------------------------------------


def types_in_words(cell: str, columns: int) -> list[str]:
    """`string, float32 × 4` -> one word for each column; a single type is that of all."""
    words = []
    for part in re.split(r", (?![^\[<]*[\]>])", cell):
        kind, _, times = part.partition(" × ")
        words += [kind] * int(times or 1)
    return words * columns if len(words) == 1 else words


def test_readme_lists_every_column_of_the_table_with_its_type() -> None:
    documented = {}
    for names, kinds, _ in rows_below(ROOT / "README.md", "| column | type | meaning |"):
        columns = re.findall(r"`(\w+)`", names)
        documented |= dict(zip(columns, types_in_words(kinds, len(columns)), strict=True))
    fields = with_partition_columns(AUDIO_TABLE)

    assert documented == {field.name: in_words(field.type) for field in fields}


def in_words(kind: pa.DataType) -> str:
    words = {
        "float": "float32",
        "double": "float64",
        "date32[day]": "date32",
        "timestamp[ms, tz=UTC]": "timestamp[ms, UTC]",
    }
    return words.get(str(kind), re.sub(r"list<(element|item): ", "list<", str(kind)))


def test_every_asset_check_is_listed() -> None:
    listed = [row[0].strip("`") for row in rows_below(ROOT / "docs" / "table.md", "| check | what it says |")]

    assert sorted(listed) == sorted(spec.name for spec in audio_table_checks.check_specs)


def test_every_asset_job_and_sensor_is_named(project: Project) -> None:
    said = "".join(prose(document) for document in DOCUMENTS)
    repository = project.repository
    names = [
        *(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()),
        *(name for name in repository.job_names if not name.startswith("__")),
        *(sensor.name for sensor in repository.sensor_defs),
    ]

    assert [name for name in names if f"`{name}`" not in said] == []


# --- snippets -------------------------------------------------------------------------------------------


@pytest.fixture
def table_path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where an `audio_table` of one row lies, beside its daily copy; the settings name it."""
    monkeypatch.setenv("AUDIO_TABLE_URI", tmp_path.as_uri())
    values = {"Key": "p225/a.txt", "ETag": "1", "Size": 1, "LastModified": MINUTE, "status": NOT_FLAC}
    row = {name: values.get(name) for name in AUDIO_TABLE.names}
    table = Table(ObjectStore(tmp_path.as_uri()), "audio_table", AUDIO_TABLE)
    table.replace(
        FolderMinute("p225", MINUTE), pa.Table.from_pylist([row], AUDIO_TABLE), Snapshot(None, None)
    )
    compact(daily_copy(table), table, MINUTE.date(), table.partitions)
    assert len(read_table()) == 1
    return str(tmp_path / "audio_table")


@pytest.mark.parametrize(
    "document", sorted({s.document for s in snippets("python")} - {CONTRIBUTING}), ids=name_of
)
def test_python_snippets_run(document: pathlib.Path, table_path: str, place: LocalPlace) -> None:
    """Those of a document run one after another, as a reader tries them; all models are the demo's here."""
    names = {"path": table_path, "daily_path": f"{table_path}_daily", "audio": np.zeros(8_000, np.float32)}
    if document.name == "training.md":
        names |= data_sets(place)
    if document.name == "tokens.md":
        add_tokens_of_a_codec(pathlib.Path(table_path).parent)
    for snippet in snippets("python"):
        if snippet.document == document:
            exec(re.sub(r'"(tiny|small)"', f'"{CHECKPOINT}"', snippet.text), names)


def add_tokens_of_a_codec(tables: pathlib.Path) -> None:
    tokeniser = load_tokeniser(make_codec("encodec", tables / "encodec"))
    assert tokeniser.token_format
    made = tokeniser(np.zeros(24_000, np.float32), "")
    rows = [row("p226/a.flac", tokenized_info=made, duration_s=1.0, **tokeniser.token_format.values())]
    table = Table(ObjectStore(tables.as_uri()), "audio_table", AUDIO_TABLE)
    write(table, FolderMinute("p226", MINUTE), *rows)


def data_sets(place: LocalPlace) -> dict[str, object]:
    """Shards of 60 clips in many row groups, and Lhotse's manifests of them: what training.md calls them."""
    corpus = Corpus(place, file_bytes=50_000, row_group_bytes=8_000)
    corpus.put(at("p1"), *keys_of("p1", 40))
    corpus.put(at("p2", 1440), *keys_of("p2", 20))
    corpus.export()
    manifests = ObjectStore(f"{place.uri}/cuts")
    export_manifests(corpus.table, manifests, place.uri, LHOTSE, Selection(), corpus.splits)
    shards = place.folder / corpus.files.folder
    return {"shards": str(shards), "manifests": str(place.folder / "cuts")}


@pytest.mark.parametrize("snippet", snippets("sql"), ids=str)
def test_sql_snippets_run(snippet: Snippet, table_path: str) -> None:
    query = snippet.text.replace("demo_bucket/output_parquet/audio_table", table_path)
    assert query != snippet.text

    assert len(duckdb.connect().execute(query).fetchall()) == 1


def test_training_md_lists_every_column_of_a_shard_with_its_type() -> None:
    documented = {}
    for names, kinds, _ in rows_below(ROOT / "docs" / "training.md", "| column | type | meaning |"):
        columns = re.findall(r"`(\w+)`", names)
        one = [kinds] if kinds.startswith("struct") else types_in_words(kinds, len(columns))
        documented |= dict(zip(columns, one, strict=True))

    assert documented == {field.name: in_words(field.type) for field in SCHEMA}


def test_the_ddl_of_athena_names_every_column_of_a_shard() -> None:
    [snippet] = [
        snippet for snippet in snippets("hiveql") if "EXTERNAL TABLE training_shards" in snippet.text
    ]

    assert re.findall(r"^  (\w+) [a-z<>:,]+?,?$", snippet.text, re.MULTILINE) == SCHEMA.names


def test_the_ddl_of_athena_names_every_column_of_a_day_with_its_type() -> None:
    kinds = {
        **{"string": "string", "bigint": "int64", "int": "int32", "smallint": "int16", "float": "float"},
        **{
            "double": "double",
            "timestamp": "timestamp[ms, tz=UTC]",
            "array<smallint>": "list<element: int16>",
            "array<string>": "list<element: string>",
            "array<struct<start_s:double,end_s:double,text:string>>": (
                "list<element: struct<start_s: double, end_s: double, text: string>>"
            ),
        },
    }
    snippet = next(snippet for snippet in snippets("hiveql") if "projection" in snippet.text)
    said = re.findall(r"^  (\w+) ([a-z_:,<>]+?),?$", snippet.text, re.MULTILINE)
    columns = [(field.name, str(field.type).replace("item:", "element:")) for field in of_day(AUDIO_TABLE)]

    assert [(name, kinds[kind]) for name, kind in said] == columns
    assert f"PARTITIONED BY ({DAY_COLUMN} date)" in snippet.text


@pytest.mark.parametrize("snippet", snippets("json"), ids=str)
def test_json_snippets_are_json(snippet: Snippet) -> None:
    said = json.loads(snippet.text)
    if snippet.document.name == "training.md":
        assert Selection.parse(said).columns


@pytest.fixture
def registries() -> Iterator[None]:
    """Forgets what a module of one's own has registered."""
    decoders = dict(audio_assets.audio.DECODERS)
    backends = dict(audio_assets.storage.BACKENDS)
    yield
    audio_assets.audio.DECODERS.clear()
    audio_assets.audio.DECODERS.update(decoders)
    audio_assets.storage.BACKENDS.clear()
    audio_assets.storage.BACKENDS.update(backends)


@pytest.mark.usefixtures("registries")
def test_the_examples_of_contributing_md_extend_the_pipeline_from_a_module_of_ones_own(
    project: Project, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store, a format, a tokeniser and a recogniser at once, without a change of the package."""
    examples = [s.text for s in snippets("python") if s.document == CONTRIBUTING]
    (tmp_path / "own_audio.py").write_text("\n".join(examples).replace("file:///mnt", tmp_path.as_uri()))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "own_audio", None)
    monkeypatch.delitem(sys.modules, "own_audio")
    monkeypatch.setenv("AUDIO_SOURCE_URI", "share://music/aiffs")
    monkeypatch.setenv("TOKENISER", "own_audio:Loudness")
    place = LocalPlace(tmp_path / "music" / "aiffs")
    speech = io.BytesIO()
    soundfile.write(speech, np.full((8_000, 2), 0.5), 8_000, format="AIFF")
    place.put("p225/a.aiff", speech.getvalue())
    place.put("p225/broken.aiff", b"FORM")

    project.repository = importlib.import_module("own_audio").defs.get_repository_def()
    project.catch_up()

    rows = read_table().set_index("Key")
    assert rows["status"].to_dict() == {"p225/a.aiff": "ok", "p225/broken.aiff": "failed"}
    assert "not an AIFF that can be read" in rows.loc["p225/broken.aiff", "error"]
    row = rows.loc["p225/a.aiff"]
    assert (row["transcribed_text"], row["whisper_model"]) == ("", "silent 1")
    assert row["tokeniser"] == "own_audio:Loudness loudness 1"
    assert (row["duration_s"], row["sample_rate_hz"], row["channels"]) == (1.0, 8_000, 2)
    assert list(row["tokenized_info"])[1:9] == [500] * 8


# --- commands and files ---------------------------------------------------------------------------------

OWN = ("audio_assets", "audio_assets_tests", "benchmarks", "deploy", "docs", "fuzz")
"""Folders of the repository whose files the documentation may name."""
MADE_BY_HAND = {"deploy/.env"}
"""What a reader is told to make, and git ignores."""


def commands() -> list[tuple[str, str]]:
    """(document, command line): those of fenced `sh` blocks, and those in backticks."""
    lines = [
        (name_of(snippet.document), line.partition("#")[0].strip())
        for snippet in snippets("sh")
        for line in snippet.text.splitlines()
    ]
    for document in DOCUMENTS:
        lines += [(name_of(document), code) for code in re.findall(r"`([^`\n]+)`", prose(document))]
    return [(document, line) for document, line in lines if line]


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {(d, t) for d, line in commands() for t in re.findall(r"^make (\w+)$", line)}

    assert {target for _, target in named} >= {"demo", "dev", "test", "bench"}
    assert [(d, t) for d, t in sorted(named) if t not in targets] == []


def test_every_module_that_a_command_runs_exists_and_takes_the_options_that_are_named() -> None:
    found = 0
    for document, line in commands():
        for module, options in re.findall(r"python3? -m ([\w.]+)(.*)", line):
            if module.partition(".")[0] not in OWN:
                continue
            spec = importlib.util.find_spec(module)
            assert spec is not None, f"{document}: {line}"
            source = pathlib.Path(spec.origin or "").read_text()
            wrong = [option for option in re.findall(r"--[\w-]+", options) if f'"{option}"' not in source]
            assert wrong == [], f"{document}: {line}"
            found += 1
    assert found > 10


def test_every_file_that_is_named_exists() -> None:
    own = re.compile(rf"(?<![\w./<>-])(?:{'|'.join(OWN)})/[\w./-]*\w")
    # The changelog also names what is gone.
    lines = [(document, line) for document, line in commands() if document != "CHANGELOG.md"]
    named = {(document, path) for document, line in lines for path in own.findall(line)}
    named = {(document, path) for document, path in named if path not in MADE_BY_HAND}
    missing = [(document, path) for document, path in sorted(named) if not (ROOT / path).exists()]

    assert len(named) > 20
    assert missing == []


def test_every_test_file_that_is_named_exists() -> None:
    tests = ROOT / "audio_assets_tests"
    there = {str(path.relative_to(tests)) for path in tests.rglob("test_*.py")}
    named = {
        (name_of(document), name.removeprefix("audio_assets_tests/"))
        for document in DOCUMENTS
        for name in re.findall(r"[\w/]*\btest_\w+\.py", document.read_text())
    }

    assert len(named) > 10
    assert [(document, name) for document, name in sorted(named) if name not in there] == []


def anchors(document: pathlib.Path) -> set[str]:
    """The headings of a document as GitHub makes them anchors."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@all_documents
def test_links_lead_somewhere(document: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


# --- figures --------------------------------------------------------------------------------------------


@all_documents
def test_figures_are_those_of_the_benchmarks(document: pathlib.Path) -> None:
    """Where this fails, run `python -m benchmarks.include`."""
    assert include.with_figures(document.read_text()) == document.read_text()


def test_every_table_of_figures_is_included_somewhere() -> None:
    text = "".join(document.read_text() for document in include.documents())
    included = re.findall(r"<!-- include: (\w+) -->", text)

    assert sorted(included) == sorted(include.INCLUDES)


def test_every_figure_says_how_it_was_measured_and_is_included_somewhere() -> None:
    figures = include.results_of("figures")
    text = "".join(document.read_text() for document in include.documents())
    assert sorted(re.findall(r"<!-- figure: (\w+) -->", text)) == sorted(figures)
    assert all(figure["how"] for figure in figures.values())


def test_a_table_of_figures_is_included_or_says_why_not() -> None:
    by_hand = re.compile(r"<!-- figures by hand: [^>]+ -->\n\n(?:\|.*\n)+")
    marked = 0
    loose = []
    for document in include.documents():
        text = include.BLOCK.sub("", document.read_text())
        marked += len(by_hand.findall(text))
        for table in re.findall(r"(?:^\|.*\n)+", by_hand.sub("", text), re.MULTILINE):
            cells = [cell.strip(" *") for line in table.splitlines()[2:] for cell in line.split("|")[2:-1]]
            measured = [cell for cell in cells if re.match(r"\d[\d,.]*( ?%| k?M?G?B| m?s|$)", cell)]
            if len(measured) > len(cells) / 4:
                loose.append((name_of(document), table.splitlines()[0]))

    assert loose == []
    assert marked == BY_HAND
