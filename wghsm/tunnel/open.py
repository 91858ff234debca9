"""Open one UDP read into TUN writes: the ingress half of the packet path, and with `seal` all that may be compiled.

Called by the ingress program for each read. One read is one datagram today; with offloads it will be many of one
source, which is why a list goes back. The order of the steps is that of PROTOCOL.md section 10.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag

from wghsm.ipc import Counter, PeerField
from wghsm.tunnel.packets import unpadded

if TYPE_CHECKING:
    from wghsm.process.endpoints import Source
    from wghsm.tunnel.receiver import Receiver

__all__ = ["open_read"]

_HEADER_SIZE: Final = 16
_MINIMUM: Final = 32
_TRANSPORT: Final = 4
_header = Struct("<IIQ").unpack_from
_nonce = Struct("<4xQ").pack

_RX_BYTES: Final = int(PeerField.RX_BYTES)
_RX_PACKETS: Final = int(PeerField.RX_PACKETS)
_LAST_RECEIVED: Final = int(PeerField.LAST_RECEIVED)
_LAST_DATA_RECEIVED: Final = int(PeerField.LAST_DATA_RECEIVED)
_FIRST_DATA_UNACKNOWLEDGED: Final = int(PeerField.FIRST_DATA_UNACKNOWLEDGED)
_LAST_SENT: Final = int(PeerField.LAST_SENT)
_LAST_HANDSHAKE_SENT: Final = int(PeerField.LAST_HANDSHAKE_SENT)


def open_read(receiver: Receiver, read: bytes, source: Source, now: int) -> list[bytes]:
    """Packets for the TUN out of one UDP payload from `source`; what else follows is told through `receiver`."""
    size = len(read)
    if size < _MINIMUM:
        return receiver.drop(Counter.MALFORMED)
    kind, index, counter = _header(read)
    if kind != _TRANSPORT:
        receiver.pass_on(kind, read, source, now)
        return []
    found = receiver.by_index.get(index)
    if found is None:
        return receiver.drop(Counter.UNKNOWN_INDEX)
    peer, session = found
    if now >= session.expires or counter >= session.limit:
        return receiver.drop(Counter.EXPIRED_SESSION)
    try:
        plaintext = session.cipher.decrypt(_nonce(counter), read[_HEADER_SIZE:], None)
    except InvalidTag:
        return receiver.drop(Counter.AUTHENTICATION_FAILED)
    if not session.window.accept(counter):
        return receiver.drop(Counter.REPLAYED)

    if source != peer.source or now >= peer.tell_after:
        receiver.move(peer, source, now)
    slots = peer.slots
    if session is slots.next:
        receiver.confirm(peer, session, now)
    current = slots.current
    if current is not None and now >= current.last_minute:
        receiver.last_minute(peer, current)

    words = receiver.words
    row = peer.row
    words[row + _LAST_RECEIVED] = now
    if not plaintext:
        words[row + _RX_BYTES] += size
        words[row + _RX_PACKETS] += 1
        return []
    words[row + _LAST_DATA_RECEIVED] = now
    first = words[row + _FIRST_DATA_UNACKNOWLEDGED]
    if first <= words[row + _LAST_SENT] or first <= words[row + _LAST_HANDSHAKE_SENT]:
        words[row + _FIRST_DATA_UNACKNOWLEDGED] = now
        receiver.data_received(peer, now)
    inner = unpadded(plaintext)
    if inner is None:
        return receiver.drop(Counter.INNER_MALFORMED)
    if receiver.routes.lookup(inner[0]) != peer.number:
        return receiver.drop(Counter.SOURCE_NOT_ALLOWED)
    words[row + _RX_BYTES] += size
    words[row + _RX_PACKETS] += 1
    return [inner[1]]
