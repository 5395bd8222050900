"""A gate: calls wait in worker processes until the test opens it."""

from __future__ import annotations

import time


def wait_for(path):
    while not path.exists():
        time.sleep(0.001)


class Gate:
    """A function whose calls wait until the gate is opened."""

    def __init__(self, folder):
        self.open_path, self.folder = folder / "open", folder

    def __call__(self, name="gate"):
        (self.folder / f"{name} came").touch()
        wait_for(self.open_path)
        return name

    def came(self, name="gate"):
        wait_for(self.folder / f"{name} came")

    def open(self):
        self.open_path.touch()
