"""Giving up root, and the memory hygiene of a process that holds keys (SEAMS.md "Processes").

    drop     a child becomes its own user for good
    reduce   the supervisor stays uid 0 with a short list of capabilities

The order in `drop` matters: the change of credentials resets the parent-death signal and the dumpable flag, so
these two come after it; the vendor's module is loaded only after all of it. Linux only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import threading
from enum import IntEnum, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["TERMINAL_SIGNALS", "Capability", "drop", "ignore_terminal_signals", "reduce"]

TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGHUP)
"""What a terminal sends to all processes of the foreground."""

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_STACK = 512 * 1024


@unique
class Capability(IntEnum):
    """The kernel's numbers of those capabilities that a gateway uses."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    FOWNER = 3
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    IPC_LOCK = 14


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def reduce(keep: Collection[Capability]) -> None:
    """Keep only these capabilities, now and in every program started later; no core dumps, no ptrace by equals.

    One that the process does not have (in a container) is not asked for. The uid stays. Raises OSError when a
    step fails, as it does without CAP_SETPCAP.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    permitted = _permitted()
    _limit_bounding_set(keep)
    _set_capabilities([capability for capability in keep if permitted >> capability & 1])
    _prctl(_PR_SET_DUMPABLE, 0)


def drop(uid: int, gid: int, parent: int, *, keep_memory_lock: bool = False) -> None:
    """Become `uid` and `gid` for good, and end when `parent` (a pid) does.

    With `keep_memory_lock` the process keeps CAP_IPC_LOCK and its memory is locked as it is touched, now and
    in future. No core dumps, no ptrace by equals, no new privileges. Raises OSError when any step fails, and
    PermissionError when root could be had back.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_KEEPCAPS, 1)
    kept = {Capability.IPC_LOCK} if keep_memory_lock else set()
    _limit_bounding_set(kept)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _set_capabilities(kept)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_DUMPABLE, 0)
    if os.getppid() != parent:
        raise ProcessLookupError("the supervisor is gone")
    if keep_memory_lock:
        # Whole default stacks would be locked for each thread, and fail.
        threading.stack_size(_STACK)
        if _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
            raise OSError(ctypes.get_errno(), "memory cannot be locked")
    if uid != 0 and _can_be_root():
        raise PermissionError("root could be had back")


def ignore_terminal_signals() -> None:
    """Leave Ctrl-C and hang-ups to the supervisor, which ends its children in order."""
    for number in (*TERMINAL_SIGNALS, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # The supervisor starts children with them blocked: they come to the whole group, also while Python begins.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL_SIGNALS)


def _can_be_root() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _limit_bounding_set(keep: Collection[int]) -> None:
    for capability in range(64):
        if capability not in keep and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            number = ctypes.get_errno()
            if number == errno.EINVAL:
                break  # the first number past the kernel's last capability
            raise OSError(number, "the bounding set of capabilities cannot be reduced")


def _permitted() -> int:
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    if _libc.capget(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capget failed")
    return int(data[0].permitted)


def _set_capabilities(keep: Collection[int]) -> None:
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    data[0].effective = data[0].permitted = sum(1 << capability for capability in keep)
    if _libc.capset(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capset failed")
