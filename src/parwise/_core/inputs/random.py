"""A random generator for each element, the same in whichever process the element is computed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..options.number_checks import is_int

# Of `numpy.random.SeedSequence`; NumPy's compatibility policy keeps them as they are.
_POOL = 4
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_L, _MIX_R = 0xCA01F9DD, 0x4973F715
_WORD = 2**32 - 1


class RandomStreams:
    """The generators of one call: element i gets the generator of ``seed.spawn(n)[i]``.

    `numpy.random.default_rng` takes 10 us for each generator, nearly all of it to hash the seed. Hashing the seeds of a
    run of elements together takes 2 us each.
    """

    def __init__(self, seed: np.random.SeedSequence, kind: Callable[..., np.random.BitGenerator]) -> None:
        self._seed = seed
        self._kind = kind

    @property
    def description(self) -> str:
        """All that the generators depend on, as a text."""
        seed, kind = self._seed, getattr(self._kind, "__name__", repr(self._kind))
        return f"{kind} of {seed.entropy}, spawn_key {seed.spawn_key}, pool_size {seed.pool_size}"

    def one(self, index: int) -> np.random.Generator:
        """The generator of the element, or block, with number `index`."""
        return np.random.Generator(self._kind(self.seed_of(index)))

    def run(self, lo: int, hi: int) -> Iterator[np.random.Generator]:
        """The generators of elements ``lo:hi``."""
        words = _words_of_children(self._seed, lo, hi) if self._kind is np.random.PCG64 and hi <= _WORD else None
        # If SeedSequence ever changes, its own words are the right ones.
        if words is None or not np.array_equal(words[0], self.seed_of(lo).generate_state(_POOL, np.uint64)):
            return map(self.one, range(lo, hi))
        return (np.random.Generator(np.random.PCG64(_Child(self, k, row))) for k, row in enumerate(words, lo))

    def seed_of(self, index: int) -> np.random.SeedSequence:
        """The seed of the generator of element `index`."""
        seed = self._seed
        return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, index), pool_size=seed.pool_size)


class _Child(np.random.bit_generator.ISpawnableSeedSequence):
    """The seed of one element: its hashed words, and a SeedSequence made only if something else is asked for."""

    def __init__(self, streams: RandomStreams, index: int, words: np.ndarray) -> None:
        self._streams = streams
        self._index = index
        self._words = words

    @functools.cached_property
    def _seed(self) -> np.random.SeedSequence:
        return self._streams.seed_of(self._index)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
        if n_words == _POOL and dtype is np.uint64:
            return self._words
        return self._seed.generate_state(n_words, dtype)

    def spawn(self, n_children: int) -> list[Any]:
        return self._seed.spawn(n_children)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._seed, name)

    def __reduce__(self) -> Any:
        return _same, (self._seed,)


def _same(value: Any) -> Any:
    return value


def _words(value: Any) -> list[int]:
    """Entropy as SeedSequence reads it: little-endian words of 32 bits."""
    if value is None:
        return []
    if not is_int(value):
        return [word for one in value for word in _words(one)]
    number = int(value)
    words = [number & _WORD]
    while number := number >> 32:
        words.append(number & _WORD)
    return words


def _words_of_children(seed: np.random.SeedSequence, lo: int, hi: int) -> np.ndarray | None:
    """``generate_state(4, uint64)`` of the children ``lo:hi``, one row each; None for a pool of unusual size."""
    if seed.pool_size != _POOL:
        return None
    start, key = _words(seed.entropy), _words(seed.spawn_key)
    start += [0] * (_POOL - len(start))
    const = _INIT_A

    def hashed(value: Any) -> Any:
        nonlocal const
        value = value ^ const
        const = const * _MULT_A & _WORD
        value = value * const & _WORD
        return value ^ value >> 16

    def mixed(x: Any, y: Any) -> Any:
        value = (_MIX_L * x - _MIX_R * y) & _WORD
        return value ^ value >> 16

    pool: list[Any] = [hashed(word) for word in start[:_POOL]]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = mixed(pool[target], hashed(pool[source]))
    # Arithmetic of 64 bits wraps around, and the lower 32 are those of 32 bits.
    for word in [*start[_POOL:], *key, np.arange(lo, hi, dtype=np.uint64)]:
        pool = [mixed(one, hashed(word)) for one in pool]
    const, words = _INIT_B, []
    for k in range(8):
        value = pool[k % _POOL] ^ const
        const = const * _MULT_B & _WORD
        value = value * const & _WORD
        words.append(value ^ value >> 16)
    return np.stack([words[k] | words[k + 1] << 32 for k in range(0, 8, 2)], axis=1)


def make_random_streams(rng: Any, func: Any, kwargs: dict[str, Any]) -> RandomStreams:
    """Make streams from the user's `rng`, as SPEC 7 defines it.

    A number makes the same streams each time. A generator, or a seed sequence,
    has a state: each call spawns one child of it.
    """
    if "rng" in kwargs:
        raise TypeError(
            "rng is given twice: in kwargs, and as rng=, which passes a generator of its own for each "
            "element; leave one of them out"
        )
    _check_taken(func)
    if isinstance(rng, np.random.Generator):
        rng = rng.bit_generator
    if isinstance(rng, np.random.BitGenerator):
        return RandomStreams(_child(rng.seed_seq), type(rng))
    if isinstance(rng, np.random.SeedSequence):
        return RandomStreams(_child(rng), np.random.PCG64)
    if isinstance(rng, np.random.RandomState):
        raise TypeError("rng is a RandomState, which cannot be split; pass an int or np.random.default_rng(...)")
    words = list(rng) if isinstance(rng, list | tuple | np.ndarray) else [rng]
    if not words or not all(map(is_int, words)):
        raise TypeError(f"rng must be an int, a SeedSequence, a BitGenerator or a Generator, got {type(rng).__name__}")
    if any(word < 0 for word in words):
        raise ValueError(f"rng must not be negative, got {rng}; pass an int from 0 on")
    entropy = int(rng) if is_int(rng) else [int(word) for word in words]
    return RandomStreams(np.random.SeedSequence(entropy), np.random.PCG64)


def _child(seed: Any) -> np.random.SeedSequence:
    if not isinstance(seed, np.random.bit_generator.ISpawnableSeedSequence):
        raise TypeError(
            f"rng was seeded by a {type(seed).__name__}, which cannot be split into independent streams; "
            "pass np.random.default_rng(seed)"
        )
    child: Any = seed.spawn(1)[0]
    return child  # type: ignore[no-any-return]


def _check_taken(func: Any) -> None:
    """Raise if the signature of the function shows that it takes no ``rng``."""
    import inspect  # most calls do not need it

    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):  # a function made in C
        return
    if not any(
        one.kind is one.VAR_KEYWORD or (one.name == "rng" and one.kind is not one.POSITIONAL_ONLY) for one in parameters
    ):
        raise TypeError(
            "rng is given, but func takes no argument of that name; add a parameter rng to func, which "
            "gets a numpy Generator in each call, or leave rng out"
        )
