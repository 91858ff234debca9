"""A gateway under siege: a stock client whose pings go on, and senders of what must be dropped.

siege = Siege(lab, token)
siege.start()
siege.expect([packet, ...], "malformed")     sent as a stranger; counted under this reason, and nothing else is
siege.expect([...], "replayed", mallory)      sent by a peer
siege.check_unharmed()                       no answer to the stranger, no echo lost, memory as it was
"""

import base64

from tests.network.support.gateway_token import GatewayToken
from tests.network.support.lab import Lab
from tests.network.support.memory import pss_of
from tests.network.support.process import until
from tests.network.support.site import Client, Site
from tests.network.support.software_peer import SoftwarePeer, udp_socket
from tests.network.support.traffic import Pinger, ping_until

__all__ = ["Siege"]

_EVENTS = {
    *("derive", "psk-use", "initiation-received", "response-sent", "handshake-complete"),
    *("initiation-sent", "response-received", "token-checked"),
    # The handshake process counts this as well, each beside the custodian's own reason.
    "custodian-refused",
}

_GROWTH = 24 << 20
"""Bytes of memory that all processes together may take on: less than what was sent to them."""


class Siege:
    """The gateway and its client behind a relay; `mallory` is a second client, with a key of its own that it knows."""

    def __init__(self, lab: Lab, token: GatewayToken) -> None:
        self.lab = lab
        self.site = Site(lab, token)
        self.client = self.site.client("client", "derived")
        self.mallory = self.site.client("mallory")
        self.silent = self.site.client("silent", dials=False)
        middle = lab.namespace("middle")
        inner, outer = lab.connect(self.client.namespace, middle), lab.connect(middle, self.site.namespace)
        self.relay = lab.relay(inner.right, outer.left, outer.right.endpoint(4, self.site.gateway.listen_port))
        self.target = (self.client.link.left.ipv4, self.site.gateway.listen_port)

    def start(self) -> None:
        """Start the gateway and the client, until its pings are answered."""
        self.site.start()
        self.client.start(endpoint=self.relay.left_endpoint)
        ping_until(self.client.namespace, self.site.inner4)
        self.stranger = self.lab.add(udp_socket(self.client.namespace, 4, self.client.link.right.ipv4))
        self.pinger = self.lab.add(Pinger(self.client.namespace, self.site.inner4, self.lab.scratch))
        self.pinger.answer_after(0)
        self._memory = self.memory()

    @property
    def gateway_key(self) -> bytes:
        """The gateway's public key, 32 bytes."""
        return base64.b64decode(self.site.gateway_key)

    def software_peer(self, place: Client | None = None) -> SoftwarePeer:
        """Give a peer with the key and in the place of `place`, mallory's by default."""
        place = place or self.mallory
        private = base64.b64decode(place.keys.private)
        return self.lab.add(SoftwarePeer(place.namespace, private, self.gateway_key, place.gateway_endpoint))

    def expect(
        self, packets: list[bytes], counter: str, sender: SoftwarePeer | None = None, number: int | None = None
    ) -> None:
        """Send packets, as a stranger if nobody is named; `number` of them are counted so, and nothing else is."""
        before = self.drops()
        for packet in packets:
            if sender is None:
                self.stranger.sendto(packet, self.target)
            else:
                sender.socket.sendto(packet, sender.target)
        wanted = before.get(counter, 0) + (len(packets) if number is None else number)
        until(
            lambda: self.site.gateway.counter(counter) >= wanted,
            f"{len(packets)} counted as {counter}: {before} -> {self.drops()}",
            20,
        )
        assert self.drops() == {**before, counter: wanted}

    def drops(self) -> dict[str, int]:
        """Everything that is counted, but what an honest handshake counts as well."""
        found: dict[str, int] = {}
        for reasons in self.site.gateway.status().counters.values():
            for name, value in reasons.items():
                if name not in _EVENTS:
                    found[name] = found.get(name, 0) + value
        return found

    def memory(self) -> int:
        """Give the memory of all processes in bytes."""
        return sum(map(pss_of, self.site.gateway.pids().values()))

    def check_unharmed(self) -> None:
        """No answer has come to the stranger, the client has lost nothing, and no process has grown."""
        self.stranger.setblocking(False)
        try:
            raise AssertionError(f"an answer to a stranger: {self.stranger.recv(65535)!r}")
        except BlockingIOError:
            pass
        peer = self.site.gateway.peer(self.client.public_key)
        assert peer.endpoint == self.relay.right_endpoint
        answers = len(self.pinger.answers())
        until(lambda: len(self.pinger.answers()) > answers + 5, "more echoes")
        assert self.pinger.stop().missing == ()
        assert self.memory() < self._memory + _GROWTH
