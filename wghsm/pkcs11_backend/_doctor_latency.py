"""How fast a token derives, at 1, 2, 4 ... sessions at once: a short measure, bounded in time.

Used by `doctor`. Each thread has a session of its own, as the custodian's workers have.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend.errors import TokenError
from wghsm.wipe import wipe

__all__ = ["Latency", "levels", "measure"]

_SECONDS = 0.3
_LEAST = 3
_MOST = 500


@dataclass(frozen=True)
class Latency:
    """Derives with `sessions` at once: milliseconds of the median and the slowest hundredth, and derives a second."""

    sessions: int
    p50_ms: float
    p99_ms: float
    per_second: float


def levels(sessions: int) -> list[int]:
    """1, 2, 4 ... up to `sessions`, and that number itself."""
    found = [1]
    while found[-1] * 2 <= sessions:
        found.append(found[-1] * 2)
    return found if found[-1] == sessions else [*found, sessions]


def measure(calls: Sequence[Calls], derive: Callable[[Calls], bytearray]) -> Latency:
    """Derive on all of `calls` at once for a third of a second, at least three times on each.

    Raises the first TokenError of a thread.
    """
    taken: list[float] = []
    faults: list[TokenError] = []
    together = threading.Barrier(len(calls) + 1)
    lock = threading.Lock()

    def work(one: Calls) -> None:
        mine: list[float] = []
        together.wait()
        end = time.perf_counter() + _SECONDS
        try:
            while not faults and (len(mine) < _LEAST or (len(mine) < _MOST and time.perf_counter() < end)):
                began = time.perf_counter()
                wipe(derive(one))
                mine.append(time.perf_counter() - began)
        except TokenError as fault:
            faults.append(fault)
        with lock:
            taken.extend(mine)

    threads = [threading.Thread(target=work, args=(one,)) for one in calls]
    for thread in threads:
        thread.start()
    together.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - began
    if faults:
        raise faults[0]
    taken.sort()
    return Latency(
        sessions=len(calls),
        p50_ms=round(1000 * taken[len(taken) // 2], 3),
        p99_ms=round(1000 * taken[min(len(taken) - 1, (99 * len(taken)) // 100)], 3),
        per_second=round(len(taken) / elapsed, 1),
    )
