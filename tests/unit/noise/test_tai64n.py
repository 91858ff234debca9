"""TAI64N: encoding, whitening, order, and the own timestamp that never goes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.noise.vectors import load
from wghsm.noise.tai64n import WHITENING_STEP, from_unix_ns, is_later, next_timestamp, to_unix_ns

times = st.integers(0, 10**19)


def test_known_answers() -> None:
    for vector in load("tai64n.json")["vectors"]:
        unix_ns = int(vector["unix_ns"])
        assert from_unix_ns(unix_ns, whitened=False).hex() == vector["tai64n"]
        assert from_unix_ns(unix_ns).hex() == vector["whitened"]
        assert to_unix_ns(bytes.fromhex(vector["tai64n"])) == unix_ns


def test_whitening_hides_small_differences() -> None:
    for vector in load("tai64n.json")["monotonic"]:
        base, later = int(vector["base_ns"]), int(vector["base_ns"]) + int(vector["add_ns"])
        assert is_later(from_unix_ns(later), from_unix_ns(base)) == vector["whitened_is_later"]


@given(times)
def test_round_trip(unix_ns: int) -> None:
    assert to_unix_ns(from_unix_ns(unix_ns, whitened=False)) == unix_ns
    assert 0 <= unix_ns - to_unix_ns(from_unix_ns(unix_ns)) < WHITENING_STEP


@given(times, times)
def test_order_is_the_order_of_time(first: int, second: int) -> None:
    plain = [from_unix_ns(time, whitened=False) for time in (first, second)]
    assert is_later(*plain) == (first > second)


@given(st.integers(0, 4 * 10**18), st.lists(st.integers(-(10**10), 10**10), max_size=30))
def test_own_timestamps_rise_whatever_the_clock_does(start: int, jumps: list[int]) -> None:
    now, last = start, None
    for jump in jumps:
        now = max(0, now + jump)
        timestamp = next_timestamp(now, last)
        assert to_unix_ns(timestamp) % 10**9 % WHITENING_STEP == 0
        if last is not None:
            assert is_later(timestamp, last)
            assert timestamp == next_timestamp(now, to_unix_ns(last))
        last = timestamp


@given(times, times)
def test_own_timestamp_is_later_than_an_unwhitened_one(now: int, last: int) -> None:
    assert is_later(next_timestamp(now, last), from_unix_ns(last, whitened=False))


def test_own_timestamp_follows_the_clock() -> None:
    assert next_timestamp(1_700_000_000 * 10**9, None) == from_unix_ns(1_700_000_000 * 10**9)
    assert next_timestamp(1_700_000_000 * 10**9, 1_600_000_000 * 10**9) == from_unix_ns(1_700_000_000 * 10**9)
    assert next_timestamp(0, 1_700_000_000 * 10**9) == from_unix_ns(1_700_000_000 * 10**9 + WHITENING_STEP)


@given(st.binary(min_size=12, max_size=12))
def test_any_timestamp_of_a_peer_can_be_shown(timestamp: bytes) -> None:
    assert isinstance(to_unix_ns(timestamp), int)
    assert not is_later(timestamp, timestamp)


@pytest.mark.parametrize("unix_ns", [-1, 2**63 * 10**9])
def test_a_time_without_timestamp_is_a_fault(unix_ns: int) -> None:
    with pytest.raises(ValueError, match="no TAI64N timestamp"):
        from_unix_ns(unix_ns)


@pytest.mark.parametrize("length", [0, 11, 13])
def test_a_wrong_length_is_a_fault(length: int) -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        to_unix_ns(bytes(length))
    with pytest.raises(ValueError, match="12 bytes"):
        is_later(bytes(length), bytes(12))
    with pytest.raises(ValueError, match="12 bytes"):
        is_later(bytes(12), bytes(length))
