"""The gateway's folder under /run: one gateway of a name at a time, and who that is.

    /run/wghsm/NAME/lock         locked (fcntl, open file description) while the gateway runs; its pid inside
    /run/wghsm/NAME/admin.sock   for `wghsm status` and its like
    /run/wghsm/NAME/log          of a gateway that `wghsm up` started

Called by `_run`, and by the commands through `wghsm.supervisor`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path

from wghsm.exits import ExitCode

from ._fault import GatewayFault

__all__ = ["GatewayLock", "running_pid", "runtime_directory", "uapi_socket_path"]


# struct flock: type, whence, start, length, pid. Unlike flock(2), this lock can be asked about without taking it.
_FLOCK = struct.Struct("hhqqi")


def runtime_directory(name: str) -> Path:
    """Where the gateway of this name keeps what lives as long as it."""
    return Path("/run/wghsm") / name


def uapi_socket_path(name: str) -> Path:
    """The socket of the WireGuard configuration protocol, where wg(8) looks for it."""
    return Path("/var/run/wireguard") / f"{name}.sock"


def running_pid(name: str) -> int | None:
    """The pid of the supervisor of the running gateway of this name, None if there is none.

    0 while it has taken the lock and not yet written its pid.
    """
    try:
        fd = os.open(runtime_directory(name) / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        wanted = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        if _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, wanted))[0] == fcntl.F_UNLCK:
            return None
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)


class GatewayLock:
    """The right to be the gateway of a name on this machine."""

    def __init__(self, name: str) -> None:
        """Take it; GatewayFault ALREADY_RUNNING if another process has it."""
        self._directory = runtime_directory(name)
        self._path = self._directory / "lock"
        try:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            while True:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
                if self._is_current():
                    break
                os.close(self._fd)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            os.close(self._fd)
            who = f" (pid {holder})" if holder.isdecimal() else ""
            raise GatewayFault(
                ExitCode.ALREADY_RUNNING, f"a gateway named {name} is running{who}; end it with: wghsm down {name}"
            ) from None
        except OSError as error:
            raise GatewayFault(ExitCode.SYSTEM, f"{self._path} cannot be locked: {error.strerror}") from None

    def _is_current(self) -> bool:
        """Whether the file that is locked still has the name: the last holder removes it as it goes."""
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the file, and the folder if nothing else is in it, then let go."""
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._directory.rmdir()
        os.close(self._fd)
