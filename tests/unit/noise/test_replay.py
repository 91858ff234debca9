"""The replay window against its vectors and against a set that forgets nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.noise.vectors import load
from wghsm.noise import ReplayWindow
from wghsm.noise.constants import COUNTER_WINDOW_SIZE, REJECT_AFTER_MESSAGES

DATA = load("replay.json")


class Model:
    """The window as the protocol describes it, without a ring."""

    def __init__(self) -> None:
        self.greatest = 0
        self.seen: set[int] = set()

    def accept(self, counter: int) -> bool:
        if counter >= REJECT_AFTER_MESSAGES or self.greatest - counter > COUNTER_WINDOW_SIZE or counter in self.seen:
            return False
        self.seen.add(counter)
        self.greatest = max(self.greatest, counter)
        return True


def test_limits_of_the_vectors() -> None:
    assert DATA["window"] == COUNTER_WINDOW_SIZE
    assert int(DATA["reject_after_messages"]) == REJECT_AFTER_MESSAGES


@pytest.mark.parametrize("run", DATA["runs"], ids=lambda run: run["name"])
def test_known_sequences(run: dict[str, Any]) -> None:
    window = ReplayWindow()
    if run["range"]:
        first, last = run["range"]
        step = 1 if last >= first else -1
        assert run["range_accepted"]
        assert all(window.accept(counter) for counter in range(first, last + step, step))
    for counter, accepted in run["steps"]:
        assert window.accept(int(counter)) == accepted, counter


# Steps relative to the greatest counter so far, drawn to where the ring's edges are.
_EDGES = [0, 1, 2, 63, 64, 65, 127, 128, 8063, 8064, 8127, 8128, 8129, 8191, 8192, 8193, 8256, 16384, 2**40]
steps = st.one_of(
    st.sampled_from(_EDGES + [-edge for edge in _EDGES]),
    st.integers(-8300, 8300),
    st.integers(-3, 3),
)


@given(st.one_of(st.just(0), st.integers(0, 2**64 - 1)), st.lists(steps, max_size=120))
def test_equals_the_model(start: int, moves: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    for move in [0, *moves]:
        counter = min(max(0, model.greatest + move), 2**64 - 1) if model.seen else start
        assert window.accept(counter) == model.accept(counter), counter
        assert window.greatest == model.greatest


@given(st.lists(st.integers(0, 20_000), max_size=200))
def test_equals_the_model_on_scattered_counters(counters: list[int]) -> None:
    window, model = ReplayWindow(), Model()
    for counter in counters + counters:
        assert window.accept(counter) == model.accept(counter), counter


@given(st.integers(0, 2**63), st.randoms(use_true_random=False))
def test_a_shuffled_window_passes_once(start: int, random: Any) -> None:
    counters = list(range(start, start + 2 * COUNTER_WINDOW_SIZE, 97))[: COUNTER_WINDOW_SIZE // 97]
    random.shuffle(counters)
    window = ReplayWindow()
    assert all(window.accept(counter) for counter in counters)
    assert not any(window.accept(counter) for counter in counters)


@pytest.mark.parametrize("counter", [REJECT_AFTER_MESSAGES, 2**64 - 1])
def test_a_refused_counter_moves_nothing(counter: int) -> None:
    window = ReplayWindow()
    assert window.accept(5)
    assert not window.accept(counter)
    assert window.greatest == 5
    assert window.accept(0)
    assert not window.accept(5)
