"""The two that are compared, in one shape: a responder in a namespace, its public key, port and CPU time.

    Wghsm          `wghsm run FILE` with a SoftHSM token of its own, made by the real commands
    WireguardGo    Debian's wireguard-go

Both get the same peers, without pre-shared keys. Called by throughput and handshakes.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.network.support import Lab, Namespace, StockPeer, unique_interface, until
from wghsm.softhsm_setup import SoftHsmToken, make_token

__all__ = ["Contender", "Peer", "Wghsm", "WireguardGo", "cpu_between", "cpu_times"]

CUSTODIAN_UID = 61100
MTU = 1420


@dataclass(frozen=True)
class Peer:
    """A peer of the contender: public key in base64, the prefixes of its allowed IPs, its endpoint if it has one."""

    public_key: str
    allowed_ips: tuple[str, ...]
    endpoint: str | None = None


class Contender(Protocol):
    """What a measurement needs to know."""

    name: str
    public_key: str
    port: int

    @property
    def pid(self) -> int:
        """The process whose descendants, it included, do all the work."""


class WireguardGo:
    """A wireguard-go as gateway."""

    name = "wireguard-go"

    def __init__(self, lab: Lab, namespace: Namespace, addresses: Sequence[str], port: int) -> None:
        self._lab = lab
        self._peer = lab.stock_peer(namespace, addresses, port, mtu=MTU)
        self.stock: StockPeer = self._peer
        self.public_key = self._peer.public_key
        self.port = port

    @property
    def pid(self) -> int:
        """The process id."""
        return self._peer.pid

    def add_peers(self, peers: Sequence[Peer]) -> None:
        """Add all of them in one step; routes are the caller's matter."""
        path = self._lab.scratch / f"{self._peer.name}-peers.conf"
        path.write_text(
            "".join(f"[Peer]\nPublicKey = {p.public_key}\nAllowedIPs = {', '.join(p.allowed_ips)}\n" for p in peers)
        )
        self._peer.namespace.run("wg", "addconf", self._peer.name, path)


class Wghsm:
    """A wghsm gateway with its peers, in the foreground; `environment` is added to its own."""

    name = "wghsm"

    def __init__(
        self,
        lab: Lab,
        namespace: Namespace,
        addresses: Sequence[str],
        port: int,
        peers: Sequence[Peer] | None = None,
        environment: Mapping[str, str] | None = None,
        token: SoftHsmToken | None = None,
    ) -> None:
        """Make the key, in a token of its own if none is given. Started with `peers`, or later; the lab ends it."""
        self._lab = lab
        self._namespace = namespace
        self._addresses = addresses
        self._interface = unique_interface("wgb")
        self._command = Path(sys.executable).with_name("wghsm")
        self._folder = lab.scratch / self._interface
        self._folder.mkdir(mode=0o711)
        token = token or make_token(self._folder / "token", label="bench", uid=CUSTODIAN_UID)
        self._uri = token.uri
        self._environment = {**token.environment, **(environment or {})}
        self._wghsm("key", "generate", "gateway", "--token", token.uri)
        self.public_key = self._wghsm("key", "public", "gateway", "--token", token.uri).strip()
        self.port = port
        # The laboratory removes in reverse: the gateway ends before this one looks after what it left.
        lab.add(self)
        if peers is not None:
            self.start(peers)

    def start(self, peers: Sequence[Peer]) -> None:
        """Write the file, start it, and wait until it serves."""
        file = self._folder / "gateway.yaml"
        file.write_text(self._gateway_file(self._uri, self._addresses, peers))
        self._process = self._lab.add(
            self._namespace.start(
                self._command, "run", file, folder=self._lab.scratch, label=self._interface, env=self._environment
            )
        )
        until(self._serves, f"{self._interface} serves", limit=120)

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What the gateway has said so far."""
        return self._process.stderr() + self._process.stdout()

    def status(self) -> str:
        """Give what `wghsm status --json` says, nothing while it does not answer."""
        done = self._namespace.run(self._command, "status", self._interface, "--json", check=False)
        return done.stdout if done.returncode == 0 else ""

    def close(self) -> None:
        """Remove what an end by force would leave."""
        shutil.rmtree(Path("/run/wghsm") / self._interface, ignore_errors=True)
        Path("/var/run/wireguard", f"{self._interface}.sock").unlink(missing_ok=True)

    def _gateway_file(self, uri: str, addresses: Sequence[str], peers: Sequence[Peer]) -> str:
        # JSON is YAML.
        return json.dumps(
            {
                "version": 1,
                "token": {"uri": uri},
                "interface": {
                    "name": self._interface,
                    "key": "gateway",
                    "listen_port": self.port,
                    "addresses": list(addresses),
                    "mtu": MTU,
                    "table": "off" if len(peers) > 1 else "auto",
                },
                "peers": [
                    {
                        "name": f"peer-{number}",
                        "public_key": peer.public_key,
                        "preshared_key": "none",
                        "allowed_ips": list(peer.allowed_ips),
                        **({"endpoint": peer.endpoint} if peer.endpoint else {}),
                    }
                    for number, peer in enumerate(peers)
                ],
                "state_directory": str(self._folder / "state"),
                "log_level": "warning",
            },
            indent=1,
        )

    def _wghsm(self, *arguments: str) -> str:
        return self._namespace.run(self._command, *arguments, env=self._environment).stdout

    def _serves(self) -> bool:
        if self._process.returncode is not None:
            raise RuntimeError(f"wghsm ended with {self._process.returncode}: {self.log[-2000:]}")
        shown = self.status()
        if not shown:
            return False
        status = json.loads(shown)[0]
        return bool(status["up"] and status["token"] and status["token"]["state"] == "ready")


def cpu_times(root: int) -> dict[int, float]:
    """CPU seconds (user and system) so far of `root` and of each process that descends from it, by process id."""
    parents: dict[int, int] = {}
    times: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold spaces; after it come state, parent, ..., utime (12th) and stime.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(entry.name)] = int(fields[1])
        times[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    if root not in times:
        raise RuntimeError(f"process {root} has ended")
    family = {root}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return {pid: times[pid] for pid in family}


def cpu_between(before: dict[int, float], after: dict[int, float]) -> float:
    """CPU seconds that a contender took between two `cpu_times`. Raises RuntimeError if a process of it ended."""
    if gone := before.keys() - after.keys():
        raise RuntimeError(f"{len(gone)} of its processes ended during a round: the round is void")
    return sum(after.values()) - sum(before.values())
