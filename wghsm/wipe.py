"""Overwriting secrets in memory, also those that a library handed out as immutable bytes.

Called wherever key material has done its work. Python may have copied a value before we saw it; what this
module can promise is that the buffer it is given holds zeros afterwards.
"""

import ctypes

__all__ = ["wipe"]

# An object's payload starts after the header; the terminating NUL that sizeof(b"") counts stays.
_BYTES_HEADER = bytes.__basicsize__ - 1
# From bytearray to bytearray of one length no copy is made in between; a handshake wipes some 200 short buffers.
_ZEROS = tuple(bytearray(length) for length in range(129))


def wipe(buffer: bytearray | bytes | None) -> None:
    """Overwrite `buffer` with zeros, whatever its length in bytes; None is ignored.

    A `bytes` value must belong to the caller alone: every other name for it sees the zeros too. Values of
    fewer than two bytes are shared by the interpreter and are left alone. A wiped `bytes` must not be hashed
    or used as a key afterwards.
    """
    if buffer is None:
        return
    if isinstance(buffer, bytearray):
        size = len(buffer)
        buffer[:] = _ZEROS[size] if size < len(_ZEROS) else bytearray(size)
    elif len(buffer) >= 2:
        ctypes.memset(id(buffer) + _BYTES_HEADER, 0, len(buffer))
