"""Ones' complement sums (RFC 1071), as fast as Python adds: one big integer for a packet, no loop over its bytes.

Called by segment and coalesce for each packet. All sums are taken modulo 65535, and so is what the callers add:
the numbers of a header may go in whole, since 2**16 is 1 there.
"""

__all__ = ["add", "finish"]

_CHUNK = 1440
# The halves that a number of _CHUNK bytes is folded to before the division, which is slow for many digits.
_HALVES = tuple((bits, (1 << bits) - 1) for bits in (5760, 2880, 1440))
_SHORT = 180
_from_bytes = int.from_bytes


def add(data: bytes | bytearray) -> int:
    """The sum of the big-endian 16-bit words of `data`, 0 to 65534; an odd last byte is followed by a zero."""
    if len(data) > _CHUNK:
        return sum(add(data[start : start + _CHUNK]) for start in range(0, len(data), _CHUNK)) % 65535
    # Little-endian, so that an odd last byte stands as if a zero followed. Swapping the sum's bytes mends the rest.
    number = _from_bytes(data, "little")
    if len(data) > _SHORT:
        for bits, mask in _HALVES:
            number = (number & mask) + (number >> bits)
    return (number % 65535 << 8) % 65535


def finish(total: int) -> int:
    """The checksum of data whose words, with zero for the checksum itself, add up to `total`; 0 to 65534.

    Data that are not all zero never add up to 0, which therefore stands for 65535 here. UDP writes 65535 for 0.
    """
    return -total % 65535
