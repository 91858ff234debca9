"""A changed file comes into force under traffic: what has not changed does not notice."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.network.support import Lab, UdpStream, make_psk, ping, ping_until, unique_interface, until
from tests.network.support.gateway import Gateway, Peer
from tests.network.support.gateway_token import GatewayToken, wghsm
from tests.network.support.site import PSK_ROOT, Client, Site
from tests.network.support.view import among
from wghsm.exits import ExitCode

FAR = "10.55.0.1"


class Scene:
    """A site whose client `stays` is never changed, and streams both ways between it and the gateway."""

    def __init__(self, lab: Lab, token: GatewayToken) -> None:
        self.lab = lab
        self.site = Site(lab, token)
        self.stays = self.site.client("stays", "derived")

    def start(self, *clients: Client) -> "Scene":
        self.site.start()
        for client in (self.stays, *clients):
            client.start()
            ping_until(client.namespace, self.site.inner4)
        self.began = time.monotonic()
        ends = ((self.stays.namespace, self.site.namespace, self.site.inner4),)
        back = ((self.site.namespace, self.stays.namespace, self.stays.ipv6),)
        self.streams = [
            self.lab.add(UdpStream(sender, receiver, address, self.lab.scratch, rate=50))
            for sender, receiver, address in ends + back
        ]
        self.flows()
        self.pids = self.gateway.pids()
        return self

    @property
    def gateway(self) -> Gateway:
        return self.site.gateway

    def flows(self) -> None:
        for stream in self.streams:
            stream.wait_for(20)

    def change(self, client: Client, **fields: object) -> None:
        """Change a client's entry in the file."""
        self.gateway.peers = [
            replace(peer, **fields) if peer.name == client.name else peer  # type: ignore[arg-type]
            for peer in self.gateway.peers
        ]
        self.gateway.write()

    def reload(self, *, code: int = 0) -> str:
        """Reload by name; give what is said, and check that the stream goes on."""
        done = self.gateway.command("reload", self.gateway.name, check=False)
        assert done.returncode == code, done.stderr
        self.flows()
        return done.stdout + done.stderr

    def plan(self) -> subprocess.CompletedProcess[str]:
        return self.gateway.command("plan", self.gateway.file, check=False)

    def check(self, *, custodian: bool = False) -> None:
        """`stays` has lost nothing and made no handshake but those that its age asks for; processes are the same."""
        reports = [stream.finish() for stream in self.streams]
        assert [report.lost for report in reports] == [(), ()]
        assert self.stays.handshakes() <= 1 + (time.monotonic() - self.began) // 110
        now = self.gateway.pids()
        assert (now.pop("custodian") != self.pids.pop("custodian")) is custodian
        assert now == self.pids


@pytest.fixture
def scene(lab: Lab, token: GatewayToken) -> Iterator[Scene]:
    """Give a scene that is not started."""
    yield Scene(lab, token)


def test_peers_come_go_and_change(scene: Scene) -> None:
    site, gateway = scene.site, scene.gateway
    goes, moves = site.client("goes"), site.client("moves", "derived", 6, dials=False)
    for client in (goes, moves):
        client.namespace.run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
    scene.change(goes, allowed_ips=[f"{goes.ipv4}/32", f"{FAR}/32"])
    scene.start(goes)
    moves.start()
    ping_until(site.namespace, moves.ipv4)
    assert ping(site.namespace, FAR, count=2).lost == 0
    assert scene.plan().returncode == ExitCode.OK
    assert scene.reload() == f"{gateway.name}: nothing has changed\n"

    # A peer comes.
    comes = site.client("comes", "derived")
    planned = scene.plan()
    assert planned.returncode == ExitCode.WOULD_CHANGE
    assert f"+ peer comes ({comes.public_key})" in planned.stdout
    assert scene.reload() == f"{gateway.name}: 1 peer added\n"
    comes.start()
    ping_until(comes.namespace, site.inner4)

    # A prefix moves from one peer to another: the old owner has it no more, the new one at once.
    scene.change(goes, allowed_ips=[f"{goes.ipv4}/32"])
    scene.change(moves, allowed_ips=[f"{moves.ipv4}/32", f"{moves.ipv6}/128", f"{FAR}/32"])
    assert scene.plan().stdout.count(f"allowed_ips {FAR}/32") == 2
    assert scene.reload() == f"{gateway.name}: 2 peers changed\n"
    received = gateway.peer(goes.public_key).rx_bytes
    assert ping(site.namespace, FAR, count=2).lost == 0
    assert gateway.peer(goes.public_key).rx_bytes == received

    # A peer goes, and its route with it.
    gateway.peers = [peer for peer in gateway.peers if peer.name != "goes"]
    gateway.write()
    assert scene.reload() == f"{gateway.name}: 1 peer removed\n"
    assert goes.public_key not in gateway.show()
    assert ping(goes.namespace, site.inner4, count=1, wait=1).lost == 1

    # The epoch of a PSK is raised: the session goes on, and the next handshake has the new one.
    until(lambda: gateway.peer(moves.public_key).psk_confirmed == 0, "epoch 0 is seen to be used")
    scene.change(moves, preshared_key="derived:1", keepalive=25)
    assert scene.reload() == f"{gateway.name}: 1 peer changed\n"
    assert ping(site.namespace, moves.ipv4, count=2).lost == 0
    shown = gateway.peer(moves.public_key)
    assert (shown.psk_epoch, shown.psk_confirmed, shown.persistent_keepalive) == (1, 0, 25)
    secret = gateway.command("psk", "export", "moves", "-c", gateway.file, "--out", "-").stdout.strip()
    assert moves.stock is not None
    moves.stock.set_peer(site.gateway_key, ["10.8.0.0/24", "fd08::/64", f"{FAR}/32"], None, secret)
    before = moves.wait_for_age()
    gateway.command("rekey", gateway.name, "moves")
    moves.wait_for_handshake(before)
    until(lambda: gateway.peer(moves.public_key).psk_confirmed == 1, "the peer has moved")

    # An endpoint in the file moves a peer that has roamed away, but only when it changes there.
    moves.stock.set("listen-port 51999")
    assert ping(moves.namespace, site.inner4, count=2).lost == 0
    roamed = moves.link.right.endpoint(6, 51999)
    until(lambda: gateway.peer(moves.public_key).endpoint == roamed, "the peer has roamed")
    scene.change(moves, keepalive=0)
    scene.reload()
    assert gateway.peer(moves.public_key).endpoint == roamed
    other = moves.link.right.endpoint(6, 51998)
    scene.change(moves, endpoint=other)
    scene.reload()
    assert gateway.peer(moves.public_key).endpoint == other
    scene.check()


def test_port_mark_addresses_routes_and_mtu(scene: Scene) -> None:
    site, gateway = scene.site, scene.gateway
    calls = site.client("calls", dials=False)
    scene.start()
    calls.start()
    ping_until(site.namespace, calls.ipv4)

    def routes() -> set[str]:
        shown = gateway.namespace.run("ip", "route", "show", "dev", gateway.name).stdout
        return {line.split()[0] for line in shown.splitlines()}

    def addresses() -> set[str]:
        shown = gateway.namespace.run("ip", "-o", "address", "show", "dev", gateway.name).stdout
        return {line.split()[3] for line in shown.splitlines()}

    gateway.addresses = ["10.8.0.1/24", "fd08::1/64", "10.9.0.1/24", "10.9.0.2/24"]
    gateway.interface = {"mtu": 1380, "fwmark": 77}
    scene.change(calls, allowed_ips=[f"{calls.ipv4}/32", f"{calls.ipv6}/128", "10.9.0.9/32", "10.66.0.0/16"])
    assert "~ interface.mtu: auto (1420 now) -> 1380" in scene.plan().stdout
    scene.reload()
    assert addresses() == {"10.8.0.1/24", "fd08::1/64", "10.9.0.1/24", "10.9.0.2/24"}
    assert routes() == {"10.8.0.0/24", "10.9.0.0/24", "10.66.0.0/16"}
    assert "mtu 1380" in gateway.namespace.run("ip", "link", "show", "dev", gateway.name).stdout
    assert gateway.status().fwmark == 77
    assert ping(site.namespace, calls.ipv4, count=2).lost == 0

    # The first address of a network takes the second one along, if nobody puts it back.
    gateway.addresses = ["10.8.0.1/24", "fd08::1/64", "10.9.0.2/24"]
    gateway.write()
    scene.reload()
    assert addresses() == {"10.8.0.1/24", "fd08::1/64", "10.9.0.2/24"}
    gateway.addresses = ["10.8.0.1/24", "fd08::1/64"]
    gateway.write()
    scene.reload()
    assert routes() == {"10.8.0.0/24", "10.9.0.9", "10.66.0.0/16"}

    # What has a gap with another port is only what peers send before they hear from it.
    gateway.interface = {"table": "off"}
    gateway.listen_port = 51900
    gateway.write()
    scene.reload()
    assert gateway.status().listen_port == 51900
    assert routes() == {"10.8.0.0/24"}
    assert ping(site.namespace, calls.ipv4, count=2).lost == 0
    assert ping(calls.namespace, site.inner4, count=2).lost == 0
    assert gateway.pids() == scene.pids


def test_a_bad_file_changes_nothing(scene: Scene, lab: Lab) -> None:
    scene.start()
    gateway = scene.gateway
    good = gateway.file.read_text()

    def allowed() -> dict[str, tuple[str, ...]]:
        return {key: peer.allowed_ips for key, peer in gateway.show().items()}

    before = allowed()
    gateway.file.write_text(good.replace('"derived"', '"derived:one"'))
    said = scene.reload(code=ExitCode.BAD_CONFIG)
    line = 1 + gateway.file.read_text().split("derived:one")[0].count("\n")
    assert said.startswith(f"{gateway.file}:{line}: the epoch of a derived pre-shared key is no number")
    assert scene.plan().returncode == ExitCode.BAD_CONFIG
    told = json.loads(gateway.command("reload", str(gateway.file), "--json", check=False).stdout)
    assert (told["gateway"], told["ok"], told["problems"][0]["line"]) == (gateway.name, False, line)
    assert "the epoch of a derived" in gateway.log()
    assert "the epoch of a derived" in gateway.status().reload_refused
    assert "last reload: refused" in gateway.command("status", gateway.name).stdout

    # What only a restart can do is refused as a whole.
    changed = json.loads(good)
    changed["interface"] |= {"name": unique_interface("wgg"), "listen_port": 51999}
    gateway.file.write_text(json.dumps(changed))
    assert "needs a restart of the gateway: interface.name" in scene.reload(code=ExitCode.NEEDS_RESTART)
    assert scene.plan().returncode == ExitCode.NEEDS_RESTART
    # Another file, which nobody runs.
    other = lab.scratch / "other.yaml"
    other.write_text(json.dumps(changed))
    for verb in ("plan", "reload"):
        done = gateway.namespace.run(*among(gateway), *wghsm(verb, other), check=False)
        assert done.returncode == ExitCode.NOT_RUNNING
    # A port that somebody else has.
    changed = json.loads(good)
    changed["interface"] |= {"listen_port": 51777, "mtu": 1300}
    gateway.file.write_text(json.dumps(changed))
    hold = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 51777)); sys.stdin.read()"
    held = lab.add(scene.site.namespace.start(sys.executable, "-c", hold, folder=lab.scratch, label="held"))
    until(lambda: scene.site.namespace.run("ss", "-Hlun", "sport = :51777").stdout.strip() != "", "the port is taken")
    assert "Address already in use" in scene.reload(code=ExitCode.FAILURE)
    held.stop()
    # A route that is there already.
    changed = json.loads(good)
    changed["interface"]["mtu"] = 1300
    changed["peers"][0]["allowed_ips"].append("10.44.0.0/16")
    gateway.file.write_text(json.dumps(changed))
    gateway.namespace.run("ip", "route", "add", "unreachable", "10.44.0.0/16")
    assert "10.44.0.0/16 in table 254 exists already" in scene.reload(code=ExitCode.FAILURE)

    assert allowed() == before
    status = gateway.status()
    assert (status.listen_port, status.name) == (gateway.listen_port, gateway.name)
    assert "mtu 1420" in gateway.namespace.run("ip", "link", "show", "dev", gateway.name).stdout
    gateway.file.write_text(good)
    assert scene.plan().returncode == ExitCode.OK
    assert scene.reload() == f"{gateway.name}: nothing has changed\n"
    assert gateway.status().reload_refused == ""
    scene.check()


def test_what_was_changed_at_run_time_is_drift(scene: Scene) -> None:
    other = scene.site.client("other")
    scene.start(other)
    gateway = scene.gateway
    extra = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAs="
    wg = ("wg", "set", gateway.name)
    gateway.namespace.run(*wg, "peer", other.public_key, "persistent-keepalive", "7", "allowed-ips", "10.8.0.99/32")
    gateway.namespace.run(*wg, "peer", extra, "allowed-ips", "10.98.0.0/16")
    planned = scene.plan()
    assert planned.returncode == ExitCode.WOULD_CHANGE
    drifted = [line for line in planned.stdout.splitlines() if "(drift: changed at run time)" in line]
    assert any(line.startswith(f"- peer added at run time ({extra})") for line in drifted)
    assert any("persistent_keepalive: 7 -> 0" in line for line in drifted)
    assert "- route 10.98.0.0/16 in table 254" in planned.stdout
    assert all(
        each["drift"]
        for each in json.loads(gateway.command("plan", str(gateway.file), "--json", check=False).stdout)["changes"]
    )
    scene.reload()
    assert extra not in gateway.show()
    assert gateway.peer(other.public_key).persistent_keepalive == 0
    assert scene.plan().returncode == ExitCode.OK
    ping_until(other.namespace, scene.site.inner4)
    scene.check()


def test_what_the_run_time_decides_stays(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token, interface={"authority": "runtime"})
    known, extra = site.client("known"), site.client("extra")
    # The file names one of them; the other comes with its PSK at run time.
    site.gateway.peers = [peer for peer in site.gateway.peers if peer.name == "known"]
    site.gateway.write()
    gateway = site.start()
    secret = make_psk()
    (lab.scratch / "psk").write_text(secret)
    entry = ("peer", extra.public_key, "preshared-key", lab.scratch / "psk", "allowed-ips", f"{extra.ipv4}/32")
    gateway.namespace.run("wg", "set", gateway.name, *entry)
    extra.secret = secret
    for client in (known, extra):
        client.start()
        ping_until(client.namespace, site.inner4)
        client.wait_until_known()
    assert gateway.command("plan", gateway.file).returncode == ExitCode.OK
    gateway.peers = [replace(gateway.peers[0], keepalive=9)]
    gateway.write()
    before = extra.latest_handshake()
    assert gateway.command("reload", gateway.name).stdout == f"{gateway.name}: 1 peer changed\n"
    assert gateway.peer(extra.public_key).preshared_key == "object"
    assert extra.latest_handshake() == before
    assert ping(extra.namespace, site.inner4, count=2).lost == 0


def test_sighup_and_many_at_once(scene: Scene) -> None:
    scene.start()
    gateway = scene.gateway
    comes = scene.site.client("comes")
    gateway.send_signal(signal.SIGHUP)
    until(lambda: comes.public_key in gateway.show(), "the peer is there")
    until(lambda: "reloaded: 1 peer added" in gateway.log(), "the log says so")
    goes = [peer for peer in gateway.peers if peer.name != "comes"]
    gateway.peers = [*goes, Peer("third", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAs=", ["10.8.0.77/32"])]
    gateway.write()
    said: list[subprocess.CompletedProcess[str]] = []
    clients = [
        threading.Thread(target=lambda: said.append(gateway.command("reload", gateway.name, check=False)))
        for _ in range(3)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [done.returncode for done in said] == [0, 0, 0]
    assert sorted(done.stdout for done in said) == [
        f"{gateway.name}: 1 peer added, 1 peer removed\n",
        *[f"{gateway.name}: nothing has changed\n"] * 2,
    ]
    scene.check()


def test_token_settings_come_by_another_custodian(scene: Scene, token: GatewayToken) -> None:
    scene.start()
    gateway, stays = scene.gateway, scene.stays
    gateway.token_section = {"sessions": 2}
    gateway.write()
    assert "the custodian is started again" in scene.plan().stdout
    assert scene.reload() == f"{gateway.name}: settings changed: token.sessions\n"
    custodian = gateway.pids()["custodian"]
    before = stays.wait_for_age()
    gateway.command("rekey", gateway.name)
    stays.wait_for_handshake(before)

    # Settings that do not work do not stay: no such key, no such PIN file, another PIN.
    wrong = scene.lab.scratch / "wrong.pin"
    wrong.write_text("000000\n")
    for fields, words in (
        ({"key": "nobody"}, "nobody"),
        ({"token_section": {"uri": token.uri.replace(str(token.pin_file), "/nonexistent")}}, "/nonexistent"),
        ({"token_section": {"uri": token.uri.replace(str(token.pin_file), str(wrong))}}, "PIN"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            for field, value in fields.items():
                patch.setattr(gateway, field, value)
            gateway.write()
            said = scene.reload(code=ExitCode.FAILURE)
        assert "the new token settings do not work" in said
        assert words in said
    gateway.write()
    until(gateway.serves, "the gateway serves with the settings before", 60)
    assert gateway.pids()["custodian"] != custodian
    assert gateway.restarts("custodian") >= 1
    assert scene.plan().returncode == ExitCode.OK
    before = stays.wait_for_age()
    gateway.command("rekey", gateway.name)
    stays.wait_for_handshake(before)
    reports = [stream.finish() for stream in scene.streams]
    assert [report.lost for report in reports] == [(), ()]


def test_another_pin_comes_by_another_custodian(lab: Lab) -> None:
    with GatewayToken("wghsm-other-pin") as token:
        token.generate("gateway")
        token.derive_root(PSK_ROOT)
        scene = Scene(lab, token).start()
        gateway, stays = scene.gateway, scene.stays
        assert scene.reload() == f"{gateway.name}: nothing has changed\n"

        # The token has another PIN than the file: there is no way back, and nothing else is lost.
        token.change_pin("73519731")
        token.pin_file.write_text("1111\n")
        planned = scene.plan()
        assert planned.returncode == ExitCode.WOULD_CHANGE
        assert "the file of the token's PIN has changed" in planned.stdout
        assert planned.stdout.endswith("plan: a new login\n")
        assert json.loads(gateway.command("plan", gateway.file, "--json", check=False).stdout)["login_is_due"] is True
        told = json.loads(gateway.command("reload", gateway.name, "--json", check=False).stdout)
        assert told["ok"] is False
        assert "there is no custodian now" in told["result"]
        status = gateway.status()
        assert status.token is not None
        assert (status.token.state, status.token.detail) == ("away", told["result"])
        assert {each.role: each.state for each in status.processes}["custodian"] == "waiting"
        scene.flows()

        token.pin_file.write_text("73519731\n")
        assert scene.reload() == f"{gateway.name}: a new login at the token\n"
        assert scene.plan().returncode == ExitCode.OK
        assert scene.reload() == f"{gateway.name}: nothing has changed\n"
        custodian = gateway.pids()["custodian"]
        done = gateway.command("reload", gateway.name, "--login")
        assert done.stdout == f"{gateway.name}: a new login at the token\n"
        assert gateway.pids()["custodian"] != custodian
        before = stays.wait_for_age()
        gateway.command("rekey", gateway.name)
        stays.wait_for_handshake(before)
        reports = [stream.finish() for stream in scene.streams]
        assert [report.lost for report in reports] == [(), ()]


def test_a_wrapping_key_that_does_not_open_what_is_wrapped_is_refused(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    client, gateway = site.client("client"), site.gateway
    gateway.peers = [replace(gateway.peers[0], preshared_key="wrapped:client.psk")]
    words = ("psk", "wrap", "--make-key", "-c", gateway.file)
    for label in ("other", "good"):
        gateway.token_section = {"psk_wrap_key": f"{gateway.name}-{label}"}
        gateway.write()
        gateway.command(*words)
    gateway.command("psk", "wrap", "client", "--generate", "-c", gateway.file)
    client.secret = gateway.command("psk", "export", "client", "-c", gateway.file, "--out", "-").stdout.strip()
    site.start()
    client.start()
    ping_until(client.namespace, site.inner4)

    good = gateway.file.read_text()
    gateway.file.write_text(good.replace(f"{gateway.name}-good", f"{gateway.name}-other"))
    done = gateway.command("reload", gateway.name, check=False)
    assert done.returncode == ExitCode.FAILURE
    assert f"{lab.scratch}/client.psk:2: " in done.stderr
    assert f"does not open with '{gateway.name}-other'" in done.stderr
    assert "wghsm psk wrap; those before stay in force" in done.stderr
    assert done.stderr.count("\n") == 1
    gateway.file.write_text(good)
    assert gateway.command("reload", gateway.name).stdout == f"{gateway.name}: nothing has changed\n"
    assert gateway.serves()
    before = client.wait_for_age()
    gateway.command("rekey", gateway.name)
    client.wait_for_handshake(before)
