"""The journal of a run: a header, then one line for whatever has been finished since the line before."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from collections.abc import Iterator
from typing import Any

from ..._system.interpreter import close
from ..._system.platforms.here import OPEN_PRIVATE, lock, read_at, write_at, write_out
from ..._workers.descriptors import above_standard
from ...errors import ParwiseError

#: What a journal begins with.
MAGIC = b"parwise journal 1\n"

# Journals that this process has open: its own locks do not keep it out.
_open: set[tuple[int, ...]] = set()
_open_lock = threading.Lock()


class Journal:
    """A file to which lines are only appended; a context manager, which holds a lock on it.

    A line has a checksum, and is on the disk when `append` returns. One that was cut off by the end of the process or
    of the machine is ignored, and the next one is written in its place.

    Attributes
    ----------
    lines : list of dict
        Those that were there when the journal was opened, the header first.

    Raises
    ------
    ParwiseError
        If another run has the journal open.
    ValueError
        If the file is no journal, or is damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # Length of a file that has zeros only.
        self._zeros = 0
        self._key, self._descriptor = self._open()
        try:
            self.lines, self._end = self._read()
            if not self._end:
                sync_folder(os.path.dirname(path) or ".")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> tuple[tuple[int, ...], int]:
        """Open the file and lock it until this process closes it or ends."""
        with _open_lock:
            if os.path.exists(self.path) and _key_of(os.stat(self.path)) in _open:
                raise self._taken(f"this process ({os.getpid()})")
            descriptor = above_standard(os.open(self.path, os.O_RDWR | os.O_CREAT | OPEN_PRIVATE, 0o666))
            locked = False
            try:
                locked = lock(descriptor)
            finally:
                if not locked:
                    close(descriptor)
            if not locked:
                raise self._taken("another process")
            key = _key_of(os.fstat(descriptor))
            _open.add(key)
            return key, descriptor

    def _taken(self, who: str) -> ParwiseError:
        return ParwiseError(
            f"resume={self.path!r} is the journal of a run at work in {who}; wait until it has ended, or "
            "pass another path"
        )

    def _other_file(self) -> ValueError:
        return ValueError(
            f"resume={self.path!r} is not a journal of parwise, and was left as it is; pass the path of a "
            "journal, or one where there is no file"
        )

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """The lines of the file, and where they end."""
        size = os.fstat(self._descriptor).st_size
        data = read_at(self._descriptor, size, 0)
        if not data.startswith(MAGIC):
            if not MAGIC.startswith(data):
                if data.strip(b"\0"):
                    raise self._other_file()
                self._zeros = size
            return [], 0
        lines: list[dict[str, Any]] = []
        end = len(MAGIC)
        *whole, _ = data[end:].split(b"\n")
        for number, text in enumerate(whole):
            if not _is_sound(text):
                if any(map(_is_sound, whole[number + 1 :])):
                    raise ValueError(
                        f"line {number + 2} of the journal {self.path} is damaged; remove the journal to start again"
                    )
                break
            lines.append(json.loads(text[9:]))
            end += len(text) + 1
        return lines, end if lines else 0

    def append(self, line: dict[str, Any]) -> None:
        """Write a line, and wait until it is on the disk."""
        text = json.dumps(line, separators=(",", ":")).encode()
        data = b"%08x %s\n" % (zlib.crc32(text), text)
        if not self._end:
            data = MAGIC + data
            # A machine that loses its power may leave a file with the length of the first write, and zeros in it. More
            # of these are something else: lines after the first one are written once that is on the disk.
            if self._zeros > len(data):
                raise self._other_file()
        with named(self.path):
            end = self._write(data)
            write_out(self._descriptor)
        self._end = end

    def _write(self, data: bytes) -> int:
        """Write data behind what counts; return where it ends."""
        at = self._end
        while data:
            written = write_at(self._descriptor, data, at)
            data, at = data[written:], at + written
        return at

    def close(self) -> None:
        """Close the file, and with it release the lock."""
        with _open_lock:
            _open.discard(self._key)
            close(self._descriptor)


def _key_of(status: os.stat_result) -> tuple[int, ...]:
    return os.getpid(), status.st_dev, status.st_ino


def _is_sound(text: bytes) -> bool:
    return len(text) > 9 and text[:9] == b"%08x " % zlib.crc32(text[9:])


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """Give errors, as that of a full disk, the name of a file: the system does not for one that is open already."""
    try:
        yield
    except OSError as error:
        error.filename = path
        raise


def sync_folder(path: str) -> None:
    """Wait until names of files made or renamed in a folder are on the disk."""
    if hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
        sync_file(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: str, flags: int = os.O_RDONLY) -> None:
    """Wait until what was written to a file, by any process, is on the disk."""
    descriptor = above_standard(os.open(path, flags | OPEN_PRIVATE))
    try:
        os.fsync(descriptor)
    finally:
        close(descriptor)
