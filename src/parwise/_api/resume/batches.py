"""Results of items in a folder, one file for each batch; and digests of the items."""

from __future__ import annotations

import contextlib
import os
import pickle
import zlib
from array import array
from collections.abc import Sequence
from typing import Any

import cloudpickle

from ..._core.call import Call
from ..._core.inputs.items import ItemSequence, ItemStream
from .digest import Digester
from .files import hash_of
from .journal import named, sync_file, sync_folder

#: Name of the journal in the folder.
JOURNAL = "journal"


class Batches:
    """The files of a folder with results of items.

    Attributes
    ----------
    count : int
        Number of files that the journal lists. One that it does not list, as the disk was full, is written over.
    """

    def __init__(self, folder: str) -> None:
        # The function may change the working directory.
        self._folder = os.path.abspath(folder)
        self.count = 0

    def save(self, runs: Sequence[tuple[int, int]], results: list[list[Any]]) -> dict[str, Any]:
        """Write the results of some runs of items to a new file; return what finds it again."""
        data = _dumped(runs, results)
        name = f"results-{self.count:06d}.pkl"
        path = os.path.join(self._folder, name)
        try:
            with named(path + ".partial"), open(path + ".partial", "wb") as file:
                file.write(data)
            sync_file(path + ".partial")
            os.replace(path + ".partial", path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(path + ".partial")
            raise
        sync_folder(self._folder)
        return {"file": name, "checksum": zlib.crc32(data)}

    def load(self, line: dict[str, Any]) -> list[list[Any]]:
        """Read the results of a line of the journal again."""
        path = os.path.join(self._folder, line["file"])
        self.count += 1
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            data = b""
        if zlib.crc32(data) != line["checksum"]:
            raise ValueError(f"{path} lacks results that the journal beside it lists; remove the folder to start again")
        results: list[list[Any]] = pickle.loads(data)
        return results


def _dumped(runs: Sequence[tuple[int, int]], results: list[list[Any]]) -> bytes:
    """Pickled results; what pickle does not know goes by value, as with results of workers."""
    try:
        return pickle.dumps(results, 5)
    except Exception:
        try:
            data: bytes = cloudpickle.dumps(results, 5)
        except Exception as error:
            error.add_note(f"among the results of items {runs[0][0]} to {runs[-1][1] - 1}, which resume keeps in files")
            raise
        return data


class ItemDigests:
    """Digests of the items of a call: of a list made at once, of an iterator as it is read."""

    def __init__(self, call: Call, digester: Digester) -> None:
        self._digester = digester
        self._found = array("Q")
        feed = call.feed
        if isinstance(feed, ItemStream):
            feed.watch(self._note)
        elif isinstance(feed, ItemSequence):
            columns = [feed.items(k, 0, feed.count) for k in range(len(call.inputs))]
            for item in columns[0] if len(columns) == 1 else zip(*columns, strict=True):
                self._note(item)

    def _note(self, item: Any) -> None:
        try:
            self._found.append(int(self._digester.digest(item)[:16], 16))
        except Exception as error:
            raise TypeError(
                f"item {len(self._found)} cannot be pickled ({type(error).__name__}: {error}), so resume "
                "could not tell later whether it is the same; pass items that can, such as the paths of files"
            ) from error

    def digest(self, lo: int, hi: int) -> str:
        """The digest of some items together."""
        if hi > len(self._found):
            raise ValueError(
                f"there are {len(self._found)} items, but the journal has results of items up to {hi - 1}; "
                "pass all items again, or the path of another folder"
            )
        return hash_of(self._found[lo:hi].tobytes())
