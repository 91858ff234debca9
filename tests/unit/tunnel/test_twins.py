"""The compiled and the pure packet path are twins: for whatever is read, they give the same, byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.unit.tunnel.inner import V4, V6
from tests.unit.tunnel.inner_traffic import again, flows_in_order
from tests.unit.tunnel.twins import OPENINGS, SEALINGS, Opening, Sealing, opened, sealed
from wghsm.tunnel.engine import COMPILED, PURE, Engine


@pytest.fixture(scope="module")
def compiled() -> Engine:
    assert COMPILED is not None, "the package was built without its compiled part: gcc and libssl-dev are needed"
    return COMPILED


@settings(max_examples=300, deadline=None)
@given(sealing=SEALINGS)
def test_both_seal_the_same(compiled: Engine, sealing: Sealing) -> None:
    assert sealed(compiled, sealing) == sealed(PURE, sealing)


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
