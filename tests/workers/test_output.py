"""Prints, warnings and log records of a function in a worker reach the caller as in the loop."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import threading
import time
import types
import warnings

import numpy as np
import pytest

import parwise
from parwise import parallel_apply, parallel_imap
from parwise._executors.job.output_replay import OutputReplay
from parwise._workers.worker.output_capture import OutputCapture, TextEvent

from ..support.functions import ISOLATED
from ..support.oracle import assert_same
from ..support.scripts import run_script


@pytest.fixture(params=["isolated", "eager"])
def where(request):
    if request.param == "eager":
        request.getfixturevalue("eager")
        return {"workers": 2}
    return ISOLATED


def test_print(where, capsys):
    def f(x):
        print("element", x)
        print("careful", x, file=sys.stderr)
        sys.stdout.write("")
        return x

    assert_same(parallel_apply(f, np.arange(300), **where, verify=False), np.arange(300))
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == sorted(f"element {k}" for k in range(300))
    assert sorted(err.splitlines()) == sorted(f"careful {k}" for k in range(300))
    if where is ISOLATED:
        assert out == "".join(f"element {k}\n" for k in range(300))


def test_print_goes_to_the_callers_stream_of_the_moment():
    with contextlib.redirect_stdout(io.StringIO()) as mine:
        parallel_apply(lambda x: print(x, end=" "), np.arange(5), **ISOLATED)
    assert mine.getvalue() == "0 1 2 3 4 "


def test_output_of_a_pools_workers_is_in_index_order(capsys):
    """One by one taken, elements are calls of `Pool.submit` there, which end in any order; others keep their own."""
    with parwise.Pool(2) as pool:
        for number in range(30):
            other = pool.submit(print, "other", number)
            assert list(parallel_imap(print, range(50), executor=pool, isolate=True)) == [None] * 50
            other.result()
            out = capsys.readouterr().out.splitlines()
            out.remove(f"other {number}")
            assert out == [str(k) for k in range(50)]


def test_bytes_in_a_buffer_belong_to_their_element(capfdbinary):
    """Also those of the element that is computed twice, to compare."""

    def f(x):
        sys.stdout.buffer.write(b"%d " % x)
        time.sleep(0.01 * (x % 2))
        return x

    with parwise.Pool(2) as pool:
        assert list(parallel_imap(f, range(20), executor=pool)) == list(range(20))
    sys.stdout.flush()
    assert capfdbinary.readouterr().out.split() == [b"%d" % k for k in range(20)]


def test_handshake_is_not_heard(eager, capsys):
    """The element that is computed twice prints once."""
    parallel_apply(lambda x: print("element", x), np.arange(100), workers=2)
    assert sorted(capsys.readouterr().out.split()[1::2], key=int) == [str(k) for k in range(100)]


def test_streams_are_like_any(capsys):
    def f(x):
        sys.stdout.buffer.write(b"bytes ")
        sys.stdout.flush()
        sys.stdout.writelines(["lines\n"])
        assert sys.stdout.writable()
        assert not sys.stdout.isatty()
        assert not sys.stdout.closed
        assert sys.stdout.encoding == "utf-8"
        assert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
        with pytest.raises(TypeError, match="must be str"):
            sys.stdout.write(b"")
        sys.stdout.write("")
        return x

    parallel_apply(f, np.arange(2), **ISOLATED)
    assert capsys.readouterr().out == "bytes lines\n" * 2


def test_programs_of_the_function_write_to_the_real_stream():
    done = run_script(
        """
        import os, subprocess, sys, numpy as np
        from parwise import parallel_apply
        def f(x):
            subprocess.run([sys.executable, "-c", "print('from a program')"], stdout=sys.stdout, check=True)
            if os.fork() == 0:
                print("from a fork")
                os._exit(0)
            os.wait()
        parallel_apply(f, np.arange(1), isolate=True)
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "from a program\nfrom a fork\n"


def test_long_element_is_heard_while_it_runs(tmp_path):
    """Output arrives while the element runs, and in index order."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    heard = []

    class Listener(io.StringIO):
        def write(self, text):
            heard.append(text)
            if text.startswith("now"):
                with open(gate, "w") as pipe:
                    pipe.write("go on")
            return len(text)

    def f(x):
        if x == 1:
            print("second")
            return 0
        time.sleep(0.25)  # so long a pause is kept between two messages
        print("now")
        with open(gate) as pipe:
            return len(pipe.read())

    with contextlib.redirect_stdout(Listener()):
        assert parallel_apply(f, np.arange(2), **ISOLATED).tolist() == [5, 0]
    assert "".join(heard) == "now\nsecond\n"


def test_much_text_comes_whole(capsys):
    def f(x):
        for k in range(50):
            print(f"{x} {k} " + "text" * 500)
        print("x" * 300_000)

    parallel_apply(f, np.arange(6), **ISOLATED)
    want = "".join(
        "".join(f"{x} {k} " + "text" * 500 + "\n" for k in range(50)) + "x" * 300_000 + "\n" for x in range(6)
    )
    assert capsys.readouterr().out == want


def test_nothing_is_heard_from_behind_an_error(capsys):
    def f(x):
        print(x)
        if x == 5:
            raise ValueError(x)

    with pytest.raises(ValueError, match="5"):
        parallel_apply(f, np.arange(200), **ISOLATED)
    assert capsys.readouterr().out.split() == [str(k) for k in range(6)]


def test_warnings_text_and_records_keep_their_order(capsys):
    def f(x):
        print("before")
        warnings.warn(f"odd {x}", RuntimeWarning, stacklevel=1)
        print("after")

    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *args, **kwargs: (print("warning"), shown.append(args))
        parallel_apply(f, np.arange(2), **ISOLATED)
    assert capsys.readouterr().out.split() == ["before", "warning", "after"] * 2
    assert [(str(one[0]), one[1], one[2]) for one in shown] == [(f"odd {x}", RuntimeWarning, __file__) for x in (0, 1)]


def test_filters_are_the_callers():
    def f(x):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("odd", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("once", category=UserWarning)
        parallel_apply(f, np.arange(40), **ISOLATED)
    assert [str(one.message) for one in log] == ["odd"]


def test_log_records(where, caplog):
    def f(x):
        logger = logging.getLogger("parwise.test.mine")
        logger.info("element %d", x, extra={"mine": x})
        logger.debug("never")
        logging.getLogger("parwise.test.silent").error("never")
        try:
            1 / int(x != 3)
        except ZeroDivisionError:
            logger.exception("three")
        return x

    caplog.set_level(logging.CRITICAL, logger="parwise.test.silent")
    caplog.set_level(logging.INFO, logger="parwise.test.mine")
    parallel_apply(f, np.arange(60), **where, verify=False)
    records = [one for one in caplog.records if one.name.startswith("parwise.test")]
    told = [one.getMessage() for one in records if one.levelno == logging.INFO]
    assert sorted(told, key=lambda text: int(text.split()[1])) == [f"element {k}" for k in range(60)]
    assert sorted(one.mine for one in records if one.levelno == logging.INFO) == list(range(60))
    (error,) = (one for one in records if one.levelno == logging.ERROR)
    assert error.getMessage() == "three"
    assert "ZeroDivisionError" in (error.exc_text or str(error.exc_info))
    assert len(records) == 61


def test_log_levels_follow_the_caller(caplog):
    def f(x):
        logging.getLogger("parwise.test.mine").info("here")

    for level, count in ((logging.INFO, 3), (logging.ERROR, 0), (logging.INFO, 3)):
        caplog.clear()
        caplog.set_level(level, logger="parwise.test.mine")
        parallel_apply(f, np.arange(3), **ISOLATED)
        assert len(caplog.records) == count


def test_records_that_cannot_travel_whole(caplog):
    def f(x):
        logging.getLogger("parwise.test.mine").warning("text %s", "and argument", extra={"open": open(os.devnull)})  # noqa: SIM115

    parallel_apply(f, np.arange(1), **ISOLATED)
    assert [one.getMessage() for one in caplog.records] == ["text and argument"]


class Talkative(UserWarning):
    def __reduce__(self):
        raise TypeError("stays here")


def test_warnings_that_cannot_travel_whole():
    with pytest.warns(UserWarning, match="odd") as log:
        parallel_apply(lambda x: warnings.warn("odd", Talkative, stacklevel=1), np.arange(1), **ISOLATED)
    assert len(log) == 1


def test_the_environment_of_arithmetic_is_the_callers(where):
    """Error handling with its callback, buffer size, print options, decimal context."""
    import decimal

    def f(x):
        with warnings.catch_warnings():
            np.float64(x) / np.zeros(1)
        one = decimal.Decimal(1) / 7
        return f"{np.array([x / 3])} {one} {np.getbufsize()} {np.geterr()['divide']}"

    def callback(kind, flag):
        print("callback", kind)

    size = np.setbufsize(16 * 100)
    try:
        with (
            np.errstate(divide="call", call=callback),
            np.printoptions(precision=3),
            decimal.localcontext(decimal.Context(prec=5)),
            contextlib.redirect_stdout(io.StringIO()) as heard,
        ):
            got = parallel_apply(f, np.arange(1.0, 40.0), **where, verify=False)
            said = heard.getvalue()
            want = [f(x) for x in np.arange(1.0, 40.0)]
    finally:
        np.setbufsize(size)
    assert got.tolist() == want
    assert said == "callback divide by zero\n" * 39


def test_replay_waits_for_what_comes_before(capsys):
    output_replay = OutputReplay(types.SimpleNamespace(func=print))
    output_replay.record(5, [TextEvent(6, "stdout", "six")])
    output_replay.repeat(lambda: float("inf"), pytest.fail)
    assert capsys.readouterr().out == ""
    output_replay.close(3, 5)
    output_replay.record(0, [TextEvent(1, "stdout", "one ")])
    output_replay.repeat(lambda: float("inf"), pytest.fail)
    assert capsys.readouterr().out == "one "
    output_replay.close(0, 3)
    output_replay.repeat(lambda: float("inf"), pytest.fail)
    assert capsys.readouterr().out == "six"
    output_replay.record(8, [TextEvent(8, "stdout", "eight"), TextEvent(9, "stdout", "nine")])
    output_replay.repeat(lambda: 8, pytest.fail, everything=True)
    assert capsys.readouterr().out == "eight"


def test_replay_ends_at_an_error_that_another_thread_accepts_meanwhile(monkeypatch, capsys):
    limit, output_replay = float("inf"), OutputReplay(types.SimpleNamespace(func=print))
    output_replay.record(0, [TextEvent(0, "stdout", "zero")])
    output_replay.record(3, [TextEvent(3, "stdout", "three")])
    take_due = output_replay.take_due

    def take_late(everything):
        nonlocal limit
        limit = 2
        output_replay.close(0, 3)
        return take_due(everything)

    monkeypatch.setattr(output_replay, "take_due", take_late)
    output_replay.repeat(lambda: limit, pytest.fail)
    assert capsys.readouterr().out == "zero"


def test_ear_joins_what_belongs_together():
    passed = []
    capture = OutputCapture(lambda: 3, lambda: passed.append(capture.drain()))
    for text in ("a", "b"):
        capture.add_text("stdout", text)
    capture.add_text("stderr", "c")
    assert capture.drain() == [TextEvent(3, "stdout", "ab"), TextEvent(3, "stderr", "c")]
    capture.add_text("stdout", "x" * 10_000)
    assert passed == [[TextEvent(3, "stdout", "x" * 10_000)]]


def test_output_is_sent_between_two_lines(monkeypatch):
    """`print` writes each of its arguments alone, and the caller may print between what it gets."""
    now, passed = [0.0], []
    monkeypatch.setattr("parwise._workers.worker.output_capture.monotonic", lambda: now[0])
    capture = OutputCapture(lambda: 3, lambda: passed.extend(one.text for one in capture.drain()))
    now[0] = 1.0
    for text in ("a", " ", "line", "\n", "another", "\n"):
        capture.add_text("stdout", text)
    assert passed == ["a line\n"]
    now[0] = 2.0
    for text in ("one", " ", "x" * 5000, "\n", "y" * 5000):
        capture.add_text("stdout", text)
    assert passed[1:] == ["another\none " + "x" * 5000 + "\n"]
    for _ in range(3):  # dots, while a line lasts long
        now[0] += 0.15
        capture.add_text("stdout", ".")
    assert passed[2:] == ["y" * 5000 + ".."]


@pytest.mark.parametrize("options", [{"errors": "ignore"}, {"retries": 1}])
def test_recomputed_elements_speak_once(options, capsys, tmp_path):
    def f(x):
        print(f"[{int(x)}]" + "." * 9000)
        if x in (36, 137, 161):
            try:
                os.close(os.open(f"{tmp_path}/{x}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return x
            os._exit(1)
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallel_apply(f, np.arange(300.0), **ISOLATED, **options)
    told = [int(number) for number in re.findall(r"\[(\d+)\]", capsys.readouterr().out)]
    assert [k for k in range(300) if told.count(k) != 1 and k not in (36, 137, 161)] == []
    assert max(told.count(k) for k in (36, 137, 161)) <= 2


def test_text_of_threads_that_the_function_leaves_behind():
    def f(x):
        if x == 0:
            threading.Thread(target=lambda: [print("x" * 9000) for _ in range(300)], name="talk").start()
        time.sleep(0.001)
        return x

    with contextlib.redirect_stdout(io.StringIO()):
        assert_same(parallel_apply(f, np.arange(200), isolate=True, workers=1), np.arange(200))


def test_bad_logging_calls_do_not_break_the_function(capsys):
    def f(x):
        logging.getLogger("parwise.test.mine").warning("%d items", "three")
        return x

    assert_same(parallel_apply(f, np.arange(4), **ISOLATED), np.arange(4))
    assert "--- Logging error ---" in capsys.readouterr().err


def test_warnings_of_classes_that_only_the_worker_has():
    def f(x):
        if "only_there" not in sys.modules:
            sys.modules["only_there"] = module = types.ModuleType("only_there")
            exec("class Odd(RuntimeWarning): pass", vars(module))
        logging.getLogger("parwise.test.mine").warning("hi", extra={"lock": threading.Lock()})
        warnings.warn("careful", sys.modules["only_there"].Odd, stacklevel=1)
        return x

    with pytest.warns(RuntimeWarning, match="careful"):
        assert_same(parallel_apply(f, np.arange(2), **ISOLATED), np.arange(2))


def test_handlers_of_modules_do_not_speak_twice(tmp_path, monkeypatch, capsys):
    (tmp_path / "speaking_module.py").write_text(
        "import logging, sys\n"
        "log = logging.getLogger('speaking_module')\n"
        "handler = logging.StreamHandler(sys.stdout)\n"
        "log.addHandler(handler)\n"
        "def f(x):\n    log.warning('element %d', x)\n    return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import speaking_module

    speaking_module.handler.setStream(sys.stdout)
    try:
        parallel_apply(speaking_module.f, np.arange(3), **ISOLATED)
    finally:
        speaking_module.log.removeHandler(speaking_module.handler)
    assert capsys.readouterr().out == "element 0\nelement 1\nelement 2\n"


def test_streams_can_be_configured():
    def f(x):
        sys.stdout.reconfigure(line_buffering=True)
        return x

    assert_same(parallel_apply(f, np.arange(2), **ISOLATED), np.arange(2))


def test_replay_of_a_lost_task(capsys):
    """Output of completed elements is replayed once, and that of the element being computed comes again."""
    output_replay = OutputReplay(types.SimpleNamespace(func=print))
    output_replay.record(0, [TextEvent(0, "stdout", "zero "), TextEvent(1, "stdout", "one ")])
    output_replay.repeat(lambda: float("inf"), pytest.fail)
    output_replay.record(0, [TextEvent(2, "stdout", "two "), TextEvent(3, "stdout", "thr")])
    output_replay.lose(0)
    output_replay.lose(0)  # and the next worker before it came to the task
    output_replay.record(0, [TextEvent(k, "stdout", f"again {k} ") for k in range(5)])
    output_replay.repeat(lambda: float("inf"), pytest.fail)
    assert capsys.readouterr().out == "zero one two again 3 again 4 "


def test_threads_of_a_function_that_print_much(capsys):
    """Each line comes once, and whole."""

    def f(x):
        def talk(k):
            for i in range(30):
                print(f"<{int(x)}.{k}.{i}>" + "x" * 9000)

        threads = [threading.Thread(target=talk, args=(k,)) for k in range(5)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        return x

    parallel_apply(f, np.arange(4.0), **ISOLATED)
    found = re.findall(r"<([\d.]+)>", capsys.readouterr().out)
    assert sorted(found) == sorted(f"{x}.{k}.{i}" for x in range(4) for k in range(5) for i in range(30))


NO_FILE = """
import functools, warnings
import numpy as np
from parwise import parallel_map

def f(x, k=0):
    warnings.warn("of f", stacklevel=1)
    return x

class Callable:
    def __call__(self, x):
        return f(x)

def shown(call, action):
    globals().pop("__warningregistry__", None)
    with warnings.catch_warnings(record=True) as log:
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        warnings.filterwarnings(action, module=module)
        call()
    return [(str(one.message), one.filename, one.lineno) for one in log]

module = re.escape(globals().get("__name__", "<string>")) + "$"
for func in (f, functools.partial(f, k=1), functools.cache(f), Callable(), np.vectorize(f)):
    for action in ("always", "default"):
        loop = shown(lambda: [func(x) for x in range(5)], action)
        getattr(func, "cache_clear", int)()
        assert len(loop) >= (5 if action == "always" else 1)
        for how in ({"isolate": True}, {"executor": "threads"}):
            assert shown(lambda: parallel_map(func, range(5), workers=2, **how), action) == loop, (func, action, how)
            getattr(func, "cache_clear", int)()
"""


@pytest.mark.parametrize("names", [{"__name__": "__main__"}, {"__name__": "cell"}, {}], ids=["main", "cell", "none"])
def test_warnings_of_code_that_is_in_no_file(names):
    done = run_script(f"import re\nexec(compile({NO_FILE!r}, '<cell>', 'exec'), {{**{names}, 're': re}})")
    assert done.returncode == 0, done.stderr
