"""The object store: S3 (and what speaks its protocol: R2, MinIO, Ceph) and local folders behind one class.

    store = ObjectStore("s3://bucket/prefix")
    for reached, page in store.scan():
        body = store.read(page[0])

The map of this room, from the front door down:

    store.py         `ObjectStore`: lists, reads, replaces a file only in the version that was read;
                     `BACKENDS`: URI scheme -> backend
    retry.py         what failed is tried again: `RetryPolicy`, exponential backoff with jitter
    verify.py        what came is compared with its size and its ETag
    types.py         `Backend`: what each store must give; `ObjectInfo`, `Failure`
    s3.py            `S3Backend`: how S3 is listed, read and written
    s3_client.py     the clients of a bucket and their credentials
    s3_listing.py    how a bucket is listed fast and exactly
    s3_errors.py     what each error of S3 means: ask again, renew credentials, one object, fails
    local.py         `LocalBackend`: a folder, whole
    obstore_io.py    which names obstore takes, and what it says of an object

A store is added by a subclass of `Backend` and an entry in `BACKENDS`, also from outside of this package.
What lies in the store (audio, tables) is known elsewhere: `audio_assets.source`, `audio_assets.table`.
"""

from audio_assets.storage.retry import RetryPolicy
from audio_assets.storage.store import BACKENDS, ObjectStore
from audio_assets.storage.types import Backend, ObjectInfo

__all__ = ["BACKENDS", "Backend", "ObjectInfo", "ObjectStore", "RetryPolicy"]
