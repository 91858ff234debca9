"""Sums over big integers against sums word by word."""

from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.tunnel.inner import words
from wghsm.tunnel.checksum import add, finish


@given(st.binary(max_size=400) | st.integers(0, 70000).map(lambda size: b"\xfe\x01\xff" * (size // 3)))
@example(b"")
@example(b"\xff" * 65535)
@example(b"\xff" * 1440)
@example(bytes(1441))
@example(b"\x12")
def test_a_sum_is_that_of_the_words(data: bytes) -> None:
    assert add(data) == words(data) % 65535


@given(st.binary(min_size=1, max_size=2000).filter(any))
def test_data_with_their_checksum_add_up_to_zero(data: bytes) -> None:
    data += bytes(len(data) % 2)
    checksum = finish(add(data))
    assert checksum == words(data) ^ 0xFFFF
    assert add(data + checksum.to_bytes(2, "big")) == 0
