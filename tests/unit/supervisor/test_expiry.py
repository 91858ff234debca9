"""Peers whose time has come, at a supervisor with a clock of the test's own."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.unit.supervisor.support import KEYS, gateway, peer
from tests.unit.supervisor.test_requests import World
from wghsm import config
from wghsm.ipc import Role
from wghsm.ipc import messages as m
from wghsm.supervisor._expiry import Expiry
from wghsm.supervisor.merge import Merged, as_gateway, merged
from wghsm.supervisor.model import initial

START = 1_800_000_000.0


def until(number: int, unix: float, *prefixes: str) -> config.Peer:
    return peer(number, *prefixes).model_copy(update={"expires": datetime.fromtimestamp(unix, UTC)})


class Watched:
    """A world whose peers 0 and 1 expire after 10 and 3600 seconds; `now` is its wall clock."""

    def __init__(self) -> None:
        self.now = START
        file = gateway(until(0, START + 10, "10.0.0.0/24"), until(1, START + 3600), peer(2, "10.2.0.0/24"))
        self.world = World(file)
        self.applying = self.world.applying
        self.expiry = Expiry(self.world.state, self.world.loop, self.applying, lambda: self.now)

    def look(self) -> set[bytes]:
        """The peers that are left."""
        self.expiry.look()
        self.world.obey()
        return set(self.world.state.model.peers)


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.world.close()


def test_nothing_happens_before_the_moment(watched: Watched) -> None:
    watched.now = START + 9.9
    assert watched.look() == set(KEYS[:3])
    assert not watched.world.children.sent


def test_at_its_moment_a_peer_leaves_every_process(watched: Watched) -> None:
    watched.now = START + 10
    assert watched.look() == {KEYS[1], KEYS[2]}
    told = {
        role
        for role, message in watched.world.children.sent
        if isinstance(message, m.HandshakePeers | m.CustodianPeers | m.TunnelPeers) and message.remove == [0]
    }
    assert told == {Role.HANDSHAKE, Role.CUSTODIAN, Role.INGRESS, Role.EGRESS}
    ((added, removed),) = watched.world.links.routes
    assert (added, [str(prefix) for prefix in removed]) == ((), ["10.0.0.0/24"])


def test_a_clock_that_was_set_forward_takes_all_whose_time_has_come(watched: Watched) -> None:
    watched.now = START + 1e6
    assert watched.look() == {KEYS[2]}


def test_the_timer_itself_takes_a_peer_out(watched: Watched) -> None:
    watched.now = START + 9.99
    watched.expiry.look()
    watched.now = START + 10
    while KEYS[0] in watched.world.state.model.peers:
        watched.world.loop.run_once(1)
        watched.world.obey()


def test_a_gateway_starts_without_those_that_have_expired_or_are_disabled() -> None:
    disabled = peer(3).model_copy(update={"disabled": True})
    file = gateway(until(0, START), until(1, START + 1), disabled, peer(4))
    assert list(initial(file, now=START).peers) == [KEYS[1], KEYS[4]]


def test_a_peer_that_has_expired_is_no_drift() -> None:
    disabled = peer(3).model_copy(update={"disabled": True})
    file = gateway(until(0, START), disabled, peer(4).model_copy(update={"note": "new", "tags": ("a",)}))
    running = initial(file, now=START)
    shown = as_gateway(file, running, running, None, str, START)
    assert config.plan(file, shown, now=START).changes == ()


def test_a_disabled_peer_that_was_added_at_run_time_is_drift() -> None:
    file = gateway(peer(3).model_copy(update={"disabled": True}))
    running = initial(gateway(peer(3)))
    shown = as_gateway(file, initial(file), running, None, str, START)
    assert ("disabled", False) in [(change.field, change.after) for change in config.plan(file, shown).changes]


@pytest.mark.parametrize("keep_runtime", [True, False])
def test_a_reload_takes_out_who_is_disabled_now(keep_runtime: bool) -> None:
    before = initial(gateway(peer(0), peer(1)))
    after = initial(gateway(peer(0).model_copy(update={"disabled": True}), peer(1)))
    found = merged(before, before, after, keep_runtime=keep_runtime)
    assert isinstance(found, Merged)
    assert list(found.model.peers) == [KEYS[1]]
