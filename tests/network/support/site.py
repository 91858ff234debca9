"""A gateway and its stock clients, each client in a namespace of its own behind a cable of its own.

    site = Site(lab, token)
    alice = site.client("alice", psk="derived", family=6)      before the start: the client's place and its entry
    site.start()
    alice.start()                                              its wireguard-go
    ping_until(alice.namespace, site.inner4)

Inner addresses: 10.8.0.1 and fd08::1 for the gateway, 10.8.0.N and fd08::N for the clients from 2 on.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.network.support.gateway import Gateway, Peer
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.lab import Lab
from tests.network.support.netns import Link, Namespace
from tests.network.support.process import until
from tests.network.support.stream import UdpStream
from tests.network.support.wireguard_go import KeyPair, StockPeer, make_psk

__all__ = ["CLIENT_PORT", "PSK_ROOT", "Client", "PskKind", "Site"]

PskKind = Literal["none", "derived", "object"]

PSK_ROOT = "psk-root"
"""The label of the root of derived PSKs in the tests' token."""

CLIENT_PORT = 51821


@dataclass
class Client:
    """A stock client's place. `dials` says that it knows the gateway's endpoint, otherwise the gateway knows its."""

    site: "Site"
    name: str
    number: int
    namespace: Namespace
    link: Link
    family: int
    dials: bool
    psk: PskKind
    keys: KeyPair
    secret: str | None = field(default=None, repr=False)
    stock: StockPeer | None = None

    @property
    def public_key(self) -> str:
        """Its public key, base64."""
        return self.keys.public

    @property
    def ipv4(self) -> str:
        """Its inner IPv4 address."""
        return f"10.8.0.{self.number}"

    @property
    def ipv6(self) -> str:
        """Its inner IPv6 address."""
        return f"fd08::{self.number:x}"

    @property
    def gateway_endpoint(self) -> str:
        """Where it finds the gateway, `address:port`."""
        return self.link.left.endpoint(self.family, self.site.gateway.listen_port)

    def entry(self, keepalive: int = 0) -> Peer:
        """Give its entry in the gateway file."""
        known = None if self.dials else self.link.right.endpoint(self.family, CLIENT_PORT)
        psk = f"object:{self.psk_label}" if self.psk == "object" else self.psk
        allowed = [f"{self.ipv4}/32", f"{self.ipv6}/128"]
        return Peer(self.name, self.public_key, allowed, psk, known, keepalive)

    @property
    def psk_label(self) -> str:
        """The label of its PSK object, where it has one."""
        return f"psk-{self.site.gateway.name}-{self.name}"

    def start(self, endpoint: str | None = None) -> StockPeer:
        """Start its wireguard-go; `endpoint` in place of the gateway's own, for a relay in between."""
        lab = self.site.lab
        addresses = [f"{self.ipv4}/24", f"{self.ipv6}/64"]
        self.stock = lab.stock_peer(self.namespace, addresses, CLIENT_PORT, self.keys)
        self.stock.set_peer(
            self.site.gateway_key,
            ["10.8.0.0/24", "fd08::/64"],
            endpoint or (self.gateway_endpoint if self.dials else None),
            self.site.secret_of(self),
        )
        return self.stock

    def latest_handshake(self) -> float:
        """Give the time of the latest handshake as the gateway has it, unix seconds; 0 for none yet."""
        return self.site.gateway.peer(self.public_key).latest_handshake or 0.0

    def wait_for_handshake(self, after: float) -> None:
        """Wait until there is a handshake later than `after`."""
        until(lambda: self.latest_handshake() > after, f"a new handshake with {self.name}", pause=0.1)

    def wait_until_known(self) -> None:
        """Wait until the gateway's status has its session: the supervisor hears of it after packets have gone."""
        until(self._is_known, f"the gateway knows of {self.name}", pause=0.05)

    def _is_known(self) -> bool:
        status = self.site.gateway.peer(self.public_key)
        return status.endpoint is not None and bool(status.latest_handshake)

    def wait_for_age(self) -> float:
        """Wait until the latest handshake is old enough for a new one to be made on request; give its time."""
        self.wait_until_known()
        latest = self.latest_handshake()
        until(lambda: time.time() > latest + 6, "an age of six seconds")
        return latest

    def wait_for_handshakes(self, count: int, limit: float) -> None:
        """Wait until its wireguard-go has seen that many, see `handshakes`."""
        until(lambda: self.handshakes() >= count, f"{count} handshakes of {self.name}", limit, pause=0.5)

    def handshakes(self) -> int:
        """Count the handshakes that its wireguard-go has completed as initiator or answered as responder."""
        assert self.stock is not None
        log = self.stock.log()
        return log.count("Received handshake response") + log.count("Sending handshake response")


class Site:
    """The gateway, not started yet, and its clients."""

    def __init__(
        self,
        lab: Lab,
        token: GatewayToken,
        *,
        key: str = "gateway",
        interface: Mapping[str, object] | None = None,
        workers: int = 1,
        short_times: bool = False,
    ) -> None:
        self.lab = lab
        self.token = token
        self.namespace = lab.namespace("gateway")
        self.inner4, self.inner6 = "10.8.0.1", "fd08::1"
        self.clients: list[Client] = []
        self.gateway = lab.add(
            Gateway(
                self.namespace,
                lab.scratch,
                token,
                key=key,
                psk_root=PSK_ROOT,
                interface=interface or {},
                workers=workers,
                short_times=short_times,
            )
        )

    @property
    def gateway_key(self) -> str:
        """The gateway's public key, base64."""
        return self.token.public_key(self.gateway.key)

    def client(
        self, name: str, psk: PskKind = "none", family: int = 4, dials: bool = True, keepalive: int = 0
    ) -> Client:
        """Make a client's place and its entry in the gateway file."""
        namespace = self.lab.namespace(name)
        link = self.lab.connect(self.namespace, namespace)
        number = len(self.clients) + 2
        client = Client(self, name, number, namespace, link, family, dials, psk, KeyPair.make())
        if psk == "object":
            client.secret = make_psk()
            self.token.put_psk(client.psk_label, client.secret)
        self.clients.append(client)
        self.gateway.peers = [*self.gateway.peers, client.entry(keepalive)]
        self.gateway.write()
        return client

    def secret_of(self, client: Client) -> str | None:
        """Give the client's PSK, base64; a derived one by `wghsm psk export`, as an operator would."""
        if client.psk == "derived" and client.secret is None:
            words = ("psk", "export", client.name, "-c", self.gateway.file, "--out", "-")
            client.secret = self.gateway.command(*words).stdout.strip()
        return client.secret

    def streams(self, client: Client) -> list[UdpStream]:
        """Send numbered packets both ways between the gateway and a client; give the streams once they run."""
        ways = ((client.namespace, self.namespace, self.inner6), (self.namespace, client.namespace, client.ipv4))
        made = [self.lab.add(UdpStream(*way, self.lab.scratch, rate=50)) for way in ways]
        for stream in made:
            stream.wait_for(30, limit=60.0)
        return made

    def start(self) -> Gateway:
        """Start the gateway."""
        return self.gateway.start()
