"""The full scan: a pass over the whole audio source that may take several ticks."""

import base64
import dataclasses
import json
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from audio_assets.digest import EMPTY, Digest
from audio_assets.partitions import FolderMinute
from audio_assets.sensor.run_requests import FolderContents
from audio_assets.source import AudioSource, Span, meets


@dataclasses.dataclass(frozen=True)
class FullScan:
    """Where a pass over the source stands between two ticks.

    Attributes:
        left: what is still to be listed, in order; nothing at the beginning and at the end.
        partial: the digests, as far as they were summed up, of the folders that `left` cuts in two. A folder
            is compared with the table only when all of it has been listed.
    """

    left: tuple[Span, ...] = ()
    partial: Mapping[FolderMinute, Digest] = dataclasses.field(default_factory=dict)

    def advance(
        self, source: AudioSource, known: Collection[str], stop: Callable[[], bool]
    ) -> tuple[FolderContents, "FullScan"]:
        """Go on, or begin anew at the end.

        Args:
            known: folders that the table has; those that the scan passes without meeting them are gone.
            stop: whether to leave the rest to a later call.

        Returns:
            What is in the folders that are listed whole by now, and where the next call goes on.

        Raises:
            StorageError: the source cannot be listed.
        """
        found, left = source.digests(self.left or source.spans(), stop)
        for partition, digest in self.partial.items():
            found[partition] = found.get(partition, EMPTY) + digest
        whole = {
            folder
            for folder in {*known, *(p.folder for p in found)}
            if not meets(left, folder) and (not self.left or meets(self.left, folder))
        }
        contents = FolderContents(whole, {p: digest for p, digest in found.items() if p.folder in whole})
        partial = {p: digest for p, digest in found.items() if p.folder not in whole}
        return contents, FullScan(tuple(left), partial)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads: spans as pairs of keys, digests by partition key and compressed."""
        partial = json.dumps({p.key: str(digest) for p, digest in self.partial.items()})
        return {
            "left": [[span.after, span.until] for span in self.left],
            "partial": base64.b85encode(zlib.compress(partial.encode())).decode(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "FullScan":
        """Read what `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, zlib.error: it is something else.
        """
        left = tuple(Span(after, until) for after, until in stored["left"])
        if not all(isinstance(s.after, str) and isinstance(s.until, str | None) for s in left):
            raise TypeError(left)
        partial = json.loads(zlib.decompress(base64.b85decode(stored["partial"])))
        return cls(left, {FolderMinute.parse(key): Digest.parse(text) for key, text in partial.items()})
