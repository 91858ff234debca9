"""A process that shakes hands as many peers at once: `_generator.py NUMBER PEERS`, started by handshakes.py.

    standard output: the peers' public keys, a JSON list; then an answer for each order
    standard input:  {"do": "prepare", ...}    make messages for a gateway, timestamps increasing for each peer
                     {"do": "run", ...}        send them, a window of them under way, and count the responses
                     {"do": "traffic", ...}    a packet of each peer in each second, and count the answers

Each peer speaks from an address of its own (10.66.x.y), one message at a time. Some responses are followed to the
session's keys and a keepalive, so that what is counted is a handshake; a cookie that comes is used.
"""

import base64
import ipaddress
import itertools
import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wghsm.noise import (
    CookieReply,
    Initiation,
    Initiator,
    MessageType,
    Rejected,
    Response,
    SoftwareCustody,
    TransportHeader,
    message_type,
)
from wghsm.noise.constants import INITIATION_FLOOD_GUARD, NSEC_PER_SEC
from wghsm.noise.cookie import CookieMaker
from wghsm.noise.tai64n import next_timestamp

SPACING = INITIATION_FLOOD_GUARD * 3 // 2
"""Nanoseconds between two messages of a peer: closer ones are dropped as a flood."""
PATIENCE = 2 * NSEC_PER_SEC
"""A message without an answer for so long is lost."""
FOLLOWED = 64
"""One in so many responses is followed to the keys."""

IP_PKTINFO = 8
BUFFER = 4 << 20


class _Custody(SoftwareCustody):
    """The keys of one peer, with its static-static results kept."""

    def __init__(self) -> None:
        super().__init__(os.urandom(32))
        self._known: dict[bytes, bytes] = {}

    def static_static(self, peer_public: bytes) -> bytearray:
        """X25519 with the gateway, 32 bytes."""
        if peer_public not in self._known:
            self._known[peer_public] = bytes(super().static_static(peer_public))
        return bytearray(self._known[peer_public])


@dataclass
class _Peer:
    address: bytes
    custody: _Custody = field(default_factory=_Custody)
    makers: dict[bytes, CookieMaker] = field(default_factory=dict)
    timestamp: bytes | None = None
    sent: int = 0
    session: tuple[int, ChaCha20Poly1305] | None = None
    """The gateway's index and our send key of the newest session that was followed."""
    counter: int = 0


@dataclass
class _Message:
    peer: _Peer
    initiation: Initiation
    handshake: Initiator | None
    """Kept where the response will be followed."""
    sent: int = 0


class Generator:
    """All peers of this process, and the messages that wait to be sent."""

    def __init__(self, number: int, count: int) -> None:
        base = int(ipaddress.IPv4Address("10.66.0.0")) + number * count + 1
        self.peers = [_Peer(ipaddress.IPv4Address(base + index).packed) for index in range(count)]
        self._indices = itertools.count(number << 28 | 1)
        self._turn = itertools.cycle(self.peers)
        self._ready: deque[_Message] = deque()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.bind(("0.0.0.0", 40000 + number))  # noqa: S104  (a network namespace of the benchmark)
        self._socket.setblocking(False)

    def prepare(self, gateway: bytes, count: int, follow: int = FOLLOWED) -> None:
        """Make `count` messages to `gateway` (its public key) in place of those that were left."""
        self._ready.clear()
        for number in range(count):
            peer = next(self._turn)
            peer.timestamp = next_timestamp(time.time_ns(), peer.timestamp)
            handshake = Initiator(peer.custody, gateway)
            fields = handshake.write_initiation(bytearray(os.urandom(32)), peer.timestamp)
            if isinstance(fields, Rejected):
                raise TypeError(f"the gateway's key is no key: {fields}")
            initiation = Initiation(next(self._indices), fields.ephemeral, fields.static, fields.timestamp)
            followed = number % follow == 0
            if not followed:
                handshake.wipe()
            self._ready.append(_Message(peer, initiation, handshake if followed else None))

    def run(self, gateway: bytes, address: tuple[str, int], seconds: float, window: int) -> dict[str, float]:
        """Keep `window` messages under way for `seconds`, or until none is left; count what comes back."""
        counts = dict.fromkeys(("responses", "verified", "lost", "cookies"), 0)
        under_way: dict[int, _Message] = {}
        started = now = time.monotonic_ns()
        end = started + int(seconds * NSEC_PER_SEC)
        last = started
        while now < end and (self._ready or under_way):
            while self._ready and len(under_way) < window and now - self._ready[0].peer.sent >= SPACING:
                message = self._ready.popleft()
                under_way[message.initiation.sender] = message
                self._send(gateway, message, address)
            select.select([self._socket], [], [], 0.005)
            now = time.monotonic_ns()
            for data in self._datagrams():
                if (kind := self._take(gateway, data, under_way, address)) is not None:
                    for name in kind:
                        counts[name] += 1
                    last = now
            # In the order of sending: the first one that is young enough ends the search.
            for index, message in list(itertools.islice(under_way.items(), window)):
                if now - message.sent < PATIENCE:
                    break
                del under_way[index]
                counts["lost"] += 1
        # A round that ran out of messages ends with its last answer.
        return {**counts, "seconds": (min(now, end) - started if now >= end else last - started) / NSEC_PER_SEC}

    def _send(self, gateway: bytes, message: _Message, address: tuple[str, int]) -> None:
        peer = message.peer
        maker = peer.makers.setdefault(gateway, CookieMaker(gateway))
        data = maker.authenticate(message.initiation, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        self._transmit(peer, data, address)
        message.sent = peer.sent = time.monotonic_ns()

    def traffic(self, address: tuple[str, int], packets: list[bytes], seconds: float) -> dict[str, float]:
        """Have each peer send its packet once a second; count what comes back.

        The answers are not opened: nobody has anything else to send to these peers.
        """
        asking = list(zip(self.peers, packets, strict=True))
        spacing = NSEC_PER_SEC // len(asking)
        turns = itertools.cycle(asking)
        started = due = time.monotonic_ns()
        asked = answered = 0
        while (now := time.monotonic_ns()) < started + int(seconds * NSEC_PER_SEC):
            while due <= now:
                peer, packet = next(turns)
                asked += self._seal(peer, packet + bytes(-len(packet) % 16), address)
                due += spacing
            select.select([self._socket], [], [], max(0.0, (due - time.monotonic_ns()) / NSEC_PER_SEC))
            answered += sum(message_type(data) is MessageType.TRANSPORT for data in self._datagrams())
        return {"asked": asked, "answered": answered}

    def _seal(self, peer: _Peer, packet: bytes, address: tuple[str, int]) -> bool:
        if peer.session is None:
            return False
        index, key = peer.session
        header = TransportHeader(index, peer.counter).encode()
        nonce = bytes(4) + peer.counter.to_bytes(8, "little")
        peer.counter += 1
        self._transmit(peer, header + key.encrypt(nonce, packet, None), address)
        return True

    def _transmit(self, peer: _Peer, data: bytes, address: tuple[str, int]) -> None:
        source = struct.pack("=i4s4s", 0, peer.address, bytes(4))
        self._socket.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, address)

    def _datagrams(self) -> list[bytes]:
        found: list[bytes] = []
        while True:
            try:
                found.append(self._socket.recv(2048))
            except BlockingIOError:
                return found

    def _take(
        self, gateway: bytes, data: bytes, under_way: dict[int, _Message], address: tuple[str, int]
    ) -> tuple[str, ...] | None:
        """The names of what to count, None for a datagram that belongs to no message under way."""
        kind = message_type(data)
        if kind is MessageType.RESPONSE:
            response = Response.decode(data)
            if isinstance(response, Rejected) or (message := under_way.pop(response.receiver, None)) is None:
                return None
            if message.handshake is None:
                return ("responses",)
            keys = message.handshake.read_response(response.ephemeral, response.empty)
            if isinstance(keys, Rejected):
                raise RuntimeError(f"a response that is none: {keys}")
            message.peer.session, message.peer.counter = (response.sender, ChaCha20Poly1305(bytes(keys.send))), 0
            # A keepalive: with it the session is complete for the gateway.
            self._seal(message.peer, b"", address)
            keys.wipe()
            return ("responses", "verified")
        if kind is MessageType.COOKIE_REPLY:
            reply = CookieReply.decode(data)
            if isinstance(reply, Rejected) or (message := under_way.get(reply.receiver)) is None:
                return None
            if message.peer.makers[gateway].consume_reply(reply, time.clock_gettime_ns(time.CLOCK_BOOTTIME)) is None:
                # To the end: the search for lost messages goes by the order of sending.
                under_way[reply.receiver] = under_way.pop(reply.receiver)
                self._send(gateway, message, address)
            return ("cookies",)
        return None


def main() -> None:
    """Answer orders until standard input ends."""
    generator = Generator(int(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps([base64.b64encode(peer.custody.public_key).decode() for peer in generator.peers]), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        gateway = base64.b64decode(order["gateway"])
        if order["do"] == "prepare":
            generator.prepare(gateway, order["count"], order.get("follow", FOLLOWED))
            answer: dict[str, float] = {"prepared": order["count"]}
        elif order["do"] == "traffic":
            packets = [bytes.fromhex(each) for each in order["packets"]]
            answer = generator.traffic((order["address"], order["port"]), packets, order["seconds"])
        else:
            answer = generator.run(gateway, (order["address"], order["port"]), order["seconds"], order["window"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
