"""One call, as a process that computes some of its tasks knows it.

`Session` is packed by the caller and loaded by parwise's own workers (`worker`)
and by processes of other executors (`remote`), which compute its tasks.
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from .._core.cursor import Cursor
from .._core.inputs.foreign import UnreadableError
from .._core.inputs.place import Place
from .._core.kernel import Allocate, Kernel, Outcome, new_memory
from .._core.layout import Layout
from .._system.blas import ThreadCounts, ThreadWatch
from .._system.definitions import Table, open_table
from .._system.inheritance import tracker_fd
from .._system.library_settings import LocalSettings
from .._system.surroundings import CallerState, Surroundings
from .pickling.payload import BufferTable, Payload, load
from .pickling.picklers import Pickler, dump, dumps
from .pickling.sent_definitions import Definitions
from .protocol import ForeignBytesError, verified
from .shared_globals import is_prepared, set_by

if TYPE_CHECKING:
    from .._core.inputs.recipes import FileInput
    from .._core.outputs.stored import FileOutput
    from .claims import Claim
    from .pool.worker_handle import WorkerHandle

# Workers keep a function until the next call, unless it takes more bytes than this.
LARGE_BYTES = 2**20
# Tables of definitions that a worker keeps, those of the latest calls; the caller counts in the same way.
KEPT_TABLES = 4


#: In the place of an offset: the argument is read from a file.
IN_FILE = -1
#: Arguments that are read from files, and arrays in files that results are written to, see `Session`.
Files: TypeAlias = "tuple[list[FileInput | None], list[FileOutput]]"
#: Byte offsets of arguments in a task's memory; size and checksum of each if it is pickled, else 0.
Offsets: TypeAlias = list[tuple[int, int, int]]


class TaskArguments(NamedTuple):
    """A task and its arguments in memory."""

    lo: int
    hi: int
    offsets: Offsets
    layouts: list[Layout] | None
    memory: Any


class Session(NamedTuple):
    """The function of one call and the state of the caller that it depends on.

    Attributes
    ----------
    layouts : list of Layout
        Layouts of the arguments; empty if they differ from task to task.
    setup : callable, optional
        What each process of another executor calls first.
    places : list of Place
        Where the arguments lie in the caller's memory; empty unless workers may read them there.
    inputs : list of FileInput or None
        Arguments that are read from files, where a task says so; empty without any.
    outputs : list of FileOutput
        Arrays in files that results are written to; empty unless all results may be.
    """

    definitions: Definitions  # in a worker their table; first, as it is needed to unpickle the rest
    kernel: Kernel
    layouts: list[Layout]
    threads: ThreadCounts
    surroundings: Surroundings
    setup: Callable[[], object] | None = None
    places: list[Place] = []  # noqa: RUF012 - a NamedTuple
    inputs: list[FileInput | None] = []  # noqa: RUF012
    outputs: list[FileOutput] = []  # noqa: RUF012

    @classmethod
    def pack(
        cls,
        kernel: Kernel,
        layouts: list[Layout],
        places: list[Place],
        threads: ThreadCounts,
        definitions: Definitions,
        state: CallerState,
        files: Files = ([], []),
    ) -> Payload:
        """Pickle a session for parwise's own workers."""
        session = cls(definitions, kernel, layouts, threads, state.surroundings, None, places, *files)
        return dump(state.process, session, definitions)

    @classmethod
    def pack_for_guest(
        cls,
        kernel: Kernel,
        layouts: list[Layout],
        threads: ThreadCounts,
        setup: Callable[[], object] | None,
        definitions: Definitions,
        files: Files = ([], []),
    ) -> Payload:
        """Pickle a session for processes of another executor, which take over the path, and the state of a task."""
        state = read_state()
        session = cls(definitions, kernel, layouts, threads, state.surroundings, setup, [], *files)
        mark = None if setup is None else mark_of(setup)
        return dump((state.process.path, mark), session, definitions)

    @classmethod
    def load(cls, memory: memoryview, table: BufferTable, enter: Callable[[Any], None]) -> Session:
        """Unpickle a session in the computing process, its arrays in `memory`, after `enter` got what comes first."""
        session: Session = load(memory, table, enter)
        return session

    def parts(self, lo: int, hi: int) -> Iterator[tuple[int, int]]:
        """Cut a task whose arguments are read into parts as long as one that is copied."""
        most = self.layouts[0].shape[0] if self.layouts else hi - lo
        for begin in range(lo, hi, most):
            yield begin, min(begin + most, hi)

    def arguments(
        self, memory: Any, offsets: Offsets, layouts: list[Layout] | None, lo: int, hi: int
    ) -> list[np.ndarray]:
        """Rebuild the arguments of a task; arrays are views of `memory`, or are read from files."""
        table: Any = self.definitions
        table.begin()
        # The session's own layouts have room for the longest task.
        used = None if layouts else hi - lo
        arguments = []
        for k, ((offset, nbytes, check), layout) in enumerate(zip(offsets, layouts or self.layouts, strict=True)):
            if offset == IN_FILE and (source := self.inputs[k]) is not None:
                arguments.append(source.read(lo, hi, layout))
                continue
            if nbytes:
                array = _unpickle(verified(bytes(memory[offset : offset + nbytes]), check))
            else:
                array = layout.view(memory, offset, used)
            arguments.append(layout.as_given(array))
        return arguments

    def run(
        self,
        memory: Any,
        lo: int,
        hi: int,
        offsets: Offsets,
        layouts: list[Layout] | None,
        watch: ThreadWatch,
        cursor: Cursor | None = None,
        allocate: Allocate = new_memory,
    ) -> Outcome:
        """Compute a task; `watch` is that of this thread, `cursor` and `allocate` are as in `Kernel.run`."""
        try:
            arguments = self.arguments(memory, offsets, layouts, lo, hi)
        except (ForeignBytesError, UnreadableError):
            raise
        except BaseException as error:  # whatever an object raises while it is rebuilt, SystemExit included
            return Outcome(None, 0.0, index=lo, error=error)
        kernel = self.kernel
        first, look = kernel.first_task, None
        if first is not None:
            look = first.look(kernel.func, kernel.args, kernel.kwargs, is_prepared())
        with watch:
            outcome = kernel.run(arguments, lo, hi, cursor, allocate)
        outcome.threaded = watch.busy is True
        if look is not None:
            outcome.effects = look.effects()
        return outcome

    def untrimmed(self) -> Session:
        """The same session, but results of blocks keep their halo."""
        kernel = copy.copy(self.kernel)
        kernel.halo = None
        return self._replace(kernel=kernel)

    def store(self, outcome: Outcome, lo: int, hi: int) -> None:
        """Write the results of a task to the files where they belong, if it covers whole chunks of them."""
        if self.outputs and outcome.results is not None and outcome.error is None:
            from .._core.outputs.stored import store  # most calls do without

            outcome.results = store(self.outputs, outcome.results, lo, hi)

    def store_claimed(self, outcome: Outcome, lo: int, hi: int, claim: Claim) -> bool:
        """The same if the claim can be taken; False if the caller does not want the results any more."""
        if not claim.take():
            return False
        try:
            self.store(outcome, lo, hi)
        finally:
            claim.release()
        return True


def _unpickle(data: Any) -> Any:
    try:
        return pickle.loads(data)
    except BaseException as error:
        error.add_note("while unpickling the elements in a worker process")
        raise


def read_state(local: LocalSettings | None = None) -> CallerState:
    """The state of this process and thread, as `CallerState.read` does."""
    return CallerState.read(dumps, local)


def read_state_again(known: CallerState | None, idle: bool) -> CallerState:
    """The state of this process and thread, or `known` if that is still true, as `CallerState.read_again` does."""
    return (known or read_state()).read_again(dumps, idle)


class Tables:
    """Holds the tables of definitions in a worker, of the latest calls."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Table] = OrderedDict()

    def add(self, token: str, late: bool, load: Callable[[], Any]) -> None:
        """Add a part to a table."""
        keep(self._kept, token, open_table(token)).add(late, load)

    def clear(self) -> None:
        """Release all tables."""
        self._kept.clear()


def keep(kept: OrderedDict[str, Any], token: str, new: Any) -> Any:
    """Return the entry of a token, which becomes the latest, and forget the oldest ones."""
    found = kept.setdefault(token, new)
    kept.move_to_end(token)
    while len(kept) > KEPT_TABLES:
        kept.popitem(last=False)
    return found


def pack_initializer(
    initializer: Callable[..., Any],
    *initargs: Any,
    setup: Callable[[], object] | None = None,
    local: LocalSettings | None = None,
) -> Payload:
    """Pickle a function that prepares a worker, with the state of this process; `setup` is given if it is that."""
    state, definitions = read_state(local), Definitions(True, setup)
    what = "the function given as setup" if setup else "the initializer or finalizer, or an argument of it,"
    packed = (definitions, initializer, initargs, state.surroundings)
    return dump(state.process, packed, definitions, sending=(what, "inside the function"))


class SetUp(NamedTuple):
    """The function given as `setup`, packed for workers, and a mark by which it is known again."""

    mark: bytes
    payload: Payload

    @classmethod
    def of(cls, setup: Callable[[], object], local: LocalSettings | None) -> SetUp:
        """Pack a function; `local` is that of `CallerState.read`."""
        return cls(mark_of(setup), pack_initializer(setup, setup=setup, local=local))


class PackedSession(NamedTuple):
    """A session packed for workers, with the number of its call, and its state if that is not one for all tasks."""

    call: int
    payload: Payload
    state: CallerState | None

    @classmethod
    def of(
        cls,
        call: int,
        kernel: Kernel,
        arguments: tuple[list[Layout], list[Place]],
        threads: ThreadCounts,
        definitions: Definitions,
        state: CallerState | None,
        local: LocalSettings | None,
        files: Files = ([], []),
    ) -> PackedSession:
        """Pack a session; `arguments` are their layouts and places. Without `state`, with this thread's and `local`."""
        given = state or read_state(local)
        return cls(call, Session.pack(kernel, *arguments, threads, definitions, given, files), state)

    def send(self, workers: Iterable[WorkerHandle], set_up: SetUp | None) -> None:
        """Send it to workers, behind what prepares them."""
        fd = tracker_fd()
        for worker in workers:
            if worker.call != self.call:
                worker.call, worker.earlier_call = self.call, worker.call
            worker.state = self.state
            worker.parts.clear()
            worker.told_targets = False
            worker.share_tracker(fd)
            if set_up is not None and worker.mark is None:
                worker.mark = set_up.mark
                set_up.payload.send([worker.channel], "set_up", 0)
        self.payload.send((worker.channel for worker in workers), "load", self.call)

    def unload(self, workers: Iterable[WorkerHandle], part_bytes: int) -> None:
        """Have workers release it if it or a part is large, or holds connections: the next call may come late."""
        if self.payload.nbytes + part_bytes > LARGE_BYTES or self.payload.attachments:
            for worker in workers:
                with contextlib.suppress(OSError):
                    worker.channel.send("unload")


def send_definitions(worker: WorkerHandle, definitions: Definitions, parts: list[int]) -> int:
    """Send a worker parts of definitions, each once; return the size of the largest that was sent."""
    known = keep(worker.parts, definitions.token, set())
    new = [part for part in parts if part not in known]
    known.update(new)
    for part in new:
        definitions.parts[part].send([worker.channel], "define", (definitions.token, definitions.late[part]))
    return max((definitions.parts[part].nbytes for part in new), default=0)


def mark_of(setup: Callable[[], object]) -> bytes:
    """A digest of a function and all that it holds; another one each time if that cannot be read."""
    import hashlib  # 2.7 ms, and most calls have no `setup`

    stream = io.BytesIO()
    try:
        _MarkPickler(stream, setup).dump(setup)
    except Exception:
        return os.urandom(16)
    return hashlib.blake2b(stream.getbuffer(), digest_size=16).digest()


class _MarkPickler(Pickler):
    """Pickles the content of definitions, without a name for them, and without the globals that `setup` sets."""

    def __init__(self, stream: io.BytesIO, setup: Callable[[], object]) -> None:
        super().__init__(stream)
        self._left_out = set_by(setup)
        self._seen: dict[int, int] = {}

    def _reduce_definition(self, obj: Any, parts: Callable[[Any], tuple[Any, Any, Any]]) -> tuple[Any, ...]:
        if id(obj) in self._seen:
            return int, (self._seen[id(obj)],)
        self._seen[id(obj)] = len(self._seen)
        arguments, state, _ = parts(obj)
        return arguments[0], arguments[1:], state

    def reducer_override(self, obj: Any) -> Any:
        """As in `Pickler`."""
        return _code_content(obj) if type(obj) is types.CodeType else super().reducer_override(obj)

    def _globals(self, names: dict[str, Any], used: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        left_out = self._left_out.get(names.get("__name__", ""), ())
        return super()._globals(names, {name: value for name, value in used.items() if name not in left_out})


def _code_content(code: types.CodeType) -> tuple[Any, ...]:
    """The parts of code: `marshal` gives other bytes for the same code from time to time."""
    return str, (code.co_code, code.co_consts, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
