"""A TUN device in a namespace, with or without offloads, for tests that are the tunnel themselves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import time
from typing import TYPE_CHECKING, Self

from tests.network.fixed_key_gateway import inside
from tests.network.support.netns import add_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.network.support.netns import Namespace

__all__ = ["ALL_OFFLOADS", "LIMIT", "TSO_ECN", "Tun"]

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN_NO_PI = 0x1001
_IFF_VNET_HDR = 0x4000
ALL_OFFLOADS = 0x01 | 0x02 | 0x04 | 0x20 | 0x40
"""TUN_F_CSUM, TSO4, TSO6, USO4 and USO6."""
TSO_ECN = 0x08

LIMIT = 30.0
"""Seconds until it is said that a packet does not come."""


class Tun:
    """One device. `offloads` None: packets without a virtio_net_hdr; else TUN_F_ bits, and a header before each."""

    def __init__(
        self,
        namespace: Namespace,
        name: str,
        offloads: int | None,
        addresses: Sequence[str] = (),
        mtu: int = 1420,
    ) -> None:
        """Make it and take it up; `addresses` with prefix lengths."""
        flags = _IFF_TUN_NO_PI if offloads is None else _IFF_TUN_NO_PI | _IFF_VNET_HDR
        self.namespace = namespace
        self.name = name
        with inside(namespace):
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            fcntl.ioctl(self.fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            if offloads is not None:
                fcntl.ioctl(self.fd, _TUNSETOFFLOAD, offloads)
        namespace.run("ip", "link", "set", name, "mtu", str(mtu), "txqueuelen", "10000", "up")
        for address in addresses:
            add_address(namespace, name, address)

    def read(self) -> bytes | None:
        """The next packet, None if there is none."""
        try:
            return os.read(self.fd, 1 << 17)
        except BlockingIOError:
            return None

    def write(self, packet: bytes) -> None:
        """Hand a packet to the kernel."""
        os.write(self.fd, packet)

    def read_until(self, enough: Callable[[bytes], bool]) -> None:
        """Show each packet to `enough` until that is True; raises TimeoutError if it never is."""
        end = time.monotonic() + LIMIT
        while True:
            found = self.read()
            if found is None:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{self.name}: not all packets came")
                select.select([self.fd], [], [], left)
            elif enough(found):
                return

    def close(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
