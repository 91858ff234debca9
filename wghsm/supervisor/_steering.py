"""Which queue of the TUN a packet waits in: cryptokey routing in the kernel, by destination, down to the worker.

    allowed IPs -> two tries in the kernel, prefix -> worker
    packet -> program: IP version, destination, longest prefix -> the queue of that worker; the first for all others

Egress looks its packets up all the same and hands over what another worker owns: while a change is under way, and on a
kernel or in a container that has no bpf() for us. So this is about speed alone, and a refusal is told in the log.

Called by `_run`, before privileges are reduced, and by `_applying`. It needs CAP_BPF (or CAP_SYS_ADMIN) to be made, and
nothing to be changed. The instructions are written by hand: the program is too short for a compiler. Source: bpf(2),
the kernel's Documentation/bpf/standardization/instruction-set.rst and map_lpm_trie.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import platform
import struct
from typing import TYPE_CHECKING, Final

from wghsm.ipc import worker_of_peer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wghsm.ipc.messages import Route

__all__ = ["Steering"]

_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)

_TUNSETSTEERINGEBPF: Final = 0x800454E0
_SYSCALL: Final = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "i686": 357,
    "armv7l": 386,
    "ppc64le": 361,
    "s390x": 351,
}
_MAP_CREATE, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD = 0, 2, 3, 5
_LPM_TRIE, _NO_PREALLOC, _SOCKET_FILTER = 11, 1, 1
_MOST_PREFIXES: Final = 1 << 20
_ANY: Final = 0

# Instructions, and the numbers of the two functions of the kernel that the program calls.
_LOAD_PACKET_BYTE, _LOAD_MAP, _LOAD, _STORE_NUMBER = 0x30, 0x18, 0x61, 0x62
_COPY, _SET, _ADD, _SHIFT_RIGHT = 0xBF, 0xB7, 0x07, 0x77
_JUMP, _JUMP_EQUAL, _JUMP_UNLIKE, _CALL, _EXIT = 0x05, 0x15, 0x55, 0x85, 0x95
_MAP_LOOKUP, _LOAD_BYTES = 1, 26
_R0, _R1, _R2, _R3, _R4, _R6, _FRAME = 0, 1, 2, 3, 4, 6, 10
_IS_MAP: Final = 1
_TO_FIRST: Final = 0
"""Stands for a way to the end of the program, where the first queue is chosen."""


class Steering:
    """The program and its tries for one TUN with a queue for each of `workers`. Inert if the kernel refuses."""

    def __init__(self, tun_fd: int, workers: int) -> None:
        self._workers = workers
        self._tries: dict[int, int] = {}
        self._failed = False
        if workers == 1:
            return
        try:
            for size in (4, 16):
                self._tries[size] = _bpf(
                    _MAP_CREATE, struct.pack("=5I", _LPM_TRIE, 4 + size, 4, _MOST_PREFIXES, _NO_PREALLOC)
                )
            program = _load(_program(self._tries))
            try:
                fcntl.ioctl(tun_fd, _TUNSETSTEERINGEBPF, struct.pack("i", program))
            finally:
                os.close(program)
        except OSError as error:
            self.close()
            _log.warning(
                "the kernel does not steer packets to their workers (%s): they are handed over, which takes longer",
                error.strerror,
            )

    @property
    def works(self) -> bool:
        """Whether the kernel steers."""
        return bool(self._tries)

    def change(self, routes: Iterable[Route]) -> None:
        """Bring changes of the allowed IPs into force, in their order."""
        for route in routes:
            trie = self._tries.get(len(route.address))
            if trie is None:
                continue
            key = ctypes.create_string_buffer(struct.pack("=I", route.length) + route.address)
            try:
                if route.peer is None:
                    with contextlib.suppress(FileNotFoundError):
                        _bpf(_MAP_DELETE, struct.pack("=I4xQ", trie, ctypes.addressof(key)))
                else:
                    value = ctypes.create_string_buffer(struct.pack("=I", worker_of_peer(route.peer, self._workers)))
                    places = (ctypes.addressof(key), ctypes.addressof(value))
                    _bpf(_MAP_UPDATE, struct.pack("=I4x3Q", trie, *places, _ANY))
            except OSError as error:
                # No harm but to speed; said once.
                if not self._failed:
                    _log.warning("the kernel does not steer all packets to their workers: %s", error.strerror)
                self._failed = True

    def close(self) -> None:
        """Give up the tries; the TUN keeps the program, and it them, while it lasts."""
        while self._tries:
            os.close(self._tries.popitem()[1])


def _program(tries: dict[int, int]) -> bytes:
    """The program for tries by length of address. Register 6 keeps the packet, as reading a byte of it demands."""
    four, six = _search(tries[4], 4, destination=16), _search(tries[16], 16, destination=24)
    steps = [
        _step(_COPY, _R6, _R1),
        _step(_LOAD_PACKET_BYTE),
        _step(_SHIFT_RIGHT, _R0, number=4),
        _step(_JUMP_EQUAL, _R0, skip=2, number=4),
        _step(_JUMP_EQUAL, _R0, skip=1 + len(four), number=6),
        (_JUMP, _TO_FIRST),
        *four,
        *six,
    ]
    end = len(steps)
    code = b"".join(
        step if isinstance(step, bytes) else _step(step[0], _R0, skip=end - at - 1) for at, step in enumerate(steps)
    )
    return code + _step(_SET, _R0, number=0) + _step(_EXIT)


def _search(trie: int, size: int, destination: int) -> list[bytes | tuple[int, int]]:
    """Look the destination up: a key of its length in bits and `size` bytes, made on the stack."""
    key = -(4 + size + (4 + size) % 8)
    return [
        _step(_STORE_NUMBER, _FRAME, skip=key, number=8 * size),
        _step(_COPY, _R1, _R6),
        _step(_SET, _R2, number=destination),
        _step(_COPY, _R3, _FRAME),
        _step(_ADD, _R3, number=key + 4),
        _step(_SET, _R4, number=size),
        _step(_CALL, number=_LOAD_BYTES),
        (_JUMP_UNLIKE, _TO_FIRST),
        _step(_LOAD_MAP, _R1, _IS_MAP, number=trie),
        _step(0),
        _step(_COPY, _R2, _FRAME),
        _step(_ADD, _R2, number=key),
        _step(_CALL, number=_MAP_LOOKUP),
        (_JUMP_EQUAL, _TO_FIRST),
        _step(_LOAD, _R0, _R0),
        _step(_EXIT),
    ]


def _step(code: int, target: int = 0, source: int = 0, *, skip: int = 0, number: int = 0) -> bytes:
    """One instruction; `skip` is a distance, in instructions to jump over or in bytes of the stack."""
    return struct.pack("=BBhi", code, target | source << 4, skip, number)


def _load(code: bytes) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"none")
    places = (ctypes.addressof(instructions), ctypes.addressof(licence))
    return _bpf(_PROG_LOAD, struct.pack("=IIQQ", _SOCKET_FILTER, len(code) // 8, *places))


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2). Raises OSError."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    given = ctypes.create_string_buffer(attributes, len(attributes))
    result: int = _libc.syscall(number, command, given, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
