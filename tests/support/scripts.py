"""Scripts in an interpreter of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def run_script(code, *options, **more):
    """Run a script in a new interpreter, warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", *options],
        input=textwrap.dedent(code),
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )
