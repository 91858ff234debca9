"""New PINs: joined of two halves, and refused where they are weak or the token would not take them.

A PIN is a bytearray here, which the caller wipes; no message quotes one.
"""

import hmac

__all__ = ["complaint", "join_halves"]

_LEAST_HALF = 4
_LEAST_WHOLE = 6


def join_halves(first: bytearray, second: bytearray) -> bytearray:
    """The PIN of two halves; the caller wipes all three."""
    whole = bytearray(len(first) + len(second))
    memoryview(whole)[: len(first)] = first
    memoryview(whole)[len(first) :] = second
    return whole


def complaint(
    pin: bytearray, lengths: tuple[int, int] | None, *, half: bool = False, other: bytearray | None = None
) -> str | None:
    """Why `pin` is refused, None if it is not.

    `lengths` are the token's least and greatest length of a whole PIN; a `half` must have four bytes, a whole one six.
    `other` is one that it must differ from.
    """
    least, most = lengths or (0, 255)
    if half:
        if len(pin) < _LEAST_HALF:
            return f"a half has at least {_LEAST_HALF} characters"
        if len(pin) > most - _LEAST_HALF:
            return f"the token takes {most} bytes for both halves together"
    elif len(pin) < max(least, _LEAST_WHOLE):
        return f"it must have at least {max(least, _LEAST_WHOLE)} characters"
    elif len(pin) > most:
        return f"the token takes at most {most} bytes"
    if _is_row(pin):
        return "it is one character again and again, or a row such as 1234"
    if other is not None and hmac.compare_digest(pin, other):
        return "it must differ from the other one"
    return None


def _is_row(pin: bytearray) -> bool:
    """Whether each byte follows the one before by the same step of -1, 0 or 1."""
    steps = {after - before for before, after in zip(pin, memoryview(pin)[1:], strict=False)}
    return len(steps) <= 1 and steps <= {-1, 0, 1}
