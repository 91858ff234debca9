"""Cores of the processes with any number of peers, each with a session and timers; and how much one of them works.

    egress(n), ingress(n), handshake(n)      the makers; peer number PEER is the one that tests and benchmarks look at
    steps(work)                              lines of Python that `work` takes: the same on every machine

Called by the tests that hold the packet path to costing alike with few peers and many, and by benchmarks.peers.
"""

import gc
import itertools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from tests.unit.handshake.bench import Bench
from tests.unit.tunnel.support import PEER, START, Egress, Ingress, install_receive, install_send, packed
from wghsm.ipc import Role
from wghsm.ipc import messages as m
from wghsm.tunnel.allowed_ips import AllowedIPs

__all__ = ["PEER", "address", "egress", "handshake", "ingress", "steps"]


def address(peer: int) -> str:
    """The inner address of a peer."""
    return f"10.{64 + (peer >> 16)}.{peer >> 8 & 255}.{peer & 255}"


def _route(routes: AllowedIPs, peers: int) -> None:
    for peer in range(peers):
        routes.insert(packed(address(peer)), 32, peer)
        routes.insert(packed(f"fd00::{peer:x}"), 128, peer)


def egress(peers: int) -> Egress:
    """An egress core in which every peer has a place, two prefixes and a session that sends."""
    made = Egress()
    made.sender.change_peers(range(peers), [])
    _route(made.sender.routes, peers)
    for peer in range(peers):
        made.move(START, peer=peer)
        made.sender.install(install_send(peer + 1, peer=peer), START)
        made.sender.activate(m.Activate(peer + 1, peer), START)
    made.take()
    made.take_told()
    return made


def ingress(peers: int) -> Ingress:
    """An ingress core in which every peer has two prefixes and a session that receives: number PEER + 1 is PEER's."""
    made = Ingress()
    made.receiver.change_peers(range(peers), [])
    _route(made.receiver.routes, peers)
    for peer in range(peers):
        made.receiver.install(install_receive(peer + 1, peer=peer), START)
    made.take_told()
    return made


def handshake(peers: int) -> Bench:
    """A handshake core in which every peer has a place and a timer that is armed: a keepalive, in 20 s and later."""
    bench = Bench()
    told = [
        m.HandshakePeer(peer, peer.to_bytes(4, "big") * 8, m.Endpoint("192.0.2.9", 1024 + peer), 20 + peer % 3)
        for peer in range(1, peers)
    ]
    for start in range(0, len(told), 400):
        bench.says(Role.SUPERVISOR, m.HandshakePeers(2 + start, told[start : start + 400], []))
    # The first keepalive is due at once.
    bench.wait(0)
    bench.effects.clear()
    return bench


def steps(work: Callable[[], object]) -> int:
    """How many calls, lines and returns of Python `work` takes."""
    counted = itertools.count()

    def trace(_frame: FrameType, _event: str, _argument: Any) -> Any:
        next(counted)
        return trace

    before, collects = sys.gettrace(), gc.isenabled()
    # Its passes come when they like, and may call Python.
    gc.disable()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return next(counted)
