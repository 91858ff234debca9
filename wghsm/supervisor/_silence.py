"""Peers that do not answer: the names of their endpoints are resolved again, which may give another address.

    every 5 s   who is called and has not answered for 15 s? -> Resolving.want, again after 30 s, doubling to 10 min
                who has been heard meanwhile?               -> what the name says does not matter any more

Who is called is read from the statistics table; nobody is asked, and nothing waits. Called by `_supervisor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm.ipc import PeerField
from wghsm.process import boottime

from ._endpoints import literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from wghsm import config
    from wghsm.process import Loop

    from ._state import State
    from .model import Peer

__all__ = ["Silence"]

_SECOND = 1_000_000_000
_LOOK_EVERY = 5 * _SECOND
_SILENT_FOR = 15 * _SECOND
_FIRST_WAIT = 30 * _SECOND
_LONGEST_WAIT = 600 * _SECOND
# An answer to the peer's own call is sent right after that was heard.
_OWN_CALL = _SECOND
# Calls come every 5 s; after 90 s without an answer they end until there is something to send.
_STILL_CALLED = 30 * _SECOND


@dataclass(slots=True)
class _Silent:
    """`ask_at`: when its name is to be asked for next (CLOCK_BOOTTIME ns), then after another `wait` (ns)."""

    host: config.Endpoint
    ask_at: int
    wait: int = _FIRST_WAIT
    asked: bool = False


class Silence:
    """Watches the peers of one gateway whose endpoints have names. `resolve` asks for the address of one."""

    def __init__(
        self,
        state: State,
        loop: Loop,
        resolve: Callable[[bytes, config.Endpoint], None],
        clock: Callable[[], int] = boottime,
    ) -> None:
        """`clock` gives CLOCK_BOOTTIME in ns."""
        self._state = state
        self._loop = loop
        self._resolve = resolve
        self._clock = clock
        self._silent: dict[int, _Silent] = {}

    def watch(self) -> None:
        """Look now, and again for as long as the loop runs."""
        self.look()
        self._loop.call_later(_LOOK_EVERY, self.watch)

    def look(self) -> None:
        """See who is silent, and ask for the names whose time has come."""
        now, before, self._silent = self._clock(), self._silent, {}
        for key, peer in self._state.model.peers.items():
            if peer.host is None or not self._is_silent(peer, now) or literal(peer.host) is not None:
                continue
            known = before.pop(peer.slot, None)
            if known is None or known.host != peer.host:
                known = _Silent(peer.host, now + _SILENT_FOR)
            self._silent[peer.slot] = known
            if now >= known.ask_at:
                known.ask_at, known.wait = now + known.wait, min(2 * known.wait, _LONGEST_WAIT)
                known.asked = True
                self._state.outdated.add(peer.slot)
                self._resolve(key, peer.host)
        # Those that are heard again, or called no more. A name that the file has changed meanwhile still counts.
        hosts = {peer.slot: peer.host for peer in self._state.model.peers.values()} if before else {}
        for slot, gone in before.items():
            if gone.asked and hosts.get(slot) == gone.host:
                self._state.outdated.discard(slot)

    def _is_silent(self, peer: Peer, now: int) -> bool:
        if peer.slot not in self._state.endpoints:
            # Its first address is still being asked for.
            return False
        stats = self._state.stats
        called = stats.get(peer.slot, PeerField.LAST_HANDSHAKE_SENT)
        heard = max(stats.get(peer.slot, field) for field in _HEARD)
        return called > heard + _OWN_CALL and now - called < _STILL_CALLED


_HEARD = (PeerField.LAST_RECEIVED, PeerField.LAST_HANDSHAKE_RECEIVED)
