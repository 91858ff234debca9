"""Write to the TUN: super-packets where the kernel takes them, their packets one by one where it does not.

Called by the ingress program.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from wghsm.tunnel.segment import cut
from wghsm.tunnel.virtio import GSO_UDP_L4, PLAIN, SIZE, VnetHeader
from wghsm.tunnel.worker import tun_gone

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Delivery"]

_log = logging.getLogger(__name__)


class Delivery:
    """Writes virtio_net_hdrs and packets. `write`: the TUN's, gives None when it is full; `failed` counts a loss."""

    def __init__(
        self, write: Callable[[bytes | memoryview], int | None], failed: Callable[[], object], *, vnet: bool
    ) -> None:
        """`vnet`: whether the TUN takes virtio_net_hdrs; without, only packets that are not merged may come."""
        self._write = write
        self._failed = failed
        self._vnet = vnet
        self._told = False

    def deliver(self, write: bytes | memoryview) -> None:
        """Write one packet or super-packet; ChildFault if the TUN is gone, any other failure is a loss."""
        try:
            if self._write(write if self._vnet else write[SIZE:]) is None:
                self._failed()
            elif write[1] == GSO_UDP_L4:
                # Nothing slows down who sends datagrams, and a socket holds a few hundred: its reader goes first.
                os.sched_yield()
        except OSError as error:
            if fault := tun_gone(error):
                raise fault from None
            if error.errno == errno.EINVAL and bytes(write[:SIZE]) != PLAIN:
                self._one_by_one(bytes(write))
            else:
                self._failed()

    def _one_by_one(self, write: bytes) -> None:
        if not self._told:
            self._told = True
            _log.warning("the TUN refuses packets that are merged; they are written one by one")
        for packet in cut(VnetHeader.decode(write), write[SIZE:]) or ():
            self.deliver(PLAIN + packet)
