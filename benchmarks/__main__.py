"""`python -m benchmarks`: run the benchmarks and write their results. `script/bench` prepares the machine first."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.flood import measure_flood
from benchmarks.handshakes import measure_handshakes
from benchmarks.peers import PEERS_BEGIN, PEERS_END, Crowd, Figure, figures_of, measure_peers, page, peers_results
from benchmarks.plot import picture
from benchmarks.profiling import profile
from benchmarks.ratios import Ratio
from benchmarks.report import (
    Conditions,
    flood_results,
    put_between,
    ratios_of,
    results,
    table,
    titles,
    token_results,
    write_flood_page,
    write_page,
    write_results,
    write_token_page,
)
from benchmarks.throughput import measure_throughput, wghsm_pair
from benchmarks.token_rate import measure_token
from tests.network.support import Lab, exit_on_signals

CORES = 2
ROOT = Path(__file__).parents[1]
_PAGE = ROOT / "docs/benchmarks.md"
_PICTURE = ROOT / "docs/benchmarks.svg"
_RESULTS = ROOT / "benchmarks/results.json"


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(prog="script/bench", description="wghsm against wireguard-go, as ratios.")
    parser.add_argument(
        "--only",
        choices=(*_MEASUREMENTS, "token", "peers", "flood"),
        help="run this part alone, and keep the rest of the results; the token's has the handshakes beside it",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of a sample")
    parser.add_argument("--peers", type=int, default=500, help="peers of the handshake benchmark")
    parser.add_argument("--quick", action="store_true", help="one round of one second, few peers: does it run?")
    parser.add_argument("--out", type=Path, help="where the JSON goes; then docs/benchmarks.md is left alone")
    parser.add_argument("--profile", action="store_true", help="measure nothing: say where the time goes")
    chosen = parser.parse_args()
    if min(chosen.rounds, chosen.seconds, chosen.peers) < 1:
        parser.error("--rounds, --seconds and --peers take numbers from 1 on")
    cores = _pin(CORES)
    conditions = Conditions(chosen.rounds, chosen.seconds, cores, chosen.peers, quick=False)
    if chosen.quick:
        conditions = Conditions(1, 1, cores, 40, quick=True)
    if chosen.profile:
        with exit_on_signals(), Lab() as lab:
            profile(lab, wghsm_pair(lab, 8, pure=os.environ.get("WGHSM_PURE") == "1"), conditions.seconds, _say)
        return
    found: dict[str, Ratio] = {}
    bare: dict[str, Ratio] = {}
    flooded: dict[str, Ratio] = {}
    figures: dict[str, Figure] = {}
    crowd = Crowd(10, 300, 20) if conditions.quick else Crowd()
    # Short and few: there are two dozen of them.
    samples = min(conditions.rounds, 3), min(conditions.seconds, 2) if not conditions.quick else 0.3
    with exit_on_signals():
        for name, measure in _MEASUREMENTS.items():
            if chosen.only in (None, name) or (chosen.only, name) == ("token", "handshakes"):
                with Lab() as lab:
                    found |= {f"{name}.{key}": ratio for key, ratio in measure(lab, conditions).items()}
        if chosen.only in (None, "token"):
            bare = measure_token(*samples, found["handshakes.rate"].theirs, _say, quick=conditions.quick)
        if chosen.only in (None, "peers"):
            with Lab() as lab:
                figures = measure_peers(lab, conditions.rounds, conditions.seconds * 2, crowd, _say)
        if chosen.only in (None, "flood"):
            with Lab() as lab:
                flooded = measure_flood(lab, conditions.rounds, conditions.seconds, _say, quick=conditions.quick)
    if found:
        print(table(found), flush=True)
    if bare:
        print(table(bare, "custodian", "bare token"), flush=True)
    if flooded:
        print(table(flooded, "with", "without"), flush=True)
    if figures:
        print(figures_of(figures), flush=True)
    if chosen.out is None and conditions.quick:
        _say("a quick run: nothing is written without --out")
        return
    document = results(conditions, found)
    if chosen.out is None and chosen.only is not None:
        document = _beside(chosen.only, json.loads(_RESULTS.read_text()), document)
    if bare:
        document["token"] = token_results(bare, *samples)
    if flooded:
        document["flood"] = flood_results(flooded, conditions.rounds, conditions.seconds)
    if figures:
        document["peers"] = peers_results(figures, crowd, conditions.rounds)
    write_results(chosen.out or _RESULTS, document)
    if chosen.out is None:
        if found:
            everything = ratios_of(document)
            write_page(_PAGE, everything, conditions)
            _PICTURE.write_text(picture(everything, titles(everything), "wghsm divided by wireguard-go"))
        if bare:
            write_token_page(_PAGE, bare, samples[0])
        if flooded:
            write_flood_page(_PAGE, flooded, conditions.rounds)
        if figures:
            put_between(_PAGE, PEERS_BEGIN, PEERS_END, page(figures, crowd, conditions.rounds))


def _beside(part: str, kept: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """The document that is kept, with one part of it measured anew; what has no ratios is the caller's."""
    if part in ("peers", "flood"):
        return kept
    if part == "token":
        part = "handshakes"
    other = {name: ratio for name, ratio in kept["ratios"].items() if not name.startswith(f"{part}.")}
    ratios = {**measured["ratios"], **other} if part == "throughput" else {**other, **measured["ratios"]}
    return {**kept, **measured, "ratios": ratios}


def _throughput(lab: Lab, conditions: Conditions) -> dict[str, Ratio]:
    return measure_throughput(lab, conditions.rounds, conditions.seconds, _say, quick=conditions.quick)


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
