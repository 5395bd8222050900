"""A Dask cluster of separate programs, which a test may kill: a scheduler, and workers that come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

STEP = 0.02  # between two looks


class ProgramCluster:
    """A scheduler and workers, each a program of its own on loopback; workers have no nanny."""

    def __init__(self, folder):
        self._file = Path(folder, "scheduler.json")
        self.workers = []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        deadline = time.monotonic() + 30
        while not self._file.exists() and time.monotonic() < deadline:
            time.sleep(STEP)

    @property
    def file(self):
        return str(self._file)

    def _start(self, kind, *arguments, **environment):
        command = [sys.executable, "-m", "dask", kind, "--scheduler-file", str(self._file), *arguments]
        return subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def add_worker(self, *arguments, **environment):
        """Start a worker; the environment is set in addition to that of this process."""
        quiet = ("--no-dashboard", "--no-nanny", "--nthreads", "1", "--host", "127.0.0.1")
        worker = self._start("worker", *quiet, *arguments, **environment)
        self.workers.append(worker)
        return worker

    def close(self):
        for one in (*self.workers, self.scheduler):
            one.kill()
            one.wait()
