"""The two processes behind stream.py; run as a file, standard library only. JSON lines on stdin and stdout.

A packet is its number as u64 big-endian, then zeros up to the size asked for.
"""

import json
import os
import select
import socket
import sys
import time
from typing import Any


class Account:
    """The receiver's notes; pure: the time of arrival is an argument."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.duplicates = 0
        self.reordered = 0
        self.longest_gap = 0.0
        self.last_arrival: float | None = None
        self._greatest = -1

    def note(self, number: int, now: float) -> None:
        """Note the arrival of a number at `now`, in seconds."""
        if self.last_arrival is not None:
            self.longest_gap = max(self.longest_gap, now - self.last_arrival)
        self.last_arrival = now
        if number in self.seen:
            self.duplicates += 1
            return
        self.seen.add(number)
        if number < self._greatest:
            self.reordered += 1
        self._greatest = max(self._greatest, number)

    def report(self, sent: int) -> dict[str, Any]:
        """Give the account for a stream of the numbers below `sent`."""
        return {
            "received": len(self.seen),
            "lost": [number for number in range(sent) if number not in self.seen],
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "longest_gap": self.longest_gap,
        }


def send(address: str, port: int, rate: int, size: int) -> None:
    """Send numbered packets at an even rate until told to stop, then say how many."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    started = time.monotonic()
    number = 0
    while True:
        wait = max(0.0, started + number / rate - time.monotonic())
        if select.select([0], [], [], wait)[0]:
            os.read(0, 4096)
            print(json.dumps(number), flush=True)
            return
        try:
            sock.sendto(number.to_bytes(8, "big").ljust(size, b"\0"), (address, port))
        except OSError as error:
            # A lost route is a lost packet: the number is spent, and the gap shows in the report.
            print(f"{number}: {error}", file=sys.stderr)
        number += 1


def receive(address: str) -> None:
    """Note what arrives; answer `count` and `finish`."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((address, 0))
    print(sock.getsockname()[1], flush=True)
    account = Account()
    finish: dict[str, Any] | None = None
    finish_asked = 0.0
    while True:
        watched = [0, sock.fileno()] if finish is None else [sock.fileno()]
        ready = select.select(watched, [], [], None if finish is None else 0.1)[0]
        if sock.fileno() in ready:
            account.note(int.from_bytes(sock.recv(65535)[:8], "big"), time.monotonic())
        if 0 in ready:
            line = os.read(0, 4096)
            if not line:
                return
            request = json.loads(line)
            if request["verb"] == "count":
                print(json.dumps(len(account.seen)), flush=True)
            else:
                finish, finish_asked = request, time.monotonic()
        if finish is not None:
            silent = time.monotonic() - max(finish_asked, account.last_arrival or 0.0)
            if len(account.seen) >= finish["sent"] or silent > finish["quiet"]:
                print(json.dumps(account.report(finish["sent"])), flush=True)
                return


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], *map(int, sys.argv[3:6]))
    else:
        receive(sys.argv[2])
