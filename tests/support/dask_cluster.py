"""A Dask cluster of separate programs, which a test may kill: a scheduler, and workers that come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

STEP = 0.02  # between two looks


class ProgramCluster:
    """A scheduler and workers, each a program of its own, on loopback unless told otherwise; workers have no nanny."""

    def __init__(self, folder, host="127.0.0.1"):
        self._file = Path(folder, "scheduler.json")
        self._host = host
        self.workers = []
        self.scheduler = self._start("scheduler", "--host", host, "--port", "0", "--no-dashboard")
        deadline = time.monotonic() + 30
        while not self._file.exists() and time.monotonic() < deadline:
            time.sleep(STEP)

    @property
    def file(self):
        return str(self._file)

    def _start(self, kind, *arguments, within=(), **environment):
        command = [*within, sys.executable, "-m", "dask", kind, "--scheduler-file", str(self._file), *arguments]
        return subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def add_worker(self, *arguments, within=(), **environment):
        """Start a worker, by the command `within`; the environment is set in addition to that of this process."""
        quiet = ("--no-dashboard", "--no-nanny", "--nthreads", "1", "--host", self._host)
        worker = self._start("worker", *quiet, *arguments, within=within, **environment)
        self.workers.append(worker)
        return worker

    def close(self):
        for one in (*self.workers, self.scheduler):
            one.kill()
            one.wait()


class OtherNetwork:
    """A network namespace, joined to this one by a cable that can be pulled."""

    here, there = "10.213.77.1", "10.213.77.2"

    def __init__(self):
        self._keeper = subprocess.Popen(["unshare", "-n", "sleep", "120"])
        self.within = ("nsenter", "-t", str(self._keeper.pid), "-n")
        self._own = f"pw{os.getpid()}"

    def connect(self):
        deadline = time.monotonic() + 10
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self._keeper.pid}/ns/net") == own and time.monotonic() < deadline:
            time.sleep(STEP)
        self._ip("link", "add", self._own, "type", "veth", "peer", "name", "pwthere", "netns", str(self._keeper.pid))
        self._ip("addr", "add", f"{self.here}/24", "dev", self._own)
        self._ip("addr", "add", f"{self.there}/24", "dev", "pwthere", within=self.within)
        self._ip("link", "set", "pwthere", "up", within=self.within)
        self.plug("up")

    def plug(self, state):
        """Set the link "up" or "down"."""
        self._ip("link", "set", self._own, state)

    def _ip(self, *arguments, within=()):
        subprocess.run([*within, "ip", *arguments], check=True, capture_output=True)

    def close(self):
        self._keeper.kill()
        self._keeper.wait()
        subprocess.run(["ip", "link", "del", self._own], capture_output=True)
