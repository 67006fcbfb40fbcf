"""A full scan that takes several ticks: each folder is compared once, and only when it is whole."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from audio_assets.digest import Digest, digest_partitions
from audio_assets.partitions import FolderMinute, folder_of
from audio_assets.sensor.full_scan import FullScan
from audio_assets_tests.support.listed_keys import infos, keys, source_of, stop_after

GONE = {"a", "a/b", "gone", "-"}


@given(keys, st.integers(0, 4))
def test_each_folder_is_compared_once_with_all_its_objects(keys: set[str], pages: int):
    present = {folder_of(key) for key in keys}
    scan = FullScan()
    compared: list[str] = []
    partitions: dict[FolderMinute, Digest] = {}
    for tick in itertools.count():
        contents, scan = scan.advance(source_of(keys), GONE, stop_after(pages))
        compared += contents.folders
        assert {p.folder for p in contents.partitions} <= set(contents.folders)
        partitions |= contents.partitions
        scan = FullScan.from_json(json.loads(json.dumps(scan.to_json())))
        if not scan.left:
            break
        assert tick <= len(keys)
    assert scan == FullScan()
    assert partitions == digest_partitions(infos(keys))
    assert sorted(compared) == sorted(present | GONE)
