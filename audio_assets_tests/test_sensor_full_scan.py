"""A walk over the source that takes several ticks: each folder is settled once, and only when it is whole."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from audio_assets.digest import digest_partitions
from audio_assets.partitions import folder_of
from audio_assets.sensor.full_scan import Walk
from audio_assets_tests.support.listed_keys import infos, keys, source_of, stop_after

GONE = {"a", "a/b", "gone", "-"}


@given(keys, st.integers(0, 4))
def test_each_folder_is_settled_once_with_all_its_objects(keys: set[str], pages: int):
    present = {folder_of(key) for key in keys}
    walk, settled, partitions = Walk(), [], {}
    for tick in itertools.count():
        listing, walk = walk.advance(source_of(keys), GONE, stop_after(pages))
        settled += listing.folders
        assert {p.folder for p in listing.partitions} <= set(listing.folders)
        partitions |= listing.partitions
        walk = Walk.from_json(json.loads(json.dumps(walk.to_json())))
        if not walk.left:
            break
        assert tick <= len(keys)
    assert walk == Walk()
    assert partitions == digest_partitions(infos(keys))
    assert sorted(settled) == sorted(present | GONE)
