"""What is frozen is not looked at, and goes with its last reference; whatever comes with a peer is in no cycle."""

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from tests.unit.crowd import egress, handshake, ingress
from tests.unit.handshake.bench import SECOND
from wghsm.custodian.rules import KnownPeer, Rules
from wghsm.handshake.peers import Peer
from wghsm.ipc import Role
from wghsm.ipc import messages as m
from wghsm.process import settle, settle_anew
from wghsm.tunnel.receiver import ReceivePeer
from wghsm.tunnel.sender import SendPeer

MANY = 300


class Thing:
    """Something that can be asked whether it is still there."""

    itself: "Thing | None" = None


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """No collection but those that are asked for; nothing is frozen before or after."""
    gc.unfreeze()
    gc.disable()
    yield
    gc.unfreeze()
    gc.enable()


def test_few_additions_are_left_to_the_collector() -> None:
    settle(10)
    assert gc.get_freeze_count() == 0


def test_what_is_frozen_goes_with_its_last_reference() -> None:
    thing = Thing()
    gone = weakref.ref(thing)
    settle(MANY)
    assert gc.get_freeze_count() > 1000
    assert gone() is not None
    del thing
    assert gone() is None


def test_settling_anew_finds_what_was_frozen_in_a_cycle() -> None:
    thing = Thing()
    thing.itself = thing
    gone = weakref.ref(thing)
    settle(MANY)
    del thing
    gc.collect()
    assert gone() is not None
    settle_anew()
    assert gone() is None
    assert gc.get_freeze_count() > 1000


def _egress() -> Callable[[], object]:
    made = egress(MANY)
    return lambda: made.sender.change_peers([], range(MANY))


def _ingress() -> Callable[[], object]:
    made = ingress(MANY)
    return lambda: made.receiver.change_peers([], range(MANY))


def _handshake() -> Callable[[], object]:
    made = handshake(MANY)
    made.accept()
    made.want(1)

    def remove() -> None:
        made.says(Role.SUPERVISOR, m.HandshakePeers(9, [], list(range(MANY))))
        # Until nobody waits any more for what the other processes were asked.
        made.wait(100 * SECOND)

    return remove


def _custodian() -> Callable[[], object]:
    made = Rules(1, {}, None)
    made.update([m.CustodianPeer(slot, slot.to_bytes(4, "big") * 8, m.PskNone()) for slot in range(MANY)], [])
    return lambda: made.update([], range(MANY))


@pytest.mark.parametrize(
    ("make", "kind"),
    [(_egress, SendPeer), (_ingress, ReceivePeer), (_handshake, Peer), (_custodian, KnownPeer)],
    ids=["egress", "ingress", "handshake", "custodian"],
)
def test_a_peer_that_is_removed_goes_without_the_collector(
    make: Callable[[], Callable[[], object]], kind: type[object]
) -> None:
    def left() -> int:
        return sum(type(each) is kind for each in gc.get_objects())

    gc.collect()
    before = left()
    remove = make()
    assert left() == before + MANY
    remove()
    assert left() <= before
