"""Sessions installed over channels that are not ordered against each other: both workers, a custodian, a handshake
process and a peer, in any interleaving and with repeated messages.

    custodian -> ingress, custodian -> egress, handshake -> egress, ingress -> egress: each in order, for itself

Whatever happens, no key and counter are used twice, nothing is delivered twice, and egress sends on no session
before its time; when all channels are empty, both workers hold the same session as CURRENT.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tunnel.support import (
    PEER,
    START,
    Egress,
    Ingress,
    counter_of,
    datagram,
    install_receive,
    install_send,
    ip_packet,
    key,
)
from wghsm.ipc import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

_OUT = ip_packet("10.0.0.1", "10.0.0.2")
_CHANNELS = ("custodian-ingress", "custodian-egress", "handshake-egress", "ingress-egress")


class _World:
    def __init__(self) -> None:
        self.now = START
        self.egress = Egress()
        self.ingress = Ingress()
        self.channels: dict[str, deque[Callable[[], None]]] = {name: deque() for name in _CHANNELS}
        self.initiator: dict[int, bool] = {}
        self.installed: set[int] = set()
        self.may_send: set[int] = set()
        self.heard: set[int] = set()
        self.used: set[tuple[int, int]] = set()
        self.peer_counter: dict[int, int] = {}
        self.peer_sent: list[bytes] = []
        self.delivered: list[bytes] = []

    def new_session(self, initiator: bool) -> None:
        # Handshakes of a peer are 20 ms apart: a channel may be behind by two of them, and an activation by none, which
        # is what egress has room for. If it once had not, it would ask for a new session.
        if any(len(self.channels[name]) > (1 if name.startswith("custodian") else 0) for name in _CHANNELS):
            return
        number = len(self.initiator) + 1
        self.initiator[number] = initiator
        self._install(number)

    def repeat(self, pick: int) -> None:
        if self.initiator:
            self._install(1 + pick % len(self.initiator))

    def _install(self, number: int) -> None:
        role = self.initiator[number]
        to_send = install_send(number, initiator=role)
        to_receive = install_receive(number, initiator=role)
        self.channels["custodian-egress"].append(lambda: self.egress.sender.install(to_send, self.now))
        self.channels["custodian-ingress"].append(lambda: self.ingress.receiver.install(to_receive, self.now))

    def deliver(self, pick: int) -> None:
        waiting = [channel for channel in self.channels.values() if channel]
        if waiting:
            waiting[pick % len(waiting)].popleft()()

    def packet_out(self) -> None:
        self.egress.sender.read(_OUT, self.now)

    def packet_in(self, pick: int) -> None:
        """The peer sends on a session that it may use: it initiated it, or has heard us on it."""
        known = sorted(number for number in self.installed if not self.initiator[number] or number in self.heard)
        if known:
            number = known[pick % len(known)]
            counter = self.peer_counter[number] = self.peer_counter.get(number, -1) + 1
            body = len(self.peer_sent).to_bytes(4, "big")
            packet = ip_packet("10.0.0.2", "10.0.0.1", body)
            self.peer_sent.append(datagram(key(number), 1000 + number, counter, packet))
            self._receive(self.peer_sent[-1])

    def replay_in(self, pick: int) -> None:
        if self.peer_sent:
            self._receive(self.peer_sent[pick % len(self.peer_sent)])

    def _receive(self, data: bytes) -> None:
        self.delivered += self.ingress.open(data, self.now)

    def settle(self) -> None:
        """Carry what the workers said to where it goes, and check what egress sent."""
        for message in self.ingress.take_told():
            if isinstance(message, m.Installed) and message.accepted:
                self.installed.add(message.session)
                if self.initiator[message.session]:
                    self._activate("handshake-egress", m.Activate(message.session, PEER, confirm=True))
        while self.ingress.told_egress:
            message = self.ingress.told_egress.pop(0)
            if isinstance(message, m.Activate):
                assert not self.initiator[message.session]
                self._activate("ingress-egress", message)
        for sealed in self.egress.take():
            used = counter_of(sealed)
            assert used not in self.used, "a counter was used twice"
            assert used[0] - 1000 in self.may_send, "sent before the session was activated"
            self.used.add(used)
            self.heard.add(used[0] - 1000)
        assert len(self.delivered) == len(set(self.delivered)), "a packet was delivered twice"

    def _activate(self, channel: str, message: m.Activate) -> None:
        self.may_send.add(message.session)
        self.channels[channel].append(lambda: self.egress.sender.activate(message, self.now))

    def current(self) -> tuple[int | None, int | None]:
        found: list[int | None] = []
        for snapshot in (self.ingress.receiver.snapshot(), self.egress.sender.snapshot()):
            numbers = [one.session for part in snapshot for one in part.sessions if one.slot == "current"]
            found.append(numbers[0] if numbers else None)
        return found[0], found[1]


_ACTIONS = st.one_of(
    st.tuples(st.just("new"), st.integers(0, 1)),
    st.tuples(st.just("repeat"), st.integers(0, 20)),
    st.tuples(st.just("deliver"), st.integers(0, 3)),
    st.tuples(st.just("deliver"), st.integers(0, 3)),
    st.tuples(st.just("out"), st.just(0)),
    st.tuples(st.just("in"), st.integers(0, 20)),
    st.tuples(st.just("replay"), st.integers(0, 20)),
)


@settings(max_examples=300)
@given(st.lists(_ACTIONS, max_size=60))
def test_any_interleaving(actions: list[tuple[str, int]]) -> None:
    world = _World()
    for name, pick in actions:
        world.now += 1000
        match name:
            case "new":
                world.new_session(bool(pick))
            case "repeat":
                world.repeat(pick)
            case "deliver":
                world.deliver(pick)
            case "out":
                world.packet_out()
            case "in":
                world.packet_in(pick)
            case _:
                world.replay_in(pick)
        world.settle()
    while any(world.channels.values()):
        world.deliver(0)
        world.settle()
    receiving, sending = world.current()
    assert sending == receiving
