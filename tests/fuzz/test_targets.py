"""The fuzzer's targets take their seeds, and see a difference."""

from __future__ import annotations

import pytest

from tests.fuzz import targets
from tests.unit.tunnel.twins import Opening, opened
from wghsm.tunnel.engine import COMPILED, PURE

CASES = [(name, seed) for name, seeds in targets.SEEDS.items() for seed in seeds]


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_each_seed_and_each_part_of_it_passes(name: str, seed: bytes) -> None:
    for end in range(0, len(seed) + 1, 7):
        targets.TARGETS[name](seed[:end])


def test_the_seeds_reach_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[list[int], list[bytes]]] = []

    def note(engine: object, opening: Opening, _allowed: object) -> list[tuple[list[int], list[bytes]]]:
        assert engine in (COMPILED, PURE)
        found.extend(opened(PURE, opening, lambda _: True))
        return []

    monkeypatch.setattr(targets, "opened", note)
    for seed in targets.SEEDS["open"]:
        targets.open_both(seed)
    # end, authenticated, data, packets, size, expired, forged, replayed, malformed, refused
    totals = [sum(column) for column in zip(*(fields for fields, _ in found), strict=True)]
    assert totals[1] > 0
    assert totals[6] > 0
    assert totals[7] > 0
    assert any(len(writes) == 2 for _, writes in found)


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_a_difference_is_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def broken(*_: object) -> object:
        return object()

    monkeypatch.setattr(targets, "sealed" if name == "seal" else "opened", broken)
    with pytest.raises(AssertionError):
        targets.TARGETS[name](targets.SEEDS[name][0])
