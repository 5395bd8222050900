"""Random numbers for each element, compared with NumPy's own `spawn`."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parwise import NotReproducibleError, parallel_apply
from parwise._core.inputs.random import RandomStreams

from ..support.oracle import assert_same

A = np.arange(57.0)


def draw(x, rng):
    return rng.standard_normal(3) + x


def spawned(seed, count):
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(count)]


def test_numbers_are_those_of_spawn(runner):
    want = np.stack([draw(x, rng) for x, rng in zip(A, spawned(42, len(A)), strict=True)])
    assert_same(parallel_apply(draw, A, rng=42, **runner), want)
    both = parallel_apply(
        lambda x, y, k, *, scale, rng: rng.random() * scale + k,
        A,
        A,
        args=(1.0,),
        kwargs={"scale": 2.0},
        rng=[4, 2],
        **runner,
    )
    assert_same(both, np.array([rng.random() * 2.0 + 1.0 for rng in spawned([4, 2], len(A))]))


def test_blocks_have_a_generator_each(runner):
    want = [rng.random(min(10, 57 - lo)) for rng, lo in zip(spawned(7, 6), range(0, 57, 10), strict=True)]
    got = parallel_apply(lambda b, rng: rng.random(len(b)), A, vectorized=True, chunk=10, rng=7, **runner)
    assert_same(got, np.concatenate(want))


def test_neighbours_do_not_matter(runner):
    """An element that draws more, or raises, changes nothing for the others."""
    few = parallel_apply(lambda x, rng: rng.random(), A, rng=3, **runner)
    many = parallel_apply(lambda x, rng: rng.random(1 + 50 * int(x) % 7)[0], A, rng=3, **runner)
    assert_same(many, few)
    assert_same(parallel_apply(lambda x, rng: rng.random(), A[:9], rng=3, **runner), few[:9])


def test_grid_of_elements(runner):
    got = parallel_apply(lambda x, rng: rng.integers(1000), A[:56].reshape(7, 8), axis=(0, 1), rng=0, **runner)
    assert_same(got, np.array([rng.integers(1000) for rng in spawned(0, 56)]).reshape(7, 8))


def test_gaps_keep_their_generators():
    def f(x, rng):
        value = rng.random()
        if x % 5 == 2:
            raise ValueError("no")
        return value

    with pytest.warns(RuntimeWarning, match="no result for"):
        got = parallel_apply(f, A, rng=3, errors="ignore", workers=2, isolate=True)
    want = np.array([rng.random() for rng in spawned(3, len(A))])
    kept = ~np.isnan(got)
    assert kept.sum() == 46
    assert_same(got[kept], want[kept])


seeds = st.one_of(st.integers(0, 2**130), st.lists(st.integers(0, 2**70), min_size=1, max_size=6))


@given(
    seed=seeds,
    key=st.lists(st.integers(0, 2**40), max_size=3),
    lo=st.one_of(st.integers(0, 10), st.integers(2**32 - 8, 2**32 + 3)),
    count=st.integers(1, 6),
)
def test_generators_are_numpys(seed, key, lo, count):
    sequence = np.random.SeedSequence(seed, spawn_key=tuple(key))
    streams = list(RandomStreams(sequence, np.random.PCG64).run(lo, lo + count))
    assert len({id(one) for one in streams}) == count
    for index, one in enumerate(streams, lo):
        real = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*key, index)))
        assert one.bit_generator.state == real.bit_generator.state
        assert one.bit_generator.seed_seq.spawn_key == (*key, index)
        again = pickle.loads(pickle.dumps(one))
        for grown, child in zip(one.spawn(2), real.spawn(2), strict=True):
            assert grown.random() == child.random()
        assert again.random() == one.random() == real.random()
        assert (
            again.spawn(1)[0].random()
            == np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*key, index))).spawn(1)[0].random()
        )


def test_generator_may_be_kept():
    kept = parallel_apply(lambda x, rng: rng, A, rng=1, workers=1)
    assert [one.random() for one in kept] == [rng.random() for rng in spawned(1, len(A))]


def test_what_has_state_gives_one_child_a_call():
    """SPEC 7: the same seed yields the same numbers, and a generator goes on."""
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    first, second = (parallel_apply(draw, A, rng=one, workers=1) for _ in range(2))
    assert not np.array_equal(first, second)
    assert_same(parallel_apply(draw, A, rng=other, workers=2, isolate=True), first)
    assert_same(parallel_apply(draw, A, rng=other, executor="threads"), second)
    children = np.random.default_rng(np.random.default_rng(5).spawn(1)[0].bit_generator.seed_seq).spawn(len(A))
    assert_same(first, np.stack([draw(x, rng) for x, rng in zip(A, children, strict=True)]))
    for kind in (np.random.Philox, np.random.SFC64, np.random.PCG64DXSM):
        seen = parallel_apply(lambda x, rng: type(rng.bit_generator).__name__, A, rng=kind(5), workers=1)
        assert set(seen) == {kind.__name__}
        assert_same(
            parallel_apply(draw, A, rng=np.random.Generator(kind(5)), workers=2, isolate=True),
            parallel_apply(draw, A, rng=kind(5), workers=1),
        )
    sequence = np.random.SeedSequence(5)
    assert_same(parallel_apply(draw, A, rng=sequence, workers=1), first)
    assert sequence.n_children_spawned == 1


@pytest.mark.parametrize(
    ("rng", "error", "text"),
    [
        (-1, ValueError, "rng must not be negative, got -1"),
        (1.5, TypeError, "rng must be an int, a SeedSequence.*got float"),
        (True, TypeError, "got bool"),
        ("5", TypeError, "got str"),
        ([], TypeError, "got list"),
        (np.random.RandomState(0), TypeError, "RandomState, which cannot be split; pass an int"),
    ],
)
def test_bad_input(rng, error, text):
    with pytest.raises(error, match=text):
        parallel_apply(draw, A, rng=rng)


def test_function_must_take_it():
    with pytest.raises(TypeError, match="func takes no argument of that name; add a parameter rng"):
        parallel_apply(lambda x: x, A, rng=1)
    with pytest.raises(TypeError, match="rng is given twice"):
        parallel_apply(draw, A, kwargs={"rng": 1}, rng=1)
    parallel_apply(lambda x, **more: more["rng"].random(), A, rng=1, workers=1)


def test_verify_knows_which_random_numbers_repeat(eager):
    a = np.arange(200.0)
    got = parallel_apply(draw, a, rng=1, workers=2, verify=True)
    assert_same(got, parallel_apply(draw, a, rng=1, workers=1, verify="full"))
    with pytest.raises(NotReproducibleError, match="[Pp]ass rng=seed") as caught:
        parallel_apply(lambda x: np.random.random(), a, workers=2, verify=True)
    assert caught.value.kind == "unstable"
