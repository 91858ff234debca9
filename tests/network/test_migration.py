"""A wg-quick site of twenty peers moves over by docs/migration.md alone: its public key stays, no client is touched."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.support import KeyPair, Lab, Namespace, StockPeer, make_psk, unique_interface, until

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
PEERS = 20
PORT = 51820
_PROGRAMS = Path(sys.executable).parent


def blocks() -> Iterator[str]:
    """What the page says is done at the gateway, in order."""
    yield from re.findall(r"^```sh gateway\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


class _Machine:
    """The gateway's machine: its folders are the test's, and wg0 has a name of this run."""

    def __init__(self, lab: Lab, namespace: Namespace) -> None:
        self.namespace = namespace
        self.interface = unique_interface("wgm")
        self.wghsm, self.wireguard = lab.scratch / "etc-wghsm", lab.scratch / "etc-wireguard"
        self.wghsm.mkdir()
        self.wireguard.mkdir(mode=0o700)
        self.conf = self.wireguard / f"{self.interface}.conf"
        self._environment = {
            "PATH": f"{_PROGRAMS}:{os.environ['PATH']}",
            "WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go",
        }

    def run(self, text: str) -> str:
        """Run a block of the page; each line must succeed, and what it exports stays."""
        text = text.replace("/etc/wghsm", str(self.wghsm)).replace("/etc/wireguard", str(self.wireguard))
        script = "set -eu\n" + re.sub(r"\bwg0\b", self.interface, text)
        for name, value in re.findall(r"^export (\w+)=(.*)$", script, re.MULTILINE):
            self._environment[name] = value.strip("'")
        return self.namespace.run("bash", "-c", script, env=self._environment, limit=300).stdout


@pytest.fixture
def machine(lab: Lab) -> Iterator[_Machine]:
    made = _Machine(lab, lab.namespace("gateway"))
    yield made
    made.namespace.run(_PROGRAMS / "wghsm", "down", made.interface, check=False)
    made.namespace.run("ip", "link", "delete", made.interface, check=False)
    for folder in ("/run/wghsm", "/var/lib/wghsm"):
        shutil.rmtree(Path(folder, made.interface), ignore_errors=True)
    socket = Path("/var/run/wireguard", f"{made.interface}.sock")
    until(lambda: not socket.exists(), "the old gateway ends")


def test_twenty_peers_move_over(lab: Lab, machine: _Machine) -> None:
    far = lab.namespace("clients")
    link = lab.connect(machine.namespace, far)
    gateway = KeyPair.make()
    clients = [KeyPair.make() for _ in range(PEERS)]
    psks = [make_psk() if number % 2 else None for number in range(PEERS)]
    conf = f"[Interface]\nPrivateKey = {gateway.private}\nAddress = 10.8.0.1/24\nListenPort = {PORT}\nPostUp = true\n"
    for number, (keys, psk) in enumerate(zip(clients, psks, strict=True), 2):
        conf += f"\n# client {number}\n[Peer]\nPublicKey = {keys.public}\nAllowedIPs = 10.8.0.{number}/32\n"
        conf += f"PresharedKey = {psk}\n" if psk else ""
    machine.conf.touch(mode=0o600)
    machine.conf.write_text(conf)
    machine.run("wg-quick up /etc/wireguard/wg0.conf")
    stock: list[StockPeer] = []
    for number, (keys, psk) in enumerate(zip(clients, psks, strict=True), 2):
        peer = lab.stock_peer(far, [f"10.8.0.{number}/32"], keys=keys)
        peer.set_peer(gateway.public, [f"10.8.0.{number}/32"], link.left.endpoint(4, PORT), psk)
        peer.set(f"peer {gateway.public} allowed-ips 10.8.0.0/24")
        stock.append(peer)

    def all_reach(limit: float) -> None:
        # All begin at once, so that they wait for their handshakes together.
        names = " ".join(peer.name for peer in stock)
        script = f"for i in {names}; do (ping -n -c 1 -W 1 -I $i 10.8.0.1 >/dev/null || echo $i) & done; wait"
        until(lambda: not far.run("bash", "-c", script, limit=120).stdout.split(), "all of them reach it", limit)

    all_reach(60)
    before = {peer.name: peer.latest_handshake(gateway.public) for peer in stock}

    prepare, change_over = blocks()
    said = machine.run(prepare)
    assert f"\n{gateway.public}\n" in said
    assert "PostUp" in said
    assert machine.interface in machine.namespace.interfaces()
    said = machine.run(change_over)
    assert gateway.public in said
    all_reach(120)
    for peer in stock:
        assert peer.latest_handshake(gateway.public) > before[peer.name]
    shown = machine.run("wghsm status wg0 --json")
    assert shown.count('"latest_handshake": null') == 0
    assert not any(gateway.private in each.read_text() for each in machine.wghsm.rglob("*.yaml"))
