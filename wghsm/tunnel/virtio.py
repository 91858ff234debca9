"""virtio_net_hdr: the 10 bytes before each packet of a TUN with IFF_VNET_HDR, in the machine's byte order.

Source: DATAPLANE.md section 2; the meaning of the fields is that of the virtio specification, 5.1.6.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

__all__ = [
    "DATA_VALID",
    "GSO_ECN",
    "GSO_NONE",
    "GSO_TCPV4",
    "GSO_TCPV6",
    "GSO_UDP_L4",
    "NEEDS_CSUM",
    "PLAIN",
    "SIZE",
    "VnetHeader",
]

SIZE = 10
"""Bytes of the header."""

PLAIN = bytes(SIZE)
"""The header of a packet that is whole: nothing to cut, no checksum to finish."""

NEEDS_CSUM = 1
"""Flag: the checksum is partial. Its field holds the sum of the pseudo-header; the rest begins at csum_start."""

DATA_VALID = 2
"""Flag: the kernel has verified the checksum."""

GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80
"""Bit beside a TCP type: the first segment has CWR."""

_coding = Struct("=BBHHHH")


class VnetHeader(NamedTuple):
    """One header. Sizes and offsets are bytes from the start of the packet.

    `hdr_len` is a hint only: in a read it may reach into the payload. `csum_offset` counts from `csum_start`.
    """

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def encode(self) -> bytes:
        """The 10 bytes; struct.error if a field is out of its range."""
        return _coding.pack(*self)

    @classmethod
    def decode(cls, read: bytes | bytearray | memoryview) -> VnetHeader:
        """The header at the start of a TUN read; struct.error if that is shorter than 10 bytes."""
        return cls(*_coding.unpack_from(read))
