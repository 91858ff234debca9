"""The two functions of the packet path, compiled: the twins of `seal` and `open` over the C of `_batch.c`.

Chosen by `engine` if the package was built with it. A call works on a whole batch without the interpreter's lock and
allocates nothing for a packet. Keys are in libcrypto's contexts, which wipe them when they are freed; the send counter
and the replay window are in C too, and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wghsm.tunnel._batch import ffi, lib
from wghsm.tunnel.open import Opened
from wghsm.tunnel.seal import MALFORMED

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Opener", "Outgoing", "Sealer"]

_CE: Final = 3
_VNET: Final = lib.WGHSM_VNET
_DONE: Final = lib.WGHSM_DONE
_FULL: Final = lib.WGHSM_FULL
_LIMIT: Final = lib.WGHSM_LIMIT
_MALFORMED: Final = lib.WGHSM_MALFORMED
# Where these are in a batch, which begins with numbers of 4 bytes: far cheaper to read so than as fields.
_PLACES: Final[list[int]] = [
    ffi.offsetof("wghsm_outgoing", field) // 4 for field in ("used", "segment", "count", "closed", "ecn")
]
_USED, _SEGMENT, _COUNT, _CLOSED, _ECN = _PLACES
_NUMBERS: Final[int] = ffi.offsetof("wghsm_outgoing", "room")


class Outgoing:
    """As seal.Outgoing."""

    __slots__ = ("_flush", "_numbers", "_view", "raw")

    def __init__(self, flush: Callable[[], None]) -> None:
        self.raw: Any = ffi.new("wghsm_outgoing *")
        self._view = memoryview(ffi.buffer(self.raw.data))
        numbers = memoryview(ffi.buffer(self.raw))[:_NUMBERS]
        self._numbers: memoryview[int] = numbers.cast("I")
        self._flush = flush

    @property
    def count(self) -> int:
        """How many datagrams there are."""
        return self._numbers[_COUNT]

    @property
    def segment(self) -> int:
        """Bytes of each datagram but the last."""
        return self._numbers[_SEGMENT]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return self._numbers[_USED]

    @property
    def ecn(self) -> int:
        """The outer ECN bits."""
        return self._numbers[_ECN]

    @property
    def buffers(self) -> list[memoryview]:
        """What sendmsg takes for all of them."""
        return [self._view[: self._numbers[_USED]]]

    def datagrams(self) -> list[bytes]:
        """Each by itself."""
        raw = self.raw
        return [bytes(self._view[at : min(at + raw.segment, raw.used)]) for at in range(0, raw.used, raw.segment or 1)]

    def clear(self) -> None:
        """Hold nothing."""
        numbers = self._numbers
        numbers[_USED] = numbers[_COUNT] = numbers[_CLOSED] = 0

    def flush(self) -> None:
        """Send what there is."""
        self._flush()


class Sealer:
    """As seal.Sealer."""

    __slots__ = ("_raw",)

    def __init__(self, key: bytes, index: int, limit: int) -> None:
        self._raw: Any = _made(lib.wghsm_sender_new(key, index, limit), lib.wghsm_sender_free)

    @property
    def counter(self) -> int:
        """That of the next datagram."""
        return int(self._raw.counter)

    @counter.setter
    def counter(self, value: int) -> None:
        self._raw.counter = value

    @property
    def closed(self) -> bool:
        """Whether the key is gone."""
        return self._raw is None

    def close(self) -> None:
        """Wipe the key. Nothing can be sealed afterwards."""
        if self._raw is not None:
            ffi.release(self._raw)
            self._raw = None

    def seal(self, read: bytes, mtu: int, out: Outgoing) -> int:
        """As seal.Sealer.seal."""
        if self._raw is None:
            raise ValueError("the key is gone")
        raw = out.raw
        said = _seals(self._raw, read, len(read), 0, mtu, raw)
        while said == _FULL:
            done = raw.next
            out.flush()
            said = _seals(self._raw, read, len(read), done, mtu, raw)
        if said == _DONE:
            return 0
        if said == _LIMIT:
            return int(raw.packets - raw.next)
        if said == _MALFORMED:
            return MALFORMED
        raise RuntimeError("libcrypto cannot encrypt")

    def seal_waiting(self, fd: int, last: bytes, mtu: int, most: int, out: Outgoing) -> tuple[int, bytes | None]:
        """As seal.Sealer.seal_waiting."""
        if self._raw is None:
            raise ValueError("the key is gone")
        sealed = int(_seals_waiting(self._raw, fd, last, len(last), mtu, most, out.raw, _next))
        return sealed, _next_data[: _next.size]


_opened: Any = ffi.new("wghsm_opened *")
_arena: Final = memoryview(ffi.buffer(_opened.arena))
# The numbers before the arena, as numbers: far cheaper to read than as fields.
_WRITES: Final = ffi.offsetof("wghsm_opened", "write") // 4
_WRITE: Final = ffi.sizeof("wghsm_write") // 4
_numbers: Final = memoryview(ffi.buffer(_opened)).cast("B")[: ffi.offsetof("wghsm_opened", "arena")].cast("I")
_next: Any = ffi.new("wghsm_read *")
_next_data: Final = ffi.buffer(_next.data)
_opens: Final = lib.wghsm_open
_seals: Final = lib.wghsm_seal
_seals_waiting: Final = lib.wghsm_seal_waiting


class Opener:
    """As open.Opener. All share the buffer that they open into."""

    __slots__ = ("_index", "_raw")

    def __init__(self, key: bytes, index: int, limit: int) -> None:
        self._raw: Any = _made(lib.wghsm_receiver_new(key, limit), lib.wghsm_receiver_free)
        self._index = index

    @property
    def closed(self) -> bool:
        """Whether the key is gone."""
        return self._raw is None

    def close(self) -> None:
        """Wipe the key, and drop the window. Nothing can be opened afterwards."""
        if self._raw is not None:
            ffi.release(self._raw)
            self._raw = None

    def open(
        self, read: bytes, at: int, segment: int, ecn: int, merge: int, allowed: Callable[[bytes], bool]
    ) -> Opened:
        """As open.Opener.open. Packets are merged before their source is looked up, once for each write."""
        if self._raw is None:
            raise ValueError("the key is gone")
        said = _opens(self._raw, read, len(read), at, segment, self._index, ecn == _CE, merge, _opened)
        if said != _DONE:
            raise ValueError("no UDP payload")
        opened = Opened()
        (
            opened.end,
            authenticated,
            data,
            opened.expired,
            opened.forged,
            opened.replayed,
            opened.malformed,
            count,
        ) = _numbers[:_WRITES].tolist()
        opened.authenticated = authenticated
        opened.data = data
        opened.packets = packets = authenticated - data
        opened.size = packets * 32
        if not count:
            return opened
        writes: list[memoryview] = []
        fields = iter(_numbers[_WRITES : _WRITES + _WRITE * count].tolist())
        for start, size, packets, wire in zip(fields, fields, fields, fields, strict=True):
            packet = start + _VNET
            where = slice(packet + 12, packet + 16) if _arena[packet] >> 4 == 4 else slice(packet + 8, packet + 24)
            if allowed(_arena[where].tobytes()):
                opened.packets += packets
                opened.size += wire
                writes.append(_arena[start : start + size])
            else:
                opened.refused += packets
        opened.writes = writes
        return opened


def _made(raw: Any, free: Callable[[Any], None]) -> Any:
    if not raw:
        raise MemoryError("libcrypto has made no context")
    return ffi.gc(raw, free)


def _warm_up() -> None:
    """Let libcrypto read and allocate, once, what it keeps: the process may soon lose the right to."""
    Sealer(bytes(32), 0, 1).seal(b"", 0, Outgoing(lambda: None))


_warm_up()
