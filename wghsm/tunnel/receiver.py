"""Ingress without sockets and clock: peers, sessions by index, and what a datagram's way sets off.

    read(UDP read)   ->  by type and index -> open -> what follows from it -> TUN writes
    InstallReceive   ->  slots, Installed to the handshake process
    types 1 to 3     ->  sieve -> the handshake process, never waiting for it
    sweep            ->  while much is dropped: reads that need not come as far as here

`tell` sends to the handshake process and `tell_egress` to egress; `hand_over` passes a handshake message on and says
whether it was taken; `deliver` writes to the TUN. `now` is CLOCK_BOOTTIME in nanoseconds.
Source: PROTOCOL.md sections 5 and 10.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING, Final

from wghsm.ipc import Counter, PeerField
from wghsm.ipc import messages as m
from wghsm.process.endpoints import Source, endpoint_of
from wghsm.tunnel.allowed_ips import AllowedIPs
from wghsm.tunnel.engine import PURE
from wghsm.tunnel.open import MERGE_ALL
from wghsm.tunnel.sieve import Verdict
from wghsm.tunnel.slots import Expiry, ReceiveSession, ReceiveSlots, SeenKeys
from wghsm.tunnel.snapshot import snapshot_parts
from wghsm.tunnel.times import PROTOCOL_TIMES, Times
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from wghsm.ipc import StatsFile
    from wghsm.tunnel.engine import Engine
    from wghsm.tunnel.open import Opened
    from wghsm.tunnel.sieve import Swept

__all__ = ["ReceivePeer", "Receiver"]

_REASONS: Final = {
    Verdict.MALFORMED: Counter.MALFORMED,
    Verdict.UNKNOWN_TYPE: Counter.UNKNOWN_TYPE,
    Verdict.UNKNOWN_INDEX: Counter.UNKNOWN_INDEX,
    Verdict.BAD_MAC1: Counter.BAD_MAC1,
    Verdict.NO_ROOM: Counter.HANDSHAKE_QUEUE_FULL,
}
_SIEGE: Final = 100_000_000
"""For so long (ns) after a datagram was dropped unread the sieve reads first."""
_NEVER: Final = 2**63
_MINIMUM: Final = 32
_TRANSPORT: Final = 4
_type_and_index = Struct("<II").unpack_from

_RX_BYTES: Final = int(PeerField.RX_BYTES)
_RX_PACKETS: Final = int(PeerField.RX_PACKETS)
_LAST_RECEIVED: Final = int(PeerField.LAST_RECEIVED)
_LAST_DATA_RECEIVED: Final = int(PeerField.LAST_DATA_RECEIVED)
_FIRST_DATA_UNACKNOWLEDGED: Final = int(PeerField.FIRST_DATA_UNACKNOWLEDGED)
_LAST_SENT: Final = int(PeerField.LAST_SENT)
_LAST_HANDSHAKE_SENT: Final = int(PeerField.LAST_HANDSHAKE_SENT)
_ENDPOINT_TOLD: Final = int(PeerField.ENDPOINT_TOLD)


class ReceivePeer:
    """A peer as ingress knows it. `tell_after`: when an unchanged source is told again (CLOCK_BOOTTIME ns).

    `owns` says whether a packed address is among its allowed IPs.
    """

    __slots__ = ("data_told_after", "heard_at", "number", "owns", "row", "slots", "source", "tell_after")

    def __init__(self, number: int, row: int, routes: AllowedIPs) -> None:
        self.number = number
        self.row = row
        self.owns: Callable[[bytes], bool] = lambda address: routes.lookup(address) == number
        self.slots = ReceiveSlots()
        self.source: Source | None = None
        self.heard_at = 0
        self.tell_after = 0
        self.data_told_after = 0


class Receiver:
    """The state of ingress. Messages for peers that it does not know change nothing."""

    def __init__(
        self,
        stats: StatsFile,
        tell: Callable[[m.Message], object],
        tell_egress: Callable[[m.Message], object],
        hand_over: Callable[[m.Datagram], bool],
        times: Times = PROTOCOL_TIMES,
        engine: Engine = PURE,
        salt: bytes | None = None,
        workers: int = 1,
    ) -> None:
        """`salt`: 32 bytes instead of random ones, for what must come out alike each time.

        `workers`: how many share the handshake messages that the gateway looks at.
        """
        self.routes = AllowedIPs()
        self.by_index: dict[int, tuple[ReceivePeer, ReceiveSession]] = {}
        self.merge = MERGE_ALL
        self._words = stats.words
        self._stats = stats
        self._engine = engine
        self._tell = tell
        self._tell_egress = tell_egress
        self._hand_over = hand_over
        self._times = times
        self._peers: dict[int, ReceivePeer] = {}
        self._seen = SeenKeys(self._times.zero_key_material)
        self._expiry: Expiry[ReceiveSession] = Expiry()
        self._sieve = engine.sieve(salt or os.urandom(32), workers)
        self._counts = [0] * len(Verdict)
        self._siege_until = 0

    # What the supervisor says.

    def change_peers(self, add: Iterable[int], remove: Iterable[int]) -> None:
        """Forget peers with all they have, then know new ones; peers known already stay as they are."""
        for number in remove:
            peer = self._peers.pop(number, None)
            if peer is not None:
                self._forget(peer.slots.clear())
            self.routes.remove_peer(number)
        for number in add:
            if number not in self._peers:
                self._peers[number] = ReceivePeer(number, self._stats.row(number), self.routes)

    def link_down(self) -> None:
        """The interface is down: no session survives it (PROTOCOL.md section 11)."""
        for peer in self._peers.values():
            self._forget(peer.slots.clear())

    # Packets.

    def read(
        self,
        read: bytes,
        segment: int,
        source: Source,
        ecn: int,
        now: int,
        deliver: Callable[[bytes | memoryview], object],
    ) -> None:
        """One UDP read: datagrams of `segment` bytes, the last may be shorter, from one source with one outer ECN.

        `deliver` gets virtio_net_hdrs and packets, which it must use at once.
        """
        size = len(read)
        at = 0
        while True:
            left = min(segment, size - at)
            if left < _MINIMUM:
                self._drop(Verdict.MALFORMED, now)
                at += max(left, 1)
            else:
                kind, index = _type_and_index(read, at)
                if kind == _TRANSPORT:
                    found = self.by_index.get(index)
                    if found is None:
                        self._drop(Verdict.UNKNOWN_INDEX, now)
                    elif now >= found[1].expires:
                        self._stats.count(Counter.EXPIRED_SESSION)
                    else:
                        peer, session = found
                        opened = session.opener.open(read, at, segment, ecn, self.merge, peer.owns)
                        self._follow(peer, session, opened, source, now)
                        for write in opened.writes:
                            deliver(write)
                        left = opened.end - at
                else:
                    self._pass_on(read[at : at + left], source, now)
                at += left
            if at >= size:
                return

    def _follow(self, peer: ReceivePeer, session: ReceiveSession, opened: Opened, source: Source, now: int) -> None:
        """What a run of datagrams sets off, but for the writes (PROTOCOL.md section 10, from step 4 on)."""
        if opened.authenticated:
            if source != peer.source or now >= peer.tell_after:
                self._move(peer, source, now)
            slots = peer.slots
            if session is slots.next:
                self._confirm(peer, session, now)
            current = slots.current
            if current is not None and now >= current.last_minute:
                self._last_minute(peer, current)
            words = self._words
            row = peer.row
            words[row + _LAST_RECEIVED] = now
            if opened.data:
                words[row + _LAST_DATA_RECEIVED] = now
                first = words[row + _FIRST_DATA_UNACKNOWLEDGED]
                if first <= words[row + _LAST_SENT] or first <= words[row + _LAST_HANDSHAKE_SENT]:
                    words[row + _FIRST_DATA_UNACKNOWLEDGED] = now
                    self._data_received(peer, now)
            if opened.packets:
                words[row + _RX_BYTES] += opened.size
                words[row + _RX_PACKETS] += opened.packets
        if not (opened.expired or opened.forged or opened.replayed or opened.malformed or opened.refused):
            return
        for reason, number in (
            (Counter.EXPIRED_SESSION, opened.expired),
            (Counter.AUTHENTICATION_FAILED, opened.forged),
            (Counter.REPLAYED, opened.replayed),
            (Counter.INNER_MALFORMED, opened.malformed),
            (Counter.SOURCE_NOT_ALLOWED, opened.refused),
        ):
            if number:
                self._stats.count(reason, number)

    def _pass_on(self, data: bytes, source: Source, now: int) -> None:
        """A message that is not of type 4: to the handshake process if the sieve lets it pass, and it has room."""
        verdict = self._sieve.judge(data, source, now)
        crowded = verdict == Verdict.CROWDED
        if not crowded and verdict != Verdict.PASS:
            self._drop(verdict, now)
        elif not self._hand_over(m.Datagram(endpoint_of(source), now, data, crowded)):
            self._sieve.shut(now)
            self._drop(Verdict.NO_ROOM, now)

    def _drop(self, verdict: int, now: int) -> None:
        """A stranger's datagram is dropped: where one comes, more may come."""
        self._stats.count(_REASONS[Verdict(verdict)])
        self._siege_until = now + _SIEGE

    def besieged(self, now: int) -> bool:
        """Whether `sweep` is to read, because of what was dropped of late."""
        return now < self._siege_until and self._sieve.sweeps

    def sweep(self, fd: int, now: int) -> Swept | None:
        """Read from a UDP socket what strangers send, until a read comes that `read` must see; None if none has come.

        There may be more after None: it ends after some hundred reads.
        """
        swept = self._sieve.sweep(fd, now, self._counts)
        for verdict, number in enumerate(self._counts):
            if number:
                self._siege_until = now + _SIEGE
                self._stats.count(_REASONS[Verdict(verdict)], number)
        return swept

    def _move(self, peer: ReceivePeer, source: Source, now: int) -> None:
        """An authenticated packet came from a new place, or the place is to be told again."""
        peer.source = source
        peer.heard_at = now
        peer.tell_after = now + self._times.endpoint_told_again
        moved = m.EndpointMoved(peer.number, endpoint_of(source), now)
        self._tell_egress(moved)
        # Before any packet that it came with is in the TUN, and so before an answer: egress reads its news first.
        self._words[peer.row + _ENDPOINT_TOLD] = now
        self._tell(moved)

    def _confirm(self, peer: ReceivePeer, session: ReceiveSession, now: int) -> None:
        """The first authenticated packet on NEXT: the responder's handshake is complete."""
        self._forget(peer.slots.confirm())
        self._tell_egress(m.Activate(session.number, peer.number))
        self._tell(m.SessionConfirmed(session.number, peer.number, now))

    def _last_minute(self, peer: ReceivePeer, current: ReceiveSession) -> None:
        """The initiator's session is about to end while data comes in; asked once a session."""
        current.last_minute = _NEVER
        self._tell(m.HandshakeWanted(peer.number, "last-minute"))

    def _data_received(self, peer: ReceivePeer, now: int) -> None:
        """First data since anything was sent to the peer."""
        if now >= peer.data_told_after:
            peer.data_told_after = now + self._times.first_data_told_again
            self._tell(m.DataReceived(peer.number, now))

    # What the custodian says.

    def install(self, message: m.InstallReceive, now: int) -> None:
        """Take a receive key, and tell the handshake process whether packets with its index are received now.

        The same session again changes nothing and is answered alike.
        """
        peer = self._peers.get(message.peer)
        here = self.by_index.get(message.local_index)
        if here is not None and here[1].number == message.session and here[0] is peer:
            wipe(message.key)
            self._stats.count(Counter.KEY_REPEATED)
            self._tell(m.Installed(message.session))
            return
        old = now - message.created >= self._times.reject_after_time
        if peer is None or here is not None or old or len(message.key) != 32:
            self._refuse(message, Counter.KEY_REFUSED)
            return
        if not self._seen.add(message.key, now):
            self._refuse(message, Counter.KEY_REPEATED)
            return
        session = ReceiveSession(message, now, self._times, self._engine)
        self._forget(peer.slots.install(session))
        self.by_index[session.index] = (peer, session)
        self._sieve.add_index(session.index)
        self._expiry.add(peer.number, session)
        self._tell(m.Installed(session.number))

    def _refuse(self, message: m.InstallReceive, reason: Counter) -> None:
        wipe(message.key)
        self._stats.count(reason)
        self._tell(m.Installed(message.session, accepted=False))

    # What the handshake process says.

    def serve(self, message: m.Gates) -> None:
        """Handshake messages are for these identities; whoever shows one of these cookies comes first."""
        self._sieve.serve(message.gates)

    def forget_sessions(self, message: m.ForgetSessions) -> None:
        """Destroy the sessions of the peer that are not to be kept."""
        peer = self._peers.get(message.peer)
        if peer is not None:
            self._forget(peer.slots.clear(message.keep))

    def snapshot(self) -> Iterator[m.SessionSnapshot]:
        """All sessions and endpoints, in parts, for a new handshake process.

        Its timers begin with what the table says; from now on it is told at once what arms them.
        """
        for peer in self._peers.values():
            peer.data_told_after = 0
        sessions = [
            m.SessionInfo(one.number, peer.number, one.index, one.initiator, one.created, slot, one.identity)
            for peer in self._peers.values()
            for one, slot in peer.slots.sessions()
        ]
        endpoints = [
            m.EndpointMoved(peer.number, endpoint_of(peer.source), peer.heard_at)
            for peer in self._peers.values()
            if peer.source is not None
        ]
        return snapshot_parts(sessions, endpoints)

    def tell_all_again(self) -> None:
        """There is a new egress: tell each peer's place with its next packet."""
        for peer in self._peers.values():
            peer.tell_after = 0

    # Time.

    def expire(self, now: int) -> int | None:
        """Drop keys that are too old to be used; gives when to call again (CLOCK_BOOTTIME ns), or None."""
        for number, session in self._expiry.due(now):
            self._forget([session])
            peer = self._peers.get(number)
            if peer is not None:
                peer.slots.drop(session)
        return self._expiry.next()

    def _forget(self, sessions: Iterable[ReceiveSession]) -> None:
        for session in sessions:
            session.close()
            found = self.by_index.get(session.index)
            if found is not None and found[1] is session:
                del self.by_index[session.index]
                self._sieve.remove_index(session.index)
