"""Peers that expire while the gateway runs: gone at their moment, with session and routes.

    look -> nobody expires: nothing;  later: a timer;  now: the model without them, as any other change

The moment is the wall clock's, which may be set: it is looked at twice a minute. Called by `_supervisor`, at the start
and after each change.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from ._applying import Work
from .model import between, without

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm.process import Loop, Timer

    from ._applying import Applying
    from ._state import State

__all__ = ["Expiry"]

_log = logging.getLogger(__name__)

_LOOK_AGAIN = 30.0


class Expiry:
    """Takes the peers of one gateway out when their time has come."""

    def __init__(self, state: State, loop: Loop, applying: Applying, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives Unix seconds."""
        self._state = state
        self._loop = loop
        self._applying = applying
        self._clock = clock
        self._timer: Timer | None = None

    def look(self) -> None:
        """See who has expired, and when the next one does."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        state, now = self._state, self._clock()
        moments = [
            peer.expires.timestamp()
            for peer in state.gateway.peers
            if peer.expires is not None and peer.public_key in state.model.peers
        ]
        if not moments:
            return
        wait = min(moments) - now
        if wait <= 0:
            self._applying.submit(self._work)
        else:
            self._timer = self._loop.call_later(int(min(wait, _LOOK_AGAIN) * 1e9) + 1, self.look)

    def _work(self) -> Work | None:
        state, now = self._state, self._clock()
        names = {
            peer.public_key: peer.name
            for peer in state.gateway.peers
            if peer.public_key in state.model.peers and peer.expires is not None and peer.expires.timestamp() <= now
        }
        if not names:
            # The clock was set back, or a reload was faster.
            self._timer = self._timer or self._loop.call_later(int(_LOOK_AGAIN * 1e9), self.look)
            return None
        model = without(state.model, names.keys())
        found = between(state.model, model, set())

        def done() -> None:
            state.links.change_routes(found.prefixes_added, found.prefixes_removed)
            for name in names.values():
                _log.info("peer %s has expired and is out", name)

        return Work(model, found, {}, sockets=state.remark(model), done=done, cause="expiry")
