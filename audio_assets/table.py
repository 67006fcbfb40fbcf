"""A table's partitions on storage: read one or several, replace one, compute some anew.

One Parquet file for each partition, at the Hive path of `partitions.FolderMinute`, with a schema of `schema`.
Runs that write the same partition at the same time are kept apart here, by optimistic concurrency. What the
rows mean is decided in `rows` and `speech`.
"""

import concurrent.futures
import dataclasses
import datetime as dt
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from audio_assets import schema
from audio_assets.errors import ConflictError, StorageError
from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute
from audio_assets.storage import ObjectStore

# Small objects are latency-bound: this many requests in flight keep a store busy from one process.
THREADS = 16
# Partitions that are read before they are asked for.
AHEAD = 64
# How often a partition is made anew when other runs replace it meanwhile, before that is an error.
CONFLICT_ROUNDS = 5


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A partition as it was read.

    Attributes:
        rows: with the table's schema, None where the partition has no file.
        version: the file's version, which `Table.replace` is fenced by; None where there is no file.
    """

    rows: pa.Table | None
    version: str | None


@dataclasses.dataclass(frozen=True)
class Updated:
    """A partition as `Table.update` left it.

    Attributes:
        rows: with the table's schema.
        version: of the file that holds them; empty where there are none and no file.
    """

    rows: pa.Table
    version: str


@dataclasses.dataclass(frozen=True)
class Table:
    """One table below AUDIO_TABLE_URI.

    Attributes:
        store: where all tables lie.
        name: the folder of this one, which is its asset's name.
        schema: of the files, without partition columns.
    """

    store: ObjectStore
    name: str
    schema: pa.Schema

    @property
    def uri(self) -> str:
        return f"{self.store.uri}/{self.name}"

    @property
    def keeps_empty_files(self) -> bool:
        """Whether a partition whose objects are gone keeps a file without rows.

        So where the store replaces a file only in the version that was read, and deletes it in any: the rows
        that another run has just written would go with it.

        Raises:
            StorageError: nothing can be written here.
        """
        return self.store.conditional_writes and not self.store.conditional_deletes

    def path(self, partition: FolderMinute) -> str:
        """The key of a partition's file in the store."""
        return f"{self.name}/{partition.path}"

    def read(self, partition: FolderMinute) -> Snapshot:
        """Read one partition. A nullable column that its file lacks, being older than the column, is null.

        Raises:
            StorageError: the file cannot be read, or is no Parquet file of this schema.
        """
        found = self.store.read_latest(self.path(partition))
        if found is None:
            return Snapshot(None, None)
        body, version = found
        return Snapshot(self._parse(self.path(partition), body), version)

    def read_uncast(self, partition: FolderMinute) -> pa.Table | None:
        """What a partition's file really holds, whatever its schema; None where there is no file."""
        found = self.store.read_latest(self.path(partition))
        return None if found is None else pq.read_table(pa.BufferReader(found[0]))

    def replace(self, partition: FolderMinute, rows: pa.Table, snapshot: Snapshot) -> str:
        """Replace one partition's file as a whole, unless it holds these rows already.

        A partition without rows has no file: readers such as `datasets` fail at an empty one. Where the store
        cannot delete the version that was read alone, the file stays and has no rows.

        Args:
            rows: with the table's schema.
            snapshot: what `read` gave; its version fences the write.

        Returns:
            The version of the file that holds the rows, which is that of `snapshot` where nothing was
            written; empty where there is no file.

        Raises:
            ConflictError: another run replaced the file since it was read.
            StorageError: it cannot be written.
        """
        rows = rows.select(self.schema.names).cast(self.schema)
        path = self.path(partition)
        if not len(rows):
            if snapshot.version is None:
                return ""
            if not self.keeps_empty_files:
                self.store.delete(path, snapshot.version)
                return ""
        if snapshot.rows is not None and snapshot.version is not None and snapshot.rows.equals(rows):
            return snapshot.version
        sink = io.BytesIO()
        pq.write_table(rows, sink, compression="zstd", write_page_checksum=True)
        return self.store.replace(path, sink.getvalue(), snapshot.version)

    def update(
        self,
        partitions: Sequence[FolderMinute],
        compute: Callable[[Sequence[FolderMinute]], Mapping[FolderMinute, pa.Table]],
    ) -> dict[FolderMinute, Updated]:
        """Compute partitions anew and replace their files, by optimistic concurrency.

        Args:
            compute: gives the rows of each of some partitions, with the table's schema. It is called after
                their snapshots were read, so that of two runs the one that read its inputs later writes last.
                It is called again for those whose file another run replaced meanwhile.

        Returns:
            What each partition holds, whether or not its file had to be written.

        Raises:
            ConflictError: other runs keep replacing the files.
            StorageError: a file cannot be read or written.
        """
        updated: dict[FolderMinute, Updated] = {}
        for now, conflicts in replace_rounds(partitions):
            snapshots = {partition: self.read(partition) for partition in now}
            computed = compute(now)
            for partition, snapshot in snapshots.items():
                rows = computed[partition]
                try:
                    version = self.replace(partition, rows, snapshot)
                except ConflictError:
                    conflicts.append(partition)
                else:
                    updated[partition] = Updated(rows, version)
        return updated

    def files(self, folder: str | None = None) -> Iterator[tuple[str, str]]:
        """All files below the table, from a listing: a request for each thousand.

        Args:
            folder: a `FolderName`, None for all.

        Yields:
            Where a file lies below the table, and its version; files of others that lie there included.

        Raises:
            StorageError: the store cannot be listed.
        """
        below = f"{self.name}/"
        prefix = below
        if folder is not None:
            # Any minute has the folder's directory in its path.
            some_minute = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
            prefix += FolderMinute(folder, some_minute).path.partition("/")[0] + "/"
        for path, version in self.store.list_files(prefix):
            yield path.removeprefix(below), version

    def partitions(
        self,
        folder: str | None = None,
        start: dt.datetime | None = None,
        end: dt.datetime | None = None,
    ) -> list[FolderMinute]:
        """The partitions that have a file, with `start` <= minute < `end`, in order."""
        found = (FolderMinute.from_path(path) for path, _ in self.files(folder))
        return sorted(
            p
            for p in found
            if p is not None and (start is None or p.minute >= start) and (end is None or p.minute < end)
        )

    def with_full_name(self, partition: FolderMinute) -> FolderMinute:
        """The same partition with the folder's full name, which the file's rows tell where its path does not.

        Raises:
            StorageError: the file cannot be read.
        """
        if not partition.shortened:
            return partition
        rows = self.read(partition).rows
        keys = [] if rows is None else rows["Key"].to_pylist()
        return FolderMinute.of(keys[0], partition.minute) if keys else partition

    def scan(self, partitions: Sequence[FolderMinute], columns: Sequence[str] | None = None) -> pa.Table:
        """Read partitions side by side into one table, partition columns included.

        Raises:
            ValueError: `columns` names one that the table does not have.
        """
        parts = [rows for _, rows in self.scan_each(partitions, columns)]
        return pa.concat_tables(parts) if parts else self.columns(columns).empty_table()

    def columns(self, names: Sequence[str] | None = None) -> pa.Schema:
        """Columns as readers see them, partition columns included.

        Args:
            names: None for all.

        Raises:
            ValueError: the table does not have one of them.
        """
        full = schema.with_partition_columns(self.schema)
        names = full.names if names is None else list(names)
        if unknown := [c for c in names if c not in full.names]:
            raise ValueError(f"{self.name} has no column {unknown}; it has {full.names}")
        return pa.schema([full.field(name) for name in names])

    def scan_each(
        self,
        partitions: Iterable[FolderMinute],
        columns: Sequence[str] | None = None,
        condition: pc.Expression | None = None,
    ) -> Iterator[tuple[FolderMinute, pa.Table]]:
        """Read partitions side by side, one after the other, partition columns included.

        Holds AHEAD of them at the most. Those without a file are passed over.

        Args:
            condition: of the rows to give, which may go by any column; None for all.

        Raises:
            ValueError: `columns` names one that the table does not have.
        """
        wanted = self.columns(columns)
        read_names = wanted.names if condition is None else self.columns().names
        inside = [name for name in read_names if name in self.schema.names]

        def read(partition: FolderMinute) -> tuple[FolderMinute, pa.Table | None]:
            found = self.store.read_latest(self.path(partition))
            if found is None:
                return partition, None
            body, _ = found
            # Without a column of the file, nobody would know how many rows it has.
            rows = self._parse(self.path(partition), body, inside or self.schema.names[:1])
            rows = with_partition_columns(rows, partition)
            if condition is not None:
                rows = rows.filter(condition)
            return partition, rows.select(wanted.names).cast(wanted)

        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            for partition, rows in map_ahead(pool, read, partitions, ahead=AHEAD):
                if rows is not None:
                    yield partition, rows

    def _parse(self, path: str, body: bytes, columns: Iterable[str] | None = None) -> pa.Table:
        """The rows of a file, with all columns of the table or those asked for; one column at the least."""
        names = self.schema.names if columns is None else list(columns)
        try:
            file = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True)
            # pyarrow makes the schema anew each time that it is asked for.
            held = file.schema_arrow.names
            present = [name for name in names if name in held]
            # Without a column, rows would have no number.
            rows = file.read(present or held[:1])
            return schema.conform(rows, pa.schema([self.schema.field(name) for name in names]))
        except (pa.ArrowException, ValueError, OSError) as e:
            raise StorageError(
                f"{self.store.uri}/{path} is no file of {self.name}: {e}; delete it and materialise again"
            ) from e


def replace_rounds(
    partitions: Sequence[FolderMinute],
) -> Iterator[tuple[Sequence[FolderMinute], list[FolderMinute]]]:
    """Rounds of optimistic concurrency: no lock is held, and a run that was overtaken starts over.

    Each round gives the partitions to make now, and an empty list to which the caller appends those whose
    file another run replaced meanwhile (`Table.replace` raised ConflictError). They are the partitions of
    the next round, in which the caller reads their snapshots and inputs anew. The rounds end once the list
    stays empty.

        for now, conflicts in replace_rounds(partitions):
            for partition in now:
                snapshot = table.read(partition)
                try:
                    table.replace(partition, compute(partition), snapshot)
                except ConflictError:
                    conflicts.append(partition)

    Raises:
        ConflictError: after CONFLICT_ROUNDS rounds other runs still replace some of the files.
    """
    for _ in range(CONFLICT_ROUNDS):
        conflicts: list[FolderMinute] = []
        yield partitions, conflicts
        if not conflicts:
            return
        partitions = conflicts
    raise ConflictError(f"other runs keep replacing {[p.key for p in partitions]}; let them finish first")


def with_partition_columns(rows: pa.Table, partition: FolderMinute) -> pa.Table:
    """Append the columns that the Hive path carries."""
    minute = partition.minute
    values = (partition.folder, minute.date(), minute.hour, minute.minute)
    carried = [
        pa.repeat(pa.scalar(value, field.type), len(rows))
        for field, value in zip(schema.PARTITION_SCHEMA, values, strict=True)
    ]
    # Column by column, each would make the table anew.
    columns = pa.schema([*rows.schema, *schema.PARTITION_SCHEMA], metadata=rows.schema.metadata)
    return pa.Table.from_arrays([*rows.columns, *carried], schema=columns)
