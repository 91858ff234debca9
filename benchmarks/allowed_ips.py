"""`python -m benchmarks.allowed_ips`: what cryptokey routing costs with a hundred thousand prefixes.

    tables of 100,000 prefixes -> lookups, changes -> nanoseconds, printed -> ratios to one access of a dictionary,
                                                                              written into docs/benchmarks.md

It needs no root and no network, and measures the tunnel's own table (`wghsm/tunnel/allowed_ips.py`).
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.report import put_between, versions
from wghsm.tunnel.allowed_ips import AllowedIPs

BEGIN, END = "<!-- allowed-ips: begin -->", "<!-- allowed-ips: end -->"
PREFIXES, PEERS = 100_000, 10_000

_PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"
_Prefix = tuple[bytes, int]


def _prefixes(size: int, lengths: Sequence[int], count: int, chance: random.Random) -> list[_Prefix]:
    """`count` different prefixes of these lengths, each length as often as there is room for it."""
    found: dict[_Prefix, None] = {}
    while len(found) < count:
        length, address = chance.choice(lengths), int.from_bytes(chance.randbytes(size), "big")
        cut = 8 * size - length
        found[(address >> cut << cut).to_bytes(size, "big"), length] = None
    return list(found)


def _time(work: Callable[[], object], operations: int, rounds: int) -> float:
    """Nanoseconds of CPU time of one of the operations that `work` makes, in the best round."""
    spent = []
    for _ in range(rounds):
        began = time.thread_time_ns()
        work()
        spent.append((time.thread_time_ns() - began) / operations)
    return min(spent)


def _each(call: Callable[[bytes], object], addresses: Sequence[bytes]) -> None:
    for address in addresses:
        call(address)


def measure(count: int, rounds: int) -> dict[str, float]:
    """Nanoseconds of each operation, and of one access of a dictionary of as many addresses, made in the same way."""
    chance = random.Random(1)
    kinds = {
        "lookup: hosts in IPv4 (one length)": (4, range(32, 33)),
        "lookup: IPv4, lengths 16 to 32 (17 lengths)": (4, range(16, 33)),
        "lookup: IPv6, /128, /64, /56, /48 (4 lengths)": (16, (48, 56, 64, 128)),
        "lookup: IPv6, lengths 32 to 128 (97 lengths)": (16, range(32, 129)),
    }
    found: dict[str, float] = {}
    for name, (size, lengths) in kinds.items():
        prefixes = _prefixes(size, list(lengths), count, chance)
        table = AllowedIPs()
        for number, (address, length) in enumerate(prefixes):
            table.insert(address, length, number % PEERS)
        inside = [address for address, _ in chance.choices(prefixes, k=20_000)]
        if "dictionary" not in found:
            plain = {address: number for number, (address, _) in enumerate(prefixes)}
            found["dictionary"] = _time(lambda: _each(plain.get, inside), len(inside), rounds)  # noqa: B023
        found[name] = _time(lambda: _each(table.lookup, inside), len(inside), rounds)  # noqa: B023
        nobody = [bytes([0, *address[1:]]) for address in inside]
        for address, length in prefixes:
            if address[0] == 0:
                table.remove(address, length)
        found[name.replace("lookup", "no owner")] = _time(lambda: _each(table.lookup, nobody), len(nobody), rounds)  # noqa: B023

    turn = 0

    def fill() -> None:
        fresh = AllowedIPs()
        for number, (address, length) in enumerate(prefixes):
            fresh.insert(address, length, number % PEERS)

    def move() -> None:
        nonlocal turn
        turn += 1
        for number, (address, length) in enumerate(prefixes):
            table.insert(address, length, (number + turn) % PEERS)

    found["insert a prefix"] = _time(fill, count, min(rounds, 3))
    found["move a prefix to another peer"] = _time(move, count, min(rounds, 3))
    return found


def page(found: dict[str, float], count: int) -> list[str]:
    """The lines of the table."""
    known, unit = versions(), found["dictionary"]
    return [
        f"wghsm {known['wghsm']} on Python {known['python']}; {count:,} prefixes of {PEERS:,} peers.",
        "",
        "| one operation, as a multiple of one access of a dictionary | |",
        "|---|---|",
        *(f"| {name} | {spent / unit:.1f} |" for name, spent in found.items() if name != "dictionary"),
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.allowed_ips", description="Lookups in allowed IPs.")
    parser.add_argument("--quick", action="store_true", help="few prefixes, and nothing is written: does it run?")
    quick = parser.parse_args().quick
    count = 2_000 if quick else PREFIXES
    found = measure(count, 1 if quick else 9)
    for name, spent in found.items():
        print(f"{name:52} {spent:8.0f} ns")
    if not quick:
        put_between(_PAGE, BEGIN, END, page(found, count))


if __name__ == "__main__":
    main()
