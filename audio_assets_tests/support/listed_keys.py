"""A source that is nothing but its keys, for properties of listing."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator

from hypothesis import strategies as st

from audio_assets.source import AudioSource
from audio_assets.storage import ObjectInfo
from audio_assets_tests.support.audio import UPLOADED


def infos(keys: Iterable[str]) -> list[ObjectInfo]:
    return [ObjectInfo(key, "e", 1, UPLOADED) for key in keys]


class ListedKeys:
    """A store that is nothing but its keys, a page of two at a time."""

    def __init__(self, keys: set[str]) -> None:
        self.keys = sorted(keys)
        self.scanned: list[tuple[str, str | None]] = []
        self._lock = threading.Lock()

    def relative(self, _: object) -> None:
        return None

    def scan(self, after: str, until: str | None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        with self._lock:
            self.scanned.append((after, until))
        found = [key for key in self.keys if key > after and (until is None or key <= until)]
        for at in range(0, len(found), 2):
            yield found[min(at + 1, len(found) - 1)], infos(found[at : at + 2])

    def cuts(self, after: str, until: str | None) -> list[str]:
        folders = {key[: key.index("/") + 1] for key in self.keys if "/" in key}
        return sorted(f for f in folders if f > after and (until is None or f < until))


def source_of(keys: set[str]) -> AudioSource:
    store = ListedKeys(keys)
    return AudioSource(store, store)  # type: ignore[arg-type]


def stop_after(number: int) -> Callable[[], bool]:
    """Says stop once it has been asked so often."""
    asked = itertools.count(1)
    return lambda: next(asked) > number


# Characters around the slash, which sorts between - and 0, and names that are prefixes of each other.
keys = st.sets(
    st.text("ab-./ ", min_size=1, max_size=7).filter(lambda key: not key.endswith("/")), max_size=12
)
