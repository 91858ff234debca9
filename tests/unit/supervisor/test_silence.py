"""Names of silent peers are asked for again: when, how often, and what becomes of the answer."""

from collections.abc import Iterator

import pytest

from tests.unit.supervisor.support import KEYS, gateway, peer
from tests.unit.supervisor.test_requests import World
from wghsm import config
from wghsm.ipc import PeerField, Role
from wghsm.ipc import messages as m
from wghsm.supervisor._silence import Silence
from wghsm.supervisor.model import initial

SECOND = 1_000_000_000
NAME = config.Endpoint("gw.example", 7)
OLD, NEW = m.Endpoint("192.0.2.1", 7), m.Endpoint("192.0.2.2", 7)


class Watched:
    """Peer 0 has a name, peer 1 an address; `now` is the clock, `asked` the names asked for with the second."""

    def __init__(self) -> None:
        self.now = 1000
        self.asked: list[tuple[int, bytes]] = []
        file = gateway(peer(0, endpoint=NAME), peer(1, endpoint=config.Endpoint("192.0.2.9", 9)))
        self.world = World(file)
        self.world.state.endpoints.update({0: OLD, 1: m.Endpoint("192.0.2.9", 9)})
        self.silence = Silence(self.world.state, self.world.loop, self._ask, lambda: self.now * SECOND)

    def _ask(self, key: bytes, host: config.Endpoint) -> None:
        assert host == NAME
        self.asked.append((self.now, key))

    def note(self, field: PeerField, slot: int = 0) -> None:
        self.world.state.stats.set(slot, field, self.now * SECOND)

    def call(self, seconds: int) -> None:
        """Call both peers every 5 seconds, in vain."""
        for _ in range(seconds // 5):
            for slot in (0, 1):
                self.note(PeerField.LAST_HANDSHAKE_SENT, slot)
            self.silence.look()
            self.now += 5

    def answer(self, endpoint: m.Endpoint) -> list[m.Endpoint | None]:
        """The name has been resolved; what the handshake process is told."""
        self.world.requests.set_endpoints({KEYS[0]: endpoint})
        self.world.obey()
        told = [message for role, message in self.world.children.sent if role is Role.HANDSHAKE]
        return [each.endpoint for part in told if isinstance(part, m.HandshakePeers) for each in part.upsert]


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.world.close()


def test_asked_after_a_while_and_then_less_and_less(watched: Watched) -> None:
    watched.call(600)
    assert watched.asked == [(second, KEYS[0]) for second in (1015, 1045, 1105, 1225, 1465)]


def test_another_address_is_told_and_the_same_one_is_not(watched: Watched) -> None:
    watched.call(20)
    assert watched.answer(OLD) == []
    assert watched.world.state.outdated == set()
    watched.call(40)
    assert watched.answer(NEW) == [NEW]
    assert watched.world.state.endpoints[0] == NEW
    # The name stays the one of the file.
    assert watched.world.state.model.peers[KEYS[0]].host == NAME


@pytest.mark.parametrize("field", [PeerField.LAST_RECEIVED, PeerField.LAST_HANDSHAKE_RECEIVED])
def test_who_is_heard_meanwhile_keeps_its_endpoint(watched: Watched, field: PeerField) -> None:
    watched.call(20)
    assert watched.asked
    watched.note(field)
    watched.silence.look()
    assert watched.answer(NEW) == []
    # The next silence begins anew.
    watched.now += 60
    watched.call(15)
    assert len(watched.asked) == 1


def test_who_is_not_called_is_left_alone(watched: Watched) -> None:
    for _ in range(20):
        watched.silence.look()
        watched.now += 5
    # Nor who called itself, and was answered a moment later.
    watched.note(PeerField.LAST_HANDSHAKE_RECEIVED)
    watched.world.state.stats.set(0, PeerField.LAST_HANDSHAKE_SENT, watched.now * SECOND + 10**6)
    for _ in range(5):
        watched.silence.look()
        watched.now += 5
    assert watched.asked == []


def test_a_name_that_the_file_has_changed_meanwhile_still_counts(watched: Watched) -> None:
    watched.call(20)
    state = watched.world.state
    other = gateway(peer(0, endpoint=config.Endpoint("other.example", 7)))
    state.model = initial(other)
    watched.note(PeerField.LAST_RECEIVED)
    watched.silence.look()
    assert state.outdated == {0}
