"""Two contenders measured in turn, and what is quoted of them: the median of the ratios of each round.

A round measures both, one right after the other, so that whatever else the machine does meets both alike; every
other round begins with the second. Absolute numbers are shown, and never kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Ratio", "Rounds", "interleave", "ratio_of"]


@dataclass(frozen=True)
class Ratio:
    """Ours divided by theirs, for each round; and the two medians they come from, in `unit`."""

    rounds: tuple[float, ...]
    ours: float
    theirs: float
    unit: str

    @property
    def median(self) -> float:
        """The number to quote."""
        return median(self.rounds)


@dataclass(frozen=True)
class Rounds:
    """The samples of both, a name of a value to its number; the same position is the same round."""

    ours: tuple[Mapping[str, float], ...]
    theirs: tuple[Mapping[str, float], ...]


def interleave(
    measure_ours: Callable[[], Mapping[str, float]],
    measure_theirs: Callable[[], Mapping[str, float]],
    rounds: int,
    say: Callable[[str], None],
) -> Rounds:
    """Measure both `rounds` times in turn; `say` gets a line for each round, of the values that both have."""
    ours: list[Mapping[str, float]] = []
    theirs: list[Mapping[str, float]] = []
    for number in range(rounds):
        both = [(measure_ours, ours), (measure_theirs, theirs)]
        for measure, samples in both if number % 2 == 0 else reversed(both):
            samples.append(measure())
        both_have = [name for name in ours[-1] if name in theirs[-1]]
        shown = ", ".join(f"{name} {ours[-1][name]:.4g} / {theirs[-1][name]:.4g}" for name in both_have)
        say(f"round {number + 1} of {rounds}: {shown}")
    return Rounds(tuple(ours), tuple(theirs))


def ratio_of(rounds: Rounds, name: str, unit: str) -> Ratio:
    """The ratios of the value `name`. Raises ValueError when theirs was zero in a round."""
    ours, theirs = _values(rounds.ours, name), _values(rounds.theirs, name)
    if not all(theirs):
        raise ValueError(f"{name} of the other was zero in a round: the rounds are too short")
    return Ratio(tuple(a / b for a, b in zip(ours, theirs, strict=True)), median(ours), median(theirs), unit)


def _values(samples: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [sample[name] for sample in samples]
