"""From a datagram to a handshake message that may cost a token operation, and cookie replies.

    types 1, 2   decoded -> gate (mac1 says for which identity; under load mac2) -> exchange, or a cookie reply
                 ingress hears of the identities and of the secret of the cookies, and drops early what would not pass
    type 3       decoded -> the cookies of the peer whose handshake it answers

Called by `exchange`; `load` says whether we are under load. Pure: times are CLOCK_BOOTTIME in nanoseconds.
Source: PROTOCOL.md section 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wghsm.ipc import Counter, Role, all_seats
from wghsm.ipc import messages as m
from wghsm.noise import CookieReply, Initiation, MessageType, Rejected, Response, message_type

from .effects import SendDatagram
from .gate import CookieAnswer, Dropped, Gates

if TYPE_CHECKING:
    from collections.abc import Callable

    from .load import Load
    from .state import State

__all__ = ["Intake"]


class Intake:
    """Messages for all identities. `initiation` and `response` take those that were let in, with their identity."""

    def __init__(
        self,
        state: State,
        load: Load,
        initiation: Callable[[Initiation, bytes, m.Datagram, int], None],
        response: Callable[[Response, bytes, m.Datagram, int], None],
    ) -> None:
        self._state = state
        self._load = load
        self._initiation = initiation
        self._response = response
        self._gates = Gates()
        self._told = m.Gates(())

    def serve(self, identities: tuple[bytes, ...], now: int) -> None:
        """Let messages for these identities in, and for no other."""
        self._gates.serve(identities)
        self.brief_ingress(now)

    def brief_ingress(self, now: int) -> None:
        """Tell ingress whom messages may be for, and which cookies hold."""
        self._told = self._gates.told(now)
        for seat in all_seats(Role.INGRESS, self._state.workers):
            self._state.tell(seat, self._told)

    def datagram(self, datagram: m.Datagram, now: int) -> None:
        """A message of type 1 to 3 from the network, unchecked."""
        kind = message_type(datagram.data)
        if isinstance(kind, Rejected):
            self._state.stats.count(Counter.MALFORMED)
        elif not self._state.up:
            pass
        elif kind is MessageType.INITIATION:
            initiation = Initiation.decode(datagram.data)
            if not isinstance(initiation, Rejected) and (identity := self._let_in(initiation, datagram, now)):
                self._initiation(initiation, identity, datagram, now)
        elif kind is MessageType.RESPONSE:
            response = Response.decode(datagram.data)
            if not isinstance(response, Rejected) and (identity := self._let_in(response, datagram, now)):
                self._response(response, identity, datagram, now)
        elif kind is MessageType.COOKIE_REPLY:
            self._cookie(datagram, now)
        else:
            self._state.stats.count(Counter.UNKNOWN_TYPE)

    def _cookie(self, datagram: m.Datagram, now: int) -> None:
        message = CookieReply.decode(datagram.data)
        entry = None if isinstance(message, Rejected) else self._state.indices.lookup(message.receiver)
        peer = self._state.peers.get(entry.peer) if entry is not None and entry.peer is not None else None
        if isinstance(message, Rejected) or peer is None:
            self._state.stats.count(Counter.UNKNOWN_HANDSHAKE)
        elif peer.cookies.consume_reply(message, now) is None:
            self._state.stats.count(Counter.COOKIE_RECEIVED)
        else:
            self._state.stats.count(Counter.COOKIE_REFUSED)

    def _let_in(self, message: Initiation | Response, datagram: m.Datagram, now: int) -> bytes | None:
        """The identity that the message is meant for; None if it may not pass."""
        if not self._state.identities:
            self._state.stats.count(Counter.NO_CUSTODIAN)
            return None
        verdict = self._gates.judge(
            message,
            datagram.data,
            datagram.source,
            now,
            self._state.entropy,
            under_load=self._load.arrived(datagram.at, now, crowded=datagram.crowded),
        )
        if isinstance(verdict, Dropped):
            self._state.stats.count(verdict.reason)
            return None
        if isinstance(verdict, CookieAnswer):
            self._state.stats.count(Counter.BAD_MAC2)
            self._state.stats.count(Counter.COOKIE_SENT)
            self._state.effects.append(SendDatagram(None, datagram.source, verdict.data, 0))
            if self._gates.told(now) != self._told:
                self.brief_ingress(now)
            return None
        return verdict
