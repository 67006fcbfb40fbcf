"""Clips with their rows, and the shards that are made of them."""

import dataclasses
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audio_assets import schema
from audio_assets.partitions import FolderMinute
from audio_assets.shards import Exported, Selection, Splits, export_shards
from audio_assets.shards.files import ShardFiles
from audio_assets.table import Table
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.places import Place
from audio_assets_tests.support.rows import row, write

RATE = 16_000


@dataclasses.dataclass
class Corpus:
    """A source with its table, as a run would have made it, without a recogniser."""

    place: Place
    splits: Splits = dataclasses.field(default_factory=lambda: Splits(validation=0.2, test=0.2, by="key"))
    file_bytes: int = 500_000_000
    row_group_bytes: int = 90_000_000

    @property
    def table(self) -> Table:
        return Table(self.place.store, "tables/audio_table", schema.AUDIO_TABLE)

    @property
    def files(self) -> ShardFiles:
        return ShardFiles(
            store=self.place.store,
            folder="tables/training_shards/",
            source=self.place.store,
            splits=self.splits,
            file_bytes=self.file_bytes,
            row_group_bytes=self.row_group_bytes,
        )

    def put(self, partition: FolderMinute, *keys: str, **values: Any) -> None:
        """Upload clips and give the minute exactly their rows."""
        made = []
        for key in keys:
            self.place.put(key, flac(0.05, seed=hash_of(key)), partition.minute)
            info = self.place.store.find(key)
            assert info
            heard = dict(transcribed_text=f"Text of {key}", language="en", avg_logprob=-0.5, duration_s=0.05)
            heard |= dict(sample_rate_hz=RATE, channels=1, whisper_model="m") | values
            found = dict(ETag=info.etag, Size=info.size, LastModified=info.last_modified)
            made.append(row(key, **found | heard))
        write(self.table, partition, *made)

    def export(self, selection: Selection | None = None, **wanted: Any) -> Exported:
        return export_shards(self.table, self.files, selection or Selection(), **wanted)

    def shards(self) -> dict[str, pa.Table]:
        """What lies in the folder: path below it -> its rows."""
        found: dict[str, pa.Table] = {}
        for path in self.place.all_keys(self.files.folder):
            latest = self.place.store.read_latest(path)
            assert latest
            found[path.removeprefix(self.files.folder)] = pq.read_table(io.BytesIO(latest[0]))
        return found

    def versions(self) -> dict[str, str]:
        return dict(self.place.store.list_files(self.files.folder))

    def assert_equal(self, *keys: str) -> None:
        """The shards hold these rows once each, with the bytes of their objects."""
        found = [one for shard in self.shards().values() for one in shard.to_pylist()]
        assert sorted(one["id"] for one in found) == sorted(keys)
        for one in found:
            info = self.place.store.find(one["id"])
            assert info
            assert one["audio"]["bytes"] == self.place.store.read(info)
            assert one["audio"]["path"] == one["id"].rpartition("/")[2]
            assert one["text"] == f"Text of {one['id']}"
            assert one["etag"] == info.etag


def hash_of(key: str) -> int:
    return sum(key.encode())


def keys_of(folder: str, count: int, first: int = 0) -> list[str]:
    return [f"{folder}/{i:03}.flac" for i in range(first, first + count)]
