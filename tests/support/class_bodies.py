"""Random class bodies, in a module that no worker can import, and what can be seen of instances and classes."""

from __future__ import annotations

import contextlib
import enum
import sys
import textwrap
import types

import cloudpickle
import numpy as np
from hypothesis import strategies as st

#: First lines of each module.
HEAD = """
import abc, dataclasses, enum, functools, typing
import numpy as np
BIG = np.arange(20_000.0)
T = typing.TypeVar("T")
log = []

def helper(x):
    return x + BIG[7]

class Noted:
    def __init__(self, start):
        self.start = start
    def __set_name__(self, owner, name):
        self.name = name
        log.append((owner.__name__, name))
    def __get__(self, obj, owner=None):
        return self if obj is None else (self.name, self.start)

class Meta(type):
    made = []
    def __new__(mcls, name, bases, names, *, tag=None, **options):
        cls = super().__new__(mcls, name, bases, names, **options)
        cls.tag = tag
        Meta.made.append(name)
        return cls
    def __init__(cls, name, bases, names, **options):
        super().__init__(name, bases, names)
        log.append(name)
    @property
    def shown(cls):
        return cls.__name__, cls.tag

class Hooked:
    below = []
    def __init_subclass__(cls, *, key, **options):
        super().__init_subclass__(**options)
        Hooked.below.append((cls, key))

def look(item):
    seen = [type(item).__qualname__, getattr(type(item), "count", None), getattr(type(item), "shown", None)]
    for name in ("total", "again", "kept", "text", "partial"):
        if hasattr(item, name) and (name != "text" or type(item).__hash__):
            seen.append(getattr(item, name)())
    return seen

def use(item):
    return item, look(item)

def give_type(item):
    return type(item), {"nested": [item]}

def fail(item):
    raise item
"""

#: Content of any class.
CONTENT = {
    "count": "count = 3",
    "registry": "registry = [1, 2]",
    "big": "def total(self): return helper(float(BIG[5])) + type(self).start",
    "property": "@property\ndef half(self): return self.start / 2",
    "class method": "@classmethod\ndef again(cls): return cls.__name__, cls.start",
    "static method": "@staticmethod\ndef kept(): return helper(1.0)",
    "descriptor": "noted = Noted(4)",
    "nested": "class Inner:\n    value = 5",
    "cached": "@functools.cached_property\ndef once(self): return [self.start]",
    "lru": "@functools.lru_cache(maxsize=5)\ndef text(self): return 'text'",
    "partial": "partial = functools.partialmethod(lambda self, a: a, 8)",
    "super": "def __repr__(self): return super().__repr__()[:1] + str(__class__.__name__)",
    "lambda": "make = staticmethod(lambda x: helper(x))",
    "annotation": "note: 'typing.Optional[int]' = None",
}
#: First lines of a class, its body in braces, and how an instance is made of a number.
KINDS = {
    "plain": ("class {name}({base}):\n    start = 1\n    def __init__(self, x): self.x = x", "{name}({k})"),
    "slots": (
        "class {name}({base}):\n    start = 1\n    __slots__ = ('x', '__private', 'empty')\n"
        "    def __init__(self, x): self.x = x; self.__private = [x]",
        "{name}({k})",
    ),
    "data": ("@dataclasses.dataclass\nclass {name}({base}):\n    start = 1\n    x: int = 0", "{name}({k})"),
    "data slots": (
        "@dataclasses.dataclass(slots=True, frozen=True)\nclass {name}:\n    start: typing.ClassVar[int] = 1\n"
        "    x: int = 0\n    y: list = dataclasses.field(default_factory=list)",
        "{name}({k}, [{k}])",
    ),
    "abstract": (
        "class {name}(abc.ABC):\n    start = 1\n    def __init__(self, x): self.x = x\n"
        "    @abc.abstractmethod\n    def needed(self): ...\n"
        "class {name}({name}):\n    def needed(self): return self.x",
        "{name}({k})",
    ),
    "generic": (
        "class {name}(typing.Generic[T]):\n    start = 1\n    def __init__(self, x: T): self.x = x",
        "{name}[int]({k})",
    ),
    "meta": (
        "class {name}(metaclass=Meta, tag=7):\n    start = 1\n    def __init__(self, x): self.x = x",
        "{name}({k})",
    ),
    "hooked": ("class {name}(Hooked, key=2):\n    start = 1\n    def __init__(self, x): self.x = x", "{name}({k})"),
    "named tuple": ("class {name}(typing.NamedTuple):\n    x: int\n    y: str = 'y'", "{name}({k})"),
    "enum": (
        "class {name}(enum.Enum):\n    RED = (1, 'r')\n    BLUE = (2, 'b')\n    AZURE = (2, 'b')\n"
        "    def __init__(self, number, letter): self.letter = letter",
        "{name}[('RED', 'BLUE')[{k} % 2]]",
    ),
    "flag": ("class {name}(enum.IntFlag):\n    R = 1\n    W = 2\n    X = 4", "{name}({k} % 8)"),
    "text enum": ("class {name}(str, enum.Enum):\n    A = 'a'\n    B = 'b'", "{name}('ab'[{k} % 2])"),
    "number": ("class {name}(int):\n    start = 1", "{name}({k})"),
    "array list": ("class {name}(list):\n    start = 1", "{name}([{k}, BIG[:3]])"),
    "error": (
        "class {name}(Exception):\n    start = 1\n    def __init__(self, x, *, why):\n"
        "        super().__init__(f'{{x}} {{why}}'); self.x = x",
        "{name}({k}, why='so')",
    ),
}
#: Kinds whose bodies may not hold more, or that cannot be derived from.
CLOSED = {"named tuple", "enum", "flag", "text enum", "data slots"}
BASES = {"plain", "slots", "data", "abstract", "generic", "number"}

contents = st.lists(st.sampled_from(sorted(CONTENT)), unique=True, max_size=6)
kinds = st.sampled_from(sorted(KINDS))


class Script:
    """A module like a script or notebook, whose classes travel by value."""

    def __init__(self, name):
        self.module = types.ModuleType(name)
        self.names = vars(self.module)
        sys.modules[name] = self.module
        cloudpickle.register_pickle_by_value(self.module)
        exec(HEAD, self.names)
        self.made = {}

    def close(self):
        cloudpickle.unregister_pickle_by_value(self.module)
        del sys.modules[self.module.__name__]

    def define(self, name, kind, content, base=""):
        """Define a class, perhaps once more."""
        lines, make = KINDS[kind]
        body = "" if kind in CLOSED else "\n".join(CONTENT[one] for one in content)
        source = lines.format(name=name, base=base or "object") + "\n" + textwrap.indent(body, "    ")
        if kind == "slots" and "cached" in content:
            source = source.replace("'empty'", "'empty', '__dict__'")
        exec(source, self.names)
        self.made[name] = kind, make

    def make(self, name, k):
        """An instance of the latest class of that name."""
        return eval(self.made[name][1].format(name=name, k=k), self.names)

    def classes(self):
        """All classes of the module."""
        return [one for one in self.names.values() if isinstance(one, type) and one.__module__ == self.module.__name__]


def state_of(cls):
    """The attributes of a class, by identity, and what its containers hold."""
    made = {"_abc_impl", "__slotnames__", "__annotations_cache__"}
    return {
        name: (id(value), repr(value) if type(value) in (list, dict, int, str) else None)
        for name, value in vars(cls).items()
        if name not in made
    }


def same(got, want):
    """True if a result is like the loop's: of the very same class, and of equal content."""
    if type(got) is not type(want):
        return False
    if isinstance(want, type | enum.Enum):
        return got is want
    if isinstance(want, np.ndarray):
        return got.tobytes() == want.tobytes()
    if isinstance(want, tuple | list):
        inner = len(got) == len(want) and all(map(same, list(got), list(want)))
    elif isinstance(want, dict):
        inner = got.keys() == want.keys() and all(same(got[key], want[key]) for key in want)
    elif isinstance(want, BaseException):
        inner = got.args == want.args
    else:
        inner = hasattr(want, "__dict__") or hasattr(type(want), "__slots__") or got == want
    return inner and same_attributes(got, want)


def same_attributes(got, want):
    """True if two objects have equal attributes, in slots too."""
    if not same_dict(getattr(got, "__dict__", {}), getattr(want, "__dict__", {})):
        return False
    for cls in type(want).__mro__:
        for name, value in vars(cls).items():
            if type(value) is types.MemberDescriptorType and cls.__module__ != "builtins":
                mine, theirs = [], []
                with contextlib.suppress(AttributeError):
                    mine.append(getattr(got, name))
                with contextlib.suppress(AttributeError):
                    theirs.append(getattr(want, name))
                if not same(mine, theirs):
                    return False
    return True


def same_dict(got, want):
    """True if two dicts of attributes are equal; notes are those of a call."""
    got, want = ({name: value for name, value in one.items() if name != "__notes__"} for one in (got, want))
    return got.keys() == want.keys() and all(same(got[name], want[name]) for name in want)
