"""Small functions made at random: they read their argument, write to it, keep it, and return what they like of it."""

from __future__ import annotations

import math

import numpy as np

ATOMS = ["x", "x", "x", "a", "b", "c", "W", "K", "1", "2.0", "None", "'t'", "KEPT", "y", "captured", "(1, 2)", "10**30"]
#: Expressions made of others, for which `E` stands.
EXPRESSIONS = """
-E; abs(E); +E; ~E; not E; E.T; E.real; E.copy(); E.mean(); E.ravel(); E.sum(axis=0); E.reshape(-1)
E.tolist(); E.flat; E[0]; E[-1]; E[1:]; E[::2]; E[...]; E[E]; E[0, 0]; E[:, 0]; E[None]; E[E > 0]; E[1]
E.shape; E.shape[0]; len(E); E.dtype; E + E; E * E; E - 2; 0.5 * E; E @ E; E ** 2; E % E; E < E; E == E
E is E; E in E; E and E; E or E; E // 2; E & E; np.sort(E); np.asarray(E); np.array(E); np.round(E)
np.where(E, E, E); np.clip(E, 0, 1); np.median(E); np.squeeze(E); np.add(E, E); np.add(E, E, E)
np.add(E, 1, out=E); np.sum(E, axis=0); np.sum(E, axis=0, out=E); np.sqrt(E); np.ravel(E)
np.concatenate([E, E]); np.concatenate((E,)); np.stack([E]); np.array([E, E]); np.zeros_like(E)
np.empty_like(E); np.zeros(3); np.full(3, E); np.float64(E); np.array([E, 10**30]); np.ascontiguousarray(E)
np.broadcast_to(E, (2, 3)); np.array(E, dtype=float); np.array(E, dtype=object); np.empty(2, dtype=object)
np.empty(2, object); np.diff(E); np.dot(E, E); np.linalg.norm(E); np.linalg.svd(E); np.histogram(E)
np.expand_dims(E, 0); np.atleast_1d(E); np.modf(E); np.unique(E); (E, E); [E, E]; [E]; {'k': E}; {1: E, 2: E}
(E, E)[0]; [E, E][0]; [*E]; (*E,); list(E); tuple(E); sorted(E); first(E); double(E); keep(E); identity(E)
write(E); pair(E, E); ending(E); nested(E, k=E); recursive(E); kept_default(E); (lambda v: v)(E)
(lambda v, w: v + w)(E, E); (lambda v=E: v)(); (lambda: x)(); KEPT; captured(E); box.value; box
[v for v in E]; [v * 2 for v in E]; [(v, E) for v in E]; {v: 1 for v in E}; (v for v in E)
sum([v * 2 for v in E]); sum(v for v in E); sum(E); max(E); min(E, 3); float(E); int(E); bool(E); range(3)
enumerate(E); zip(E, E); iter(E); str(E); E if E is None else E; E if E else E; (a := E); f'{E}'; f'{E!r:>5}'
'%s' % E; memoryview(E); E.view(); E.base; E.data; math.sqrt(E); math.floor(E); isinstance(E, np.ndarray)
isinstance(E, (float, int)); type(E); id(E); E.astype(float); E.astype(object); E.astype(float, copy=False)
E.item(0); E.sum(); E.max(axis=0); E.dot(E); E.take([0]); E.clip(0, 1); E.round(); E.conj(); E.argsort()
E.nonzero(); E.transpose(); E.squeeze(); E.any(); E.std(ddof=1); E.cumsum(); E.flatten(); E.append(E)
E.mean(0, None, E); E.sum(out=E); E.trace(); E.strides; E.imag; E.__array_interface__; getattr(E, 'T')
locals(); vars(box); dict(k=E); set(E); next(iter(E)); reversed(E); map(abs, E); np.vectorize(abs)(E)
np.apply_along_axis(keep, 0, E); np.frompyfunc(keep, 1, 1)(E); ufunc(E); np.nditer(E); np.einsum('i->i', E)
slice(E); E[slice(0, 2)]; E[1:E]; E[E:E]
""".replace("\n", ";").split(";")
EXPRESSIONS = [one.strip() for one in EXPRESSIONS if one.strip()]
#: Statements, with `E` for expressions and `S` for other statements, which stand alone on their lines.
STATEMENTS = [
    "a = E", "b = E", "c = E", "a += E", "b += E", "b *= 2", "x += 1", "x *= E", "x = E", "x[0] = E", "b[0] = E",
    "b[...] = E", "b[:2] = E", "c[0] = E", "a[0] += 1", "x[:] = 0", "a[1:] = E", "E[0] = E", "E", "x.sort()",
    "for v in E:\n    S", "for i, v in enumerate(E):\n    S", "for v, w in zip(E, E):\n    S\n    break",
    "for i in range(3):\n    S\nelse:\n    S", "while a is None:\n    S\n    a = E",
    "if E is None:\n    S\nelse:\n    S",
    "if E:\n    S", "try:\n    S\nexcept Exception:\n    S", "try:\n    S\nexcept Exception as e:\n    KEPT.append(e)",
    "try:\n    S\nexcept (ValueError, TypeError) as e:\n    a = e", "try:\n    S\nfinally:\n    S",
    "try:\n    raise ValueError(E)\nexcept ValueError as e:\n    b = e.args",
    "with np.errstate(all='ignore'):\n    S", "with np.errstate(call=keep):\n    S", "with box as a:\n    S",
    "KEPT.append(E)", "G = E", "box.value = E", "box[0] = E", "del a", "x.setflags(write=False)", "np.add.at(x, 0, 1)",
    "def g():\n    return E\nKEPT.append(g)", "def g(v):\n    v[0] = 7\n    return v\na = g(E)",
    "def g(v, w=E):\n    return w\na = g(E)", "match E:\n    case [v, *rest]:\n        S\n    case _:\n        S",
    "b.fill(E)", "np.copyto(x, 0)", "a, b = E, E", "a, *b = E", "(a, b), c = E, E", "return E", "assert E is not None",
    "raise ValueError(E)", "raise ValueError('no')", "a.append(E)", "c = []", "c.append(E)", "a = b = E",
    "class C:\n    v = E", "import sys", "yield E", "print(E)", "b.resize(2)", "b.shape = -1", "x.shape = -1",
    "a = x if E is None else b", "b = np.empty(3)", "b = np.empty(2, dtype=object)", "b = np.array([10**30, 1])",
    "c = [a, b]", "c = {}", "c[E] = E", "c.extend(E)", "c.update(E)", "c = a, b", ["global W", "    W = E"][0],
]  # fmt: skip


class Box:
    """Keeps whatever it gets."""

    value = None

    def __setitem__(self, key, value):
        self.value = value

    def __add__(self, other):
        self.value = other
        return 1

    __radd__ = __mul__ = __rmul__ = __add__

    def __array_ufunc__(self, *given, **named):
        self.value = given

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.value = error

    def __contains__(self, item):
        self.value = item
        return True

    def __eq__(self, other):
        self.value = other
        return True


def namespace():
    """Globals of the functions: what they call, and where they may keep something."""
    space = {"np": np, "math": math, "KEPT": [], "W": np.arange(3.0) + 1, "K": 2, "G": None, "box": Box()}
    exec(HELPERS, space)
    return space


HELPERS = """
def first(v):
    return v[0]
def double(v):
    w = v * 2
    w[0] = 1
    return w
def keep(v, *more):
    KEPT.append(v)
    return 1
def identity(v):
    return v
def write(v):
    v[0] = 5
    return v
def pair(v, w):
    return v, w
def ending(v):
    return v[len(v) - 1:]
def nested(v, k=2):
    return double(identity(v)) + first(k)
def recursive(v):
    return v if len(v) < 2 else recursive(v[1:])
def kept_default(v, default=[]):
    default.append(v)
    return 1
ufunc = np.frompyfunc(keep, 1, 1)
"""


def source(random):
    """The text of a function ``f(x, y)`` within one whose variable `captured` it sees."""
    declared = (
        "    global G, W\n" if random.random() < 0.05 else "    nonlocal captured\n" if random.random() < 0.03 else ""
    )
    lines = ["a = 1.5", "b = x.copy()", "c = x * 2"]
    for _ in range(random.randrange(4)):
        lines += statement(random, 2).split("\n")
    lines += [f"return {expression(random, 3)}"]
    inner = declared + "".join(f"    {line}\n" for line in lines)
    whole = f"def f(x, y={random.choice(['2', 'None', 'W', '[]', '1.5'])}):\n{inner}"
    body = "".join(f"    {line}\n" for line in whole.splitlines())
    return f"def make(captured):\n{body}    return f\n"


def expression(random, depth):
    """The text of an expression."""
    if depth == 0 or random.random() < 0.3:
        return random.choice(ATOMS)
    return _filled(random, random.choice(EXPRESSIONS), depth)


def _filled(random, pattern, depth):
    text = ""
    for at, letter in enumerate(pattern):
        around = pattern[max(0, at - 1) : at] + pattern[at + 1 : at + 2]
        alone = letter == "E" and not any(one.isalnum() or one == "_" for one in around)
        text += f"({expression(random, depth - 1)})" if alone else letter
    return text


def statement(random, depth):
    """The text of a statement."""
    lines = []
    for line in _filled(random, random.choice(STATEMENTS), 2).split("\n"):
        if line.strip() == "S":
            inner = statement(random, depth - 1) if depth else "pass"
            indent = line[: line.index("S")]
            lines += [indent + one for one in inner.split("\n")]
        else:
            lines.append(line)
    return "\n".join(lines)
