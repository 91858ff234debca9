"""The compiled and the pure packet path are twins: for whatever is read, they give the same, byte by byte."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings

from tests.unit.tunnel.inner import V4, V6
from tests.unit.tunnel.inner_traffic import again, flows_in_order
from tests.unit.tunnel.support import ip_packet
from tests.unit.tunnel.twins import INDEX, KEY, OPENINGS, SEALINGS, Opening, Sealing, opened, sealed, sealed_from_tun
from wghsm.tunnel.engine import COMPILED, PURE, Engine
from wghsm.tunnel.virtio import PLAIN


@pytest.fixture(scope="module")
def compiled() -> Engine:
    assert COMPILED is not None, "the package was built without its compiled part: gcc and libssl-dev are needed"
    return COMPILED


@settings(max_examples=300, deadline=None)
@given(sealing=SEALINGS)
def test_both_seal_the_same(compiled: Engine, sealing: Sealing) -> None:
    assert sealed(compiled, sealing) == sealed(PURE, sealing)


@settings(max_examples=300, deadline=None)
@given(sealing=SEALINGS)
def test_both_seal_the_same_of_a_tun(compiled: Engine, sealing: Sealing) -> None:
    assert sealed_from_tun(compiled, sealing) == sealed_from_tun(PURE, sealing)


def test_reads_to_one_place_that_wait_are_sealed_without_the_interpreter(compiled: Engine) -> None:
    one, other = (PLAIN + ip_packet("10.0.0.1", destination) for destination in ("10.0.0.2", "10.0.0.3"))
    tun, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with tun, kernel:
        tun.setblocking(False)
        for read in (one, one, other, one, one, one):
            kernel.send(read)
        out = compiled.outgoing(lambda: None)
        sealer = compiled.sealer(KEY, INDEX, 2**60)
        assert sealer.seal(one, 1420, out) == 0
        assert sealer.seal_waiting(tun.fileno(), one, 1420, 9, out) == (2, other)
        assert sealer.seal_waiting(tun.fileno(), one, 1420, 2, out) == (2, b"")
        assert sealer.seal_waiting(tun.fileno(), one, 1420, 9, out) == (1, b"")
        assert (out.count, sealer.counter) == (6, 6)


@settings(max_examples=300, deadline=None)
@given(opening=OPENINGS)
def test_both_open_the_same(compiled: Engine, opening: Opening) -> None:
    assert opened(compiled, opening, lambda _: True) == opened(PURE, opening, lambda _: True)


@settings(max_examples=100, deadline=None)
@given(opening=OPENINGS)
def test_both_refuse_the_same_sources(compiled: Engine, opening: Opening) -> None:
    def allowed(source: bytes) -> bool:
        return source in (V4[0], V6[0])

    # The compiled one merges before it asks: a refused packet may have ended a run, so writes may be more.
    one, two = (opened(engine, opening, allowed) for engine in (compiled, PURE))
    assert [fields for fields, _ in one] == [fields for fields, _ in two]
    for (_, left), (_, right) in zip(one, two, strict=True):
        assert flows_in_order(again(left)) == flows_in_order(again(right))
