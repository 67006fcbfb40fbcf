"""Whether the bytes that came are those that the store holds."""

import hashlib
import re

_MD5 = re.compile(r"[0-9a-f]{32}")


class DamagedError(RuntimeError):
    """What came is not what the store holds."""


class Verifier:
    """Checks the bytes of one store.

    Args:
        etags_are_md5: whether an ETag of 32 hexadecimal digits is the MD5 of the bytes, as a rule.
    """

    def __init__(self, etags_are_md5: bool) -> None:
        self._etags_are_md5 = etags_are_md5

    def check_size(self, body: bytes, size: int) -> None:
        """Compare bytes with the size that was listed.

        Raises:
            DamagedError: they are more or fewer.
        """
        if len(body) != size:
            raise DamagedError(f"came with {len(body)} bytes instead of {size}")

    def check_etag(self, body: bytes, etag: str, seen: set[str]) -> None:
        """Compare bytes with their ETag, where that is their MD5.

        On S3 it is, unless they are encrypted by SSE-KMS or SSE-C or came in several parts.

        Args:
            etag: with or without quotes.
            seen: MD5s of earlier attempts that differed; one that differs is added.

        Raises:
            DamagedError: they differ.
        """
        expected = etag.strip('"')
        if not self._etags_are_md5 or not _MD5.fullmatch(expected):
            return
        found = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if found == expected:
            return
        if found not in seen:
            seen.add(found)
            raise DamagedError("came with other bytes than its ETag stands for")
        # Damage is never twice the same: these are the bytes, and ETags here are no MD5s. Once is enough to
        # learn that; reading each object twice for ever is not worth it.
        self._etags_are_md5 = False
