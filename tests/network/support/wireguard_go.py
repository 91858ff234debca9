"""An unmodified wireguard-go in a namespace, and what `wg show NAME dump` says.

Interface names are unique over runs, because the sockets in /var/run/wireguard are shared by all namespaces.
Called by the laboratory; `show_dump` and the key helpers serve tests of the gateway as well.
"""

import contextlib
import ipaddress
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.network.support.netns import Namespace, add_address
from tests.network.support.process import Process, until

SOCKETS = Path("/var/run/wireguard")
_LAST = 60
"""Lines of a log in an account."""


def unique_interface(prefix: str = "wgt") -> str:
    """Give an interface name of at most 15 characters that no other run has."""
    return f"{prefix}{secrets.token_hex(4)}"[:15]


@dataclass(frozen=True)
class KeyPair:
    """A key pair in base64; the private key stays out of the representation."""

    private: str = field(repr=False)
    public: str

    @classmethod
    def make(cls) -> Self:
        """Make one with wg(8)."""
        private = _wg("genkey")
        return cls(private, _wg("pubkey", stdin=private))


def make_psk() -> str:
    """Make a pre-shared key, base64."""
    return _wg("genpsk")


def _wg(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(["wg", *arguments], input=stdin, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()


@dataclass(frozen=True)
class PeerState:
    """One peer's line of `wg show NAME dump`; times in unix seconds (0 = never), counters in bytes."""

    public_key: str
    has_psk: bool
    endpoint: str | None
    allowed_ips: tuple[str, ...]
    latest_handshake: int
    received: int
    sent: int
    keepalive: int | None


def show_dump(namespace: Namespace, interface: str) -> dict[str, PeerState]:
    """Give the peers of `interface` by public key; works for every WireGuard that wg(8) can talk to."""
    lines = namespace.run("wg", "show", interface, "dump").stdout.splitlines()[1:]
    peers = {}
    for line in lines:
        public, psk, endpoint, allowed, handshake, received, sent, keepalive = line.split("\t")
        peers[public] = PeerState(
            public_key=public,
            has_psk=psk != "(none)",
            endpoint=None if endpoint == "(none)" else endpoint,
            allowed_ips=() if allowed == "(none)" else tuple(allowed.split(",")),
            latest_handshake=int(handshake),
            received=int(received),
            sent=int(sent),
            keepalive=None if keepalive == "off" else int(keepalive),
        )
    return peers


def device_and_log(namespace: Namespace, interface: str, log: str) -> str:
    """Give the kernel's counters of an interface, and the last lines of a log."""
    device = namespace.run("ip", "-s", "link", "show", "dev", interface, check=False)
    return device.stdout + device.stderr + "\n".join(log.splitlines()[-_LAST:])


class StockPeer:
    """wireguard-go in the foreground, with one interface, its addresses and routes."""

    def __init__(
        self,
        namespace: Namespace,
        scratch: Path,
        addresses: Sequence[str],
        listen_port: int = 0,
        keys: KeyPair | None = None,
        mtu: int = 1420,
    ) -> None:
        """Start it; `addresses` are inner ones with prefix length, port 0 is the system's choice."""
        self.namespace = namespace
        self.name = unique_interface()
        self.keys = keys or KeyPair.make()
        self._scratch = scratch
        self._process: Process | None = self._begin()
        try:
            until(self._serving, f"wireguard-go serves {self.name}")
            self.set(f"private-key {self._secret_file('private', self.keys.private)} listen-port {listen_port}")
            namespace.run("ip", "link", "set", self.name, "mtu", str(mtu), "up")
            for address in addresses:
                add_address(namespace, self.name, address)
        except BaseException:
            self.stop()
            raise

    def _begin(self) -> Process:
        words = ["wireguard-go", "--foreground", self.name]
        return self.namespace.start(*words, folder=self._scratch, label=self.name, env={"LOG_LEVEL": "verbose"})

    def _serving(self) -> bool:
        assert self._process is not None
        code, said = self._process.returncode, self.log()
        # wg(8) removes a socket that refuses it, as wireguard-go's does before it listens. We do not ask it before, but
        # `wg-quick down` of another test asks every socket of the machine.
        if code is not None and "Failed to listen on uapi socket" in said:
            self._process = self._begin()
            return False
        if code is not None:
            raise RuntimeError(f"wireguard-go ended with {code}: {said}")
        if "UAPI listener started" not in said:
            return False
        return self.namespace.run("wg", "show", self.name, "dump", check=False).returncode == 0

    def _secret_file(self, label: str, value: str) -> Path:
        path = self._scratch / f"{self.name}-{label}"
        path.touch(mode=0o600)
        path.write_text(value + "\n")
        return path

    @property
    def public_key(self) -> str:
        """The public key, base64."""
        return self.keys.public

    @property
    def pid(self) -> int:
        """The process id of wireguard-go."""
        assert self._process is not None
        return self._process.pid

    @property
    def listen_port(self) -> int:
        """The UDP port it listens on."""
        return int(self.namespace.run("wg", "show", self.name, "listen-port").stdout)

    def set(self, arguments: str) -> None:
        """Run `wg set NAME` with the words of `arguments`."""
        self.namespace.run("wg", "set", self.name, *arguments.split())

    def set_peer(
        self,
        public_key: str,
        allowed_ips: Sequence[str],
        endpoint: str | None = None,
        preshared_key: str | None = None,
        keepalive: int | None = None,
    ) -> None:
        """Add or change a peer, and route its allowed IPs into the tunnel; `keepalive` in seconds."""
        words = ["wg", "set", self.name, "peer", public_key, "allowed-ips", ",".join(allowed_ips)]
        if endpoint is not None:
            words += ["endpoint", endpoint]
        if preshared_key is not None:
            words += ["preshared-key", str(self._secret_file("psk", preshared_key))]
        if keepalive is not None:
            words += ["persistent-keepalive", str(keepalive)]
        self.namespace.run(*words)
        for prefix in allowed_ips:
            family = f"-{ipaddress.ip_network(prefix).version}"
            self.namespace.run("ip", family, "route", "replace", prefix, "dev", self.name)

    def remove_peer(self, public_key: str) -> None:
        """Remove a peer."""
        self.set(f"peer {public_key} remove")

    def peers(self) -> dict[str, PeerState]:
        """Give its peers by public key."""
        return show_dump(self.namespace, self.name)

    def latest_handshake(self, public_key: str) -> int:
        """Give the time of the latest handshake with a peer in unix seconds, 0 for none yet."""
        return self.peers()[public_key].latest_handshake

    def transfer(self, public_key: str) -> tuple[int, int]:
        """Give the bytes received from and sent to a peer."""
        state = self.peers()[public_key]
        return state.received, state.sent

    def log(self) -> str:
        """Give its verbose log so far; each handshake message leaves a line."""
        assert self._process is not None
        return self._process.stdout() + self._process.stderr()

    def account(self) -> str:
        """Give its device's counters and the last lines of its log."""
        return f"wireguard-go {self.name}:\n" + device_and_log(self.namespace, self.name, self.log())

    def stop(self) -> None:
        """End it; interface, socket and key files are gone afterwards."""
        if self._process is not None:
            self._process.stop()
        with contextlib.suppress(FileNotFoundError):
            (SOCKETS / f"{self.name}.sock").unlink()
        for path in self._scratch.glob(f"{self.name}-*"):
            path.unlink()

    def close(self) -> None:
        """End it, the laboratory's word for it."""
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
