"""Sites of twenty peers move over by docs/migration.md alone: the public key stays, no client is touched."""

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


def blocks(mark: str) -> Iterator[str]:
    """What the page says is done at the gateway, in order; `mark` is the word behind ```sh."""
    yield from re.findall(rf"^```sh {mark}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


class _Machine:
    """The gateway's machine: its folders are the test's, and wg0 has a name of this run."""

    def __init__(self, lab: Lab, namespace: Namespace) -> None:
        self.namespace = namespace
        self.interface = unique_interface("wgm")
        self.wghsm, self.wireguard = lab.scratch / "etc-wghsm", lab.scratch / "etc-wireguard"
        self.wghsm.mkdir()
        self.wireguard.mkdir(mode=0o700)
        self.conf = self.wireguard / f"{self.interface}.conf"
        self.networkd, programs = lab.scratch / "etc-networkd", lab.scratch / "programs"
        self.networkd.mkdir(mode=0o700)
        programs.mkdir()
        networkctl = programs / "networkctl"
        # networkd itself needs WireGuard in the kernel, and the machine's own bus.
        networkctl.write_text(
            "#!/bin/sh\ncase $1 in\nreload) ;;\n"
            'delete) ip link delete "$2"; while [ -e "/var/run/wireguard/$2.sock" ]; do sleep 0.1; done;;\n'
            "*) exit 1;;\nesac\n"
        )
        networkctl.chmod(0o755)
        self._environment = {
            "PATH": f"{programs}:{_PROGRAMS}:{os.environ['PATH']}",
            "WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go",
        }

    def run(self, text: str) -> str:
        """Run a block of the page; each line must succeed, and what it exports stays."""
        for folder, own in (("wghsm", self.wghsm), ("wireguard", self.wireguard), ("systemd/network", self.networkd)):
            text = text.replace(f"/etc/{folder}", str(own))
        script = "set -eu\n" + re.sub(r"\bwg0\b", self.interface, text)
        for name, value in re.findall(r"^export (\w+)=(.*)$", script, re.MULTILINE):
            self._environment[name] = value.strip("'")
        return self.namespace.run("bash", "-c", script, env=self._environment, limit=300).stdout

    def networkd_up(self) -> None:
        """Make the interface of the .netdev and its .network, as networkd does."""
        text = (self.networkd / f"{self.interface}.netdev").read_text().partition("[WireGuard]")[2]
        text = re.sub(r"^(\w+)File=(.*)$", lambda found: f"{found[1]}={Path(found[2]).read_text()}", text, flags=re.M)
        text = re.sub(r"^Route.*$", "", text, flags=re.M).replace("[WireGuardPeer]", "[Peer]")
        (self.networkd / "setconf").write_text(f"[Interface]\n{text}")
        self.run(
            "wireguard-go wg0\nwg setconf wg0 /etc/systemd/network/setconf\n"
            "ip address add 10.8.0.1/24 dev wg0\nip link set wg0 mtu 1400 up\nip route add 10.99.0.0/24 dev wg0"
        )


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


class _Clients:
    """Twenty clients with stock WireGuard in one namespace; each second one has a pre-shared key."""

    def __init__(self, lab: Lab, machine: _Machine) -> None:
        self._lab = lab
        self._far = lab.namespace("clients")
        self._endpoint = lab.connect(machine.namespace, self._far).left.endpoint(4, PORT)
        self.gateway = KeyPair.make()
        self.keys = [KeyPair.make() for _ in range(PEERS)]
        self.psks = [make_psk() if number % 2 else None for number in range(PEERS)]
        self._stock: list[StockPeer] = []

    def start(self) -> None:
        for number, (keys, psk) in enumerate(zip(self.keys, self.psks, strict=True), 2):
            peer = self._lab.stock_peer(self._far, [f"10.8.0.{number}/32"], keys=keys)
            peer.set_peer(self.gateway.public, [f"10.8.0.{number}/32"], self._endpoint, psk)
            peer.set(f"peer {self.gateway.public} allowed-ips 10.8.0.0/24")
            self._stock.append(peer)

    def all_reach(self, limit: float) -> None:
        # All begin at once, so that they wait for their handshakes together.
        names = " ".join(peer.name for peer in self._stock)
        script = f"for i in {names}; do (ping -n -c 1 -W 1 -I $i 10.8.0.1 >/dev/null || echo $i) & done; wait"
        until(lambda: not self._far.run("bash", "-c", script, limit=120).stdout.split(), "all of them reach it", limit)

    def handshakes(self) -> list[int]:
        return [peer.latest_handshake(self.gateway.public) for peer in self._stock]

    def have_moved(self, machine: _Machine, before: list[int]) -> None:
        """Each of them has made a handshake with wghsm, which has no key of theirs in a file."""
        self.all_reach(120)
        assert all(new > old for new, old in zip(self.handshakes(), before, strict=True))
        shown = machine.run("wghsm status wg0 --json")
        assert shown.count('"latest_handshake": null') == 0
        secrets = [self.gateway.private, *filter(None, self.psks)]
        written = [each.read_text() for end in ("yaml", "psk") for each in machine.wghsm.rglob(f"*.{end}")]
        assert not [text for text in written for secret in secrets if secret in text]


def test_twenty_peers_move_over(lab: Lab, machine: _Machine) -> None:
    clients = _Clients(lab, machine)
    gateway = clients.gateway
    conf = f"[Interface]\nPrivateKey = {gateway.private}\nAddress = 10.8.0.1/24\nListenPort = {PORT}\nPostUp = true\n"
    for number, (keys, psk) in enumerate(zip(clients.keys, clients.psks, strict=True), 2):
        conf += f"\n# client {number}\n[Peer]\nPublicKey = {keys.public}\nAllowedIPs = 10.8.0.{number}/32\n"
        conf += f"PresharedKey = {psk}\n" if psk else ""
    machine.conf.touch(mode=0o600)
    machine.conf.write_text(conf)
    machine.run("wg-quick up /etc/wireguard/wg0.conf")
    clients.start()
    clients.all_reach(60)
    before = clients.handshakes()

    prepare, change_over = blocks("gateway")
    said = machine.run(prepare)
    assert f"\n{gateway.public}\n" in said
    assert "PostUp" in said
    assert machine.interface in machine.namespace.interfaces()
    assert gateway.public in machine.run(change_over)
    clients.have_moved(machine, before)


def test_twenty_peers_of_networkd_move_over(lab: Lab, machine: _Machine) -> None:
    clients = _Clients(lab, machine)
    gateway, folder, name = clients.gateway, machine.networkd, machine.interface
    (folder / "private").write_text(f"{gateway.private}\n")
    netdev = f"[NetDev]\nName={name}\nKind=wireguard\nMTUBytes=1400\n\n[WireGuard]\n"
    netdev += f"PrivateKeyFile={folder}/private\nListenPort={PORT}\nRouteTable=main\n"
    for number, (keys, psk) in enumerate(zip(clients.keys, clients.psks, strict=True), 2):
        netdev += f"\n# client {number}\n[WireGuardPeer]\nPublicKey={keys.public}\nAllowedIPs=10.8.0.{number}/32\n"
        netdev += "AllowedIPs=10.99.0.0/24\nRouteMetric=7\n" if number == 2 else ""
        if psk and number % 4 == 1:
            (folder / f"{number}.psk").write_text(f"{psk}\n")
            netdev += f"PresharedKeyFile={folder}/{number}.psk\n"
        elif psk:
            netdev += f"PresharedKey={psk}\n"
    (folder / f"{name}.netdev").write_text(netdev)
    (folder / f"{name}.network").write_text(f"[Match]\nName={name}\n\n[Network]\nAddress=10.8.0.1/24\n")
    machine.networkd_up()
    clients.start()
    clients.all_reach(60)
    before = clients.handshakes()

    prepare, change_over = blocks("networkd")
    machine.run(next(blocks("gateway")).partition("wghsm import")[0])
    said = machine.run(prepare)
    assert f"\n{gateway.public}\n" in said
    assert "RouteMetric" in said
    assert gateway.public in machine.run(change_over)
    assert not list(folder.glob(f"{name}.*"))
    clients.have_moved(machine, before)
    # What networkd had set: address, MTU, and routes in the main table.
    assert "10.99.0.0/24" in machine.run("ip route show dev wg0")
    assert "inet 10.8.0.1/24" in machine.run("ip address show dev wg0")
    assert "mtu 1400" in machine.run("ip link show dev wg0")
