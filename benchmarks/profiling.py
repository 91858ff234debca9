"""Where the time of a TCP stream goes: perf over the four tunnel processes of two wghsm gateways.

    egress -> ingress   carry the data        egress <- ingress   carry the acknowledgments

Needs perf (Debian: linux-perf), which nothing else does. Called by __main__ for --profile.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.network.support import iperf3, ping_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.contenders import Wghsm
    from benchmarks.throughput import Pair
    from tests.network.support import Lab

__all__ = ["profile"]


def profile(lab: Lab, pair: Pair, seconds: int, say: Callable[[str], None]) -> None:
    """Tell shares of kernel and libraries, and functions above 2 %, of each process. SystemExit without perf."""
    if shutil.which("perf") is None:
        raise SystemExit("script/bench --profile needs perf; install linux-perf")
    ping_until(pair.near, pair.address(4))
    recorders = {}
    for number, gateway in enumerate(pair.gateways):
        for role, way in (("egress", "data"), ("ingress", "acknowledgments")):
            carries = way if number == 0 else {"data": "acknowledgments", "acknowledgments": "data"}[way]
            file = lab.scratch / f"{role}-{number}.perf"
            command = [
                "perf",
                "record",
                "-q",
                "-o",
                str(file),
                "-p",
                str(_pid(gateway, role)),
                "--",
                "sleep",
                str(seconds),
            ]
            recorders[f"{role}, which carries the {carries}"] = file, subprocess.Popen(command)
    iperf3(pair.far, pair.near, pair.address(4), lab.scratch, seconds + 1)
    for name, (file, recorder) in recorders.items():
        recorder.wait()
        say(name)
        for keys in ("dso", "dso,symbol"):
            for line in _shares(file, keys):
                say(f"  {line}")


def _pid(gateway: Wghsm, role: str) -> int:
    (status,) = json.loads(gateway.status())
    return next(int(each["pid"]) for each in status["processes"] if each["role"] == role)


def _shares(file: Path, keys: str) -> list[str]:
    command = ["perf", "report", "-i", str(file), "--stdio", "--percent-limit", "2", "--sort", keys]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.rstrip(" -").strip() for line in done.stdout.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
