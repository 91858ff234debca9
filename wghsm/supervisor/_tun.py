"""The TUN device: made here, carried by egress and ingress, gone with its last descriptor.

Called by `_run`, which keeps the descriptor for workers that are restarted. Linux only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

from wghsm.exits import ExitCode

from ._fault import GatewayFault

__all__ = ["Tun"]

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNGETIFF = 0x800454D2
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_TUN_EXCL = 0x8000
_IFREQ = struct.Struct("16sH22x")


class Tun:
    """An exclusive TUN device without packet information; non-blocking."""

    def __init__(self, name: str) -> None:
        """Make the device; GatewayFault if there is an interface of that name, or no TUN driver."""
        try:
            self.fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise GatewayFault(
                ExitCode.SYSTEM,
                f"{_DEVICE} cannot be opened ({error.strerror}); load the module tun, or give the container the device",
            ) from None
        try:
            fcntl.ioctl(self.fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL))
        except OSError as error:
            os.close(self.fd)
            raise _fault(name, error) from None

    def exists(self) -> bool:
        """Whether the device still is there, in whatever network namespace."""
        try:
            fcntl.ioctl(self.fd, _TUNGETIFF, bytearray(_IFREQ.size))
        except OSError as error:
            return error.errno != errno.EBADFD
        return True

    def close(self) -> None:
        """Give up the descriptor; the device goes when the workers' are closed too."""
        with contextlib.suppress(OSError):
            os.close(self.fd)


def _fault(name: str, error: OSError) -> GatewayFault:
    if error.errno in (errno.EBUSY, errno.EINVAL):
        text = f"an interface named {name} exists already; remove it (ip link delete {name}) or choose another name"
        return GatewayFault(ExitCode.SYSTEM, text)
    if error.errno == errno.EPERM:
        return GatewayFault(
            ExitCode.NO_PRIVILEGE, f"the interface {name} cannot be made without CAP_NET_ADMIN; run as root"
        )
    return GatewayFault(ExitCode.SYSTEM, f"the interface {name} cannot be made: {error.strerror}")
