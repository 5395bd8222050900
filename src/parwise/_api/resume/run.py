"""Runs a call with the option `resume`."""

from __future__ import annotations

import os
from typing import Any

from ..._core.call import Call
from ..._core.outputs.overlap import overlaps
from ..._executors.choice import run
from ..._report.null_observer import NullObserver
from ..._verify.audit import Sample, audit
from ...errors import NotReproducibleError
from .batches import JOURNAL, Batches, ItemDigests
from .digest import Digester
from .files import path_of
from .header import check_header, header_of
from .journal import Journal
from .ledger import ArrayLedger, ItemLedger, Ledger, cuts_of
from .resumed_job import ResumedJob
from .targets import Target, make_target


def run_resumed(call: Call, observer: NullObserver) -> Any:
    """Return the result of a call: what its journal counts is not computed again."""
    path = call.settings.resume
    assert path is not None
    targets = [] if call.form == "list" else _targets(call, path)
    if call.form == "list":
        if os.path.isfile(path):
            raise ValueError(f"resume={path!r} is a file; pass the path of a folder, in which results are kept")
        os.makedirs(path, exist_ok=True)
    with Journal(os.path.join(path, JOURNAL) if call.form == "list" else path) as journal:
        digester = Digester()
        header = header_of(call, digester)
        if journal.lines:
            check_header(path, journal.lines[0], header)
        else:
            journal.append(header)
        ledger: ArrayLedger | ItemLedger
        if call.form == "list":
            ledger = ItemLedger(call, journal, Batches(path), ItemDigests(call, digester))
        else:
            ledger = ArrayLedger(call, journal, targets)
        if ledger.gaps and not call.settings.ignore:
            raise ValueError(
                f"the journal resume={path!r} has elements without a result, as errors='ignore' allows; pass "
                "errors='ignore' again, or remove the journal to start again"
            )
        return ledger.whole() if isinstance(ledger, ArrayLedger) and ledger.done else _run(call, ledger, observer)


def _targets(call: Call, path: str) -> list[Target]:
    """The arrays of `out`, if they can keep results."""
    if call.out is None:
        raise ValueError(
            f"resume={path!r} needs out=, an array in files (np.memmap, zarr, h5py) that keeps the "
            "results; parallel_map needs no out"
        )
    if os.path.isdir(path):
        raise ValueError(f"resume={path!r} is a folder; pass the path of a file, for example one beside that of out")
    _check_path(call, path)
    for one in call.out:
        if overlaps(one, call):
            raise ValueError(
                "resume needs an out apart from what func reads, and func seems to read it, as an argument, by a name "
                "in its code, or in a container or an object: once results are written there, the rest cannot be "
                "computed again. Pass another out, or give func no more than it needs"
            )
    if call.block_grid is not None:
        raise ValueError(
            f"resume is not for blocks along several axes, got axis={call.axis}; map along one of them, or leave "
            "resume out"
        )
    targets = [make_target(call, one) for one in call.out]
    cuts = cuts_of(call, targets)
    if call.bounds is not None and cuts is not None and len(cuts) <= 2 < len(call.bounds):
        raise ValueError(
            f"resume could keep nothing before the end: no block of {call.bounds[0][1]} elements ends "
            "where a chunk of out does; pass as chunk= a multiple, or a divisor, of the length of chunks "
            "along the mapped axis"
        )
    return targets


def _check_path(call: Call, path: str) -> None:
    """Raise a ValueError if the journal would be written over an array of the call."""
    sources = [getattr(one.source, "source", one.source) for one in call.inputs]
    for file in map(path_of, [*(call.out or ()), *sources, *call.args, *call.kwargs.values()]):
        if file is not None and os.path.exists(path) and os.path.exists(file) and os.path.samefile(path, file):
            raise ValueError(
                f"resume={path!r} is the file of an array of this call, over which the journal would be written; "
                "pass the path of another file, for example one beside that of out"
            )


def _run(call: Call, ledger: Ledger, observer: NullObserver) -> Any:
    """Compute what the ledger does not count, and return the whole result."""
    sample = Sample(call.vectorized) if call.settings.verify else None
    job = ResumedJob(call, ledger, None if sample is None else sample.receive, observer)
    try:
        if job.is_complete:
            job.open()
            result = job.finish()
        else:
            run(job)
            result = job.finish() if sample is None and job.comparison.disputed is None else audit(job, sample)
    except BaseException as error:
        try:
            if isinstance(error, NotReproducibleError):
                ledger.dispute(str(error))
            else:
                ledger.commit()
        except Exception as other:
            error.add_note(f"and the journal could not be brought up to date: {type(other).__name__}: {other}")
        finally:
            job.abandon()
        raise
    ledger.finish(result)
    return result
