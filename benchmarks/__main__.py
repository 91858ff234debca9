"""`python -m benchmarks`: run the benchmarks and write their results. `script/bench` prepares the machine first."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.handshakes import measure_handshakes
from benchmarks.ratios import Ratio
from benchmarks.report import Conditions, results, table, write_page, write_results
from benchmarks.throughput import measure_throughput
from tests.network.support import Lab, exit_on_signals

CORES = 2
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(prog="script/bench", description="wghsm against wireguard-go, as ratios.")
    parser.add_argument("--only", choices=_MEASUREMENTS, help="run this part alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of a sample")
    parser.add_argument("--peers", type=int, default=500, help="peers of the handshake benchmark")
    parser.add_argument("--quick", action="store_true", help="one round of one second, few peers: does it run?")
    parser.add_argument("--out", type=Path, help="where the JSON goes; then docs/benchmarks.md is left alone")
    chosen = parser.parse_args()
    if min(chosen.rounds, chosen.seconds, chosen.peers) < 1:
        parser.error("--rounds, --seconds and --peers take numbers from 1 on")
    cores = _pin(CORES)
    conditions = Conditions(chosen.rounds, chosen.seconds, cores, chosen.peers, quick=False)
    if chosen.quick:
        conditions = Conditions(1, 1, cores, 40, quick=True)
    found: dict[str, Ratio] = {}
    with exit_on_signals():
        for name, measure in _MEASUREMENTS.items():
            if chosen.only in (None, name):
                with Lab() as lab:
                    found |= {f"{name}.{key}": ratio for key, ratio in measure(lab, conditions).items()}
    print(table(found), flush=True)
    whole = chosen.only is None and not chosen.quick
    if chosen.out is None and not whole:
        _say("a part or a quick run: nothing is written without --out")
        return
    write_results(chosen.out or ROOT / "benchmarks/results.json", results(conditions, found))
    if chosen.out is None:
        write_page(ROOT / "docs/benchmarks.md", found, conditions)


def _throughput(lab: Lab, conditions: Conditions) -> dict[str, Ratio]:
    found = measure_throughput(lab, conditions.rounds, conditions.seconds, _say)
    return {f"{direction}.{name}": ratio for direction, ratios in found.items() for name, ratio in ratios.items()}


def _handshakes(lab: Lab, conditions: Conditions) -> dict[str, Ratio]:
    return measure_handshakes(lab, conditions.rounds, conditions.seconds, conditions.peers, _say)


_MEASUREMENTS: dict[str, Callable[[Lab, Conditions], dict[str, Ratio]]] = {
    "throughput": _throughput,
    "handshakes": _handshakes,
}


def _pin(count: int) -> int:
    """Keep this process and all that it starts on the first `count` cores; gives how many there are."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return len(cores)


def _say(line: str) -> None:
    print(f"    {line}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
