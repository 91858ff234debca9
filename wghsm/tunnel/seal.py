"""Seal one TUN read into datagrams: the egress half of the packet path, and with `open` all that may be compiled.

Called by the Sender, which has found the session. One read is one packet today; with offloads it will be a
super-packet that is cut here, which is why a list comes back. Source: PROTOCOL.md sections 3 and 9.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from wghsm.tunnel.packets import padding

if TYPE_CHECKING:
    from wghsm.tunnel.slots import SendSession

__all__ = ["seal_read"]

_TRANSPORT: Final = 4
_header = Struct("<IIQ").pack
_nonce = Struct("<4xQ").pack
_ZEROS: Final = tuple(bytes(count) for count in range(16))


def seal_read(session: SendSession, read: bytes, mtu: int) -> list[bytes]:
    """The datagrams that carry `read`, an inner packet, or nothing for a keepalive: 32 bytes longer, and the padding.

    Takes the next counters of `session`. The caller has checked `session.usable`.
    """
    counter = session.counter
    session.counter = counter + 1
    plaintext = read + _ZEROS[padding(len(read), mtu)] if read else read
    return [
        _header(_TRANSPORT, session.remote_index, counter) + session.cipher.encrypt(_nonce(counter), plaintext, None)
    ]
