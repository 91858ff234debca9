"""Egress without sockets and clock: peers, sessions, staged packets, and what a packet's way sets off.

    take(TUN read)  -> lookup -> seal into the batch, or stage and HandshakeWanted, or ICMP unreachable;
                       hand over what is for another worker's peer
    flush           -> statistics, DataSent (timers) -> transmit -> HandshakeWanted (REKEY_AFTER_TIME, _MESSAGES)
    Activate        -> staged packets, or a keepalive

A batch is what one send takes: datagrams of one session. It is flushed by itself when the next read does not fit into
it, and by whoever has called `take` when there is nothing more to read; all other methods leave it empty.

Called by the egress program. `transmit` sends a batch to a destination and gives the bytes that left; `tell` sends a
message to the handshake process; `answer` writes an ICMP error into the TUN; `hand_over` gives a TUN read to the worker
that owns a peer, and says whether that is another one. `now` is CLOCK_BOOTTIME in nanoseconds.
Source: PROTOCOL.md sections 5, 8.4 and 9.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Literal

from wghsm.ipc import Counter, PeerField
from wghsm.ipc import messages as m
from wghsm.noise import RateLimiter
from wghsm.process.endpoints import Destination, destination_of
from wghsm.tunnel.allowed_ips import AllowedIPs
from wghsm.tunnel.engine import PURE
from wghsm.tunnel.packets import destination
from wghsm.tunnel.seal import MALFORMED
from wghsm.tunnel.segment import cut
from wghsm.tunnel.slots import Expiry, SeenKeys, SendSession, SendSlots
from wghsm.tunnel.snapshot import snapshot_parts
from wghsm.tunnel.staging import Staging
from wghsm.tunnel.times import PROTOCOL_TIMES, Times
from wghsm.tunnel.unreachable import unreachable
from wghsm.tunnel.virtio import PLAIN, SIZE, VnetHeader
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from wghsm.ipc import StatsFile
    from wghsm.tunnel.engine import Engine, Outgoing

__all__ = ["REMEMBERED_ACTIVATIONS", "SendPeer", "Sender"]

REMEMBERED_ACTIVATIONS = 1024
"""Activations of all peers that may wait for their InstallSend."""

_TX_BYTES: Final = int(PeerField.TX_BYTES)
_TX_PACKETS: Final = int(PeerField.TX_PACKETS)
_LAST_SENT: Final = int(PeerField.LAST_SENT)
_LAST_DATA_SENT: Final = int(PeerField.LAST_DATA_SENT)
_FIRST_DATA_UNANSWERED: Final = int(PeerField.FIRST_DATA_UNANSWERED)
_LAST_RECEIVED: Final = int(PeerField.LAST_RECEIVED)
_LAST_HANDSHAKE_RECEIVED: Final = int(PeerField.LAST_HANDSHAKE_RECEIVED)
_ENDPOINT_TOLD: Final = int(PeerField.ENDPOINT_TOLD)

_Reason = Literal["no-session", "rekey-after-time", "rekey-after-messages"]


class SendPeer:
    """A peer as egress knows it."""

    __slots__ = ("destination", "moved_at", "news_until", "number", "row", "slots", "told_after", "wanted_after")

    def __init__(self, number: int, row: int) -> None:
        self.number = number
        self.row = row
        self.slots = SendSlots()
        self.destination: Destination | None = None
        self.moved_at = 0
        self.news_until = 0
        self.told_after = 0
        self.wanted_after = 0


class Sender:
    """The state of egress. Messages for peers that it does not know change nothing."""

    def __init__(
        self,
        stats: StatsFile,
        transmit: Callable[[SendPeer, Destination, Outgoing], int],
        tell: Callable[[m.Message], object],
        times: Times = PROTOCOL_TIMES,
        staging: Staging | None = None,
        answer: Callable[[bytes], object] = lambda _packet: None,
        engine: Engine = PURE,
        catch_up: Callable[[], object] = lambda: None,
        hand_over: Callable[[int, bytes], bool] = lambda _peer, _read: False,
    ) -> None:
        """`catch_up` has what ingress has said so far handled at once."""
        self.routes = AllowedIPs()
        self.mtu = 0
        self._stats = stats
        self._words = stats.words
        self._transmit = transmit
        self._tell = tell
        self._answer = answer
        self._catch_up = catch_up
        self._hand_over = hand_over
        self._answers = RateLimiter()
        self._times = times
        self._engine = engine
        self._batch = engine.outgoing(self._flush_batch)
        self._batch_of: tuple[SendPeer, SendSession] | None = None
        self._batch_now = 0
        self._batch_data = False
        self._peers: dict[int, SendPeer] = {}
        self._staging = Staging() if staging is None else staging
        self._seen = SeenKeys(self._times.zero_key_material)
        self._expiry: Expiry[SendSession] = Expiry()
        self._activations: OrderedDict[int, m.Activate] = OrderedDict()

    # What the supervisor says.

    def change_peers(self, add: Iterable[int], remove: Iterable[int]) -> None:
        """Forget peers with all they have, then know new ones; peers known already stay as they are."""
        for number in remove:
            peer = self._peers.pop(number, None)
            if peer is not None:
                peer.slots.clear()
                self._purge(number)
                self._forget_activations(number)
            self.routes.remove_peer(number)
        for number in add:
            if number not in self._peers:
                self._peers[number] = SendPeer(number, self._stats.row(number))

    def link_down(self) -> None:
        """The interface is down: no session and no staged packet survives it (PROTOCOL.md section 11)."""
        for number, peer in self._peers.items():
            peer.slots.clear()
            self._purge(number)
        self._activations.clear()

    # Packets.

    def read(self, packet: bytes, now: int) -> None:
        """One whole packet: seal and send it, or stage it."""
        self.take(PLAIN + packet, now)
        self.flush()

    def take(self, read: bytes, now: int, *, handed: bool = False) -> bool:
        """One TUN read, virtio_net_hdr and packet: seal its packets into the batch, or stage them.

        One that another worker has `handed` over stays here, whatever this one makes of it. Gives whether all of it was
        sealed, so that `take_waiting` may go on.
        """
        address = destination(read, SIZE)
        if address is None:
            self._stats.count(Counter.INNER_MALFORMED)
            return False
        number = self.routes.lookup(address)
        peer = None if number is None else self._peers.get(number)
        if peer is None:
            if number is None or handed or not self._hand_over(number, read):
                self._refuse(read, Counter.NO_PEER, now)
            return False
        if self._words[peer.row + _ENDPOINT_TOLD] != peer.news_until:
            self._hear_news(peer)
        if peer.destination is None:
            self._refuse(read, Counter.NO_ENDPOINT, now)
            return False
        session = peer.slots.current
        if session is not None and peer.number not in self._staging and session.usable(now):
            left = self._seal(peer, session, read, now)
            if not left:
                return True
            packets = self._cut(read)[-left:]
        else:
            packets = self._cut(read)
        for packet in packets:
            self._stage(peer, packet)
        self._send_staged(peer, now)
        return False

    def take_waiting(self, tun: int, last: bytes, most: int) -> tuple[int, bytes | None]:
        """Read on from the TUN behind `last`, which `take` has just sealed, and seal what goes the same way.

        As seal.Sealer.seal_waiting, which spares each such read its way through here.
        """
        if self._batch_of is None or not self._batch.count:
            return 0, None
        peer, session = self._batch_of
        sealed, read = session.sealer.seal_waiting(tun, last, self.mtu, most, self._batch)
        if sealed and self._words[peer.row + _ENDPOINT_TOLD] != peer.news_until:
            self._hear_news(peer)
        return sealed, read

    def _hear_news(self, peer: SendPeer) -> None:
        peer.news_until = self._words[peer.row + _ENDPOINT_TOLD]
        self._catch_up()

    def flush(self) -> None:
        """Send what `take` has sealed."""
        if self._batch.count:
            self._flush_batch()

    def _cut(self, read: bytes) -> list[bytes]:
        """The packets of a read; none, and counted, if it is malformed."""
        packets = cut(VnetHeader.decode(read), read[SIZE:])
        if packets is None:
            self._stats.count(Counter.INNER_MALFORMED)
            return []
        return packets

    def _refuse(self, read: bytes, reason: Counter, now: int) -> None:
        """Nobody can take this read: count its packets and, as often as the rate limit lets, tell their sender."""
        packets = self._cut(read)
        if not packets:
            return
        self._stats.count(reason, len(packets))
        told = unreachable(packets[0])
        if told is not None and self._answers.allow(destination(told) or b"", now):
            self._answer(told)

    def _seal(self, peer: SendPeer, session: SendSession, read: bytes, now: int) -> int:
        """Seal a read, nothing for a keepalive; gives how many of its last packets the session cannot take any more."""
        if self._batch_of is None or self._batch_of[1] is not session:
            self.flush()
            self._batch_of = (peer, session)
        self._batch_now = now
        self._batch_data = self._batch_data or bool(read)
        left = session.sealer.seal(read, self.mtu, self._batch)
        if left == MALFORMED:
            self._stats.count(Counter.INNER_MALFORMED)
            return 0
        return left

    def _flush_batch(self) -> None:
        batch, of = self._batch, self._batch_of
        if of is None:
            return
        peer, session = of
        now = self._batch_now
        words = self._words
        row = peer.row
        # The events come before the send, and also when it fails: a peer that cannot be reached is to be noticed.
        words[row + _LAST_SENT] = now
        if self._batch_data:
            self._batch_data = False
            words[row + _LAST_DATA_SENT] = now
            first = words[row + _FIRST_DATA_UNANSWERED]
            if first <= words[row + _LAST_RECEIVED] or first <= words[row + _LAST_HANDSHAKE_RECEIVED]:
                words[row + _FIRST_DATA_UNANSWERED] = now
                if now >= peer.told_after:
                    peer.told_after = now + self._times.first_data_told_again
                    self._tell(m.DataSent(peer.number, now))
        if peer.destination is None:
            self._stats.count(Counter.NO_ENDPOINT, batch.count)
        else:
            sent = self._transmit(peer, peer.destination, batch)
            if sent:
                words[row + _TX_BYTES] += sent
                words[row + _TX_PACKETS] += batch.count
        batch.clear()
        if now >= session.rekey_at:
            self._want(peer, "rekey-after-time", now)
        elif not session.sealer.closed and session.sealer.counter > self._times.rekey_after_messages:
            self._want(peer, "rekey-after-messages", now)

    def _stage(self, peer: SendPeer, packet: bytes) -> None:
        dropped = self._staging.add(peer.number, packet)
        if dropped:
            self._stats.count(Counter.STAGED_OVERFLOW, dropped)

    def _send_staged(self, peer: SendPeer, now: int) -> None:
        """Send what is staged as long as the session lasts; ask for a session if something is left."""
        while peer.number in self._staging:
            session = peer.slots.current
            if session is None or not session.usable(now):
                self._want(peer, "no-session", now)
                break
            packet = self._staging.take(peer.number)
            if packet is not None:
                self._seal(peer, session, PLAIN + packet if packet else packet, now)
        self.flush()

    def _want(self, peer: SendPeer, reason: _Reason, now: int) -> None:
        if now >= peer.wanted_after:
            peer.wanted_after = now + self._times.handshake_wanted_again
            self._tell(m.HandshakeWanted(peer.number, reason))

    def _purge(self, number: int) -> None:
        dropped = self._staging.purge(number)
        if dropped:
            self._stats.count(Counter.STAGED_PURGED, dropped)

    # What the custodian says.

    def install(self, message: m.InstallSend, now: int) -> None:
        """Take a send key. It waits for Activate, unless that has come already."""
        peer = self._peers.get(message.peer)
        if peer is None or now - message.created >= self._times.reject_after_time or len(message.key) != 32:
            wipe(message.key)
            self._stats.count(Counter.KEY_REFUSED)
            return
        if not self._seen.add(message.key, now):
            wipe(message.key)
            self._stats.count(Counter.KEY_REPEATED)
            return
        session = SendSession(message, now, self._times, self._engine)
        peer.slots.install(session)
        self._expiry.add(peer.number, session)
        early = self._activations.pop(session.number, None)
        if early is not None:
            self.activate(early, now)

    # What the handshake process and ingress say.

    def activate(self, message: m.Activate, now: int) -> None:
        """Send on this session from now on: what is staged, or a keepalive if `confirm` asks for it."""
        peer = self._peers.get(message.peer)
        if peer is None:
            return
        if not peer.slots.activate(message.session):
            self._activations[message.session] = message
            if len(self._activations) > REMEMBERED_ACTIVATIONS:
                self._activations.popitem(last=False)
            return
        peer.wanted_after = 0
        if message.confirm:
            self.keepalive(message.peer, now)
        else:
            self._send_staged(peer, now)

    def move_endpoint(self, message: m.EndpointMoved, now: int) -> None:
        """A peer was seen elsewhere, or configured so; the newest news wins."""
        peer = self._peers.get(message.peer)
        at = min(message.at, now)
        if peer is None or at < peer.moved_at:
            return
        moved = destination_of(message.endpoint)
        if moved is not None:
            peer.destination = moved
            peer.moved_at = at

    def keepalive(self, number: int, now: int) -> None:
        """Send an empty packet if nothing is staged, else what is staged."""
        peer = self._peers.get(number)
        if peer is None:
            return
        if peer.destination is None:
            self._stats.count(Counter.NO_ENDPOINT)
            return
        if number not in self._staging:
            self._stage(peer, b"")
        self._send_staged(peer, now)

    def purge_staged(self, number: int) -> None:
        """Drop the peer's staged packets."""
        self._purge(number)

    def forget_sessions(self, message: m.ForgetSessions) -> None:
        """Destroy the sessions of the peer that are not to be kept."""
        peer = self._peers.get(message.peer)
        if peer is not None:
            peer.slots.clear(message.keep)
            self._forget_activations(message.peer, message.keep)

    def forget_source(self, number: int) -> None:
        """Let the kernel choose the source towards this peer, until it is heard again."""
        peer = self._peers.get(number)
        if peer is not None and peer.destination is not None:
            peer.destination = peer.destination.without_source()

    def forget_sources(self) -> None:
        """The sockets have changed: let the kernel choose the source towards every peer."""
        for number in self._peers:
            self.forget_source(number)

    def snapshot(self) -> Iterator[m.SessionSnapshot]:
        """All sessions and endpoints, in parts, for a new handshake process."""
        sessions = [
            m.SessionInfo(one.number, peer.number, one.remote_index, one.initiator, one.created, slot, 0)
            for peer in self._peers.values()
            for one, slot in peer.slots.sessions()
        ]
        endpoints = [
            m.EndpointMoved(peer.number, peer.destination.endpoint, peer.moved_at)
            for peer in self._peers.values()
            if peer.destination is not None
        ]
        return snapshot_parts(sessions, endpoints)

    def ask_again(self, now: int) -> None:
        """Repeat to a new handshake process who waits for a session: the last one may have died with the request.

        Its timers begin with what the table says; from now on it is told at once what arms them.
        """
        for peer in self._peers.values():
            peer.told_after = 0
        for number in list(self._staging.peers):
            peer = self._peers[number]
            peer.wanted_after = 0
            self._send_staged(peer, now)

    # Time.

    def expire(self, now: int) -> int | None:
        """Drop keys that are too old to be used; gives when to call again (CLOCK_BOOTTIME ns), or None."""
        for number, session in self._expiry.due(now):
            session.close()
            peer = self._peers.get(number)
            if peer is not None:
                peer.slots.drop(session)
        return self._expiry.next()

    def _forget_activations(self, number: int, keep: Container[int] = ()) -> None:
        for session in [one.session for one in self._activations.values() if one.peer == number]:
            if session not in keep:
                del self._activations[session]
