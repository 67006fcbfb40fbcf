"""Rows of `audio_table` and their audio as a data set for training.

selection.py   which rows are taken, and what is counted of those that are not
splits.py      train, validation or test, the order of rows, and the file of each row
columns.py     the columns of a shard, and the Hugging Face features in its schema
files.py       the shards of one day: made, replaced where they differ, deleted where nothing is left
export.py      a slice of the table, day by day, as shards or as a manifest
manifests.py   rows by reference: NeMo's JSONL, Lhotse's cuts
"""

from audio_assets.shards.export import export_manifests, export_shards
from audio_assets.shards.files import Exported
from audio_assets.shards.selection import Selection
from audio_assets.shards.splits import Splits

__all__ = ["Exported", "Selection", "Splits", "export_manifests", "export_shards"]
