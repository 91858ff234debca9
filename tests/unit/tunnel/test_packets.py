"""Inner headers and padding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tunnel.support import ip_packet, packed
from wghsm.tunnel.packets import destination, padding, unpadded

_PAIRS = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")]


@pytest.mark.parametrize(("source", "target"), _PAIRS)
def test_addresses(source: str, target: str) -> None:
    packet = ip_packet(source, target)
    assert destination(packet) == packed(target)
    assert unpadded(packet) == (packed(source), packet)


@pytest.mark.parametrize(("source", "target"), _PAIRS)
@given(added=st.integers(0, 40))
def test_padding_is_cut(source: str, target: str, added: int) -> None:
    packet = ip_packet(source, target)
    assert unpadded(packet + bytes(added)) == (packed(source), packet)


@pytest.mark.parametrize(("source", "target"), _PAIRS)
def test_a_packet_shorter_than_it_says_is_malformed(source: str, target: str) -> None:
    packet = ip_packet(source, target)
    for size in range(len(packet)):
        assert unpadded(packet[:size]) is None


def test_a_total_length_below_the_header_is_malformed() -> None:
    packet = bytearray(ip_packet("10.0.0.1", "10.0.0.2"))
    packet[2:4] = (19).to_bytes(2, "big")
    assert unpadded(bytes(packet)) is None


@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    address = destination(data)
    if address is not None:
        assert len(address) == (4 if data[0] >> 4 == 4 else 16)
    inner = unpadded(data)
    if inner is not None:
        assert data.startswith(inner[1])


@pytest.mark.parametrize("version", [0, 1, 5, 7, 15])
def test_other_versions(version: int) -> None:
    data = bytes([version << 4]) + bytes(63)
    assert destination(data) is None
    assert unpadded(data) is None


@pytest.mark.parametrize(
    ("size", "mtu", "added"),
    [
        (1, 1420, 15),
        (16, 1420, 0),
        (17, 1420, 15),
        (1408, 1420, 0),
        (1409, 1420, 11),
        (1420, 1420, 0),
        (1421, 1420, 15),
        (1436, 1420, 0),
        (2840, 1420, 0),
        (1420, 0, 4),
    ],
)
def test_padding(size: int, mtu: int, added: int) -> None:
    assert padding(size, mtu) == added


@given(st.integers(1, 65535), st.integers(68, 65535))
def test_padding_follows_the_formula(size: int, mtu: int) -> None:
    last = size % mtu if size > mtu else size
    assert padding(size, mtu) == min(mtu, -(-last // 16) * 16) - last
