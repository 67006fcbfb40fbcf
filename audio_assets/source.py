"""The audio source: what lies in it, listed side by side, in bounded memory, and resumable at any key."""

import bisect
import concurrent.futures
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from audio_assets.digest import EMPTY, Digest, digest_partitions
from audio_assets.errors import StorageError
from audio_assets.partitions import FolderMinute, folder_prefix
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets.storage.types import LAST

SIDE_BY_SIDE = 16
# After so many pages of one span it is looked whether others have nothing to do and could take part of it.
PAGES_PER_TURN = 10


@dataclasses.dataclass(frozen=True)
class Span:
    """The keys behind `after`, up to and with `until`; to the end where that is None."""

    after: str = ""
    until: str | None = None


@dataclasses.dataclass(frozen=True)
class AudioSource:
    """What AUDIO_SOURCE_URI names, without the tables that may lie inside.

    Attributes:
        store: the source.
        tables: where the tables lie.

    Raises:
        ValueError: both are the same place, so that tables and audio could not be told apart.
    """

    store: ObjectStore
    tables: ObjectStore

    def __post_init__(self) -> None:
        if self._excluded == "":
            raise ValueError(
                f"AUDIO_TABLE_URI is AUDIO_SOURCE_URI ({self.store.uri}); give the tables their own folder"
            )

    @functools.cached_property
    def _excluded(self) -> str | None:
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
        outside = found == uri or found.endswith("/") or (self._excluded and found.startswith(self._excluded))
        return None if outside else found

    def objects(self, folder: str) -> Iterator[list[ObjectInfo]]:
        """The objects right in one folder, a page at a time.

        Raises:
            StorageError: it cannot be listed.
        """
        prefix = folder_prefix(folder)
        if self._excluded is None or not prefix.startswith(self._excluded):
            yield from self.store.scan_folder(prefix)

    def digests(
        self, spans: Sequence[Span], stop: Callable[[], bool] = lambda: False
    ) -> tuple[dict[FolderMinute, Digest], list[Span]]:
        """List spans side by side and digest what is in them.

        Memory grows with the partitions, never with the objects. A span that is long is cut while it is
        listed, where the folders in it allow, so that a bucket needs as little time as its longest folder.

        Args:
            stop: whether to leave the rest to a later call; each call gets on by a page at least.

        Returns:
            The digest of each partition's objects in the spans, as far as they were listed, and what is left
            of the spans, in order.

        Raises:
            StorageError: the store cannot be listed.
        """
        found: dict[FolderMinute, Digest] = {}
        waiting = list(spans)
        running: set[concurrent.futures.Future[tuple[dict[FolderMinute, Digest], Span | None]]] = set()
        started = False
        # By their ends: spans that were found to be the rest of one folder.
        whole: set[str | None] = set()
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            while True:
                while waiting and len(running) < SIDE_BY_SIDE and not (started and stop()):
                    running.add(pool.submit(self._turn, waiting.pop(0), stop))
                    started = True
                if not running:
                    return found, waiting
                done, running = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for turn in done:
                    summed, left = turn.result()
                    _add(found, summed)
                    if left is None:
                        continue
                    parts = [left]
                    idle = SIDE_BY_SIDE - len(running) - len(waiting) - 1
                    if idle > 0 and left.until not in whole and not stop():
                        parts = self._cut(left, idle)
                        if len(parts) == 1:
                            whole.add(left.until)
                    # In order, so that few folders are listed in part at a time.
                    waiting = sorted([*waiting, *parts], key=lambda span: span.after)

    def _turn(self, span: Span, stop: Callable[[], bool]) -> tuple[dict[FolderMinute, Digest], Span | None]:
        """List some pages of a span; gives what is left of it."""
        found: dict[FolderMinute, Digest] = {}
        try:
            for pages, (reached, objects) in enumerate(self.store.scan(span.after, span.until), 1):
                _add(found, digest_partitions(objects))
                if stop() or pages == PAGES_PER_TURN:
                    return found, Span(reached, span.until)
        except StorageError as e:
            raise StorageError(f"{e} (AUDIO_SOURCE_URI)") from e
        return found, None

    def _cut(self, span: Span, times: int) -> list[Span]:
        """A span in up to `times` + 1 parts, between folders."""
        folders = self.store.cuts(span.after, span.until)
        step = max(1, len(folders) // times)
        # Behind the prefix: obstore drops a slash at the end.
        ends = [span.after, *(f"{prefix} " for prefix in folders[::step][:times]), span.until]
        return [Span(after or "", until) for after, until in itertools.pairwise(ends)]


def meets(spans: Sequence[Span], folder: str) -> bool:
    """Whether objects of a folder can lie in one of the spans, which are in order and do not overlap."""
    prefix = folder_prefix(folder)
    at = bisect.bisect_right(spans, prefix, key=lambda span: LAST if span.until is None else span.until)
    return at < len(spans) and spans[at].after < prefix + LAST


def _add(sums: dict[FolderMinute, Digest], more: Mapping[FolderMinute, Digest]) -> None:
    for partition, digest in more.items():
        sums[partition] = sums.get(partition, EMPTY) + digest
