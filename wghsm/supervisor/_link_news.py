"""What news about links lead to: the interface is up or down, has another MTU, was moved, or is gone.

    LinkWatch readable -> TUN gone?   the gateway ends
                       -> moved?      found again where it is now, and said once
                       -> MTU         size of super-packets, Mtu to egress and ingress
                       -> down        sockets are deaf, LinkState to egress, ingress, handshake: everything rests
                       -> up          sockets hear, the routes that the kernel dropped are set, LinkState

Called by `_supervisor`.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from wghsm.exits import ExitCode
from wghsm.ipc import Role
from wghsm.ipc import messages as m

from ._hearing import set_hearing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from wghsm.ipc import Seat

    from ._links import LinkStatus, Place
    from ._state import State

__all__ = ["LinkNews"]

_log = logging.getLogger(__name__)


class LinkNews:
    """Follows the interface of one gateway. `tell` sends a message to a process, `end` ends the gateway."""

    def __init__(
        self, state: State, tell: Callable[[Seat, m.Message], object], end: Callable[[ExitCode, str], None]
    ) -> None:
        self._state = state
        self._tell = tell
        self._end = end
        self._lost = False

    def look(self, were_down: Collection[Place] = ()) -> None:
        """Something about links has changed; `were_down` since the last look, whatever they are now."""
        state = self._state
        if not state.tun.exists():
            self._end(*deleted(state))
            return
        now = state.links.status()
        if now is None:
            now = self._find()
        if now is None:
            return
        before, state.link = state.link, now
        if now.mtu != before.mtu:
            state.links.match_sends(now.mtu)
            for seat in state.tunnel:
                self._tell(seat, m.Mtu(now.mtu))
        if before.up and now.up and state.links.place in were_down:
            self._turn(False)
            self._turn(True)
        elif now.up != before.up:
            self._turn(now.up)

    def _find(self) -> LinkStatus | None:
        """The interface is not where it was: look where it is, and say so once for each time that it moves."""
        state = self._state
        name, was_elsewhere = state.gateway.interface.name, state.links.is_elsewhere
        try:
            here = state.tun.namespace()
            try:
                state.links.look_for(state.tun.name(), here)
            finally:
                os.close(here)
        except OSError as error:
            if not self._lost:
                _log.warning(
                    "the interface %s was moved where it cannot be followed (%s): sessions go on; "
                    "whether it is up, and its MTU, are not known any more",
                    *(name, error.strerror),
                )
            self._lost = True
            return None
        self._lost = False
        if state.links.is_elsewhere:
            _log.warning(
                "the interface %s was moved to another network namespace: its UDP sockets stay here; "
                "state and MTU are followed there, addresses and routes are not set any more",
                name,
            )
        elif was_elsewhere:
            _log.info("the interface %s is back in the gateway's network namespace", name)
        return state.links.status()

    def _turn(self, up: bool) -> None:
        state = self._state
        _log.info("the link is %s", "up" if up else "down")
        set_hearing(state.udp.descriptors, up)
        if up:
            state.links.restore_routes(state.model.owners)
        for seat in (*state.tunnel, Role.HANDSHAKE):
            self._tell(seat, m.LinkState(up))


def deleted(state: State) -> tuple[ExitCode, str]:
    """Why the gateway ends when its interface is gone."""
    return ExitCode.SYSTEM, f"the interface {state.gateway.interface.name} was deleted from outside"
