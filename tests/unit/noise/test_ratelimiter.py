"""The rate limiter: known sequence, prefixes, bounded table, forgetting."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.noise.vectors import load
from wghsm.noise import RateLimiter
from wghsm.noise.constants import NSEC_PER_MSEC, NSEC_PER_SEC, PACKETS_BURSTABLE, PACKETS_PER_SECOND

A = ip_address("192.0.2.1").packed


def test_known_sequence_for_every_address() -> None:
    data = load("ratelimiter.json")
    assert (data["packets_per_second"], data["burst"]) == (PACKETS_PER_SECOND, PACKETS_BURSTABLE)
    addresses = [ip_address(address).packed for address in data["addresses"]]
    limiter = RateLimiter()
    now = 10**15
    for step in data["steps"]:
        now += int(step["wait_ms"] * NSEC_PER_MSEC) + 1
        for address in addresses:
            assert limiter.allow(address, now) == step["allowed"]
    assert len(limiter) == len(addresses)


def test_ipv6_counts_by_64_bits_and_ipv4_by_32() -> None:
    limiter = RateLimiter()
    for number in range(PACKETS_BURSTABLE):
        assert limiter.allow(ip_address(f"2001:db8::{number}").packed, 0)
        assert limiter.allow(ip_address(f"192.0.2.{number}").packed, 0)
    assert not limiter.allow(ip_address("2001:db8::ffff:1").packed, 0)
    assert limiter.allow(ip_address("2001:db8:0:1::").packed, 0)
    assert len(limiter) == PACKETS_BURSTABLE + 2


def test_an_ipv4_source_is_not_an_ipv6_source_with_the_same_first_bytes() -> None:
    limiter = RateLimiter()
    for _ in range(PACKETS_BURSTABLE):
        assert limiter.allow(bytes((32, 1, 13, 184)), 0)
    assert not limiter.allow(bytes((32, 1, 13, 184)), 0)
    assert limiter.allow(ip_address("2001:db8::").packed, 0)


def test_a_full_table_refuses_new_sources_and_serves_old_ones() -> None:
    limiter = RateLimiter(max_entries=2)
    sources = [bytes((10, 0, 0, number)) for number in range(3)]
    assert limiter.allow(sources[0], 0)
    assert limiter.allow(sources[1], 0)
    assert not limiter.allow(sources[2], 0)
    assert limiter.allow(sources[0], 1)
    assert len(limiter) == 2
    assert not limiter.allow(sources[2], NSEC_PER_SEC)
    assert limiter.allow(sources[2], NSEC_PER_SEC + 1)


def test_idle_sources_are_forgotten_the_longest_idle_first() -> None:
    limiter = RateLimiter()
    first, second = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
    limiter.allow(first, 0)
    limiter.allow(second, 0)
    limiter.allow(first, NSEC_PER_SEC // 2)
    limiter.collect(NSEC_PER_SEC)
    assert len(limiter) == 2
    limiter.collect(NSEC_PER_SEC + 1)
    assert len(limiter) == 1
    limiter.collect(2 * NSEC_PER_SEC)
    assert len(limiter) == 0


def test_refused_messages_earn_nothing_and_keep_the_entry() -> None:
    limiter = RateLimiter()
    for _ in range(PACKETS_BURSTABLE):
        assert limiter.allow(A, 0)
    assert not any(limiter.allow(A, now) for now in range(0, 49 * NSEC_PER_MSEC, NSEC_PER_MSEC))
    assert limiter.allow(A, 50 * NSEC_PER_MSEC)


def test_a_clock_that_stands_or_goes_back_gives_no_tokens() -> None:
    limiter = RateLimiter()
    assert sum(limiter.allow(A, 10**12 - number) for number in range(100)) == PACKETS_BURSTABLE


@given(st.lists(st.integers(0, 200 * NSEC_PER_MSEC), min_size=1, max_size=300))
def test_never_more_than_rate_and_burst(waits: list[int]) -> None:
    limiter, now, passed = RateLimiter(), 0, 0
    for wait in waits:
        now += wait
        passed += limiter.allow(A, now)
    assert passed <= PACKETS_BURSTABLE + sum(waits) * PACKETS_PER_SECOND / NSEC_PER_SEC


@pytest.mark.parametrize("length", [0, 3, 5, 8, 17])
def test_an_address_of_another_length_is_a_fault(length: int) -> None:
    with pytest.raises(ValueError, match="packed address"):
        RateLimiter().allow(bytes(length), 0)
