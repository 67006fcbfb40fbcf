"""Fuzz target: every key of an object has a partition, whose key and path are harmless and read back as it.

python -m fuzz.partition_key [folder of a corpus] [options of libFuzzer]
"""

import contextlib
import datetime as dt
import posixpath
import re
import sys

# Installed in an environment of its own; its types are in typings/.
import atheris  # pyright: ignore[reportMissingModuleSource]

with atheris.instrument_imports(include=["audio_assets"]):
    from audio_assets.partitions import FolderMinute, folder_of, folder_prefix

MINUTE = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def one_input(data: bytes) -> None:
    chosen = atheris.FuzzedDataProvider(data)
    minute = MINUTE + dt.timedelta(minutes=chosen.ConsumeIntInRange(0, 2**31))
    key = chosen.ConsumeUnicodeNoSurrogates(1_024)

    assert key.startswith(folder_prefix(folder_of(key)))
    partition = FolderMinute.of(key, minute)
    assert FolderMinute.parse(partition.key) == partition
    assert not re.search(r'[\x00-\x1f\x7f,\[\]*"\\]|\.\.\.', partition.key)

    path = partition.path
    assert posixpath.normpath(path) == path
    assert not re.search(r"(^|/)\.\.?(/|$)|^/|[\x00-\x1f\x7f\\]", path)
    assert all(len(segment.encode()) <= 255 for segment in path.split("/"))
    read = FolderMinute.from_path(path)
    assert read is not None
    assert (read.path, read.minute) == (path, partition.minute)

    # What was never a key or a path is refused, and only by the errors that are said.
    with contextlib.suppress(ValueError):
        assert FolderMinute.parse(key).key == key
    if (found := FolderMinute.from_path(key)) is not None:
        assert f"/{key}".endswith(f"/{found.path}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
