"""Keeps the interface's MTU at what the ways to the endpoints leave for it, as long as the file says `mtu: auto`.

    a change in force, a name resolved -> look, if endpoints or mark are others
    links, routes, rules -> RouteWatch -> look a second later, once for all that comes in it

What another hand has set is left alone until the next reload. Called by `_supervisor`; the start and a reload set the
MTU themselves, before anything of them is in force.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ._fault import GatewayFault
from ._path_mtu import RouteWatch, known_endpoints

if TYPE_CHECKING:
    from wghsm.ipc import messages as m
    from wghsm.process import Loop

    from ._state import State

__all__ = ["MtuNews"]

_log = logging.getLogger(__name__)

_SECOND = 1_000_000_000


class MtuNews:
    """Follows the ways of one gateway."""

    def __init__(self, state: State, loop: Loop) -> None:
        self._state = state
        self._loop = loop
        self._watch: RouteWatch | None = None
        self._asked: tuple[frozenset[m.Endpoint], int] | None = None

    def look(self) -> None:
        """Set the MTU if another one fits the endpoints of the model as it is."""
        state = self._state
        if state.gateway.interface.mtu != "auto":
            self.close()
            return
        if self._watch is None:
            self._watch = RouteWatch()
            self._loop.add_reader(self._watch, self._heard)
        # Thousands of endpoints take a while.
        asked, self._asked = self._asked, (known_endpoints(state.model), state.mark)
        if self._asked == asked:
            return
        fits = state.links.path_mtu(*self._asked)
        now = state.links.status()
        if fits == state.path_mtu or now is None or state.links.is_elsewhere:
            return
        followed, state.path_mtu = state.path_mtu, fits
        if now.mtu != followed:
            _log.info("the way to the endpoints has room for an mtu of %d; that of the interface was set by hand", fits)
            return
        try:
            state.links.set_mtu(fits)
        except GatewayFault as fault:
            _log.warning("%s", fault)
        else:
            _log.info("mtu %d, by the way to the endpoints", fits)

    def close(self) -> None:
        """Follow no longer."""
        if self._watch is not None:
            self._loop.remove_reader(self._watch)
            self._watch.close()
            self._watch = None
            self._asked = None

    def _heard(self) -> None:
        # A router's routes may change a thousand times a second.
        if self._watch is not None:
            self._loop.remove_reader(self._watch)
            self._loop.call_later(_SECOND, self._look_again)

    def _look_again(self) -> None:
        if self._watch is not None:
            self._watch.drain()
            self._loop.add_reader(self._watch, self._heard)
            self._asked = None
            self.look()
