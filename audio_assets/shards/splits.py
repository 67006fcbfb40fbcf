"""Where a row goes: its split, its place in the order, its file. All by hashes, so that no row moves when
others come or go."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from audio_assets.errors import ArgumentError

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
SPLITS = (TRAIN, VALIDATION, TEST)
FOLDER = "folder"
KEY = "key"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """How rows are divided and shuffled.

    A row's split depends on its folder or key and on the two shares alone, never on the seed or other rows.

    Attributes:
        validation: the share of folders or keys that the validation split gets, about.
        test: likewise.
        by: `folder`, so that no speaker is in two splits where a folder is a speaker; or `key`.
        seed: of the order in which rows come.

    Raises:
        ArgumentError: a value is wrong.
    """

    validation: float = 0.02
    test: float = 0.02
    by: str = FOLDER
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            share = getattr(self, name)
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ArgumentError(name, f"={share!r} is no share between 0 and 1")
        if self.validation + self.test > 1:
            raise ArgumentError("validation", f"={self.validation} and test={self.test} are more than all")
        if self.by not in (FOLDER, KEY):
            raise ArgumentError("by", f"={self.by!r} is neither {FOLDER} nor {KEY}")
        if not isinstance(self.seed, int):
            raise ArgumentError("seed", f"={self.seed!r} is not a whole number")

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> "Splits":
        """What an object of JSON says, such as `{"validation": 0.1, "by": "key"}`.

        Raises:
            ArgumentError: it names what there is not, or a value is wrong.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in said:
            if name not in known:
                raise ArgumentError(name, f" is no part of the splits; there are {', '.join(known)}")
        return cls(**said)

    def of(self, folder: str, key: str) -> str:
        """The split of a row: one of `SPLITS`."""
        at = _hash(f"split\0{folder if self.by == FOLDER else key}") / 2**64
        if at < self.test:
            return TEST
        return VALIDATION if at < self.test + self.validation else TRAIN

    def order(self, keys: list[str]) -> np.ndarray:
        """The order in which the rows of a file come, as indices. int64 [rows]."""
        ranks = [(_hash(f"order\0{self.seed}\0{key}"), key) for key in keys]
        return np.array(sorted(range(len(keys)), key=ranks.__getitem__), np.int64)


def file_of(key: str, files: int) -> int:
    """The number of the file of a row's split that the row is in, of so many."""
    return _hash(f"file\0{key}") * files >> 64


def files_for(size: int, largest: int) -> int:
    """Into how many files rows of one split and day are divided: a power of 2.

    So the number changes rarely as a day grows, and with it the file of a row.

    Args:
        size: of all, in bytes.
        largest: about what a file may have.
    """
    files = 1
    while size > files * largest:
        files *= 2
    return files


def _hash(text: str) -> int:
    """Of 64 bits; the same in every process and version of Python."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
