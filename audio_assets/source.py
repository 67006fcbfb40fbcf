"""The audio source: what lies in it, listed side by side, in bounded memory, from any key on.

How one place is listed is `storage`'s business, and what a digest is for is `digest`'s.
"""

import bisect
import concurrent.futures
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from audio_assets import schema
from audio_assets.digest import EMPTY, Digest, digest_partitions
from audio_assets.partitions import FolderMinute, day_of, day_of_shard, folder_prefix
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets.storage.types import LAST, WRITE_PROBE

SIDE_BY_SIDE = 16
"""How many spans are listed at a time."""

PAGES_PER_TURN = 10
"""After so many pages of a span, it is cut if others have nothing to do and could take part of it."""


# The files of the listening page, which lies beside the tables.
_OF_PAGE = re.compile(r"(^|/)listening_page/(index\.html|(data|clips|static)/[\w-]+\.(js|css))$")


@dataclasses.dataclass(frozen=True)
class Span:
    """The keys after `after`, up to and including `until`; to the end of the store where that is None."""

    after: str = ""
    until: str | None = None


@dataclasses.dataclass(frozen=True)
class AudioSource:
    """The place where audio lies, without the tables that may lie inside.

    Attributes:
        store: the source.
        tables: where the tables lie.

    Raises:
        ValueError: both are the same place, or the source lies in one of the tables, so that tables and audio
            could not be told apart.
    """

    store: ObjectStore
    tables: ObjectStore

    def __post_init__(self) -> None:
        if self._excluded == "":
            both = f"{self._named(self.tables)} is {self._named(self.store)}"
            raise ValueError(f"{both}; give the tables their own folder")
        # The source may lie beside the tables, in a folder that is none of theirs.
        table = (self.tables.relative(self.store) or "").partition("/")[0]
        if table in (*schema.TABLES, schema.AUDIO_TABLE_DAILY, schema.TRAINING_SHARDS):
            raise ValueError(
                f"{self._named(self.store)} lies in the table {table} of {self._named(self.tables)}; name the"
                " folder that holds the audio"
            )

    @staticmethod
    def _named(store: ObjectStore) -> str:
        return f"{store.name} ({store.uri})" if store.name else store.uri

    @functools.cached_property
    def _excluded(self) -> str | None:
        """The prefix of the tables in the source, None where they lie elsewhere."""
        return self.store.relative(self.tables)

    def spans(self) -> list[Span]:
        """All that there is to list."""
        if self._excluded is None:
            return [Span()]
        return [Span("", self._excluded), Span(self._excluded + LAST)]

    def key_of(self, bucket: str, key: str) -> str | None:
        """The key within the source of an object of a bucket, None where it is none of the source."""
        uri = f"s3://{bucket}/{key}"
        found = uri.removeprefix(f"{self.store.uri}/")
        outside = found in (uri, "") or (self._excluded and found.startswith(self._excluded))
        return None if outside or _is_of_tables(found) else found

    def objects(self, folder: str) -> Iterator[list[ObjectInfo]]:
        """The objects right in one folder, a page at a time.

        Raises:
            StorageError: it cannot be listed.
        """
        prefix = folder_prefix(folder)
        if self._excluded is None or not prefix.startswith(self._excluded):
            yield from map(_without_tables, self.store.scan_folder(prefix))

    def digests(
        self, spans: Sequence[Span], stop: Callable[[], bool] = lambda: False
    ) -> tuple[dict[FolderMinute, Digest], list[Span]]:
        """List spans side by side and digest what is in them.

        Memory grows with the partitions, never with the objects. A span that is long is cut while it is
        listed, where the folders in it allow, so that a bucket needs as little time as its longest folder.

        Args:
            stop: whether to leave the rest to a later call; each call lists a page at least.

        Returns:
            The digest of each partition's objects in the spans, as far as they were listed, and what is left
            of the spans, in order.

        Raises:
            StorageError: the store cannot be listed.
        """
        return _Listing(self.store, list(spans), stop).run()


_Turn = concurrent.futures.Future[tuple[dict[FolderMinute, Digest], Span | None]]


class _Listing:
    """One call of `AudioSource.digests`.

    Each span is listed in turns of some pages. Between two turns, what is left of it may be cut in parts that
    are listed side by side.
    """

    def __init__(self, store: ObjectStore, spans: list[Span], stop: Callable[[], bool]) -> None:
        self._store = store
        self._stop = stop
        self._waiting = spans
        self._running: set[_Turn] = set()
        self._started = False
        self._found: dict[FolderMinute, Digest] = {}
        # The ends of spans that turned out to be the rest of one folder, which cannot be cut.
        self._uncut: set[str | None] = set()

    def run(self) -> tuple[dict[FolderMinute, Digest], list[Span]]:
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            self._start_turns(pool)
            while self._running:
                done, self._running = concurrent.futures.wait(
                    self._running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for turn in done:
                    found, rest = turn.result()
                    _add(self._found, found)
                    if rest is not None:
                        # In order, so that few folders are listed in part at a time.
                        self._waiting = sorted([*self._waiting, *self._cut(rest)], key=lambda s: s.after)
                self._start_turns(pool)
        return self._found, self._waiting

    def _start_turns(self, pool: concurrent.futures.Executor) -> None:
        """Give a span to whoever has nothing to do. The first one is listed even if it is time to stop."""
        while self._waiting and len(self._running) < SIDE_BY_SIDE and not (self._started and self._stop()):
            self._running.add(pool.submit(self._list_some, self._waiting.pop(0)))
            self._started = True

    def _list_some(self, span: Span) -> tuple[dict[FolderMinute, Digest], Span | None]:
        """One turn, in a thread of the pool: some pages of a span, digested, and what is left of the span."""
        found: dict[FolderMinute, Digest] = {}
        for pages, (reached, objects) in enumerate(self._store.scan(span.after, span.until), 1):
            _add(found, digest_partitions(_without_tables(objects)))
            if self._stop() or pages == PAGES_PER_TURN:
                return found, Span(reached, span.until)
        return found, None

    def _cut(self, span: Span) -> list[Span]:
        """The span itself, or parts of it for all who would have nothing to do otherwise."""
        idle = SIDE_BY_SIDE - len(self._running) - len(self._waiting) - 1
        if idle <= 0 or span.until in self._uncut or self._stop():
            return [span]
        folders = self._store.cuts(span.after, span.until)
        if not folders:
            self._uncut.add(span.until)
        step = max(1, len(folders) // idle)
        # After the prefix, by a space: obstore drops a slash at the end.
        ends = [span.after, *(f"{prefix} " for prefix in folders[::step][:idle]), span.until]
        return [Span(after or "", until) for after, until in itertools.pairwise(ends)]


def meets(spans: Sequence[Span], folder: str) -> bool:
    """Whether objects of a folder can lie in one of the spans, which are in order and do not overlap."""
    prefix = folder_prefix(folder)
    at = bisect.bisect_right(spans, prefix, key=lambda span: LAST if span.until is None else span.until)
    return at < len(spans) and spans[at].after < prefix + LAST


def _without_tables(objects: list[ObjectInfo]) -> list[ObjectInfo]:
    """Without files of tables that lay in the source before they were moved elsewhere."""
    return [o for o in objects if not _is_of_tables(o.key)]


def _is_of_tables(key: str) -> bool:
    # Nearly every key is told by its end, which takes a tenth of the time.
    if key.endswith(".parquet"):
        of_a_day = day_of(key) or day_of_shard(key)
        return of_a_day is not None or FolderMinute.from_path(key) is not None
    if key.endswith((".js", ".css", ".html")):
        return _OF_PAGE.search(key) is not None
    return key.endswith(f"/{WRITE_PROBE}")


def _add(sums: dict[FolderMinute, Digest], more: Mapping[FolderMinute, Digest]) -> None:
    for partition, digest in more.items():
        sums[partition] = sums.get(partition, EMPTY) + digest
