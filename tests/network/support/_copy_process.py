"""The two processes behind FileCopy of traffic.py; run as a file, standard library only."""

import hashlib
import json
import os
import random
import socket
import sys
import time
from pathlib import Path

CHUNK = 64 << 10


def send(address: str, port: int, size: int, rate: int) -> None:
    """Send random bytes, at most `rate` a second when it is not 0; say the hash when the other side has them."""
    source = random.Random(os.urandom(16))
    digest = hashlib.sha256()
    started = time.monotonic()
    with socket.create_connection((address, port), timeout=120) as sock:
        done = 0
        while done < size:
            chunk = source.randbytes(min(CHUNK, size - done))
            digest.update(chunk)
            sock.sendall(chunk)
            done += len(chunk)
            if rate:
                time.sleep(max(0.0, started + done / rate - time.monotonic()))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    print(json.dumps({"sha256": digest.hexdigest(), "seconds": time.monotonic() - started}), flush=True)


def receive(address: str, target: Path) -> None:
    """Write what one connection brings to a file; say its hash, read back from the file."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        print(server.getsockname()[1], flush=True)
        sock, _ = server.accept()
    with sock, target.open("wb", buffering=0) as file:
        sock.settimeout(120)
        while chunk := sock.recv(CHUNK):
            file.write(chunk)
        sock.sendall(b"\0")
    data = target.read_bytes()
    print(json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], *map(int, sys.argv[3:6]))
    else:
        receive(sys.argv[2], Path(sys.argv[3]))
