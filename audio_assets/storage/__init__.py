"""The object store."""

from audio_assets.storage.store import ObjectStore
from audio_assets.storage.types import ObjectInfo, RetryPolicy

__all__ = ["ObjectInfo", "ObjectStore", "RetryPolicy"]
