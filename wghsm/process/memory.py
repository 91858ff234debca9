"""Objects that stay, such as ten thousand peers, out of the garbage collector's way.

A whole pass of the collector looks at every object that may be part of a cycle: 10 to 90 ms with ten thousand peers, in
which no packet and no handshake goes on. What is frozen it never looks at again; it is freed all the same when nothing
refers to it any more. So whatever is frozen must not be in a cycle when it goes.

Called by the processes once they have been told of many peers, and by the supervisor.
"""

import ctypes
import gc

__all__ = ["settle", "settle_anew"]

_MANY = 256


def settle(added: int) -> None:
    """Take what there is out of the collector's way if `added`, a number of peers or prefixes, is great."""
    if added >= _MANY:
        gc.collect()
        gc.freeze()


def settle_anew() -> None:
    """The same after a change of nearly all: what was frozen and is garbage goes, and memory back to the kernel.

    Takes as long as a pass over everything.
    """
    gc.unfreeze()
    gc.collect()
    # glibc's; other C libraries give memory back by themselves, or not at all.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    gc.freeze()
