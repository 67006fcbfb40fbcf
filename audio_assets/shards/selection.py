"""Which rows of `audio_table` go into a data set, and what is counted of those that do not.

Each row is refused by the first rule that it breaks, so that the counts add up.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audio_assets import schema
from audio_assets.errors import ArgumentError
from audio_assets.read import Term, condition

LARGEST_OBJECT = 100_000_000
"""Bytes of an object beyond which it is left out: it fills a row group, which readers hold as a whole."""

COLUMNS = schema.with_partition_columns(schema.AUDIO_TABLE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """A rule for rows. Rows of another status than `ok` are never taken, and a null breaks each limit.

    Attributes:
        min_avg_logprob: the least `avg_logprob`; None for any.
        min_duration_s: of the audio, in seconds; None for any.
        max_duration_s: likewise.
        languages: codes in `language`; empty for all.
        folders: values of `FolderName`; empty for all.
        filter: as `read_table` takes it, as tuples alone; empty for none.

    Raises:
        ArgumentError: `filter` does not fit the columns.
    """

    min_avg_logprob: float | None = None
    min_duration_s: float | None = None
    max_duration_s: float | None = None
    languages: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    filter: tuple[Term, ...] | tuple[tuple[Term, ...], ...] = ()

    def __post_init__(self) -> None:
        try:
            condition(COLUMNS, self.filter)
        except ValueError as e:
            raise ArgumentError("filter", str(e).removeprefix("filter")) from None

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> "Selection":
        """The rule that an object of JSON says, such as `{"min_duration_s": 1, "languages": ["en"]}`.

        Raises:
            ArgumentError: it names an attribute that there is not, or gives one a value of another type.
        """
        values: dict[str, Any] = {}
        for name, value in said.items():
            if name not in _TYPES:
                raise ArgumentError(name, f" is no part of a selection; there are {', '.join(_TYPES)}")
            if not _TYPES[name](value):
                raise ArgumentError(name, f"={value!r} is not {_WORDS[name]}")
            values[name] = _as_tuples(value) if isinstance(value, list) else value
        return cls(**values)

    @functools.cached_property
    def columns(self) -> list[str]:
        """The columns of the table that have to be read for it."""
        rules = ["status", "avg_logprob", "duration_s", "language", "FolderName", "Size"]
        terms = self.filter if self.filter and isinstance(self.filter[0][0], str) else sum(self.filter, ())
        return list(dict.fromkeys([*rules, *(str(term[0]) for term in terms)]))

    def split(self, rows: pa.Table) -> tuple[pa.Table, "collections.Counter[str]"]:
        """The rows that are taken, and how many of the others broke which rule first.

        Args:
            rows: of `audio_table`, with `columns` at least.
        """
        left = np.ones(len(rows), bool)
        refused: collections.Counter[str] = collections.Counter()
        for reason, rule in self._rules():
            holds = _holds(rows, rule)
            if count := int((left & ~holds).sum()):
                refused[reason] += count
            left &= holds
        return rows.filter(pa.array(left)), refused

    def _rules(self) -> Iterator[tuple[str, pc.Expression]]:
        """Why a row is left out, and what holds of those that are not."""
        yield "status is not ok", pc.field("status") == schema.OK
        if self.folders:
            yield "another folder", pc.field("FolderName").isin(list(self.folders))
        if self.languages:
            yield "another language", pc.field("language").isin(list(self.languages))
        if self.min_duration_s is not None:
            shorter = f"shorter than {self.min_duration_s:g} s"
            yield shorter, pc.field("duration_s") >= self.min_duration_s
        if self.max_duration_s is not None:
            yield f"longer than {self.max_duration_s:g} s", pc.field("duration_s") <= self.max_duration_s
        if self.min_avg_logprob is not None:
            unsure = f"avg_logprob below {self.min_avg_logprob:g}"
            yield unsure, pc.field("avg_logprob") >= self.min_avg_logprob
        wanted = condition(COLUMNS, self.filter)
        if wanted is not None:
            yield "refused by the filter", wanted
        yield f"larger than {LARGEST_OBJECT // 10**6} MB", pc.field("Size") <= LARGEST_OBJECT


def _holds(rows: pa.Table, rule: pc.Expression) -> np.ndarray:
    """Whether it holds of each row. bool [rows]."""
    numbered = rows.append_column("row number", pa.array(np.arange(len(rows))))
    holds = np.zeros(len(rows), bool)
    holds[numbered.filter(rule)["row number"].to_numpy()] = True
    return holds


def _as_tuples(value: Sequence[Any]) -> tuple[Any, ...]:
    """Lists of JSON as tuples, which can be hashed; the list behind `in` as well."""
    return tuple(_as_tuples(one) if isinstance(one, list) else one for one in value)


def _is_term(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def _is_filter(value: object) -> bool:
    if not isinstance(value, list):
        return False
    alternatives = [value] if all(map(_is_term, value)) else value
    return all(isinstance(one, list) and one and all(map(_is_term, one)) for one in alternatives if one)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_TYPES = {
    "min_avg_logprob": _is_number,
    "min_duration_s": _is_number,
    "max_duration_s": _is_number,
    "languages": _is_texts,
    "folders": _is_texts,
    "filter": _is_filter,
}
_WORDS = {
    **dict.fromkeys(("min_avg_logprob", "min_duration_s", "max_duration_s"), "a number"),
    **dict.fromkeys(("languages", "folders"), "a list of texts"),
    "filter": 'a list such as [["duration_s", "<", 30]]',
}
