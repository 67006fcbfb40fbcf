"""What a tick sees of the tables: which partitions have files, and in which version.

The tables are listed, never trusted: files may have been moved, deleted or edited by hand since they were
recorded. A listing costs a request for a thousand files, whatever is in them.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from audio_assets.partitions import FolderMinute, path_of_partition
from audio_assets.record import PartitionRecord
from audio_assets.table import Table

UNKNOWN = "unknown"
"""Stands for the digest of a partition whose files no record speaks of; equals none."""

# A listing of a table gives a thousand files; a few folders of a large table are fewer requests.
FOLDERS_ONE_BY_ONE = 16


@dataclasses.dataclass(frozen=True)
class TableFiles:
    """The files of the tables, by their path below each table.

    Attributes:
        versions: those of `audio_table`, of partitions that have a file in every table.
        incomplete: paths of partitions that have a file in some of the tables only.
        full_name: gives the partition of a file whose path holds a shortened folder.
    """

    versions: Mapping[str, str]
    incomplete: Collection[str] = frozenset()
    full_name: Callable[[FolderMinute], FolderMinute] = dataclasses.field(
        default=lambda partition: partition, compare=False
    )

    @classmethod
    def read(
        cls, audio_table: Table, others: Sequence[Table], folders: Collection[str] | None
    ) -> "TableFiles":
        """List the tables.

        Args:
            others: the tables that `audio_table` is made from.
            folders: of which folders at the least, None for all.

        Raises:
            StorageError: they cannot be listed.
        """
        one_by_one = folders is not None and len(folders) <= FOLDERS_ONE_BY_ONE
        wanted: Collection[str | None] = (folders or ()) if one_by_one else (None,)

        def files(table: Table) -> Iterator[tuple[str, str]]:
            for folder in wanted:
                yield from table.files(folder)

        with concurrent.futures.ThreadPoolExecutor(1 + len(others)) as pool:
            paths = [pool.submit(lambda table: {path for path, _ in files(table)}, table) for table in others]
            versions = pool.submit(lambda: dict(files(audio_table))).result()
            complete = set(versions).intersection(*(found.result() for found in paths))
            anywhere = set(versions).union(*(found.result() for found in paths))
        return cls(
            {path: versions[path] for path in complete}, anywhere - complete, audio_table.with_full_name
        )

    def digests(
        self, records: Mapping[str, PartitionRecord], keys: Collection[str], folders: Collection[str] | None
    ) -> dict[str, str]:
        """What each partition of the table was made from.

        Args:
            records: by partition key.
            keys: partition keys that may have files.
            folders: in which other partitions are looked for among the files, None for all.

        Returns:
            By partition key, the digest of a partition that is as its record says, UNKNOWN for one that has
            other files; partitions that were never made, or whose files are gone, are left out.
        """
        digests: dict[str, str] = {}
        paths: set[str] = set()
        for key in {*records, *keys}:
            path = path_of_partition(key)
            if path is None:
                continue
            paths.add(path)
            record = records.get(key)
            if path in self.incomplete:
                digests[key] = UNKNOWN
            elif record is not None and record.version == self.versions.get(path, ""):
                digests[key] = record.digest
            elif path in self.versions:
                digests[key] = UNKNOWN
        for path in (*self.versions, *self.incomplete):
            partition = None if path in paths else FolderMinute.from_path(path)
            if partition is None:
                continue
            partition = self.full_name(partition)
            if folders is None or partition.folder in folders:
                digests[partition.key] = UNKNOWN
        return digests
