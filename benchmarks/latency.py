"""How long it takes from an object's PUT to its row in the table.

    python -m benchmarks.latency

A real `dagster dev` (webserver, daemon, code server) on an empty instance looks at a canned S3 server;
objects of the sample's speech are PUT one after another, at different seconds of the minute. With the default
settings a row waits until its minute has settled, so that a minute is made once; SETTLE_SECONDS=-60 makes an
open minute at once, and again for each object that follows. By listing, then by events. Writes
benchmarks/results/latency.json.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

import obstore

from audio_assets.demo.make_sample import SAMPLE
from audio_assets.partitions import FolderMinute
from audio_assets.schema import AUDIO_TABLE
from audio_assets.storage import ObjectStore
from audio_assets.table import Table
from audio_assets_tests.support.dagster_dev import dagster_dev
from benchmarks.canned_s3 import Shape, canned_s3, canned_store

RESULTS = pathlib.Path(__file__).with_name("results") / "latency.json"
# No divisor of a minute nor of the sensor's 30 seconds.
PAUSE_S = 37
PATIENCE_S = 600


def measure(settle_seconds: int, events: bool, objects: int) -> list[dict[str, float]]:
    """Seconds from PUT to row of each object, and from the moment at which its minute had settled.

    Args:
        events: whether the server tells a queue of each PUT, and the sensor reads that.
    """
    speech = (SAMPLE / "p225" / "p225_001_mic1.flac").read_bytes()
    waiting: dict[str, tuple[float, FolderMinute]] = {}
    got = []
    with tempfile.TemporaryDirectory() as folder, canned_s3(Shape(0, 1)) as settings:
        settings |= {"SETTLE_SECONDS": str(settle_seconds)}
        if events:
            settings["AUDIO_EVENTS_QUEUE_URL"] = f"{settings['AWS_ENDPOINT_URL']}/1/queue"
        os.environ |= settings
        store = canned_store(settings["AWS_ENDPOINT_URL"])
        table = Table(ObjectStore(settings["AUDIO_TABLE_URI"]), "audio_table", AUDIO_TABLE)
        with dagster_dev(pathlib.Path(folder), settings):
            started = time.time()
            put = 0
            while put < objects or waiting:
                if put < objects and time.time() >= started + put * PAUSE_S:
                    key = f"p225/{put:03}.flac"
                    obstore.put(store, key, speech)
                    modified = obstore.head(store, key)["last_modified"]
                    waiting[key] = time.time(), FolderMinute.of(key, modified)
                    put += 1
                for key, (at, partition) in list(waiting.items()):
                    rows = table.read(partition).rows
                    if rows is not None and key in rows["Key"].to_pylist():
                        now = time.time()
                        settled = max(at, partition.minute.timestamp() + 60 + settle_seconds)
                        got.append({"from_put_s": now - at, "from_settled_s": now - settled})
                        del waiting[key]
                    assert time.time() < at + PATIENCE_S, key
                time.sleep(0.2)
    return got


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=3)
    args = parser.parse_args()
    results = {
        name: measure(settle, events, args.objects)
        for events, how in ((False, "listing"), (True, "events"))
        for settle, name in ((60, f"{how}, default settings"), (-60, f"{how}, SETTLE_SECONDS=-60"))
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
