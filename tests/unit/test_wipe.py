"""Overwriting: what it is given holds zeros afterwards, in place, and nothing else does."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.wipe import wipe


@given(st.binary(max_size=400))
def test_a_bytearray_of_any_length_holds_zeros(data: bytes) -> None:
    buffer = bytearray(data)
    with memoryview(buffer) as view:
        wipe(buffer)
        assert bytes(view) == bytes(len(data))


@pytest.mark.parametrize("size", [2, 16, 32, 129, 1000])
def test_bytes_hold_zeros_in_place_and_their_neighbours_do_not(size: int) -> None:
    before, secret, after = os.urandom(size), os.urandom(size), os.urandom(size)
    neighbours = bytearray(before), bytearray(after)
    wipe(secret)
    assert secret == bytes(size)
    assert (bytearray(before), bytearray(after)) == neighbours


def test_what_the_interpreter_shares_is_left_alone() -> None:
    for shared in (b"", b"a"):
        wipe(shared)
    assert bytes([97]) == b"a"
    wipe(None)


def test_wiping_twice_leaves_the_zeros_of_others_alone() -> None:
    first, second = bytearray(b"one"), bytearray(b"two")
    wipe(first)
    first[:] = b"new"
    wipe(second)
    assert second == bytearray(3)
