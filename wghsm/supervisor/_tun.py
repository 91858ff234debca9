"""The TUN device: made here, carried by egress and ingress, gone with its last descriptor.

    virtio_net_hdr, TSO and USO     ->  without USO (kernels before 6.2)  ->  plain packets
    a queue for each worker         ->  `_steering` says which packet goes to which

Called by `_run`, which keeps the descriptor for workers that are restarted. Linux only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import struct
from typing import TYPE_CHECKING

from wghsm.exits import ExitCode

from ._fault import GatewayFault

if TYPE_CHECKING:
    from collections.abc import Callable

    _Ioctl = Callable[..., object]

__all__ = ["Tun"]

_log = logging.getLogger(__name__)

_DEVICE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUNGETIFF = 0x800454D2
_TUNGETDEVNETNS = 0x54E3
_IFF_TUN = 0x0001
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_VNET_HEADER = 10
_CSUM, _TSO4, _TSO6, _USO4, _USO6 = 0x01, 0x02, 0x04, 0x20, 0x40
_IFREQ = struct.Struct("16sH22x")


class Tun:
    """An exclusive TUN device without packet information; non-blocking.

    `vnet`: reads and writes begin with a virtio_net_hdr and may be super-packets of TCP; `uso`: of UDP too.
    """

    def __init__(self, name: str, ioctl: _Ioctl = fcntl.ioctl, queues: int = 1) -> None:
        """Make the device; GatewayFault if there is an interface of that name, or no TUN driver."""
        self.vnet = self.uso = False
        self.fds: list[int] = []
        try:
            for _ in range(queues):
                self.fds.append(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            self.close()
            raise GatewayFault(
                ExitCode.SYSTEM,
                f"{_DEVICE} cannot be opened ({error.strerror}); load the module tun, or give the container the device",
            ) from None
        try:
            self._make(name, ioctl)
        except OSError as error:
            self.close()
            raise _fault(name, error) from None

    @property
    def fd(self) -> int:
        """The descriptor of the first queue, which is as good as any other for what concerns the device."""
        return self.fds[0]

    def _make(self, name: str, ioctl: _Ioctl) -> None:
        several = _IFF_MULTI_QUEUE if len(self.fds) > 1 else 0
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL | several
        self._set(name, flags, ioctl)
        header = _IFF_VNET_HDR if self.vnet else 0
        for fd in self.fds[1:]:
            # Their order is the order of the queues.
            ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags & ~_IFF_TUN_EXCL | header))

    def _set(self, name: str, flags: int, ioctl: _Ioctl) -> None:
        plain = _IFREQ.pack(name.encode(), flags)
        try:
            ioctl(self.fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags | _IFF_VNET_HDR))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Either no virtio_net_hdr or an interface of another kind that has the name: the second try tells.
            ioctl(self.fd, _TUNSETIFF, plain)
            _log.warning("the TUN driver has no virtio_net_hdr: packets are read and written one by one")
            return
        self.vnet = True
        with contextlib.suppress(OSError):
            ioctl(self.fd, _TUNSETVNETHDRSZ, struct.pack("i", _VNET_HEADER))
        for offloads, uso in ((_CSUM | _TSO4 | _TSO6 | _USO4 | _USO6, True), (_CSUM | _TSO4 | _TSO6, False)):
            try:
                ioctl(self.fd, _TUNSETOFFLOAD, offloads)
            except OSError as error:
                _log.info("the TUN driver refuses the offloads %#x: %s", offloads, error.strerror)
                continue
            self.uso = uso
            return
        _log.warning("the TUN driver offers no offloads: packets are read one by one")

    def exists(self) -> bool:
        """Whether the device still is there, in whatever network namespace."""
        try:
            fcntl.ioctl(self.fd, _TUNGETIFF, bytearray(_IFREQ.size))
        except OSError as error:
            return error.errno != errno.EBADFD
        return True

    def name(self) -> str:
        """The interface's name, which somebody may have changed, wherever it is. OSError if it is gone."""
        answer = bytearray(_IFREQ.size)
        fcntl.ioctl(self.fd, _TUNGETIFF, answer)
        return bytes(_IFREQ.unpack(answer)[0]).rstrip(b"\0").decode()

    def namespace(self) -> int:
        """A descriptor of the network namespace that it is in, for the caller to close. OSError without the right."""
        return fcntl.ioctl(self.fd, _TUNGETDEVNETNS)

    def close(self) -> None:
        """Give up the descriptors; the device goes when the workers' are closed too."""
        while self.fds:
            with contextlib.suppress(OSError):
                os.close(self.fds.pop())


def _fault(name: str, error: OSError) -> GatewayFault:
    if error.errno in (errno.EBUSY, errno.EINVAL):
        text = f"an interface named {name} exists already; remove it (ip link delete {name}) or choose another name"
        return GatewayFault(ExitCode.SYSTEM, text)
    if error.errno == errno.EPERM:
        return GatewayFault(
            ExitCode.NO_PRIVILEGE, f"the interface {name} cannot be made without CAP_NET_ADMIN; run as root"
        )
    return GatewayFault(ExitCode.SYSTEM, f"the interface {name} cannot be made: {error.strerror}")
