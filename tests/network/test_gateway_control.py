"""A running gateway in its operator's hands: wg(8) over the standard socket, `wghsm up`, `status`, `rekey`, `down`."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.support import KeyPair, Lab, UdpStream, make_psk, ping, ping_until, until
from tests.network.support.gateway import Gateway, Peer
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import CLIENT_PORT, Client, Site
from wghsm.exits import ExitCode


def wg(site: Site, *words: str, stdin: str = "", check: bool = True) -> tuple[int, str]:
    """Run `wg WORDS` in the gateway's namespace; give exit code and whatever it said."""
    done = site.namespace.run("wg", *words, stdin=stdin, check=check)
    return done.returncode, done.stdout + done.stderr


def secret_file(lab: Lab, value: str) -> str:
    path = lab.scratch / f"secret-{len(list(lab.scratch.glob('secret-*')))}"
    path.touch(mode=0o600)
    path.write_text(value + "\n")
    return str(path)


def dump(site: Site) -> list[str]:
    return wg(site, "show", site.gateway.name, "dump")[1].splitlines()


@pytest.fixture
def site(lab: Lab, token: GatewayToken) -> Iterator[Site]:
    """A gateway with one client that has a session."""
    made = Site(lab, token)
    client = made.client("client", "derived")
    made.start()
    client.start()
    ping_until(client.namespace, made.inner4)
    client.wait_until_known()
    yield made


def test_wg_show_says_what_status_says(site: Site) -> None:
    client, gateway = site.clients[0], site.gateway
    shown = wg(site, "show", gateway.name)[1]
    for line in (f"interface: {gateway.name}", f"listening port: {gateway.listen_port}", f"peer: {client.public_key}"):
        assert line in shown
    assert "latest handshake:" in shown
    # Not even masked: wg(8) is never given a key of the token.
    assert "private key" not in shown
    assert "preshared key" not in shown
    assert gateway.name in wg(site, "show", "interfaces")[1].split()
    device, peer = (line.split("\t") for line in dump(site))
    assert device == ["(none)", "(none)", str(gateway.listen_port), "off"]
    status = gateway.peer(client.public_key)
    assert peer[:2] == [client.public_key, "(none)"]
    assert peer[2] == status.endpoint
    assert peer[3] == ",".join(status.allowed_ips)
    assert wg(site, "showconf", gateway.name)[0] == 0


def test_wg_set_changes_peers_at_run_time(site: Site, lab: Lab) -> None:
    gateway, client = site.gateway, site.clients[0]
    late = site.lab.namespace("late")
    link = lab.connect(site.namespace, late)
    stock = lab.stock_peer(late, ["10.8.0.50/24", "fd08::50/64"], CLIENT_PORT)
    stock.set_peer(site.gateway_key, ["10.8.0.0/24", "fd08::/64"])
    endpoint = link.right.endpoint(6, CLIENT_PORT)
    allowed = "10.8.0.50/32,fd08::50/128,10.50.0.0/16"
    words = f"set {gateway.name} peer {stock.public_key} endpoint {endpoint} allowed-ips {allowed}"
    wg(site, *words.split(), "persistent-keepalive", "9")
    ping_until(site.namespace, "10.8.0.50")
    assert ping(late, site.inner6, count=3).lost == 0
    state = gateway.show()[stock.public_key]
    assert (state.endpoint, set(state.allowed_ips), state.keepalive) == (endpoint, set(allowed.split(",")), 9)
    assert "10.50.0.0/16" in site.namespace.run("ip", "route", "show", "dev", gateway.name).stdout
    wg(
        site,
        "set",
        gateway.name,
        "peer",
        stock.public_key,
        "allowed-ips",
        "10.8.0.50/32",
        "persistent-keepalive",
        "off",
    )
    state = gateway.show()[stock.public_key]
    assert (state.allowed_ips, state.keepalive) == (("10.8.0.50/32",), None)
    assert "10.50.0.0/16" not in site.namespace.run("ip", "route", "show", "dev", gateway.name).stdout
    assert ping(late, site.inner4, count=3).lost == 0
    assert ping(late, site.inner6, count=2, wait=0.5).received == 0
    wg(site, "set", gateway.name, "peer", stock.public_key, "remove")
    assert stock.public_key not in gateway.show()
    assert ping(late, site.inner4, count=2, wait=0.5).received == 0
    assert ping(client.namespace, site.inner4, count=3).lost == 0


def test_an_allowed_ip_moves_to_another_peer(site: Site) -> None:
    client = site.clients[0]
    other = KeyPair.make().public
    wg(site, "set", site.gateway.name, "peer", other, "allowed-ips", f"{client.ipv4}/32")
    peers = site.gateway.show()
    assert peers[other].allowed_ips == (f"{client.ipv4}/32",)
    assert peers[client.public_key].allowed_ips == (f"{client.ipv6}/128",)
    assert ping(client.namespace, site.inner4, count=2, wait=0.5).received == 0
    assert ping(client.namespace, site.inner6, count=2).lost == 0
    wg(site, "set", site.gateway.name, "peer", client.public_key, "allowed-ips", f"{client.ipv4}/32,{client.ipv6}/128")
    assert ping(client.namespace, site.inner4, count=2).lost == 0


def test_wg_set_moves_the_port_and_the_mark(site: Site) -> None:
    client, gateway = site.clients[0], site.gateway
    assert client.stock is not None
    wg(site, "set", gateway.name, "listen-port", "51999", "fwmark", "0x1234")
    assert dump(site)[0].split("\t")[2:] == ["51999", "0x1234"]
    # The gateway's next packet takes the client to the new port.
    assert ping(site.namespace, client.ipv4, count=3).lost == 0
    assert client.stock.peers()[site.gateway_key].endpoint == client.link.left.endpoint(4, 51999)
    assert ping(client.namespace, site.inner4, count=3).lost == 0
    site.namespace.run("ip", "rule", "add", "fwmark", "0x1234", "unreachable")
    assert ping(site.namespace, client.ipv4, count=2, wait=0.5).received == 0
    site.namespace.run("ip", "rule", "delete", "fwmark", "0x1234", "unreachable")
    assert ping(site.namespace, client.ipv4, count=3).lost == 0
    wg(site, "set", gateway.name, "fwmark", "off", "listen-port", "0")
    port, mark = dump(site)[0].split("\t")[2:]
    assert int(port) not in (0, 51999)
    assert mark == "off"
    assert ping(site.namespace, client.ipv4, count=3).lost == 0


def test_a_port_that_is_taken_is_refused_and_nothing_changes(site: Site) -> None:
    other = site.lab.add(Gateway(site.namespace, site.lab.scratch, site.token, addresses=[], listen_port=52000)).start()
    before = dump(site)
    code, said = wg(site, "set", site.gateway.name, "listen-port", "52000", "fwmark", "7", check=False)
    assert code == 1
    assert "Address already in use" in said
    assert dump(site)[0] == before[0]
    assert ping(site.clients[0].namespace, site.inner4, count=3).lost == 0
    other.stop()


def test_keys_in_clear_are_refused_and_nothing_of_the_operation_is_applied(site: Site, lab: Lab) -> None:
    gateway, client = site.gateway, site.clients[0]
    before, stranger = dump(site), KeyPair.make()
    private = secret_file(lab, stranger.private)
    psk = secret_file(lab, make_psk())
    for words in (
        ["private-key", private],
        ["listen-port", "51998", "private-key", private],
        ["peer", client.public_key, "preshared-key", psk],
        ["fwmark", "9", "peer", stranger.public, "preshared-key", psk, "allowed-ips", "10.8.0.66/32"],
    ):
        code, said = wg(site, "set", gateway.name, *words, check=False)
        assert code == 1
        assert "Operation not permitted" in said
        now = dump(site)
        assert now[0] == before[0]
        assert [line.split("\t")[:4] for line in now[1:]] == [line.split("\t")[:4] for line in before[1:]]
    # A zero key, as wg(8) sends it when a file has none, keeps the token's key and PSK.
    empty = ["private-key", "/dev/null", "peer", client.public_key, "preshared-key", "/dev/null"]
    wg(site, "set", gateway.name, *empty)
    assert gateway.public_key == site.gateway_key
    assert gateway.peer(client.public_key).preshared_key == "derived"
    check_new_session(client)
    assert "refused" in gateway.log()
    assert stranger.private not in gateway.log()


def check_new_session(client: Client) -> None:
    """A handshake from scratch still works: key and PSK are what they were."""
    known = client.wait_for_age()
    client.site.gateway.command("rekey", client.site.gateway.name, client.name)
    client.wait_for_handshake(known)
    assert ping(client.namespace, client.site.inner4, count=3).lost == 0


def test_setconf_and_syncconf_never_lose_the_tokens_key(site: Site, lab: Lab) -> None:
    gateway, client = site.gateway, site.clients[0]
    stream = lab.add(UdpStream(client.namespace, site.namespace, site.inner4, lab.scratch, rate=50))
    other = KeyPair.make().public
    conf = lab.scratch / "synced.conf"
    kept = f"[Peer]\nPublicKey = {client.public_key}\nAllowedIPs = {client.ipv4}/32, {client.ipv6}/128\n"
    added = f"[Peer]\nPublicKey = {other}\nAllowedIPs = 10.8.0.66/32\nPersistentKeepalive = 30\n"
    port = f"[Interface]\nListenPort = {gateway.listen_port}\n"
    for verb, text in (("syncconf", port + kept + added), ("setconf", port + kept + added), ("syncconf", port + kept)):
        stream.wait_for(10)
        conf.write_text(text)
        wg(site, verb, gateway.name, str(conf))
        assert (other in gateway.show()) is (added in text)
        assert gateway.public_key == site.gateway_key
        assert gateway.peer(client.public_key).preshared_key == "derived"
        stream.wait_for(10)
    report = stream.finish()
    assert report.lost == ()
    check_new_session(client)


def test_authority_runtime_keeps_psks_in_the_token(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token, interface={"authority": "runtime"})
    site.start()
    namespace = lab.namespace("rosenpass")
    link = lab.connect(site.namespace, namespace)
    keys = KeyPair.make()
    label = "wghsm-psk-" + keys.public.rstrip("=").replace("+", "-").replace("/", "_")
    first, second = make_psk(), make_psk()
    words = ["set", site.gateway.name, "peer", keys.public, "allowed-ips", "10.8.0.50/32", "preshared-key"]
    wg(site, *words, secret_file(lab, first))
    assert label in token.secrets()
    assert token.secret_value(label) == base64.b64decode(first)
    assert site.gateway.peer(keys.public).preshared_key == "object"
    stock = lab.stock_peer(namespace, ["10.8.0.50/24"], CLIENT_PORT, keys)
    stock.set_peer(site.gateway_key, ["10.8.0.0/24"], link.left.endpoint(4, site.gateway.listen_port), first)
    ping_until(namespace, site.inner4)
    known = stock.latest_handshake(site.gateway_key)
    wg(site, *words, secret_file(lab, second))
    assert token.secret_value(label) == base64.b64decode(second)
    stock.remove_peer(site.gateway_key)
    stock.set_peer(site.gateway_key, ["10.8.0.0/24"], link.left.endpoint(4, site.gateway.listen_port), second)
    ping_until(namespace, site.inner4)
    assert stock.latest_handshake(site.gateway_key) >= known
    # No key in an operation leaves the one there is.
    wg(site, "set", site.gateway.name, "peer", keys.public, "persistent-keepalive", "20")
    assert label in token.secrets()
    code, said = wg(site, "set", site.gateway.name, "private-key", secret_file(lab, keys.private), check=False)
    assert code == 1
    assert "Operation not permitted" in said
    wg(site, "set", site.gateway.name, "peer", keys.public, "remove")
    until(lambda: label not in token.secrets(), "the PSK left the token")
    assert site.gateway.show() == {}


def test_up_status_rekey_down(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    client, gateway = site.client("client", "object"), site.gateway
    assert gateway.command("status", gateway.name, check=False).returncode == ExitCode.NOT_RUNNING
    assert gateway.command("down", gateway.name, check=False).returncode == ExitCode.NOT_RUNNING
    assert gateway.command("rekey", gateway.name, check=False).returncode == ExitCode.NOT_RUNNING
    up = gateway.command("up", gateway.file)
    # It serves at once: nothing is waited for.
    assert gateway.serves()
    assert gateway.name in site.namespace.interfaces()
    assert gateway.name in up.stdout
    log = Path("/run/wghsm", gateway.name, "log")
    assert str(log) in up.stdout
    assert "serves" in log.read_text()
    again = gateway.command("up", gateway.file, check=False)
    assert again.returncode == ExitCode.ALREADY_RUNNING
    assert len(again.stderr.splitlines()) == 1
    client.start()
    ping_until(client.namespace, site.inner4)
    reported = json.loads(gateway.command("status", gateway.name, "--json").stdout)[0]
    assert reported["name"] == gateway.name
    assert reported["public_key"] == site.gateway_key
    assert reported["token"]["state"] == "ready"
    assert {each["role"]: each["state"] for each in reported["processes"]} == dict.fromkeys(
        ("custodian", "handshake", "egress", "ingress", "control"), "ready"
    )
    shown = gateway.command("status", gateway.name).stdout
    for word in (gateway.name, client.name, "latest handshake", site.gateway_key, "token", "ready"):
        assert word in shown
    known = client.wait_for_age()
    asked = json.loads(gateway.command("rekey", gateway.name, client.name, "--json").stdout)
    assert asked["peers"] == [client.public_key]
    client.wait_for_handshake(known)
    wrong = gateway.command("rekey", gateway.name, "nobody", check=False)
    assert wrong.returncode == ExitCode.FAILURE
    assert client.name in wrong.stderr
    pids = list(gateway.pids().values())
    gateway.command("down", gateway.name)
    assert gateway.leftovers(pids) == []
    assert gateway.command("down", gateway.name, check=False).returncode == ExitCode.NOT_RUNNING
    again = gateway.command("up", gateway.file, "--json")
    assert json.loads(again.stdout) == {"gateway": gateway.name, "log": str(log)}
    gateway.command("down", gateway.name)


@pytest.fixture
def named(lab: Lab, token: GatewayToken) -> Iterator[tuple[Site, Path]]:
    """A gateway in a namespace with a file of host names of its own, so that no question leaves the machine."""
    site = Site(lab, token)
    folder = Path("/etc/netns", site.namespace.name)
    folder.mkdir(parents=True)
    try:
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n")
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        yield site, hosts
    finally:
        shutil.rmtree(folder)


def test_a_host_name_is_resolved_by_the_helper(named: tuple[Site, Path]) -> None:
    site, hosts = named
    now, later = site.client("now", dials=False), site.client("later", dials=False, family=6)
    site.gateway.peers = [
        Peer(each.name, each.public_key, [f"{each.ipv4}/32"], endpoint=f"{each.name}.example:{CLIENT_PORT}")
        for each in (now, later)
    ]
    site.gateway.write()
    hosts.write_text(f"127.0.0.1 localhost\n{now.link.right.ipv4} now.example\n")
    for each in (now, later):
        each.start()
    site.start()
    ping_until(site.namespace, now.ipv4)
    now.wait_until_known()
    assert site.gateway.peer(now.public_key).endpoint == now.link.right.endpoint(4, CLIENT_PORT)
    until(lambda: "later.example" in site.gateway.log(), "a word about the name that has no address")
    assert site.gateway.peer(later.public_key).endpoint is None
    hosts.write_text(f"127.0.0.1 localhost\n{later.link.right.ipv6} later.example\n")
    ping_until(site.namespace, later.ipv4, limit=60)
    later.wait_until_known()
    assert site.gateway.peer(later.public_key).endpoint == later.link.right.endpoint(6, CLIENT_PORT)
    site.gateway.stop()


@pytest.mark.parametrize("table", ["auto", "off", 4711])
def test_routes_go_where_the_file_says(lab: Lab, token: GatewayToken, table: str | int) -> None:
    site = Site(lab, token, interface={"table": table})
    gateway = site.gateway
    gateway.peers = [Peer("far", KeyPair.make().public, ["10.8.0.9/32", "10.60.0.0/16", "fd60::/32"])]
    gateway.write()
    site.start()

    def routes(where: str) -> set[str]:
        lines = [
            line.split()[0]
            for family in ("-4", "-6")
            for line in site.namespace.run(
                "ip", family, "route", "show", "table", where, "dev", gateway.name, check=False
            ).stdout.splitlines()
        ]
        return set(lines)

    # The addresses' own networks, which the kernel routes.
    connected = {"10.8.0.0/24", "fd08::/64"}
    own = {"auto": {"10.60.0.0/16", "fd60::/32"}, "off": set[str]()}.get(str(table), set())
    assert routes("main") == connected | own
    assert routes("4711") == ({"10.8.0.9", "10.60.0.0/16", "fd60::/32"} if table == 4711 else set())
    gateway.stop()
    assert gateway.leftovers() == []


def test_default_routes_may_be_left_to_others(lab: Lab, token: GatewayToken) -> None:
    gateway = lab.add(
        Gateway(lab.namespace("alone"), lab.scratch, token, [Peer("all", KeyPair.make().public, ["0.0.0.0/0", "::/0"])])
    )
    gateway.interface = {"table": "off"}
    gateway.write()
    gateway.start()
    assert gateway.show().popitem()[1].allowed_ips == ("0.0.0.0/0", "::/0")
    gateway.stop()
