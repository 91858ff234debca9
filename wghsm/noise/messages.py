"""WireGuard's four wire messages: fields to bytes and back.

Called by the handshake process (types 1 to 3) and the tunnel (type 4). `decode` answers hostile bytes with a
Rejected. All integers are little-endian; the type is read as one u32, so that non-zero reserved bytes are refused.
Source: PROTOCOL.md section 3.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Final, Self

from wghsm.noise._kdf import Buffer, mac
from wghsm.noise.constants import (
    AUTHTAG_LEN,
    COOKIE_LEN,
    COOKIE_NONCE_LEN,
    MAC_LEN,
    PUBLIC_KEY_LEN,
    TIMESTAMP_LEN,
)
from wghsm.noise.results import Reason, Rejected

__all__ = [
    "COOKIE_REPLY_SIZE",
    "INITIATION_SIZE",
    "NO_MAC",
    "RESPONSE_SIZE",
    "TRANSPORT_HEADER_SIZE",
    "TRANSPORT_MINIMUM_SIZE",
    "CookieReply",
    "Initiation",
    "MessageType",
    "Response",
    "TransportHeader",
    "message_type",
    "with_macs",
]

INITIATION_SIZE: Final = 148
RESPONSE_SIZE: Final = 92
COOKIE_REPLY_SIZE: Final = 64
TRANSPORT_HEADER_SIZE: Final = 16
TRANSPORT_MINIMUM_SIZE: Final = TRANSPORT_HEADER_SIZE + AUTHTAG_LEN
"""32 bytes: header and the tag of an empty packet, a keepalive."""
NO_MAC: Final = bytes(MAC_LEN)


class MessageType(IntEnum):
    """The first four bytes of a message."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE_REPLY = 3
    TRANSPORT = 4


_TYPES: Final = {int(kind): kind for kind in MessageType}
_SIZES: Final = {
    MessageType.INITIATION: INITIATION_SIZE,
    MessageType.RESPONSE: RESPONSE_SIZE,
    MessageType.COOKIE_REPLY: COOKIE_REPLY_SIZE,
}


def message_type(data: Buffer) -> MessageType | Rejected:
    """Type of a whole UDP payload, once its length fits the type."""
    if len(data) < 4:
        return Rejected(Reason.LENGTH)
    kind = _TYPES.get(int.from_bytes(data[:4], "little"))
    if kind is None:
        return Rejected(Reason.TYPE)
    fits = len(data) >= TRANSPORT_MINIMUM_SIZE if kind is MessageType.TRANSPORT else len(data) == _SIZES[kind]
    return kind if fits else Rejected(Reason.LENGTH)


@dataclass(frozen=True, slots=True)
class Initiation:
    """Type 1, 148 bytes: sender index, ephemeral (32), sealed static key (48) and timestamp (28), macs (16)."""

    sender: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    _LAYOUT: ClassVar = Struct("<II32s48s28s16s16s")

    def encode(self) -> bytes:
        """148 bytes. Raises ValueError for a field of a wrong length, struct.error for an index that is no u32."""
        _check(self.ephemeral, PUBLIC_KEY_LEN)
        _check(self.static, PUBLIC_KEY_LEN + AUTHTAG_LEN)
        _check(self.timestamp, TIMESTAMP_LEN + AUTHTAG_LEN)
        _check(self.mac1, MAC_LEN)
        _check(self.mac2, MAC_LEN)
        return self._LAYOUT.pack(
            MessageType.INITIATION, self.sender, self.ephemeral, self.static, self.timestamp, self.mac1, self.mac2
        )

    @classmethod
    def decode(cls, data: Buffer) -> Self | Rejected:
        """Fields of exactly 148 bytes of type 1."""
        rejected = _expect(data, MessageType.INITIATION)
        return rejected or cls(*cls._LAYOUT.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class Response:
    """Type 2, 92 bytes: sender and receiver index, ephemeral (32), sealed empty string (16), macs (16)."""

    sender: int
    receiver: int
    ephemeral: bytes
    empty: bytes
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    _LAYOUT: ClassVar = Struct("<III32s16s16s16s")

    def encode(self) -> bytes:
        """92 bytes. Raises ValueError for a field of a wrong length, struct.error for an index that is no u32."""
        _check(self.ephemeral, PUBLIC_KEY_LEN)
        _check(self.empty, AUTHTAG_LEN)
        _check(self.mac1, MAC_LEN)
        _check(self.mac2, MAC_LEN)
        return self._LAYOUT.pack(
            MessageType.RESPONSE, self.sender, self.receiver, self.ephemeral, self.empty, self.mac1, self.mac2
        )

    @classmethod
    def decode(cls, data: Buffer) -> Self | Rejected:
        """Fields of exactly 92 bytes of type 2."""
        rejected = _expect(data, MessageType.RESPONSE)
        return rejected or cls(*cls._LAYOUT.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class CookieReply:
    """Type 3, 64 bytes: the sender index of the refused message, nonce (24), sealed cookie (32)."""

    receiver: int
    nonce: bytes
    cookie: bytes

    _LAYOUT: ClassVar = Struct("<II24s32s")

    def encode(self) -> bytes:
        """64 bytes. Raises ValueError for a field of a wrong length, struct.error for an index that is no u32."""
        _check(self.nonce, COOKIE_NONCE_LEN)
        _check(self.cookie, COOKIE_LEN + AUTHTAG_LEN)
        return self._LAYOUT.pack(MessageType.COOKIE_REPLY, self.receiver, self.nonce, self.cookie)

    @classmethod
    def decode(cls, data: Buffer) -> Self | Rejected:
        """Fields of exactly 64 bytes of type 3."""
        rejected = _expect(data, MessageType.COOKIE_REPLY)
        return rejected or cls(*cls._LAYOUT.unpack(data)[1:])


@dataclass(frozen=True, slots=True)
class TransportHeader:
    """The first 16 bytes of type 4: the receiver's index and the counter (u64); the sealed packet follows."""

    receiver: int
    counter: int

    _LAYOUT: ClassVar = Struct("<IIQ")

    def encode(self) -> bytes:
        """16 bytes. Raises struct.error for a number that does not fit."""
        return self._LAYOUT.pack(MessageType.TRANSPORT, self.receiver, self.counter)

    @classmethod
    def decode(cls, data: Buffer) -> Self | Rejected:
        """Header of a whole transport message, at least 32 bytes of type 4."""
        rejected = _expect(data, MessageType.TRANSPORT)
        return rejected or cls(*cls._LAYOUT.unpack_from(data)[1:])


def with_macs(message: Initiation | Response, mac1_key: bytes, cookie: Buffer | None = None) -> bytes:
    """The whole message with mac1, and with mac2 if there is a `cookie`, 16 bytes; its own macs are ignored.

    `mac1_key`: 32 bytes, `cookie.mac1_key` of the receiver's public key.
    """
    plain = replace(message, mac1=NO_MAC, mac2=NO_MAC).encode()
    first = plain[: -2 * MAC_LEN]
    first += mac(mac1_key, first)
    return first + (NO_MAC if cookie is None else mac(cookie, first))


def _check(field: bytes, length: int) -> None:
    if len(field) != length:
        raise ValueError(f"a field of {length} bytes has {len(field)}")


def _expect(data: Buffer, wanted: MessageType) -> Rejected | None:
    kind = message_type(data)
    if isinstance(kind, Rejected):
        return kind
    return None if kind is wanted else Rejected(Reason.TYPE)
