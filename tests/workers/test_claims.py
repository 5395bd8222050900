"""Claims that two processes race for."""

from __future__ import annotations

import mmap
import os

import pytest

from parwise._workers.claims import CLAIM_BYTES, Claim

ROUNDS = 20_000


@pytest.fixture
def memory():
    return memoryview(mmap.mmap(-1, (ROUNDS + 1) * CLAIM_BYTES))


def test_taken_once_after_each_offer(memory):
    claim, other = Claim(memory[:CLAIM_BYTES]), Claim(memory[:CLAIM_BYTES])
    assert not claim.take()  # never offered
    for _ in range(3):
        claim.offer()
        assert other.take()
        assert not claim.take()
        assert not other.take()
    claim.offer()
    claim.offer()  # once all the same
    assert claim.take()
    assert not other.take()


def test_a_race_of_two_processes_has_one_winner_each_time(memory):
    claims = [Claim(memory[at * CLAIM_BYTES :][:CLAIM_BYTES]) for at in range(ROUNDS + 1)]
    start, claims = claims[0], claims[1:]
    for claim in claims:
        claim.offer()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        start.offer()
        won = bytes(claim.take() for claim in claims)
        os.write(write, won)
        os._exit(0)
    while not start.take():
        pass
    won = bytes(claim.take() for claim in claims)
    os.close(write)
    with open(read, "rb") as file:
        theirs = file.read()
    os.waitpid(pid, 0)
    assert len(theirs) == ROUNDS
    assert all(one + other == 1 for one, other in zip(won, theirs, strict=True))
