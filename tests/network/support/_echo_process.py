"""Sends random bytes to an echo server, over TCP and in UDP datagrams, and says whether they came back as they were.

_echo_process.py ADDRESS      prints {"tcp": BYTES, "udp": DATAGRAMS} of what came back intact
"""

import json
import os
import socket
import sys
import threading

PORT = 7
BYTES = 300_000
SIZES = (1, 100, 1000, 1372)
TRIES = 20


def over_tcp(address: str) -> int:
    """Send everything and read it back; the length of what is the same from the start."""
    data, back = os.urandom(BYTES), bytearray()
    with socket.create_connection((address, PORT), timeout=60) as stream:

        def send() -> None:
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while len(back) < BYTES and (part := stream.recv(65536)):
            back += part
        sender.join()
    return len(back) if data.startswith(back) else 0


def over_udp(address: str) -> int:
    """Send one datagram of each size, again while none comes; how many came back."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    came = 0
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.connect((address, PORT))
        for size in SIZES:
            data = os.urandom(size)
            for _ in range(TRIES):
                sock.send(data)
                try:
                    if sock.recv(65535) == data:
                        came += 1
                        break
                except TimeoutError:
                    continue
    return came


if __name__ == "__main__":
    print(json.dumps({"tcp": over_tcp(sys.argv[1]), "udp": over_udp(sys.argv[1])}))
