"""Floods a gateway with initiations of random content and a good mac1, from many addresses, until it is ended.

_flood_process.py GATEWAY_KEY_HEX HOST PORT [--junk-mac2] ADDRESS...    prints a line with the number sent every 1,000

With --junk-mac2 they claim to have a cookie.
"""

import contextlib
import hashlib
import itertools
import os
import socket
import sys
import time

BODY = 116

BURST, PAUSE = 100, 0.004


def main() -> None:
    """Send."""
    key, host, port, *addresses = sys.argv[1:]
    junk = addresses[0] == "--junk-mac2"
    mac1_key = hashlib.blake2s(b"mac1----" + bytes.fromhex(key)).digest()
    sockets = []
    for address in addresses[junk:]:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, 0))
        sockets.append(sock)
    for number, sock in enumerate(itertools.cycle(sockets), 1):
        body = b"\1\0\0\0" + os.urandom(BODY - 4)
        mac1 = hashlib.blake2s(body, digest_size=16, key=mac1_key).digest()
        with contextlib.suppress(OSError):
            sock.sendto(body + mac1 + (os.urandom(16) if junk else bytes(16)), (host, int(port)))
        if number % BURST == 0:
            time.sleep(PAUSE)
        if number % 1000 == 0:
            print(number, flush=True)


if __name__ == "__main__":
    main()
