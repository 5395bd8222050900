"""A worker's access to the memory of its caller, by ``process_vm_readv`` and ``process_vm_writev`` of Linux."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

from ..._core.inputs.place import Pieces
from ..._core.layout import address_of

# Pieces that one system call copies at most (IOV_MAX), and bytes: the system takes less than 2 GiB at a time.
MOST_PIECES = 1024
MOST_BYTES = 2**30


class CallerMemory:
    """The memory of the process `pid`, as long as the pool's secret lies in it at `address`.

    The secret tells that it is the same process still, with the same program: another one may have got the number of
    a caller that has ended, and `os.exec` puts another program into the same process.
    """

    def __init__(self, pid: int, address: int, secret: bytes) -> None:
        self._pid, self._address, self._secret = pid, address, secret
        libc = ctypes.CDLL(None, use_errno=True) if address else None
        self._read, self._write = (_function(libc, name) for name in ("process_vm_readv", "process_vm_writev"))
        # Address and length of each piece, here and there; and of the secret.
        self._tables = np.zeros((2, MOST_PIECES, 2), np.uint64)
        self._addresses = [address_of(table) for table in self._tables]
        self._found = np.zeros(len(secret), np.uint8)
        self._places = np.array([[address_of(self._found), len(secret)], [address, len(secret)]], np.uint64)

    @property
    def is_open(self) -> bool:
        """True if this process may read it and write to it; it writes the secret, which is there already."""
        if not self._address or self._read is None or self._write is None or not self.is_there:
            return False
        try:
            self.write(self._address, np.frombuffer(self._secret, np.uint8))
        except OSError:
            return False
        return True

    @property
    def is_there(self) -> bool:
        """True if it is the caller's."""
        self._found[:] = 0
        here = address_of(self._places)
        self._read(self._pid, here, 1, here + 16, 1, 0)
        return self._found.tobytes() == self._secret

    def read(self, memory: np.ndarray, offset: int, pieces: Pieces) -> None:
        """Copy pieces to `memory`, where the first item of their array is at byte `offset`.

        Raises
        ------
        OSError
            If they could not all be read.
        """
        self._copy(self._read, address_of(memory) + offset + pieces.ours, pieces.theirs, pieces.nbytes)

    def write(self, address: int, data: np.ndarray) -> None:
        """Copy contiguous `data` to an address; raise an OSError if that fails, which may leave a part of it there."""
        self._copy(self._write, np.array([address_of(data)]), np.array([address]), data.nbytes)

    def _copy(self, call: Any, ours: np.ndarray, theirs: np.ndarray, nbytes: int) -> None:
        if nbytes > MOST_BYTES:
            for at in range(0, nbytes, MOST_BYTES):
                self._copy(call, ours + at, theirs + at, min(MOST_BYTES, nbytes - at))
            return
        most = min(MOST_PIECES, MOST_BYTES // max(1, nbytes))
        self._tables[:, : min(most, len(ours)), 1] = nbytes
        for at in range(0, len(ours), most):
            count = len(ours[at : at + most])
            self._tables[0, :count, 0], self._tables[1, :count, 0] = ours[at : at + most], theirs[at : at + most]
            here, there = self._addresses
            if call(self._pid, here, count, there, count, 0) != count * nbytes:
                code = ctypes.get_errno()
                raise OSError(code, f"cannot reach the memory of process {self._pid}: {os.strerror(code)}")


def _function(libc: Any, name: str) -> Any:
    """A function of C; None where there is none, as on macOS."""
    function = getattr(libc, name, None)
    if function is not None:
        function.restype = ctypes.c_ssize_t
        function.argtypes = [ctypes.c_int, *[ctypes.c_void_p, ctypes.c_ulong] * 2, ctypes.c_ulong]
    return function
