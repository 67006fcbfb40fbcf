"""What made the rows of a partition, and which of them today's settings would make otherwise: stale rows.

There is one rule, for a row and for what is recorded of a partition. Who asks for stale rows, counts them or
refuses them goes by it: the sensor, the asset checks, the jobs, the runs, `audio-assets status`. What today's
settings are is said in `defs/producers.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import pyarrow as pa

from audio_assets.audio import decoder_of
from audio_assets.record import PartitionRecord
from audio_assets.schema import NOT_FLAC

UNNAMED = ""
"""Stands for what made rows of audio that do not say it."""

COLUMNS = ["Key", "status", "whisper_model", "tokeniser"]
"""The columns of `audio_table` that tell whether a row is stale."""


@dataclasses.dataclass(frozen=True)
class Producers:
    """Tells rows that today's settings would make from others.

    A row of audio is stale if another model or tokeniser made it, or if it does not say what made it. A row
    without audio is stale if there is a decoder of its suffix by now.

    Attributes:
        is_current_model: of a value of the column `whisper_model`; None compares none.
        is_current_tokeniser: of a value of the column `tokeniser`; None compares none.
    """

    is_current_model: Callable[[str], bool] | None
    is_current_tokeniser: Callable[[str], bool] | None

    def cached(self) -> "Producers":
        """The same for many rows: each value is compared once."""
        return Producers(
            self.is_current_model and functools.cache(self.is_current_model),
            self.is_current_tokeniser and functools.cache(self.is_current_tokeniser),
        )

    def made_by_model(self, name: str | None) -> bool:
        """Whether this value of the column `whisper_model` is today's."""
        return _holds(self.is_current_model, name)

    def made_by_tokeniser(self, name: str | None) -> bool:
        """Whether this value of the column `tokeniser` is today's."""
        return _holds(self.is_current_tokeniser, name)

    def stale_rows(self, rows: pa.Table) -> int:
        """How many of some rows are stale.

        Args:
            rows: with COLUMNS at the least.
        """
        return sum(map(self._is_stale, *(rows[name].to_pylist() for name in COLUMNS)))

    def _is_stale(self, key: str, status: str, model: str | None, tokeniser: str | None) -> bool:
        if status == NOT_FLAC:
            return has_decoder(key)
        return not (self.made_by_model(model) and self.made_by_tokeniser(tokeniser))

    def stale_rows_of(self, record: PartitionRecord) -> int:
        """How many rows of a partition are stale, at the least; 0 only if none is.

        A record does not say which rows of one model are of one tokeniser. One of an earlier version does not
        say which suffixes there are, and is taken to have none that matters.
        """
        models, tokenisers = made_by(record)
        return max(
            sum(rows for name, rows in models.items() if not self.made_by_model(name)),
            sum(rows for name, rows in tokenisers.items() if not self.made_by_tokeniser(name)),
        ) + decodable(record.suffixes)


def stale_partitions(records: Mapping[str, PartitionRecord], producers: Producers) -> dict[str, int]:
    """The partitions that hold stale rows, and how many at the least, in the order of `records`."""
    cached = producers.cached()
    found = {key: cached.stale_rows_of(record) for key, record in records.items()}
    return {key: rows for key, rows in found.items() if rows}


def made_by(record: PartitionRecord) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Rows by `whisper_model` and by `tokeniser`; those of audio that do not say it as UNNAMED."""
    audio = record.ok + record.failed
    return _with_unnamed(record.whisper_models, audio), _with_unnamed(record.tokenisers, audio)


def decodable(suffixes: Mapping[str, int]) -> int:
    """How many rows without audio are of a suffix that has a decoder by now."""
    return sum(rows for suffix, rows in suffixes.items() if has_decoder(suffix))


def has_decoder(key: str) -> bool:
    return decoder_of(key) is not None


def _holds(is_current: Callable[[str], bool] | None, name: str | None) -> bool:
    return is_current is None or (bool(name) and is_current(name or ""))


def _with_unnamed(counts: Mapping[str, int], rows: int) -> Mapping[str, int]:
    unnamed = rows - sum(counts.values())
    return {**counts, UNNAMED: unnamed} if unnamed > 0 else counts
