"""A slice of the table -> the files of a page.

What holds rows is written as it is read, so that memory is bounded by a batch of partitions and by a few
numbers for each row. How each file looks is in `columns`, `clips` and `static/`.
"""

import dataclasses
import datetime as dt
import html
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from audio_assets.listening import clips
from audio_assets.listening.columns import Dictionaries, numbers_script, script, texts_script
from audio_assets.listening.publish import GENERATOR, INDEX, Publisher
from audio_assets.listening.selection import Selection, Slice
from audio_assets.storage import ObjectStore
from audio_assets.table import Table

STATIC = pathlib.Path(__file__).with_name("static")
SCRIPTS = (
    "store",
    "format",
    "search",
    "filters",
    "heatmap",
    "histograms",
    "list",
    "spectrum",
    "player",
    "main",
)
"""The scripts of the page, in the order in which it loads them."""
STYLES = ("page",)

ROWS_IN_A_CHUNK = 20_000
VERSION = 1
"""Of the schema of the data."""

AUTO = "auto"
COPY = "copy"
LINK = "link"
NO_AUDIO = "none"
AUDIO = (AUTO, COPY, LINK, NO_AUDIO)
"""How a page comes to its audio: `auto` copies what is small enough, and links to the objects otherwise."""
COPIED_BYTES = 100_000_000
"""How much audio a page copies without being told to."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What a page holds.

    Attributes:
        rows: that it shows.
        total: rows of the slice.
        clips: copies of audio.
        files: of the page.
        size: bytes of all files.
        audio: `copy`, `link` or `none`.
    """

    rows: int
    total: int
    clips: int
    files: int
    size: int
    audio: str


def make_page(
    table: Table,
    source: ObjectStore,
    store: ObjectStore,
    folder: str = "",
    wanted: Slice | None = None,
    *,
    audio: str = AUTO,
    served_at: str = "",
    looked: Callable[[int, int], None] = lambda rows, total: None,
) -> Made:
    """Make the listening page of a slice of `audio_table`, or replace it.

    Args:
        source: where the audio lies.
        store: where the page goes.
        folder: of the page in the store, empty or with `/` at its end.
        wanted: None for all of the table.
        audio: one of `AUDIO`. Where nothing can be linked to, `link` gives a page without audio.
        served_at: the address at which browsers find the source, empty where nobody serves it.
        looked: told how many rows were read, and of how many.

    Raises:
        ValueError: the slice has no rows, or another page lies there.
        StorageError: something cannot be read or written.
        ConflictError: another run made the same page meanwhile.
    """
    publisher = Publisher(store, folder)
    selection = Selection(table, wanted or Slice())
    if audio == AUTO:
        audio = COPY if selection.audio_bytes <= COPIED_BYTES else LINK
    dictionaries = Dictionaries()
    chunks: list[dict[str, Any]] = []
    copied = 0
    for rows in _chunks(selection.batches(lambda n: looked(n, selection.total))):
        names: list[str | None] = [None] * len(rows)
        if audio == COPY:
            names = list(_copy(publisher, source, rows))
        copied += sum(name is not None for name in names)
        chunks.append(_add_chunk(publisher, len(chunks), rows, names, dictionaries))
    page_uri = f"{store.uri}/{folder}".rstrip("/")
    url = clips.audio_url(source.uri, page_uri, served_at) if audio == LINK else None
    if audio == LINK and url is None:
        audio = NO_AUDIO
    meta = {
        "version": VERSION,
        "table": table.name,
        "made": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "slice": _in_words(wanted or Slice()),
        "rows": selection.shown,
        "total": selection.total,
        "chunks": chunks,
        "dictionaries": dictionaries.lists,
        "coverage": [[*at, *counts] for at, counts in sorted(selection.coverage.items())],
        "audio": {"kind": audio, "url": url},
    }
    data = publisher.add("data/meta.js", script("meta", meta))
    publisher.finish(_index(publisher, data, url))
    return Made(selection.shown, selection.total, copied, publisher.files, publisher.size, audio)


def _add_chunk(
    publisher: Publisher, i: int, rows: pa.Table, copied: list[str | None], dictionaries: Dictionaries
) -> dict[str, Any]:
    """Write the data of some rows; gives what the page is told of it."""
    return {
        "rows": len(rows),
        "numbers": publisher.add(f"data/numbers-{i:04}.js", numbers_script(i, rows, dictionaries)),
        "texts": publisher.add(f"data/texts-{i:04}.js", texts_script(i, rows, copied)),
    }


def _chunks(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of `ROWS_IN_A_CHUNK`, the last one shorter."""
    held: list[pa.Table] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += len(batch)
        while count >= ROWS_IN_A_CHUNK:
            rows = pa.concat_tables(held)
            yield rows.slice(0, ROWS_IN_A_CHUNK)
            held = [rows.slice(ROWS_IN_A_CHUNK)]
            count -= ROWS_IN_A_CHUNK
    if count:
        yield pa.concat_tables(held)


def _copy(publisher: Publisher, source: ObjectStore, rows: pa.Table) -> Iterator[str | None]:
    for name, body in clips.copies(source, rows):
        if name is not None:
            publisher.add_named(f"clips/{name}.js", body)
        yield name


def _in_words(wanted: Slice) -> dict[str, str | None]:
    moments = {"start": wanted.start, "end": wanted.end}
    return {"folder": wanted.folder} | {
        name: None if moment is None else moment.isoformat() for name, moment in moments.items()
    }


def _index(publisher: Publisher, data: str, url: str | None) -> bytes:
    """The page, which names its scripts by their content, and allows itself nothing else."""
    styles = [publisher.add(f"static/{name}.css", _static(f"{name}.css")) for name in STYLES]
    scripts = [publisher.add(f"static/{name}.js", _static(f"{name}.js")) for name in SCRIPTS]
    links = [f'<link rel="stylesheet" href="{path}">' for path in styles]
    tags = [f'<script src="{path}" defer></script>' for path in (*scripts, data)]
    parts: dict[bytes, Any] = {
        b"<!-- policy -->": _policy(url),
        b"<!-- generator -->": GENERATOR.decode(),
        b"<!-- styles -->": "\n".join(links),
        b"<!-- scripts -->": "\n".join(tags),
    }
    body = _static(INDEX)
    for mark, text in parts.items():
        body = body.replace(mark, text.encode())
    return body


def _policy(url: str | None) -> str:
    """Content-Security-Policy: scripts and styles of the page itself, audio from where it is linked to."""
    parsed = urllib.parse.urlsplit(url or "")
    host = f" {parsed.scheme}://{parsed.netloc}" if parsed.scheme in ("http", "https") else ""
    rules = [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        f"media-src 'self' blob: file:{host}",
        f"connect-src 'self'{host}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    said = html.escape("; ".join(rules), quote=True)
    return f'<meta http-equiv="Content-Security-Policy" content="{said}">'


def _static(name: str) -> bytes:
    return (STATIC / name).read_bytes()
