"""A file that is looked at again and again, to see whether it has changed."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Final

_LARGEST: Final = 16 * 1024 * 1024
_DOUBTFUL_LOOKS: Final = 8
"""How many looks after a change compare the content too: a second write within the file system's clock tick, of the same
length, leaves the same time and size."""

_Signature = tuple[int, int, int, int]


class UnreadableError(Exception):
    """The file can't be read. The message says why and what to do."""


class WatchedFile:
    """Tells what is in a file when it has changed: by time, size and inode, so that a rename over it and a touch count."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._signature: _Signature | None = None
        self._digest = b""
        self._doubtful = 0

    def poll(self) -> str | None:
        """Return the text if the file was changed or touched since the last call, None otherwise.

        Raise `UnreadableError` if it can't be read; the next call that can, returns the text.
        """
        try:
            signature = self._look()
            touched = signature != self._signature
            if not touched and not self._doubtful:
                return None
            content = Path(self.path).read_bytes()
            digest = hashlib.sha256(content).digest()
            changed = digest != self._digest
            self._doubtful = _DOUBTFUL_LOOKS if touched or changed else self._doubtful - 1
            self._signature, self._digest = signature, digest
            return content.decode("utf-8-sig") if touched or changed else None
        except OSError as error:
            self._signature = None
            reason = error.strerror or type(error).__name__
            message = f"{self.path}: can't be read: {reason}; check the path in SWITCHYARD_CATALOG and the file's permissions"
            raise UnreadableError(message) from error
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            message = f"{self.path}:{line}: is not UTF-8; save it as UTF-8"
            raise UnreadableError(message) from error

    def _look(self) -> _Signature:
        found = Path(self.path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a regular file")
        if found.st_size > _LARGEST:
            raise OSError(0, f"it is larger than {_LARGEST} bytes")
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
