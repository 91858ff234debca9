"""The interface's MTU, addresses and routes, from one gateway file's to the next one's.

    prepare   what is new comes first, and may be refused: then nothing has changed
    commit    what is old goes         undo   what is new goes again

Addresses and routes that are in both are never touched, but for what the kernel takes away with an address. Called by
`_reload`.
"""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from wghsm.config import kernel_routes

from ._fault import GatewayFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wghsm.config import Interface

    from ._links import Links, LinkStatus
    from .model import Prefix

__all__ = ["Relink"]

_log = logging.getLogger(__name__)


class Relink:
    """One such step; `before` and `after` are the allowed IPs, `link` is as the kernel has it now, `mtu`
    what it is to be.

    While it is down there are no routes; they come with it when it is up again.
    """

    def __init__(
        self,
        links: Links,
        old: Interface,
        new: Interface,
        before: Iterable[Prefix],
        after: Iterable[Prefix],
        link: LinkStatus,
        mtu: int,
    ) -> None:
        self._links = links
        self._new = new
        self._mtu_before, self._mtu = link.mtu, mtu
        self._routes = kernel_routes(after, new.addresses, new.table, new.fwmark) if link.up else set()
        routes_before = kernel_routes(before, old.addresses, old.table, old.fwmark)
        self._more = self._routes - routes_before
        self._less = routes_before - self._routes if link.up else set()
        self._come = [each for each in new.addresses if each not in old.addresses]
        self._go = [each for each in old.addresses if each not in new.addresses]

    def prepare(self) -> None:
        """Set what is new. GatewayFault with nothing changed."""
        with contextlib.ExitStack() as undo:
            if self._mtu != self._mtu_before:
                self._links.set_mtu(self._mtu)
                undo.callback(self._quietly, partial(self._links.set_mtu, self._mtu_before))
            for address in self._come:
                self._links.add_address(address)
                undo.callback(self._quietly, partial(self._links.remove_address, address))
            self._links.put_routes(self._more)
            undo.callback(self._links.drop_routes, self._more)
            self._undo = undo.pop_all()

    def undo(self) -> None:
        """Take back what `prepare` has set."""
        self._undo.close()

    def commit(self) -> None:
        """Remove what is old; what the kernel refuses is logged."""
        self._undo.pop_all()
        self._links.drop_routes(self._less)
        for address in self._go:
            self._quietly(partial(self._links.remove_address, address))
        if self._go:
            # An address takes others of its network with it, and the last one of a family all the routes.
            for address in self._new.addresses:
                if not self._links.has_address(address):
                    self._quietly(partial(self._links.add_address, address))
            self._links.keep_routes(self._routes)
        self._links.settle(self._new.addresses, self._new.table, self._new.fwmark)

    def _quietly(self, step: Callable[[], None]) -> None:
        try:
            step()
        except GatewayFault as fault:
            _log.warning("%s", fault)
