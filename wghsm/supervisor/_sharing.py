"""Which worker's socket a datagram goes to: a program in the kernel that reads it off the datagram.

    types 2, 3, 4   the low bits of the receiver index, which is ours, name the worker
    type 1          has no index of ours: the kernel's hash of both addresses

The sockets of one family on one port are numbered in the order in which they were bound. A datagram that arrives at
another worker all the same, because the kernel has put several into one, is dropped there as one of an unknown index.

Called by `_sockets`. Classic BPF (SO_ATTACH_REUSEPORT_CBPF), which needs no privilege. Source: PROTOCOL.md section 3,
DATAPLANE.md section 4.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from wghsm.ipc import worker_bits

__all__ = ["share"]

_SO_ATTACH_REUSEPORT_CBPF = 51
_LOAD_BYTE, _AND, _JUMP, _JUMP_EQUAL, _RETURN, _RETURN_A = 0x30, 0x54, 0x05, 0x15, 0x06, 0x16
_BY_HASH = 0xFFFFFFFF
"""No socket's number: the kernel chooses by its hash."""
_INITIATION, _RESPONSE = 1, 2
# Where the receiver index begins in the UDP payload, its lowest byte first.
_RECEIVER_AT, _RECEIVER_IN_RESPONSE_AT = 4, 8


def share(sock: socket.socket, workers: int) -> None:
    """Let the group of `sock`, `workers` sockets bound with SO_REUSEPORT, share what comes. Raises OSError."""
    program = (
        _instruction(_LOAD_BYTE, 0),
        _instruction(_JUMP_EQUAL, _INITIATION, skip_if=6),
        _instruction(_JUMP_EQUAL, _RESPONSE, skip_if=2),
        _instruction(_LOAD_BYTE, _RECEIVER_AT),
        _instruction(_JUMP, 1),
        _instruction(_LOAD_BYTE, _RECEIVER_IN_RESPONSE_AT),
        _instruction(_AND, worker_bits(workers)),
        _instruction(_RETURN_A),
        _instruction(_RETURN, _BY_HASH),
    )
    code = ctypes.create_string_buffer(b"".join(program))
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("HP", len(program), ctypes.addressof(code))
    )


def _instruction(code: int, operand: int = 0, *, skip_if: int = 0) -> bytes:
    return struct.pack("=HBBI", code, skip_if, 0, operand)
