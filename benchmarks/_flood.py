"""Floods a UDP port with what strangers and peers may send, from many addresses: started by flood.py.

    _flood.py PEERS    standard output: the public keys of PEERS peers, a JSON list; then an answer to each line
    standard input:    {"kind", "gateway", "address", "port", "rate", "seconds"}    make the messages: "made"
                       go, stop                                                     send in between: how many were sent

Each message comes from one of SOURCES addresses, 10.66.x.y. Those of strangers are made once and sent again and again;
a peer's are each sent once.
"""

import base64
import ipaddress
import itertools
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator

from wghsm.noise import Initiation, Initiator, Rejected, SoftwareCustody
from wghsm.noise.cookie import CookieMaker
from wghsm.noise.tai64n import next_timestamp

SOURCES = 2000
DIFFERENT = 4000
BURST = 0.002
"""Seconds from one burst to the next: a flood that filled the receiver's buffer at once would be no load."""
LONGEST = 20
"""A burst has at most this part of a second's messages: what the processors have no time for is not made up."""
IP_PKTINFO = 8


def strangers(kind: str, gateway: bytes) -> Iterator[bytes]:
    """Messages of somebody who knows the gateway's public key, and no more."""
    maker = CookieMaker(gateway)
    while True:
        initiation = maker.authenticate(Initiation(7, os.urandom(32), os.urandom(48), os.urandom(28)), 0)
        if kind == "initiations":
            yield initiation
        elif kind == "junk-mac2":
            yield initiation[:-16] + os.urandom(16)
        else:
            # Some of it looks like a message from afar: a type, a length, an index.
            yield os.urandom(148)
            yield b"\1\0\0\0" + os.urandom(144)
            yield b"\4\0\0\0" + os.urandom(144)


def handshakes(peers: list[SoftwareCustody], gateway: bytes) -> Iterator[bytes]:
    """Initiations of peers in turn, with timestamps that rise."""
    maker = CookieMaker(gateway)
    latest: dict[int, bytes] = {}
    for number in itertools.count():
        which = number % len(peers)
        latest[which] = next_timestamp(time.time_ns(), latest.get(which))
        handshake = Initiator(peers[which], gateway)
        fields = handshake.write_initiation(bytearray(os.urandom(32)), latest[which])
        handshake.wipe()
        if isinstance(fields, Rejected):
            raise TypeError(f"the gateway's key is no key: {fields}")
        yield maker.authenticate(Initiation(which + 1, fields.ephemeral, fields.static, fields.timestamp), 0)


def send(messages: list[bytes], target: tuple[str, int], rate: int) -> int:
    """Send until standard input says so; gives how many were sent."""
    base = int(ipaddress.IPv4Address("10.66.0.1"))
    sources = [ipaddress.IPv4Address(base + number).packed for number in range(SOURCES)]
    control = [[(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, one, bytes(4)))] for one in sources]
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        started = time.monotonic()
        while not select.select([sys.stdin], [], [], BURST)[0]:
            due = min(int((time.monotonic() - started) * rate), sent + rate // LONGEST)
            for number in range(sent, due):
                sock.sendmsg([messages[number % len(messages)]], control[number % SOURCES], 0, target)
            sent = max(sent, due)
    return sent


def main() -> None:
    """Answer orders until standard input ends."""
    peers = [SoftwareCustody(os.urandom(32)) for _ in range(int(sys.argv[1]))]
    print(json.dumps([base64.b64encode(peer.public_key).decode() for peer in peers]), flush=True)
    while line := sys.stdin.readline():
        order = json.loads(line)
        gateway = base64.b64decode(order["gateway"])
        if order["kind"] == "handshakes":
            made = itertools.islice(handshakes(peers, gateway), int(order["rate"] * order["seconds"]))
        else:
            made = itertools.islice(strangers(order["kind"], gateway), DIFFERENT)
        messages = list(made)
        print("made", flush=True)
        sys.stdin.readline()
        sent = send(messages, (order["address"], order["port"]), order["rate"])
        sys.stdin.readline()
        print(sent, flush=True)


if __name__ == "__main__":
    main()
