"""ICMP answers for packets that nobody can take: form, checksums, and what is never answered."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tunnel.support import ip_packet, packed
from wghsm.tunnel.unreachable import unreachable


def _sum(data: bytes) -> int:
    """RFC 1071, word by word: 0xffff over data whose checksum is right."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _udp(source: str, target: str, payload: bytes = b"") -> bytes:
    packet = bytearray(ip_packet(source, target, payload))
    packet[9 if packet[0] >> 4 == 4 else 6] = 17
    return bytes(packet)


@given(st.binary(max_size=1500))
def test_ipv4_host_unreachable_quotes_the_packet_and_sums_up(payload: bytes) -> None:
    packet = _udp("10.0.0.1", "10.9.9.9", payload)
    answer = unreachable(packet)
    assert answer is not None
    assert (answer[12:16], answer[16:20]) == (packed("10.9.9.9"), packed("10.0.0.1"))
    assert answer[9] == 1
    assert tuple(answer[20:22]) == (3, 1)
    assert answer[28:] == packet[: 576 - 28]
    assert int.from_bytes(answer[2:4], "big") == len(answer)
    assert _sum(answer[:20]) == 0xFFFF
    assert _sum(answer[20:]) == 0xFFFF


@given(st.binary(max_size=1500))
def test_ipv6_address_unreachable_quotes_the_packet_and_sums_up(payload: bytes) -> None:
    packet = _udp("fd00::1", "fd00::99", payload)
    answer = unreachable(packet)
    assert answer is not None
    source, target = answer[8:24], answer[24:40]
    assert (source, target) == (packed("fd00::99"), packed("fd00::1"))
    assert tuple(answer[40:42]) == (1, 3)
    assert answer[48:] == packet[: 1280 - 48]
    assert len(answer) <= 1280
    length = len(answer) - 40
    assert int.from_bytes(answer[4:6], "big") == length
    assert _sum(source + target + length.to_bytes(4, "big") + b"\0\0\0\x3a" + answer[40:]) == 0xFFFF


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("0.0.0.0", "10.9.9.9"),  # noqa: S104
        ("127.0.0.1", "10.9.9.9"),
        ("224.0.0.1", "10.9.9.9"),
        ("10.0.0.1", "224.0.0.5"),
        ("10.0.0.1", "255.255.255.255"),
        ("::", "fd00::99"),
        ("ff02::1", "fd00::99"),
        ("fd00::1", "ff02::2"),
    ],
)
def test_no_answer_to_or_about_more_than_one_host(source: str, target: str) -> None:
    assert unreachable(_udp(source, target)) is None


@pytest.mark.parametrize(("kind", "answered"), [(8, True), (0, True), (3, False), (5, False), (11, False)])
def test_an_icmp_error_is_never_answered(kind: int, answered: bool) -> None:
    packet = bytearray(ip_packet("10.0.0.1", "10.9.9.9", bytes([kind, 0, 0, 0, 0, 0, 0, 0])))
    packet[9] = 1
    assert (unreachable(bytes(packet)) is not None) == answered


@pytest.mark.parametrize(("kind", "answered"), [(128, True), (129, True), (1, False), (3, False)])
def test_an_icmpv6_error_is_never_answered(kind: int, answered: bool) -> None:
    packet = bytearray(ip_packet("fd00::1", "fd00::99", bytes([kind, 0, 0, 0, 0, 0, 0, 0])))
    packet[6] = 58
    assert (unreachable(bytes(packet)) is not None) == answered


def test_only_the_first_fragment_is_answered() -> None:
    packet = bytearray(_udp("10.0.0.1", "10.9.9.9", b"x" * 64))
    packet[6:8] = (0x2000).to_bytes(2, "big")
    assert unreachable(bytes(packet)) is not None
    packet[6:8] = (0x2000 | 8).to_bytes(2, "big")
    assert unreachable(bytes(packet)) is None


@given(st.binary(max_size=100), st.sampled_from([4, 6]))
def test_no_bytes_make_it_fail(data: bytes, version: int) -> None:
    packet = bytes([version << 4 | 5]) + data
    answer = unreachable(packet)
    if answer is not None:
        assert ipaddress.ip_address(answer[16:20] if version == 4 else answer[24:40]) is not None
