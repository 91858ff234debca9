"""The compiled twin of `sieve`, over the C of `_sieve.c`: it judges, and reads what is to be dropped, by itself.

Chosen by `engine` if the package was built with it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from wghsm.noise.cookie import mac1_key
from wghsm.tunnel._sieve import ffi, lib
from wghsm.tunnel.sieve import BURST, COST, GATES, INDICES, SHUT, SPACING, packed_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wghsm.ipc import messages as m
    from wghsm.process.endpoints import Source
    from wghsm.tunnel.sieve import Swept

__all__ = ["Sieve"]

_SWEEP: Final = 256
"""Reads that are dropped in one turn, before other descriptors and the channels have theirs."""
_MOST: Final = 2**16 - 1
_KEPT: Final = lib.WGHSM_KEPT
_judges: Final = lib.wghsm_judge
_sweeps: Final = lib.wghsm_sweep
_arrival: Any = ffi.new("wghsm_arrival *")
_data: Final = ffi.buffer(_arrival.data)


class Sieve:
    """As sieve.Sieve. All share the buffer that they read into."""

    sweeps = True

    def __init__(self, salt: bytes, sieves: int = 1) -> None:
        self._raw: Any = ffi.new("wghsm_sieve *")
        self._raw.salt = salt
        self._raw.spacing = SPACING
        for name, cost in COST.items():
            bucket = getattr(self._raw, name)
            bucket.cost, bucket.depth = cost * sieves, BURST

    def serve(self, gates: Sequence[m.Gate]) -> None:
        """As AnySieve.serve."""
        for place, gate in zip(self._raw.gate, gates, strict=False):
            place.mac1_key = mac1_key(gate.identity)
            place.secret = gate.secret or bytes(32)
            place.until = gate.until
        self._raw.gates = min(len(gates), GATES)

    def add_index(self, index: int) -> None:
        """As AnySieve.add_index. A bucket that is full stays in use for ever."""
        if (number := self._raw.index[index % INDICES]) < _MOST:
            self._raw.index[index % INDICES] = number + 1

    def remove_index(self, index: int) -> None:
        """As AnySieve.remove_index."""
        if (number := self._raw.index[index % INDICES]) < _MOST:
            self._raw.index[index % INDICES] = number - 1

    def shut(self, now: int) -> None:
        """As AnySieve.shut."""
        self._raw.shut_until = now + SHUT

    def judge(self, data: bytes, source: Source, now: int) -> int:
        """As AnySieve.judge."""
        address = packed_host(source)
        return int(_judges(self._raw, data, len(data), address, len(address), source[0][1], now, 1))

    def sweep(self, fd: int, now: int, counts: list[int]) -> Swept | None:
        """As AnySieve.sweep."""
        said = _sweeps(self._raw, fd, now, _SWEEP, _arrival)
        counts[:] = _arrival.counts
        if said != _KEPT:
            return None
        packed = bytes(_arrival.address)
        address: tuple[str, int] | tuple[str, int, int, int]
        if _arrival.family == 4:
            address = socket.inet_ntop(socket.AF_INET, packed[:4]), _arrival.port
        else:
            address = socket.inet_ntop(socket.AF_INET6, packed), _arrival.port, _arrival.flow, _arrival.scope
        info = bytes(_arrival.info)[: _arrival.info_size]
        return _data[: _arrival.size], _arrival.segment, (address, info), _arrival.ecn
