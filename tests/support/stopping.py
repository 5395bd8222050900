"""A function that notes its calls, and raises at one element as long as a file is there: a run that can be resumed."""

from __future__ import annotations

import contextlib
import os

import numpy as np


class Stopped(Exception):
    """The run has been stopped."""


class Stopping:
    """``function(element)``, noted by the first number of the element."""

    def __init__(self, folder, function=np.cumsum):
        self.folder = str(folder)
        self.function = function

    def __call__(self, element, **more):
        number = int(np.ravel(element)[0])
        descriptor = os.open(os.path.join(self.folder, "notes"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, b"%d\n" % number)
        os.close(descriptor)
        if os.path.exists(os.path.join(self.folder, f"stop {number}")):
            raise Stopped(number)
        return self.function(element, **more)

    def calls(self):
        """Numbers of the elements that were computed since this was asked last."""
        path = os.path.join(self.folder, "notes")
        if not os.path.exists(path):
            return []
        with open(path) as file:
            found = [int(line) for line in file]
        os.unlink(path)
        return found

    @contextlib.contextmanager
    def stopped_at(self, number):
        """Have the function raise at one element."""
        path = os.path.join(self.folder, f"stop {number}")
        with open(path, "w"):
            pass
        try:
            yield
        except Stopped:
            os.unlink(path)
        else:
            raise AssertionError("the run was not stopped")
