"""The files of a page onto a store, so that no reader sees half of a page.

Each file but `index.html` is named by its content, and is written if it is not there yet. `index.html` names
the others and is replaced last. Only then are the files of earlier pages deleted.
"""

import hashlib
import re

from audio_assets.storage import ObjectStore

INDEX = "index.html"
GENERATOR = b'<meta name="generator" content="audio-assets listening page">'
"""By which a page is known as one of these."""

_OWN = re.compile(r"(data|clips|static)/[\w.-]+\.(js|css)")


class Publisher:
    """Writes one page.

    Attributes:
        files: how many the page has.
        size: bytes of all of them.

    Args:
        store: where the page lies, or what holds its folder.
        folder: of the page in the store, empty or with `/` at its end.

    Raises:
        ValueError: there is an `index.html` already that is no page of this kind.
        StorageError: the store cannot be read.
    """

    def __init__(self, store: ObjectStore, folder: str = "") -> None:
        self._store = store
        self._folder = folder
        index = store.read_latest(f"{folder}{INDEX}")
        if index is not None and GENERATOR not in index[0]:
            raise ValueError(f"{store.uri}/{folder}{INDEX} is no listening page; name another folder")
        self._version = None if index is None else index[1]
        self._before = {
            path.removeprefix(folder): version
            for kind in ("data", "clips", "static")
            for path, version in store.list_files(f"{folder}{kind}/")
        }
        self._written: set[str] = set()
        self.files = 0
        self.size = 0

    def add(self, name: str, body: bytes) -> str:
        """Write a file, unless it is there; gives the name that the page knows it by.

        Args:
            name: such as `data/texts-0000.js`, which becomes `data/texts-0000-<digest>.js`.
        """
        stem, _, suffix = name.rpartition(".")
        return self.add_named(f"{stem}-{hashlib.sha256(body).hexdigest()[:12]}.{suffix}", body)

    def add_named(self, path: str, body: bytes) -> str:
        """As `add`, for a name that already says which content it is."""
        if path not in self._before and path not in self._written:
            self._store.replace(f"{self._folder}{path}", body, None)
        self._count(path, body)
        return path

    def _count(self, path: str, body: bytes) -> None:
        if path not in self._written:
            self._written.add(path)
            self.files += 1
            self.size += len(body)

    def finish(self, index: bytes) -> None:
        """Replace `index.html`, then delete what earlier pages had.

        Raises:
            ConflictError: another run made the page meanwhile.
            StorageError: something cannot be written or deleted.
        """
        self._store.replace(f"{self._folder}{INDEX}", index, self._version)
        self._count(INDEX, index)
        for path, version in self._before.items():
            if path not in self._written and _OWN.fullmatch(path):
                self._store.delete(f"{self._folder}{path}", version)
