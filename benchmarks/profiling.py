"""Where the time of the packet path goes: perf over the four tunnel processes of two wghsm gateways, load by load.

    sender's egress -> receiver's ingress   carry the data
    sender's ingress <- receiver's egress   carry the acknowledgments, or the answers

Needs perf (Debian: linux-perf), which nothing else does. Called by __main__ for --profile.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

from benchmarks.throughput import SMALL_PACKETS
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
    address = pair.address(4)
    ping_until(pair.near, address)
    loads: dict[str, Callable[[], object]] = {
        "TCP": lambda: iperf3(pair.far, pair.near, address, lab.scratch, seconds + 1),
        "64-byte packets": lambda: iperf3(pair.far, pair.near, address, lab.scratch, seconds + 1, SMALL_PACKETS),
        "ping -f": lambda: pair.near.run("ping", "-n", "-q", "-f", "-w", str(seconds + 1), address, limit=seconds + 60),
    }
    for load, run in loads.items():
        recorders = {
            f"{load}, {end}'s {role}": _record(lab.scratch / f"{end}-{role}.perf", _pid(gateway, role), seconds)
            for end, gateway in zip(("sender", "receiver"), pair.gateways, strict=True)
            for role in ("egress", "ingress")
        }
        run()
        for name, (file, recorder) in recorders.items():
            recorder.wait()
            say(name)
            for keys in ("dso", "dso,symbol"):
                for line in _shares(file, keys):
                    say(f"  {line}")


def _record(file: Path, pid: int, seconds: int) -> tuple[Path, subprocess.Popen[bytes]]:
    command = ["perf", "record", "-q", "-o", str(file), "-p", str(pid), "--", "sleep", str(seconds)]
    return file, subprocess.Popen(command)


def _pid(gateway: Wghsm, role: str) -> int:
    (status,) = json.loads(gateway.status())
    return next(int(each["pid"]) for each in status["processes"] if each["role"] == role)


def _shares(file: Path, keys: str) -> list[str]:
    command = ["perf", "report", "-i", str(file), "--stdio", "--percent-limit", "2", "--sort", keys]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.rstrip(" -").strip() for line in done.stdout.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
