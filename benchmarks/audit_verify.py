"""How long `wghsm audit verify` takes for many records, by one process and by as many as there are cores.

    records in files, a checkpoint after each thousand -> verify, in turn -> seconds of the quickest run

    python3 -m benchmarks.audit_verify --records 1000000

The key that signs is one in software: verifying does not ask a token either.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from tests.unit.audit.support import NOW, SECOND, Signer
from wghsm.audit import AuditLog, Event, read_anchor, verify

_EVERY = 1000
_RUNS = 3


def main() -> None:
    """Write the log, measure, print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--records", type=int, default=1_000_000)
    records = arguments.parse_args().records
    signer = Signer()
    with tempfile.TemporaryDirectory(prefix="wghsm-") as name:
        folder = Path(name)
        _write(folder, signer, records)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{records} records, {size / 1e6:.0f} MB")
        times: dict[int, list[float]] = {}
        for _ in range(_RUNS):
            for processes in sorted({1, len(os.sched_getaffinity(0))}):
                began = time.perf_counter()
                if verify(folder, [signer.public], processes=processes).verdict != "proved":
                    raise SystemExit("the log is not proved")
                times.setdefault(processes, []).append(time.perf_counter() - began)
        for processes, taken in times.items():
            print(f"{processes} processes: {min(taken):.2f} s, {records / min(taken) / 1e6:.2f} million a second")
        began = time.perf_counter()
        read_anchor(line for file in sorted(folder.glob("*.jsonl")) for line in file.open("rb"))
        print(f"an anchor of all of them: {time.perf_counter() - began:.2f} s more")


def _write(folder: Path, signer: Signer, records: int) -> None:
    now = NOW
    use = Event(
        kind="key.use",
        operation="accept",
        peer="cGVlciAgcGVlciAgcGVlciAgcGVlciAgcGVlciAgcGU=",
        key="a2V5ICBrZXkgIGtleSAga2V5ICBrZXkgIGtleSAga2U=",
        token="gateway 0123456789abcdef",  # noqa: S106  (a name)
        latency_us=830,
        detail={"session": 4711, "psk": "derived:0"},
    )
    with AuditLog(folder, "wg0", "gateway", now) as log:
        for _ in range(max(1, records // _EVERY)):
            now += SECOND
            log.append([use] * (_EVERY - 1), now)
            signer.seal(log, now)


if __name__ == "__main__":
    main()
