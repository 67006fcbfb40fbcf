"""Buckets behind the server that fails by plan, what is put there, and what tables they hold."""

import contextlib
import datetime as dt
import pathlib

import audio_assets.demo
from audio_assets_tests.support.audio import UPLOADED
from audio_assets_tests.support.places import LocalPlace, Place, S3Place

SAMPLE = sorted((pathlib.Path(audio_assets.demo.__file__).parent / "sample").rglob("*.flac"))

_names = iter(range(10**9))


def new_bucket() -> S3Place:
    place = S3Place(f"faulty-{next(_names)}")
    place.backend.create_bucket(place.bucket, "us-east-1")
    return place


def fill(place: Place) -> None:
    """Speech in three partitions, one of which also has an object that is cut off; a text in a fourth."""
    speech = (path.read_bytes() for path in SAMPLE)
    for key, minute in {"p225/a.flac": 0, "p225/b.flac": 0, "p225/c.flac": 1, "p226/deep/d.flac": 0}.items():
        place.put(key, next(speech), UPLOADED + dt.timedelta(minutes=minute))
    place.put("p226/deep/cut.flac", SAMPLE[0].read_bytes()[:2_000])
    place.put("p226/notes.txt", b"hello")


def table_files(place: Place) -> dict[str, bytes]:
    """All that lies where the tables are, litter included, without a client in between; while a run writes,
    without what is gone before it is read."""
    if isinstance(place, LocalPlace):
        files = {}
        for path in (place.folder / "output_parquet").rglob("*"):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                files[str(path.relative_to(place.folder))] = path.read_bytes()
        return files
    assert isinstance(place, S3Place)
    root = f"{place.prefix}output_parquet/"
    stored = list(place.backend.get_bucket(place.bucket).keys.items())
    return {name.removeprefix(place.prefix): key.value for name, key in stored if name.startswith(root)}
