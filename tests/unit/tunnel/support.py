"""Makers for the tests of the tunnel: a core with everything it says kept, keys, packets, datagrams."""

import ipaddress
import json
import os
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wghsm.ipc import Role, StatsFile, create_stats
from wghsm.ipc import messages as m
from wghsm.process.endpoints import Destination, Source
from wghsm.tunnel.engine import COMPILED, PURE, Engine, Outgoing
from wghsm.tunnel.receiver import Receiver
from wghsm.tunnel.sender import Sender, SendPeer
from wghsm.tunnel.staging import Staging
from wghsm.tunnel.times import PROTOCOL_TIMES, Times
from wghsm.tunnel.virtio import PLAIN, SIZE

SECOND = 1_000_000_000
START = 1_000_000 * SECOND
PEER = 3
MTU = 1420
PLACE: Source = (("192.0.2.7", 51820), b"")

assert COMPILED is not None, "the compiled batch functions are missing: python -m pip install -e ."
ENGINES = {engine.name: engine for engine in (PURE, COMPILED)}
"""Both implementations; the fixture `engine` runs every test of this folder with each."""

_VECTORS = Path(__file__).parents[2] / "vectors"


def vectors(name: str) -> Any:
    return json.loads((_VECTORS / name).read_text())


def key(number: int) -> bytes:
    """A fresh copy each time: whoever takes a key wipes it."""
    return number.to_bytes(4, "big") * 8


def make_stats(role: Role) -> StatsFile:
    fd = create_stats()
    stats = StatsFile(fd, role)
    os.close(fd)
    return stats


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def ip_packet(source: str, destination: str, body: bytes = b"body") -> bytes:
    source_bytes, destination_bytes = packed(source), packed(destination)
    if len(source_bytes) == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0)
    else:
        head = struct.pack(">IHBB", 6 << 28, len(body), 59, 64)
    return head + source_bytes + destination_bytes + body


def datagram(key_bytes: bytes, index: int, counter: int, plaintext: bytes) -> bytes:
    sealed = ChaCha20Poly1305(key_bytes).encrypt(struct.pack("<4xQ", counter), plaintext, None)
    return struct.pack("<IIQ", 4, index, counter) + sealed


def counter_of(sealed: bytes) -> tuple[int, int]:
    """Receiver index and counter of a transport message."""
    kind, index, counter = struct.unpack_from("<IIQ", sealed)
    assert kind == 4
    return index, counter


def install_send(session: int, *, initiator: bool = True, created: int = START, peer: int = PEER) -> m.InstallSend:
    return m.InstallSend(session, peer, 1000 + session, initiator, created, key(session))


def install_receive(
    session: int, *, initiator: bool = True, created: int = START, peer: int = PEER, index: int | None = None
) -> m.InstallReceive:
    local = 1000 + session if index is None else index
    return m.InstallReceive(session, peer, local, initiator, created, key(session), 0)


class Chosen:
    """The engine of the test that runs."""

    engine: Engine = PURE


class Egress:
    """A Sender that knows PEER at 192.0.2.7 with 10.0.0.0/8 and fd00::/8; `sent` and `told` keep what it did.

    `batches`: datagrams, segment size and outer ECN of each send; `places`: where each went.
    """

    def __init__(self, times: Times = PROTOCOL_TIMES, staging: Staging | None = None) -> None:
        self.stats = make_stats(Role.EGRESS)
        self.sent: list[bytes] = []
        self.batches: list[tuple[int, int, int]] = []
        self.places: list[str] = []
        self.told: list[m.Message] = []
        self.works = True
        self.news: list[m.EndpointMoved] = []
        tell, engine = self.told.append, Chosen.engine
        self.sender = Sender(self.stats, self._transmit, tell, times, staging, engine=engine, catch_up=self._catch_up)
        self.sender.mtu = MTU
        self.sender.change_peers([PEER], [])
        self.sender.routes.insert(packed("10.0.0.0"), 8, PEER)
        self.sender.routes.insert(packed("fd00::"), 8, PEER)
        self.move(START)

    def _catch_up(self) -> None:
        """What ingress has said and egress has not read yet: `news`."""
        for moved in self.news:
            self.sender.move_endpoint(moved, moved.at)
        self.news.clear()

    def move(self, at: int, host: str = "192.0.2.7", peer: int = PEER) -> None:
        self.sender.move_endpoint(m.EndpointMoved(peer, m.Endpoint(host, 51820), at), at)

    def _transmit(self, _peer: SendPeer, destination: Destination, batch: Outgoing) -> int:
        if not self.works:
            return 0
        self.places.append(destination.endpoint.host)
        self.batches.append((batch.count, batch.segment, batch.ecn))
        self.sent += batch.datagrams()
        assert b"".join(batch.buffers) == b"".join(batch.datagrams())
        return batch.size

    def start(self, session: int, now: int = START, *, initiator: bool = True) -> None:
        self.sender.install(install_send(session, initiator=initiator, created=now), now)
        self.sender.activate(m.Activate(session, PEER), now)

    def take(self) -> list[bytes]:
        sent, self.sent = self.sent, []
        return sent

    def take_told(self) -> list[m.Message]:
        told = list(self.told)
        self.told.clear()
        return told


class Ingress:
    """A Receiver that knows PEER with 10.0.0.0/8 and fd00::/8; lists keep what it told to whom."""

    def __init__(self, times: Times = PROTOCOL_TIMES) -> None:
        self.stats = make_stats(Role.INGRESS)
        self.told: list[m.Message] = []
        self.told_egress: list[m.Message] = []
        self.handed: list[m.Datagram] = []
        self.room = True
        tell, tell_egress = self.told.append, self.told_egress.append
        self.receiver = Receiver(self.stats, tell, tell_egress, self._hand_over, times, Chosen.engine)
        self.receiver.change_peers([PEER], [])
        self.receiver.routes.insert(packed("10.0.0.0"), 8, PEER)
        self.receiver.routes.insert(packed("fd00::"), 8, PEER)

    def _hand_over(self, message: m.Datagram) -> bool:
        if self.room:
            self.handed.append(message)
        return self.room

    def install(self, session: int, now: int = START, *, initiator: bool = True, index: int | None = None) -> None:
        message = install_receive(session, initiator=initiator, created=now, index=index)
        self.receiver.install(message, now)

    def open(self, data: bytes, now: int = START, source: Source = PLACE) -> list[bytes]:
        """One datagram; what is delivered, which is not merged."""
        writes = self.read(data, len(data), now, source)
        assert all(write.startswith(PLAIN) for write in writes)
        return [write[SIZE:] for write in writes]

    def read(self, data: bytes, segment: int, now: int = START, source: Source = PLACE, ecn: int = 0) -> list[bytes]:
        """One read of many datagrams; the TUN writes."""
        writes: list[bytes] = []
        self.receiver.read(data, segment, source, ecn, now, lambda write: writes.append(bytes(write)))
        return writes

    def take_told(self) -> list[m.Message]:
        told = list(self.told)
        self.told.clear()
        return told
