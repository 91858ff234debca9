"""What the two implementations of the packet path are given and asked, for the tests that hold them together.

Used by the property tests and by the fuzzer. Keys, indices and packets are made up here; what an implementation gives
back is turned into plain values that compare.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from struct import pack
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import strategies as st

from tests.unit.tunnel.inner import Flow
from tests.unit.tunnel.inner_traffic import cut_short, fragment, longer, other_byte, steps, traffic
from wghsm.tunnel.virtio import GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.tunnel.inner_traffic import Step
    from wghsm.tunnel.engine import Engine, Opener, Outgoing

KEY: Final = bytes(range(32))
INDEX: Final = 0x01020304

_TUN: Final = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
"""One end to read as from a TUN, and the other."""
_TUN[0].setblocking(False)


# Sealing.

_FLOWS = st.builds(
    Flow,
    version=st.just(4),
    tos=st.integers(0, 255),
    df=st.booleans(),
    ip_options=st.sampled_from([b"", b"", b"\x01" * 4]),
) | st.builds(
    Flow,
    version=st.just(6),
    tos=st.integers(0, 255),
    extension=st.sampled_from([b"", b"", bytes(8)]),
)
_SIZES = st.sampled_from([1, 2, 15, 16, 17, 100, 1279, 1380]) | st.integers(0, 1500)


@st.composite
def _super_packet(draw: st.DrawFn) -> bytes:
    """A TUN read with offloads."""
    flow = draw(_FLOWS)
    at = flow.transport
    data = draw(st.binary(min_size=1, max_size=20))
    payload = (data * 700)[: draw(st.integers(0, 5000))]
    size = draw(_SIZES)
    identity = draw(st.integers(65500, 65535))
    if draw(st.booleans()):
        packet = flow.udp(payload, identity=identity, partial=True)
        return VnetHeader(NEEDS_CSUM, GSO_UDP_L4, at + 8, size, at, 6).encode() + packet
    options = draw(st.sampled_from([b"", b"\x01" * 12, b"\x01" * 40]))
    flags = draw(st.integers(0, 255))
    sequence = draw(st.integers(2**32 - 3000, 2**32 - 1))
    packet = flow.tcp(payload, sequence, flags, options=options, identity=identity, partial=True)
    kind = (GSO_TCPV4 if flow.version == 4 else GSO_TCPV6) | draw(st.sampled_from([0, GSO_ECN]))
    return VnetHeader(NEEDS_CSUM, kind, at + 20 + len(options), size, at, 16).encode() + packet


@st.composite
def _single_packet(draw: st.DrawFn) -> bytes:
    """A TUN read of one packet, with its checksum or a partial one."""
    flow = draw(_FLOWS)
    partial = draw(st.booleans())
    payload = bytes(draw(st.integers(0, 1500)))
    is_udp = draw(st.booleans())
    packet = flow.udp(payload, partial=partial) if is_udp else flow.tcp(payload, partial=partial)
    header = VnetHeader(NEEDS_CSUM, csum_start=flow.transport, csum_offset=6 if is_udp else 16)
    return (header if partial else VnetHeader()).encode() + packet


@st.composite
def _harmed(draw: st.DrawFn, reads: st.SearchStrategy[bytes]) -> bytes:
    """A read of which a few bytes, or the end, are not what they should be."""
    read = bytearray(draw(reads))
    for at in draw(st.lists(st.integers(0, min(len(read), 90) - 1), min_size=1, max_size=3)):
        read[at] = draw(st.integers(0, 255))
    return bytes(read[: draw(st.integers(0, len(read)))] if draw(st.booleans()) else read)


_GOOD = _super_packet() | _single_packet()
READS = st.lists(st.just(b"") | _GOOD | _GOOD | _harmed(_GOOD) | st.binary(max_size=60), max_size=8)


@dataclass(frozen=True)
class Sealing:
    """Reads, and the state in which a session seals them."""

    reads: list[bytes]
    counter: int
    left: int
    mtu: int


SEALINGS = st.builds(
    Sealing,
    READS,
    st.sampled_from([0, 2**32 - 3, 2**64 - 2**13 - 60]),
    st.integers(0, 50),
    st.sampled_from([0, 576, 1280, 1380, 1420, 1500]) | st.integers(1, 2000),
)


def sealed(engine: Engine, sealing: Sealing) -> object:
    """What each read gave, each batch that was sent, and the counter that is left."""
    with _Sealed(engine, sealing) as run:
        said = [run.sealer.seal(read, sealing.mtu, run.out) for read in sealing.reads]
    return said, run.batches, run.counter


def sealed_from_tun(engine: Engine, sealing: Sealing) -> object:
    """The same for reads that wait in a TUN, read and sealed as egress does it."""
    said: list[int] = []
    tun, kernel = _TUN
    for read in filter(None, sealing.reads):
        kernel.send(read)
    with _Sealed(engine, sealing) as run:
        packet: bytes | None = None
        while packet := _next_read(tun) if packet is None else packet:
            last = packet
            said.append(run.sealer.seal(last, sealing.mtu, run.out))
            packet = None
            if said[-1] == 0:
                number, packet = run.sealer.seal_waiting(tun.fileno(), last, sealing.mtu, 3, run.out)
                assert number < 3 or not packet
                said += [0] * number
                packet = packet or None
    return said, run.batches, run.counter


def _next_read(tun: socket.socket) -> bytes:
    try:
        return tun.recv(2**17)
    except BlockingIOError:
        return b""


class _Sealed:
    """A sealer and what it seals into; `batches` that were sent and the `counter` that is left, at the end."""

    def __init__(self, engine: Engine, sealing: Sealing) -> None:
        self.batches: list[tuple[int, int, int, list[bytes]]] = []
        self.out: Outgoing = engine.outgoing(self._flush)
        self.sealer = engine.sealer(KEY, INDEX, sealing.counter + sealing.left)
        self.sealer.counter = sealing.counter

    def __enter__(self) -> _Sealed:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self.counter = self.sealer.counter
        self.sealer.close()

    def _flush(self) -> None:
        out = self.out
        datagrams = out.datagrams()
        assert b"".join(map(bytes, out.buffers)) == b"".join(datagrams)
        assert out.count == len(datagrams)
        if datagrams:
            self.batches.append((out.segment, out.size, out.ecn, datagrams))
        out.clear()


# Opening.


@dataclass(frozen=True)
class Opening:
    """UDP reads, each with the size of its datagrams, how they are opened, and where the session's counters end."""

    reads: list[tuple[bytes, int, int]]
    ecn: int
    merge: int
    limit: int


_cipher = ChaCha20Poly1305(KEY)


def datagram(counter: int, plaintext: bytes, index: int = INDEX, kind: int = 4) -> bytes:
    """A transport message as the protocol has it."""
    return pack("<IIQ", kind, index, counter) + _cipher.encrypt(pack("<4xQ", counter), plaintext, None)


def _tampered(draw: st.DrawFn, message: bytes) -> bytes:
    at = draw(st.integers(0, len(message) - 1))
    return message[:at] + bytes([message[at] ^ draw(st.integers(1, 255))]) + message[at + 1 :]


@st.composite
def _read(draw: st.DrawFn, base: int) -> tuple[bytes, int, int]:
    """Datagrams of one size: traffic, keepalives and noise, some repeated, tampered with or for others."""
    taken: list[Step] = draw(steps(cut_short, fragment, other_byte, longer))
    plaintexts = traffic(taken)
    size = max(map(len, plaintexts), default=0)
    size += -size % 16
    read = b""
    for number, plaintext in enumerate(plaintexts):
        counter = base + number
        padded = plaintext + bytes(size - len(plaintext))
        odd = draw(st.sampled_from([*[0] * 16, 1, 2, 3, 4, 5]))
        if odd == 1:
            counter += draw(st.integers(-9000, 9000))
        elif odd == 2:
            counter = draw(st.integers(0, 2**64 - 1))
        message = datagram(counter % 2**64, padded)
        if odd == 3:
            message = _tampered(draw, message)
        elif odd == 4:
            message = datagram(counter, padded, index=INDEX + 1)
        elif odd == 5:
            message = datagram(counter, bytes(size))
        read += message
    end = draw(st.sampled_from([0, 0, 0, 1, 31, 32]))
    return read[: len(read) - end], size + 32, draw(st.sampled_from([0, 0, 0, 0, size + 32, 5]))


@st.composite
def _reads(draw: st.DrawFn) -> list[tuple[bytes, int, int]]:
    base = draw(st.sampled_from([0, 100, 8000, 20000]))
    apart = draw(st.sampled_from([0, 1, 60, 64, 8128, 10000]))
    return [draw(_read(base + apart * number)) for number in range(draw(st.integers(1, 3)))]


OPENINGS = st.builds(
    Opening,
    _reads() | st.lists(st.tuples(st.binary(max_size=200), st.integers(1, 100), st.integers(0, 250)), max_size=3),
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from([2**64 - 2**13 - 1, 8030, 130]),
)

_FIELDS = ("end", "authenticated", "data", "packets", "size", "expired", "forged", "replayed", "malformed", "refused")


def opened(engine: Engine, opening: Opening, allowed: Callable[[bytes], bool]) -> list[tuple[list[int], list[bytes]]]:
    """For each run of each read, what became of it and the writes."""
    opener: Opener = engine.opener(KEY, INDEX, opening.limit)
    found = []
    for read, segment, at in opening.reads:
        done = -1
        while at < len(read) and at != done:
            done = at
            one = opener.open(read, at, segment, opening.ecn, opening.merge, allowed)
            found.append(([getattr(one, field) for field in _FIELDS], [bytes(write) for write in one.writes]))
            at = one.end
    opener.close()
    return found
