"""Inner packets for the tests of cutting and merging, built plainly: checksums word by word, headers by struct."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
TCP: Final = 6
UDP: Final = 17
V4: Final = (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
V6: Final = (bytes.fromhex("fd00" + "00" * 13 + "01"), bytes.fromhex("fd00" + "00" * 13 + "02"))


def words(data: bytes) -> int:
    """The sum of 16-bit words as RFC 1071 writes it down, folded to 16 bits, not complemented."""
    data += bytes(len(data) % 2)
    total = 0
    for (word,) in struct.iter_unpack(">H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass(frozen=True)
class Flow:
    """Addresses, ports and what else the packets of one flow share."""

    version: Literal[4, 6] = 4
    source_port: int = 1000
    destination_port: int = 2000
    tos: int = 0
    ttl: int = 64
    df: bool = True
    label: int = 0
    ip_options: bytes = b""
    extension: bytes = b""
    """Of IPv6: one extension header, its first byte (the next header) is written here; `extension_kind` names it."""
    extension_kind: int = 60

    def ip(self, protocol: int, transport: bytes, identity: int = 0, length: int | None = None) -> bytes:
        """An IP packet around `transport`, of which the header says `length` if that is given."""
        if self.version == 6:
            source, destination = V6
            kind, inner = protocol, transport
            if self.extension:
                kind, inner = self.extension_kind, bytes([protocol]) + self.extension[1:] + transport
            first = 6 << 28 | self.tos << 20 | self.label
            size = len(inner) if length is None else length
            return struct.pack(">IHBB", first, size, kind, self.ttl) + source + destination + inner
        source, destination = V4
        header = 20 + len(self.ip_options)
        size = header + len(transport) if length is None else length
        head = bytearray(struct.pack(">BBHHHBB", 0x40 | header // 4, self.tos, size, identity, 0, self.ttl, protocol))
        head[6] = 0x40 if self.df else 0
        head += bytes(2) + source + destination + self.ip_options
        head[10:12] = (words(bytes(head)) ^ 0xFFFF).to_bytes(2, "big")
        return bytes(head) + transport

    def pseudo(self, protocol: int, length: int) -> int:
        """The folded sum of the pseudo-header."""
        return words(b"".join(V4 if self.version == 4 else V6) + struct.pack(">II", length, protocol))

    def tcp(
        self,
        payload: bytes,
        sequence: int = 0,
        flags: int = ACK,
        *,
        ack: int = 77,
        window: int = 500,
        options: bytes = b"",
        identity: int = 0,
        partial: bool = False,
    ) -> bytes:
        """A TCP packet; `partial` leaves the pseudo-header's sum as its checksum."""
        head = struct.pack(">HHII", self.source_port, self.destination_port, sequence & 0xFFFFFFFF, ack)
        head += struct.pack(">BBH", (5 + len(options) // 4) << 4, flags, window)
        segment = head + bytes(4) + options + payload
        pseudo = self.pseudo(TCP, len(segment))
        total = pseudo if partial else words(struct.pack(">H", pseudo) + segment) ^ 0xFFFF
        return self.ip(TCP, segment[:16] + total.to_bytes(2, "big") + segment[18:], identity)

    def udp(self, payload: bytes, *, identity: int = 0, partial: bool = False, checksum: int | None = None) -> bytes:
        """A UDP packet; `partial` leaves the pseudo-header's sum as its checksum, `checksum` says another."""
        head = struct.pack(">HHHH", self.source_port, self.destination_port, 8 + len(payload), 0)
        pseudo = self.pseudo(UDP, 8 + len(payload))
        total = pseudo if partial else words(struct.pack(">H", pseudo) + head + payload) ^ 0xFFFF or 0xFFFF
        if checksum is not None:
            total = checksum
        return self.ip(UDP, head[:6] + total.to_bytes(2, "big") + payload, identity)

    @property
    def transport(self) -> int:
        """Where the transport header begins."""
        return 20 + len(self.ip_options) if self.version == 4 else 40 + len(self.extension)
