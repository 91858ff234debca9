"""After a handshake is wiped, the memory of its process holds none of its secrets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def writable_memory(pid: int) -> list[bytes]:
    """Every readable and writable mapping of a process."""
    regions = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions, *_ = line.split()
            if not permissions.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            memory.seek(start)
            regions.append(memory.read(end - start))
    return regions


@pytest.mark.parametrize("twin", ["_native", "_steps"])
def test_no_secret_outlives_a_wiped_handshake(twin: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.noise.memory_child", twin],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        inverted = {name: bytes.fromhex(value) for name, value in json.loads(child.stdout.readline()).items()}
        # Freeing a block overwrites its first bytes, so the whole secret would miss what was freed unwiped.
        secrets = {name: bytes(255 - octet for octet in value[16:]) for name, value in inverted.items()}
        regions = writable_memory(child.pid)
        found = {name for name, secret in secrets.items() if any(secret in region for region in regions)}
    finally:
        child.communicate()
    assert child.returncode == 0
    assert len(secrets) == 14
    # The control is a secret that the child does keep: it proves that the search finds what is there.
    assert found == {"control"}
