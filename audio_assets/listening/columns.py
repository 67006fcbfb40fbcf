"""Rows -> typed columns as scripts: the exact schema of a page's data.

A page opened from a disk may load scripts and nothing else, so that each file of data is one call of a
function of the page. Its argument is JSON in which nothing can end the script or start another.

    data/numbers-….js   listeningPage.numbers(i, {rows, columns: {name: base64}})
    data/texts-….js     listeningPage.texts(i, {Key: […], transcribed_text: […], error: […], clip: […]})
    data/meta-….js      listeningPage.meta({…}), as `page.make_page` fills it

`NUMBERS` and `CODES` give the columns and their types. An array of `rows` values lies in little-endian bytes.
NaN stands for null in floats. A code is an index into the list of that name in `dictionaries`; the largest
value of its type stands for null. `clip` is the name of the audio's copy, null where there is none.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = (
    *("Key", "ETag", "Size", "LastModified", "FolderName", "transcribed_text", "language", "avg_logprob"),
    *("no_speech_prob", "compression_ratio", "temperature", "duration_s", "sample_rate_hz", "channels"),
    *("whisper_model", "tokeniser", "status", "error"),
)
"""What a page needs of `audio_table`: everything but the tokens."""

NUMBERS: dict[str, str] = {
    "LastModified": "<f8",
    "Size": "<f8",
    "duration_s": "<f4",
    "avg_logprob": "<f4",
    "no_speech_prob": "<f4",
    "compression_ratio": "<f4",
    "temperature": "<f4",
    "sample_rate_hz": "<f4",
    "channels": "<f4",
    "characters": "<f4",
}
"""Column -> NumPy type. LastModified is in milliseconds since 1970, UTC; characters are those of the text."""

CODES: dict[str, str] = {
    "FolderName": "<u4",
    "status": "<u1",
    "language": "<u2",
    "whisper_model": "<u2",
    "tokeniser": "<u2",
}
"""Column of texts that repeat -> NumPy type of the codes that stand for them."""


class Dictionaries:
    """The lists that codes point into, growing as rows come."""

    def __init__(self) -> None:
        self._codes: dict[str, dict[str, int]] = {name: {} for name in CODES}

    @property
    def lists(self) -> dict[str, list[str]]:
        return {name: list(codes) for name, codes in self._codes.items()}

    def encode(self, name: str, values: pa.ChunkedArray) -> np.ndarray:
        """The codes of some values.

        Raises:
            ValueError: there are more different values than the codes' type holds.
        """
        codes = self._codes[name]
        kind = np.dtype(CODES[name])
        none = np.iinfo(kind).max
        encoded = values.combine_chunks().dictionary_encode()
        found = [codes.setdefault(text, len(codes)) for text in encoded.dictionary.to_pylist()]
        if len(codes) > none:
            raise ValueError(f"a page holds at most {none:,} values of {name}, and this slice has more")
        at = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
        return np.array([*found, none], kind)[at]


def numbers_script(i: int, rows: pa.Table, dictionaries: Dictionaries) -> bytes:
    """The file of the numbers of chunk `i`.

    Args:
        rows: with `COLUMNS`.
    """
    arrays = {name: _numbers(name, rows).astype(kind) for name, kind in NUMBERS.items()}
    arrays |= {name: dictionaries.encode(name, rows[name]) for name in CODES}
    columns = {name: base64.b64encode(array.tobytes()).decode() for name, array in arrays.items()}
    return script("numbers", i, {"rows": len(rows), "columns": columns})


def texts_script(i: int, rows: pa.Table, clips: Sequence[str | None]) -> bytes:
    """The file of the texts of chunk `i`.

    Args:
        clips: the name of each row's copy, None where it has none.
    """
    texts = {name: rows[name].to_pylist() for name in ("Key", "transcribed_text", "error")}
    return script("texts", i, texts | {"clip": list(clips)})


def script(function: str, *arguments: Any) -> bytes:
    """A call of a function of the page, as a script that says nothing else.

    JSON is JavaScript but for `<`, which can begin `</script>` or `<!--`, and for U+2028 and U+2029, which
    end lines in older browsers.
    """
    said = ",".join(json.dumps(a, ensure_ascii=False, separators=(",", ":")) for a in arguments)
    for sign in ("<", "\u2028", "\u2029"):
        said = said.replace(sign, f"\\u{ord(sign):04x}")
    return f"listeningPage.{function}({said})\n".encode()


def _numbers(name: str, rows: pa.Table) -> np.ndarray:
    """A column as float64, NaN for null."""
    if name == "characters":
        trimmed = pc.call_function("utf8_trim_whitespace", [rows["transcribed_text"]])
        values = pc.call_function("utf8_length", [trimmed])
    elif name == "LastModified":
        values = rows[name].cast(pa.int64())
    else:
        values = rows[name]
    return values.cast(pa.float64()).fill_null(np.nan).to_numpy()
