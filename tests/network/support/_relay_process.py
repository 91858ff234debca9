"""The process behind relay.py; run as a file inside a namespace, so it imports nothing but the standard library.

socket -> Channel.offer(packet, now) -> heap of (due time, packet) -> socket
stdin: one JSON object a line; stdout: the two ports, then one JSON answer a line
"""

import collections
import heapq
import json
import os
import random
import selectors
import socket
import sys
import time
from typing import Any


class Channel:
    """One direction's rules and counters; pure: time is an argument, chance comes from the seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._heap: list[tuple[float, int, bytes]] = []
        self._held: list[tuple[float, bytes]] = []
        self._order = 0
        self.rules: dict[str, Any] = {}
        self.counts = {"received": 0, "forwarded": 0, "dropped": 0, "duplicated": 0, "reordered": 0}
        self.captured: collections.deque[bytes] = collections.deque(maxlen=4096)

    def offer(self, packet: bytes, now: float) -> None:
        """Take in a packet at `now`, in seconds."""
        rules = self.rules
        self.captured.append(packet)
        self.counts["received"] += 1
        # Every packet draws the same numbers, so that a changed rule does not shift the chances of the others.
        lost, doubled, late, wobble = (self._random.random() for _ in range(4))
        if rules.get("drop_next", 0) > 0:
            rules["drop_next"] -= 1
            self.counts["dropped"] += 1
            return
        if (packet[:1] and packet[0] in rules.get("drop_types", ())) or lost < rules.get("loss", 0):
            self.counts["dropped"] += 1
            return
        due = now + rules.get("delay", 0) + wobble * rules.get("jitter", 0)
        if late < rules.get("reorder", 0) and not self._held:
            self.counts["reordered"] += 1
            self._held.append((due + rules.get("hold", 0.2), packet))
            return
        self._push(due, packet)
        if doubled < rules.get("duplicate", 0):
            self.counts["duplicated"] += 1
            self._push(due, packet)
        for _, held in self._held:
            self._push(due, held)
        self._held.clear()

    def due(self, now: float) -> list[bytes]:
        """Give the packets to send at `now`, in order."""
        for release, packet in self._held:
            if release <= now:
                self._push(release, packet)
        self._held = [(release, packet) for release, packet in self._held if release > now]
        ready = []
        while self._heap and self._heap[0][0] <= now:
            ready.append(heapq.heappop(self._heap)[2])
        self.counts["forwarded"] += len(ready)
        return ready

    def next_due(self) -> float | None:
        """Give the time of the next packet, None when nothing waits."""
        times = [release for release, _ in self._held] + [entry[0] for entry in self._heap[:1]]
        return min(times, default=None)

    def _push(self, due: float, packet: bytes) -> None:
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, packet))


class Relay:
    """The two sockets, the two channels and the loop."""

    def __init__(self, left: str, right: str, target: tuple[str, int], seed: str) -> None:
        family = socket.AF_INET6 if ":" in left else socket.AF_INET
        self._left = socket.socket(family, socket.SOCK_DGRAM)
        self._right = socket.socket(family, socket.SOCK_DGRAM)
        for sock, address in ((self._left, left), (self._right, right)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sock.bind((address, 0))
            sock.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._target = target
        self._source: tuple[Any, ...] | None = None
        self._channels = {name: Channel(f"{seed}-{name}") for name in ("to_right", "to_left")}
        self._input = b""

    def run(self) -> None:
        """Relay until the standard input ends."""
        print(self._left.getsockname()[1], self._right.getsockname()[1], flush=True)
        self._selector.register(self._left, selectors.EVENT_READ, "to_right")
        self._selector.register(self._right, selectors.EVENT_READ, "to_left")
        self._selector.register(0, selectors.EVENT_READ, "")
        while True:
            waits = [due for due in (channel.next_due() for channel in self._channels.values()) if due is not None]
            timeout = max(0.0, min(waits) - time.monotonic()) if waits else None
            for key, _ in self._selector.select(timeout):
                if isinstance(key.fileobj, socket.socket):
                    self._receive(key.data, key.fileobj)
                elif not self._command():
                    return
            for name, channel in self._channels.items():
                for packet in channel.due(time.monotonic()):
                    self._send(name, packet)

    def _receive(self, direction: str, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                packet, source = sock.recvfrom(65535)
            except OSError:
                return
            if direction == "to_right":
                self._source = source
            self._channels[direction].offer(packet, time.monotonic())

    def _send(self, direction: str, packet: bytes) -> None:
        try:
            if direction == "to_right":
                self._right.sendto(packet, self._target)
            elif self._source is not None:
                self._left.sendto(packet, self._source)
        except OSError as error:
            print(f"{direction}: {error}", file=sys.stderr)

    def _command(self) -> bool:
        chunk = os.read(0, 1 << 20)
        self._input += chunk
        while b"\n" in self._input:
            line, _, self._input = self._input.partition(b"\n")
            print(json.dumps(self._answer(json.loads(line))), flush=True)
        return bool(chunk)

    def _roam(self) -> int:
        """Speak to the target from another port; what is on its way to the old one still arrives."""
        address = self._right.getsockname()[0]
        self._right = socket.socket(self._right.family, socket.SOCK_DGRAM)
        self._right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._right.bind((address, 0))
        self._right.setblocking(False)
        self._selector.register(self._right, selectors.EVENT_READ, "to_left")
        return int(self._right.getsockname()[1])

    def _answer(self, request: dict[str, Any]) -> object:
        if request["verb"] == "roam":
            return self._roam()
        channel = self._channels[request["direction"]]
        if request["verb"] == "rule":
            channel.rules = request["rules"]
        elif request["verb"] == "counts":
            return channel.counts
        elif request["verb"] == "captured":
            return [packet.hex() for packet in channel.captured]
        elif request["verb"] == "inject":
            self._send(request["direction"], bytes.fromhex(request["packet"]))
        return True


if __name__ == "__main__":
    Relay(sys.argv[1], sys.argv[2], (sys.argv[3], int(sys.argv[4])), sys.argv[5]).run()
