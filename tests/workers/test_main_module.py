"""A worker's ``__main__`` has the names of the caller's script, which does not run again."""

from __future__ import annotations

import textwrap

from ..support.script_ways import check, check_each
from ..support.scripts import run_script


def test_a_worker_finds_the_scripts_names_in_its_main():
    check_each(
        """
@dataclasses.dataclass
class Point:
    x: int
    near: "typing.Optional[Other]" = None
    class Inner: pass
@dataclasses.dataclass
class Other:
    point: Point
    made: typing.ClassVar[int] = 3
def helper(point): return Point(point.x + 1)
def f(k):
    point = pickle.loads(pickle.dumps(Point(k)))
    hints = typing.get_type_hints(Point)
    main = sys.modules["__main__"]
    return [type(point) is Point, hints["near"].__args__[0].made, copy.deepcopy(point) == Point(k),
        inspect.getmodule(Point) is main, main.Point is Point, pickle.loads(pickle.dumps(helper)) is helper,
        type(pickle.loads(pickle.dumps(Point.Inner()))) is Point.Inner, main.helper(point).x]
assert mapped(f, range(6)) == [[True, 3, True, True, True, True, True, k + 1] for k in range(6)]
        """,
    )


def test_a_worker_finds_names_that_a_function_has_in_a_string():
    check_each(
        """
def helper(k): return k + 1
class Point:
    def __init__(self, x): self.x = x
def f(k):
    main = sys.modules["__main__"]
    return [getattr(main, "helper")(k), vars(main)["Point"](k).x, globals()["helper"](k), hasattr(main, "nowhere")]
assert mapped(f, range(6)) == [[k + 1, k, k + 1, False] for k in range(6)]
        """,
    )


def test_a_name_that_a_workers_main_lacks_is_an_attribute_error():
    check_each(
        """
def f(k):
    try:
        return sys.modules["__main__"].nowhere
    except AttributeError as error:
        return str(error)
assert mapped(f, range(6)) == ["module '__main__' has no attribute 'nowhere'"] * 6
        """,
    )


def test_processes_of_a_worker_know_the_scripts_classes():
    check("""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
class Point:
    def __init__(self, x): self.x = x
def double(point): return Point(2 * point.x)
def f(k):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as inner:
        made = inner.submit(double, Point(k)).result()
    return made, type(made) is Point
for k, (point, right) in enumerate(mapped(f, range(3))):
    assert type(point) is Point and point.x == 2 * k and right
    """)


def test_a_script_is_not_run_again_by_processes_that_its_workers_spawn(tmp_path):
    """A call there, without a main guard, starts no workers: these would run the script again, and so on."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import multiprocessing, os, sys
            from concurrent.futures import ProcessPoolExecutor
            from parwise import parallel_map
            with open(sys.argv[1], "a") as log:
                log.write("begun\\n")
            def f(k):
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as inner:
                    return inner.submit(abs, -k).result()
            try:
                parallel_map(f, range(2), isolate=True, workers=1)
            except Exception as error:
                print(type(error).__name__)
        """)
    )
    log = tmp_path / "log"
    done = run_script("", str(script), str(log))
    assert log.read_text().count("begun") <= 3, done


def test_names_that_nothing_needs_are_left_out_if_they_cannot_be_sent():
    check("""
class Outer:
    stream = (k for k in range(3))
    class Inner:
        note: "Outer" = 1
def f(item): return type(item).__qualname__, item
for name, item in mapped(f, [Outer.Inner() for _ in range(4)]):
    assert name == "Outer.Inner" and type(item) is Outer.Inner
    """)
