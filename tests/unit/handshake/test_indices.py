"""Indices against the slots that ingress keeps, and against an entropy that repeats itself."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.handshake.indices import HandshakeEntry, IndexTable, Session
from wghsm.ipc import messages as m
from wghsm.tunnel import Times
from wghsm.tunnel.slots import ReceiveSession, ReceiveSlots


def _session(number: int, index: int, *, initiator: bool = True, peer: int = 1) -> Session:
    return Session(number, peer, index, initiator, number, 1)


def test_taken_indices_are_not_handed_out_again() -> None:
    numbers = iter([5, 5, 5, 6, 6, 7])
    table = IndexTable(lambda: next(numbers))
    assert table.reserve(1) == 5
    assert table.reserve(None) == 6
    assert table.lookup(5) == HandshakeEntry(1)
    table.install(_session(1, 5))
    assert table.reserve(2) == 7
    assert table.lookup(5) == _session(1, 5)


def test_a_released_index_is_free() -> None:
    table = IndexTable(lambda: 9)
    assert table.reserve(1) == 9
    table.release(9)
    assert table.lookup(9) is None
    assert table.reserve(1) == 9


def test_releasing_leaves_sessions_alone() -> None:
    table = IndexTable(lambda: 9)
    table.reserve(1)
    table.install(_session(1, 9))
    table.release(9)
    assert table.lookup(9) == _session(1, 9)


def test_entropy_that_only_repeats_is_a_fault() -> None:
    table = IndexTable(lambda: 3)
    table.reserve(1)
    with pytest.raises(RuntimeError, match="no free index"):
        table.reserve(1)


def test_low_bits_may_be_fixed_by_the_caller() -> None:
    chance = random.Random(1)
    table = IndexTable(lambda: chance.getrandbits(30) << 2 | 3)
    assert {table.reserve(1) & 3 for _ in range(100)} == {3}


def test_a_taken_over_index_is_in_use() -> None:
    numbers = iter([7, 8])
    table = IndexTable(lambda: next(numbers))
    table.take_over(_session(4, 7), "current")
    assert table.reserve(1) == 8
    assert [one.number for one in table.sessions(1)] == [4]


def test_forgetting_sessions_keeps_handshakes() -> None:
    table = IndexTable(iter(range(10)).__next__)
    for number in range(3):
        table.install(_session(number, table.reserve(1)))
    handshake = table.reserve(1)
    other = _session(9, table.reserve(2), peer=2)
    table.install(other)
    table.forget_sessions(1)
    assert table.lookup(handshake) == HandshakeEntry(1)
    assert table.lookup(other.index) == other
    table.forget_all_sessions()
    assert len(table) == 1


@given(st.lists(st.sampled_from(["initiator", "responder", "confirm", "confirm old", "odd", "even"]), max_size=30))
def test_slots_are_those_of_ingress(steps: list[str]) -> None:
    table = IndexTable(itertools.count().__next__)
    slots = ReceiveSlots()
    seen: list[int] = []
    for number, step in enumerate(steps, 1):
        if step == "confirm":
            if slots.next is not None:
                table.confirm(1, slots.next.number)
                slots.confirm()
        elif step in ("odd", "even"):
            keep = range(step == "odd", 100, 2)
            table.forget_sessions(1, keep)
            slots.clear(keep)
        elif step == "confirm old":
            # Of a session that is not NEXT (any more): changes nothing.
            table.confirm(1, 10_000)
        else:
            index = table.reserve(1)
            initiator = step == "initiator"
            table.install(_session(number, index, initiator=initiator))
            message = m.InstallReceive(number, 1, index, initiator, 0, random.Random(number).randbytes(32), 1)
            slots.install(ReceiveSession(message, 0, Times()))
            seen.append(index)
        held = [session for session, _ in slots.sessions()]
        assert [one.number for one in table.sessions(1)] == [one.number for one in held]
        current = table.sent_on(1)
        assert (current and current.number) == (slots.current and slots.current.number)
        assert {index for index in seen if table.lookup(index)} == {one.index for one in held}
        assert len(table) <= 3
