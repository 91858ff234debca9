"""A WireGuard peer played step by step by the test itself, so that every key of its sessions is known.

    peer = SoftwarePeer(namespace, private_key, gateway_public, endpoint, psk)
    peer.initiate()                     one handshake as initiator; peer.sessions grows
    peer.ping("10.8.0.2", "10.8.0.1")   an echo through the newest session

Also the sender of whatever is not WireGuard: `udp_socket` gives a socket of a namespace to the test.
"""

import ipaddress
import os
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.network.support.netns import Namespace
from wghsm.noise import CookieMaker, Initiation, Initiator, Rejected, Response, SoftwareCustody, TransportHeader
from wghsm.noise.messages import TRANSPORT_HEADER_SIZE
from wghsm.noise.tai64n import next_timestamp

__all__ = ["KnownSession", "SoftwarePeer", "udp_socket"]

MAKE_SOCKET = """
import socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
made = socket.socket(int(sys.argv[2]), socket.SOCK_DGRAM)
made.bind((sys.argv[3], int(sys.argv[4])))
socket.send_fds(channel, [b"x"], [made.fileno()])
"""

TRIES = 10
PATIENCE = 2.0
"""Seconds to wait for a response before the next initiation."""

_ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104


def udp_socket(namespace: Namespace, family: int, address: str, port: int = 0) -> socket.socket:
    """Make a UDP socket of IP family 4 or 6 inside `namespace`, bound to `address`; the caller closes it."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = [sys.executable, "-I", "-c", MAKE_SOCKET, str(theirs.fileno()), str(int(kind)), address, str(port)]
        subprocess.run(namespace.argv(*words), pass_fds=[theirs.fileno()], check=True, timeout=60)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    made = socket.socket(fileno=fds[0])
    made.settimeout(10)
    return made


@dataclass
class KnownSession:
    """One session seen from this side: keys of 32 bytes, the gateway's index, the next counter."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)
    local_index: int
    remote_index: int
    counter: int = 0


class SoftwarePeer:
    """The peer. `endpoint` is `address:port` of the gateway (IPv6 in brackets); keys and PSK are raw bytes."""

    def __init__(
        self,
        namespace: Namespace,
        private_key: bytes,
        gateway_public: bytes,
        endpoint: str,
        psk: bytes | None = None,
    ) -> None:
        host, _, port = endpoint.rpartition(":")
        address = ipaddress.ip_address(host.strip("[]"))
        self._custody = SoftwareCustody(private_key, {} if psk is None else {gateway_public: psk})
        self.public_key = self._custody.public_key
        self._gateway = gateway_public
        self._cookies = CookieMaker(gateway_public)
        self.target = (str(address), int(port))
        self.socket = udp_socket(namespace, address.version, _ANY[address.version])
        self._timestamp: bytes | None = None
        self.sessions: list[KnownSession] = []
        self.ephemerals: list[bytes] = []
        """The private ephemeral keys of its initiations, 32 bytes each."""

    def initiation(self, timestamp: bytes | None = None) -> tuple[Initiator, int, bytes]:
        """Make message 1: the handshake, the index and the bytes."""
        self._timestamp = timestamp or next_timestamp(time.time_ns(), self._timestamp)
        handshake = Initiator(self._custody, self._gateway)
        self.ephemerals.append(os.urandom(32))
        fields = handshake.write_initiation(bytearray(self.ephemerals[-1]), self._timestamp)
        assert not isinstance(fields, Rejected)
        index = int.from_bytes(os.urandom(4), "little")
        message = Initiation(index, fields.ephemeral, fields.static, fields.timestamp)
        return handshake, index, self._cookies.authenticate(message, time.monotonic_ns())

    def initiate(self) -> KnownSession:
        """Make a handshake as initiator; TimeoutError when no good response comes.

        A second initiation within 20 ms is dropped by every WireGuard, so it tries again.
        """
        for _ in range(TRIES):
            handshake, index, message = self.initiation()
            self.socket.sendto(message, self.target)
            while select.select([self.socket], [], [], PATIENCE)[0]:
                response = Response.decode(self.socket.recv(65535))
                if isinstance(response, Rejected) or response.receiver != index:
                    continue
                keys = handshake.read_response(response.ephemeral, response.empty)
                assert not isinstance(keys, Rejected), "the gateway's response does not open"
                session = KnownSession(bytes(keys.send), bytes(keys.receive), index, response.sender)
                self.sessions.append(session)
                return session
        raise TimeoutError("no response to any initiation")

    def seal(self, packet: bytes, session: KnownSession | None = None) -> bytes:
        """Make the next transport message of a session, the newest by default."""
        session = session or self.sessions[-1]
        header = TransportHeader(session.remote_index, session.counter).encode()
        nonce = bytes(4) + session.counter.to_bytes(8, "little")
        session.counter += 1
        return header + ChaCha20Poly1305(session.send).encrypt(nonce, packet + bytes(-len(packet) % 16), b"")

    def send(self, packet: bytes, session: KnownSession | None = None) -> None:
        """Send an inner packet; an empty one is a keepalive."""
        self.socket.sendto(self.seal(packet, session), self.target)

    def receive(self) -> bytes:
        """Wait for a transport message of a known session and give the inner packet, with its padding."""
        while True:
            data = self.socket.recv(65535)
            header = TransportHeader.decode(data)
            if isinstance(header, Rejected):
                continue
            for session in self.sessions:
                if session.local_index == header.receiver:
                    nonce = bytes(4) + header.counter.to_bytes(8, "little")
                    return ChaCha20Poly1305(session.receive).decrypt(nonce, data[TRANSPORT_HEADER_SIZE:], b"")

    def ping(self, source: str, target: str) -> None:
        """Send an echo request over IPv4 and wait for its answer."""
        mark = os.urandom(8)
        self.send(echo_request(source, target, mark))
        while mark not in self.receive():
            pass

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def echo_request(source: str, target: str, payload: bytes) -> bytes:
    """Make an IPv4 packet with an ICMP echo request."""
    body = struct.pack(">BBHHH", 8, 0, 0, 7, 1) + payload
    body = body[:2] + struct.pack(">H", _checksum(body)) + body[4:]
    header = struct.pack(
        ">BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(body), 1, 0, 64, 1, 0),
        ipaddress.IPv4Address(source).packed,
        ipaddress.IPv4Address(target).packed,
    )
    return header[:10] + struct.pack(">H", _checksum(header)) + header[12:] + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
