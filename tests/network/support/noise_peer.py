"""A peer on `noiseprotocol`, the Noise framework in Python: nothing of its handshake is wghsm's own code.

    peer = lab.add(NoisePeer(client))
    peer.initiate()          or peer.respond(): one handshake
    peer.echo(mark)          as the one who asks; peer.answer_echo() as the one who is asked

Only the frames around the Noise messages (type, indices, mac1) are made here, with hashlib.
"""

import base64
import hashlib
import os
import struct
import time

from noise.connection import Keypair, NoiseConnection

from tests.network.support.site import CLIENT_PORT, Client
from tests.network.support.software_peer import echo_request, udp_socket

__all__ = ["NoisePeer"]

_NAME = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
_PROLOGUE = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_INITIATION, _RESPONSE, _TRANSPORT = 1, 2, 4
_TAI64_EPOCH = 2**62 + 10


class NoisePeer:
    """One peer in the place of a client, played step by step."""

    def __init__(self, client: Client) -> None:
        self.client = client
        link, family = client.link, client.family
        self._gateway = base64.b64decode(client.site.gateway_key)
        self._private = base64.b64decode(client.keys.private)
        secret = client.site.secret_of(client)
        self._psk = bytes(32) if secret is None else base64.b64decode(secret)
        self._socket = udp_socket(client.namespace, family, link.right.address(family), CLIENT_PORT)
        self._socket.settimeout(20)
        self._target = (link.left.address(family), client.site.gateway.listen_port)
        self._index = 0
        self._remote_index = 0
        self._counter = 0
        self._noise = NoiseConnection.from_name(_NAME)

    def _begin(self) -> NoiseConnection:
        noise = NoiseConnection.from_name(_NAME)
        noise.set_prologue(_PROLOGUE)
        noise.set_psks(self._psk)
        noise.set_keypair_from_private_bytes(Keypair.STATIC, self._private)
        self._index, self._counter = int.from_bytes(os.urandom(4), "little"), 0
        return noise

    def _frame(self, body: bytes) -> bytes:
        key = hashlib.blake2s(b"mac1----" + self._gateway).digest()
        return body + hashlib.blake2s(body, digest_size=16, key=key).digest() + bytes(16)

    def _receive(self, kind: int) -> bytes:
        while True:
            data, _ = self._socket.recvfrom(65535)
            if data[0] == kind:
                return data

    def initiate(self) -> None:
        """Make a handshake as initiator; TimeoutError when no response comes."""
        noise = self._begin()
        noise.set_as_initiator()
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, self._gateway)
        noise.start_handshake()
        now = time.time_ns()
        stamp = struct.pack(">QI", _TAI64_EPOCH + now // 10**9, now % 10**9)
        body = struct.pack("<II", _INITIATION, self._index) + noise.write_message(stamp)
        self._socket.sendto(self._frame(body), self._target)
        while True:
            data = self._receive(_RESPONSE)
            sender, receiver = struct.unpack_from("<II", data, 4)
            if receiver == self._index:
                break
        noise.read_message(data[12:60])
        self._noise, self._remote_index = noise, sender

    def respond(self) -> None:
        """Wait for the gateway's initiation and answer it."""
        data = self._receive(_INITIATION)
        noise = self._begin()
        noise.set_as_responder()
        noise.start_handshake()
        noise.read_message(data[8:116])
        (self._remote_index,) = struct.unpack_from("<I", data, 4)
        body = struct.pack("<III", _RESPONSE, self._index, self._remote_index) + noise.write_message()
        self._socket.sendto(self._frame(body), self._target)
        self._noise = noise

    def send(self, packet: bytes) -> None:
        """Send an inner packet."""
        header = struct.pack("<IIQ", _TRANSPORT, self._remote_index, self._counter)
        self._counter += 1
        self._socket.sendto(header + self._noise.encrypt(packet + bytes(-len(packet) % 16)), self._target)

    def receive(self) -> bytes:
        """Wait for a transport message of this session; the inner packet with its padding, empty for a keepalive."""
        while True:
            data = self._receive(_TRANSPORT)
            receiver, counter = struct.unpack_from("<IQ", data, 4)
            if receiver == self._index:
                self._noise.noise_protocol.cipher_state_decrypt.n = counter
                return bytes(self._noise.decrypt(data[16:]))

    def echo(self) -> None:
        """Send an echo request to the gateway and wait for its answer."""
        mark = os.urandom(8)
        self.send(echo_request(self.client.ipv4, self.client.site.inner4, mark))
        while mark not in self.receive():
            pass

    def answer_echo(self) -> None:
        """Wait for one echo request of the gateway and answer it."""
        while len(packet := self.receive()) < 28 or packet[9] != 1 or packet[20] != 8:
            pass
        (length,) = struct.unpack_from(">H", packet, 2)
        answer = bytearray(packet[:length])
        answer[12:16], answer[16:20] = packet[16:20], packet[12:16]
        # Request 8 becomes answer 0, and the checksum follows (RFC 1624).
        answer[20] = 0
        checksum = struct.unpack_from(">H", packet, 22)[0] + 0x0800
        struct.pack_into(">H", answer, 22, (checksum & 0xFFFF) + (checksum >> 16))
        self.send(bytes(answer))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
