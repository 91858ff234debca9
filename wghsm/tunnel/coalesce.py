"""Merge opened packets into super-packets with a virtio_net_hdr: many packets in one TUN write.

Called by ingress, which adds the packets of a batch in order and takes the writes when the batch ends:

    packet of TCP or UDP that continues its flow's run   -> into the run
    other packet of a flow with a run                    -> ends the run, stands after it
    packet whose flow cannot be told (a fragment ...)    -> ends all runs

Cutting a super-packet again gives the packets that went in, byte by byte. Only the ID of an IPv4 packet with DF, which
has no meaning (RFC 6864), may differ, and a TCP checksum of 65535, which says the same as 0. A run holds packets that
agree in all but lengths, checksums, ID, seq and PSH and have the same size but for a shorter last one; TCP has ACK and
may have PSH, which ends the run, and no other flag.
Checksums are verified first: a super-packet carries none, and the kernel would make right what came in wrong.
Source: DATAPLANE.md section 2.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from wghsm.tunnel.checksum import add, finish
from wghsm.tunnel.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, PLAIN, VnetHeader

__all__ = ["LARGEST", "MOST_DATAGRAMS", "Coalescer"]

LARGEST = 65535
"""Bytes of the largest super-packet, without the virtio_net_hdr."""

MOST_DATAGRAMS = 64
"""Datagrams of one super-packet at most: older kernels refuse more."""

_TCP: Final = 6
_UDP: Final = 17
_ACK: Final = 0x10
_PSH: Final = 0x08
_DF: Final = 0x40

_u16 = Struct(">H")
_u32 = Struct(">I")
_two_u16 = Struct(">HH")
_from_bytes = int.from_bytes


class _Run:
    """Packets of one flow that make one write: `first` and the payloads that follow it.

    `alike` is what all their headers share, `next` the sequence number to come (0 for UDP), `identity` the IPv4 ID to
    come, or None where it does not matter, `room` the bytes that may be added.
    """

    __slots__ = ("alike", "first", "head", "identity", "next", "payloads", "pushed", "room", "size", "verified")

    def __init__(self, first: bytes, head: int, alike: int, sequence: int, room: int, *, verified: bool) -> None:
        self.first = first
        self.head = head
        self.alike = alike
        self.next = sequence
        self.verified = verified
        self.size = len(first) - head
        self.room = room
        counts = first[0] >> 4 == 4 and not first[6] & _DF
        self.identity = (_u16.unpack_from(first, 4)[0] + 1) & 0xFFFF if counts else None
        self.pushed = False
        self.payloads: list[bytes] = []


def _mask(network: int, transport: int, ignored: tuple[tuple[int, int], ...]) -> int:
    """Ones for the bits that all packets of a run share in headers of `network` + `transport` bytes."""
    bits = bytearray(b"\xff" * (network + transport))
    lengths = ((2, 6), (10, 12)) if network == 20 else ((4, 6),)
    for start, end in (*lengths, *((network + start, network + end) for start, end in ignored)):
        bits[start:end] = bytes(end - start)
    if transport > 8:
        bits[network + 13] ^= _PSH
    return _from_bytes(bits, "big")


_MASKS: Final = {
    (network, network + transport): _mask(network, transport, ignored)
    for network in (20, 40)
    for transport, ignored in ((8, ((4, 8),)), *((size, ((4, 8), (16, 18))) for size in range(20, 64, 4)))
}


class Coalescer:
    """Collects the packets of one batch. `uso`: whether the kernel takes super-packets of UDP (6.2 or newer)."""

    def __init__(self, *, uso: bool = True) -> None:
        self._uso = uso
        self._writes: list[bytes | _Run] = []
        self._tcp: dict[bytes, _Run] = {}
        self._udp: dict[bytes, _Run] = {}

    def add(self, packet: bytes) -> None:
        """Take the next packet, an IP packet without padding; whatever it holds, nothing is raised."""
        size = len(packet)
        protocol = 0
        if size >= 28 and packet[0] == 0x45 and packet[6] in (0, _DF) and packet[7] == 0:
            network, protocol = 20, packet[9]
            flow, whole = packet[12:24], _u16.unpack_from(packet, 2)[0] == size
        elif size >= 48 and packet[0] >> 4 == 6:
            network, protocol = 40, packet[6]
            flow, whole = packet[8:44], _u16.unpack_from(packet, 4)[0] == size - 40
        if protocol == _TCP:
            self._add_tcp(packet, network, flow, whole)
        elif protocol == _UDP:
            self._add_udp(packet, network, flow, whole)
        else:
            # A fragment or what follows an extension header may belong to any flow: nothing overtakes it.
            self._tcp.clear()
            self._udp.clear()
            self._writes.append(packet)

    def take(self) -> list[bytes]:
        """The writes for what was added since the last call: each is a virtio_net_hdr and a packet."""
        writes = [PLAIN + one if isinstance(one, bytes) else _write(one) for one in self._writes]
        self._writes = []
        self._tcp.clear()
        self._udp.clear()
        return writes

    def _add_tcp(self, packet: bytes, network: int, flow: bytes, whole: bool) -> None:
        size = len(packet)
        head = network + (packet[network + 12] >> 4) * 4 if size >= network + 20 else size
        if not whole or not network + 20 <= head < size or packet[network + 13] & ~_PSH != _ACK:
            self._tcp.pop(flow, None)
            self._writes.append(packet)
            return
        sequence: int = _u32.unpack_from(packet, network + 4)[0]
        self._offer(self._tcp, flow, packet, network, head, sequence, pushed=packet[network + 13] & _PSH != 0)

    def _add_udp(self, packet: bytes, network: int, flow: bytes, whole: bool) -> None:
        length, checksum = _two_u16.unpack_from(packet, network + 4)
        if not self._uso or not whole or length != len(packet) - network or length == 8 or not checksum:
            self._udp.pop(flow, None)
            self._writes.append(packet)
            return
        self._offer(self._udp, flow, packet, network, network + 8, 0, pushed=False)

    def _offer(
        self,
        runs: dict[bytes, _Run],
        flow: bytes,
        packet: bytes,
        network: int,
        head: int,
        sequence: int,
        *,
        pushed: bool,
    ) -> None:
        """Let a packet that may be merged join its flow's run, or begin a new one."""
        alike = _from_bytes(packet[:head], "big") & _MASKS[network, head]
        run = runs.get(flow)
        size = len(packet)
        following = 0 if runs is self._udp else (sequence + size - head) & 0xFFFFFFFF
        verified = False
        if (
            run is not None
            and run.alike == alike
            and run.next == sequence
            and size <= len(run.first)
            and size - head <= run.room
            and (run.identity is None or run.identity == _u16.unpack_from(packet, 4)[0])
        ):
            if not _intact(packet, network):
                del runs[flow]
                self._writes.append(packet)
                return
            verified = True
            if run.verified or _intact(run.first, network):
                run.verified = True
                run.next = following
                run.pushed = pushed
                run.payloads.append(packet[head:])
                run.room -= size - head
                if run.identity is not None:
                    run.identity = (run.identity + 1) & 0xFFFF
                if pushed or size < len(run.first):
                    del runs[flow]
                return
        if pushed:
            runs.pop(flow, None)
            self._writes.append(packet)
            return
        room = LARGEST - size
        if runs is self._udp:
            room = min(room, (MOST_DATAGRAMS - 1) * (size - head))
        run = runs[flow] = _Run(packet, head, alike, following, room, verified=verified)
        self._writes.append(run)


def _intact(packet: bytes, network: int) -> bool:
    """Whether the checksums of a TCP or UDP packet without options or extension headers are right."""
    if network == 20:
        total = add(packet[12:]) + packet[9]
        right = add(packet[:20]) == 0
    else:
        total = add(packet[8:]) + packet[6]
        right = True
    return right and (total + len(packet) - network) % 65535 == 0


def _write(run: _Run) -> bytes:
    """The TUN write of a run, a super-packet if it has more than one packet."""
    if not run.payloads:
        return PLAIN + run.first
    head = bytearray(run.first[: run.head])
    total = len(run.first) + sum(map(len, run.payloads))
    if head[0] == 0x45:
        network, protocol, addresses = 20, head[9], add(head[12:20])
        _u16.pack_into(head, 2, total)
        _u16.pack_into(head, 10, 0)
        _u16.pack_into(head, 10, finish(add(head[:20])))
    else:
        network, protocol, addresses = 40, head[6], add(head[8:40])
        _u16.pack_into(head, 4, total - 40)
    length = total - network
    if protocol == _TCP:
        kind, field = GSO_TCPV4 if network == 20 else GSO_TCPV6, 16
        if run.pushed:
            head[network + 13] |= _PSH
    else:
        kind, field = GSO_UDP_L4, 6
        _u16.pack_into(head, network + 4, length)
    # The partial checksum: the pseudo-header's sum, as 1 to 65535.
    _u16.pack_into(head, network + field, (addresses + protocol + length - 1) % 65535 + 1)
    header = VnetHeader(NEEDS_CSUM, kind, run.head, run.size, network, field).encode()
    return b"".join((header, head, run.first[run.head :], *run.payloads))
