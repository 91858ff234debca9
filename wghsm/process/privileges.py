"""Giving up root, and the memory hygiene of a process that holds keys (SEAMS.md "Processes").

The order matters: the change of credentials resets the parent-death signal and the dumpable flag, so these
two come after it; the vendor's module is loaded only after all of it. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading

__all__ = ["drop", "ignore_terminal_signals"]

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAP_IPC_LOCK = 14
_CAPABILITY_VERSION_3 = 0x20080522
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_STACK = 512 * 1024


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop(uid: int, gid: int, parent: int, *, keep_memory_lock: bool = False) -> None:
    """Become `uid` and `gid` for good, and end when `parent` (a pid) does.

    With `keep_memory_lock` the process keeps CAP_IPC_LOCK and its memory is locked as it is touched, now and
    in future. No core dumps, no ptrace by equals, no new privileges. Raises OSError when any step fails, and
    PermissionError when root could be had back.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_KEEPCAPS, 1)
    _drop_bounding_set()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _set_capabilities(1 << _CAP_IPC_LOCK if keep_memory_lock else 0)
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
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def _can_be_root() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def _drop_bounding_set() -> None:
    for capability in range(64):
        if capability != _CAP_IPC_LOCK and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break  # the first number past the kernel's last capability


def _set_capabilities(mask: int) -> None:
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    data[0].effective = data[0].permitted = mask
    if _libc.capset(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capset failed")
