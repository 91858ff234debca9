"""Every command of wg(8) against a running gateway, in both authorities; broken and slow clients; very many peers."""

import base64
import errno
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.support import KeyPair, Lab, Process, make_psk, ping, ping_until, until
from tests.network.support.gateway import Gateway
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site
from tests.network.support.wireguard_go import SOCKETS

MANY = 10_000


@pytest.fixture(params=["file", "runtime"])
def site(request: pytest.FixtureRequest, lab: Lab, token: GatewayToken) -> Site:
    """A gateway of each authority, with one client that has a session and a derived pre-shared key."""
    made = Site(lab, token, interface={"authority": request.param, "table": "off"})
    client = made.client("client", "derived", keepalive=25)
    made.start()
    client.start()
    ping_until(client.namespace, made.inner4)
    client.wait_until_known()
    return made


@pytest.fixture
def bare(lab: Lab, token: GatewayToken) -> Iterator[Gateway]:
    """A gateway without peers."""
    with lab.add(Gateway(lab.namespace("bare"), lab.scratch, token, interface={"table": "off"})).start() as made:
        yield made


def wg(gateway: Gateway, *words: str | Path, stdin: str = "", refused: str = "") -> str:
    """Run `wg WORDS` and give what it printed; with `refused`, it must fail and say that."""
    done = gateway.namespace.run("wg", *words, stdin=stdin, check=not refused, limit=240)
    if refused:
        assert done.returncode == 1
        assert refused in done.stderr
    return done.stdout


def show(gateway: Gateway, what: str) -> str:
    return wg(gateway, "show", gateway.name, what).strip()


def talk(gateway: Gateway, text: str) -> str:
    """Say something at the socket, and give the whole answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(120)
        client.connect(str(SOCKETS / f"{gateway.name}.sock"))
        client.sendall(text.encode())
        answer = bytearray()
        while not answer.endswith(b"\n\n"):
            part = client.recv(1 << 20)
            if not part:
                break
            answer += part
        return answer.decode()


def hexed(key: str) -> str:
    return base64.b64decode(key).hex()


def holding(gateway: Gateway, port: int, scratch: Path) -> Process:
    """A process in the gateway's namespace that has a UDP port."""
    program = (
        "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.bind(('', {port})); print('bound', flush=True); sys.stdin.read()"
    )
    holder = gateway.namespace.start(sys.executable, "-c", program, folder=scratch, label=f"holder-{port}")
    assert holder.next_line() == "bound"
    return holder


def secret_file(lab: Lab, value: str) -> Path:
    path = lab.scratch / f"secret-{len(list(lab.scratch.glob('secret-*')))}"
    path.touch(mode=0o600)
    path.write_text(value + "\n")
    return path


def check_new_session(client: Client) -> None:
    """A handshake from scratch works: key and pre-shared key are what they were."""
    assert client.site.gateway.public_key == client.site.gateway_key
    assert client.site.gateway.peer(client.public_key).preshared_key == "derived"
    known = client.wait_for_age()
    client.site.gateway.command("rekey", client.site.gateway.name, client.public_key)
    client.wait_for_handshake(known)
    assert ping(client.namespace, client.site.inner4, count=3).lost == 0


def test_every_form_of_show(site: Site) -> None:
    gateway, key = site.gateway, site.clients[0].public_key
    status = gateway.peer(key)
    assert status.endpoint is not None
    allowed = " ".join(status.allowed_ips)
    assert show(gateway, "public-key") == show(gateway, "private-key") == "(none)"
    assert show(gateway, "listen-port") == str(gateway.listen_port)
    assert show(gateway, "fwmark") == "off"
    assert show(gateway, "peers") == key
    assert show(gateway, "preshared-keys") == f"{key}\t(none)"
    assert show(gateway, "endpoints") == f"{key}\t{status.endpoint}"
    assert show(gateway, "allowed-ips") == f"{key}\t{allowed}"
    assert show(gateway, "persistent-keepalive") == f"{key}\t25"
    assert show(gateway, "latest-handshakes") == f"{key}\t{int(status.latest_handshake or 0)}"
    shown = show(gateway, "transfer").split("\t")
    assert shown[0] == key
    assert (int(shown[1]), int(shown[2])) >= (status.rx_bytes, status.tx_bytes) > (0, 0)
    device, peer = show(gateway, "dump").splitlines()
    assert device.split("\t") == ["(none)", "(none)", str(gateway.listen_port), "off"]
    assert peer.split("\t")[:5] == [
        key,
        "(none)",
        status.endpoint,
        ",".join(status.allowed_ips),
        str(int(status.latest_handshake or 0)),
    ]
    assert gateway.name in wg(gateway, "show", "interfaces").split()
    assert f"{gateway.name}\t{key}" in wg(gateway, "show", "all", "peers").splitlines()
    assert f"interface: {gateway.name}\n" in wg(gateway, "show")
    pretty = wg(gateway, "show", gateway.name)
    assert f"peer: {key}\n  endpoint: {status.endpoint}\n" in pretty
    assert "persistent keepalive: every 25 seconds" in pretty
    assert "private key" not in pretty
    assert "preshared key" not in pretty
    said = talk(gateway, "get=1\n\n")
    assert said.startswith(f"own_public_key={hexed(site.gateway_key)}\nlisten_port=")
    assert said.endswith("errno=0\n\n")
    assert "private_key=" not in said
    assert "preshared_key=" not in said


def test_the_configuration_verbs_keep_key_and_psk(site: Site, lab: Lab) -> None:
    gateway, client = site.gateway, site.clients[0]
    conf, before = lab.scratch / "wg.conf", show(gateway, "dump").splitlines()
    conf.write_text(wg(gateway, "showconf", gateway.name))
    assert "PrivateKey" not in conf.read_text()
    assert "PresharedKey" not in conf.read_text()
    for verb in ("setconf", "syncconf", "addconf"):
        wg(gateway, verb, gateway.name, conf)
        now = show(gateway, "dump").splitlines()
        assert now[0] == before[0]
        # All but traffic and its times.
        assert [line.split("\t")[:4] + line.split("\t")[7:] for line in now[1:]] == [
            line.split("\t")[:4] + line.split("\t")[7:] for line in before[1:]
        ]
        assert ping(client.namespace, site.inner4, count=2).lost == 0
    other = KeyPair.make().public
    conf.write_text(f"[Peer]\nPublicKey = {other}\nAllowedIPs = 10.8.0.66/32, fd08::66/128\nEndpoint = 192.0.2.9:7\n")
    wg(gateway, "addconf", gateway.name, conf)
    assert set(show(gateway, "peers").split()) == {client.public_key, other}
    # A file with nothing but this peer: the client goes, the key stays, and the port is the kernel's choice.
    wg(gateway, "setconf", gateway.name, conf)
    assert show(gateway, "peers") == other
    assert gateway.public_key == site.gateway_key
    assert int(show(gateway, "listen-port")) not in (0, gateway.listen_port)
    conf.write_text(
        f"[Interface]\nListenPort = {gateway.listen_port}\n[Peer]\nPublicKey = {other}\nAllowedIPs = fd08::66/128\n"
    )
    wg(gateway, "syncconf", gateway.name, conf)
    assert show(gateway, "allowed-ips") == f"{other}\tfd08::66/128"
    assert show(gateway, "listen-port") == str(gateway.listen_port)
    wg(gateway, "set", gateway.name, "private-key", "/dev/null", "peer", other, "remove")
    assert show(gateway, "peers") == ""
    assert gateway.public_key == site.gateway_key


def test_keys_in_clear(site: Site, lab: Lab, token: GatewayToken) -> None:
    gateway, client = site.gateway, site.clients[0]
    runtime = site.gateway.interface["authority"] == "runtime"
    stranger, psk = KeyPair.make(), make_psk()
    conf = lab.scratch / "wg.conf"
    before = show(gateway, "peers")
    # The private key: never, whatever the verb.
    conf.write_text(f"[Interface]\nPrivateKey = {stranger.private}\n[Peer]\nPublicKey = {stranger.public}\n")
    commands: list[list[str | Path]] = [
        ["set", gateway.name, "private-key", secret_file(lab, stranger.private), "peer", stranger.public],
        ["setconf", gateway.name, conf],
        ["addconf", gateway.name, conf],
        ["syncconf", gateway.name, conf],
    ]
    for words in commands:
        wg(gateway, *words, refused="Operation not permitted")
        assert show(gateway, "peers") == before
    # A pre-shared key: into the token where the authority is runtime, and not at all otherwise.
    label = "wghsm-psk-" + stranger.public.rstrip("=").replace("+", "-").replace("/", "_")
    kept = f"[Interface]\nListenPort = {gateway.listen_port}\n[Peer]\nPublicKey = {client.public_key}\n"
    kept += f"AllowedIPs = {client.ipv4}/32, {client.ipv6}/128\n"
    conf.write_text(f"{kept}[Peer]\nPublicKey = {stranger.public}\nPresharedKey = {psk}\n")
    for verb in ("setconf", "syncconf", "addconf"):
        wg(gateway, verb, gateway.name, conf, refused="" if runtime else "Operation not permitted")
        assert (label in token.secrets()) is runtime
        assert (stranger.public in show(gateway, "peers")) is runtime
    assert psk not in talk(gateway, "get=1\n\n")
    if runtime:
        assert token.secret_value(label) == base64.b64decode(psk)
        assert gateway.peer(stranger.public).preshared_key == "object"
        # Refused as a whole for its port: the token keeps the key that it has.
        with holding(gateway, 52001, lab.scratch):
            elsewhere = ("set", gateway.name, "listen-port", "52001", "peer", stranger.public)
            other = secret_file(lab, make_psk())
            wg(gateway, *elsewhere, "preshared-key", other, refused="Address already in use")
        assert token.secret_value(label) == base64.b64decode(psk)
        conf.write_text(kept)
        wg(gateway, "syncconf", gateway.name, conf)
        until(lambda: label not in token.secrets(), "the pre-shared key leaves the token with its peer")
    check_new_session(client)
    assert psk not in gateway.log()


def test_one_prefix_can_be_taken_from_a_peer(bare: Gateway) -> None:
    owner, other = (hexed(KeyPair.make().public) for _ in range(2))

    def change(key: str, *prefixes: str) -> str:
        return talk(bare, f"set=1\npublic_key={key}\n" + "".join(f"allowed_ip={each}\n" for each in prefixes) + "\n")

    def allowed() -> dict[str, set[str]]:
        peers = bare.status().peers
        return {hexed(peer.public_key): set(peer.allowed_ips) for peer in peers}

    assert change(owner, "10.1.0.0/16", "10.2.0.0/16", "fd01::/64") == "errno=0\n\n"
    # Only the very prefix, and only its owner's.
    assert change(owner, "-10.1.0.0/24", "-10.9.0.0/16") == "errno=0\n\n"
    assert change(other, "-10.1.0.0/16") == "errno=0\n\n"
    assert allowed() == {owner: {"10.1.0.0/16", "10.2.0.0/16", "fd01::/64"}, other: set()}
    assert change(owner, "-10.1.0.0/16", "-fd01::1/64") == "errno=0\n\n"
    assert allowed() == {owner: {"10.2.0.0/16"}, other: set()}
    assert change(other, "10.2.0.0/16", "-10.2.0.0/16") == "errno=0\n\n"
    assert allowed() == {owner: set(), other: set()}


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        ("listen_port=x", errno.EINVAL),
        ("no separator", errno.EPROTO),
        ("private_key=" + "11" * 32, errno.EPERM),
        ("public_key=" + "22" * 32 + "\npreshared_key=" + "11" * 32, errno.EPERM),
        ("public_key=" + "22" * 32 + "\nendpoint=[fe80::1%eth0]:1", errno.EINVAL),
    ],
)
def test_a_refused_operation_is_answered_with_a_negative_number_and_changes_nothing(
    bare: Gateway, lines: str, number: int
) -> None:
    before = talk(bare, "get=1\n\n")
    assert talk(bare, f"set=1\nfwmark=7\n{lines}\n\n") == f"errno=-{number}\n\n"
    assert talk(bare, "get=1\n\n") == before


def test_slow_and_broken_clients_are_in_nobodys_way(bare: Gateway) -> None:
    keys = [KeyPair.make().public for _ in range(3)]
    held: list[socket.socket] = []

    def client() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(60)
        made.connect(str(SOCKETS / f"{bare.name}.sock"))
        held.append(made)
        return made

    for beginning in (b"", b"get=1", b"set=1\nfwmark=9\n", b"set=1\nfwmark=" + b"9" * 1_000_000):
        client().sendall(beginning)
    for nonsense in (b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"set=1\n" + b"\xff" * 1000 + b"\n\n"):
        client().sendall(nonsense)
    deaf = client()
    deaf.sendall(b"get=1\n\n" * 10_000)
    slow = client()
    for number, letter in enumerate(f"set=1\npublic_key={hexed(keys[0])}\n\n"):
        slow.sendall(letter.encode())
        if number % 20 == 0:
            assert show(bare, "fwmark") == "off"
    assert slow.recv(100) == b"errno=0\n\n"
    wg(bare, "set", bare.name, "peer", keys[1], "allowed-ips", "10.9.0.0/16")
    # More silent ones than there is room for.
    for _ in range(100):
        client()
    wg(bare, "set", bare.name, "peer", keys[2], "allowed-ips", "10.10.0.0/16")
    assert set(show(bare, "peers").split()) == set(keys)
    assert show(bare, "fwmark") == "off"
    assert bare.restarts("control") == 0
    for each in held:
        each.close()


def test_several_clients_at_once_each_get_their_own_answer(bare: Gateway) -> None:
    keys = [KeyPair.make().public for _ in range(8)]
    clients = []
    for number, key in enumerate(keys):
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(60)
        made.connect(str(SOCKETS / f"{bare.name}.sock"))
        bad = "fwmark=x\n" if number % 2 else ""
        made.sendall(f"set=1\n{bad}public_key={hexed(key)}\nallowed_ip=10.{number}.0.0/16\n\n".encode())
        clients.append(made)
    for number, made in enumerate(clients):
        assert made.recv(100) == (b"errno=-22\n\n" if number % 2 else b"errno=0\n\n")
        made.close()
    assert set(show(bare, "peers").split()) == set(keys[::2])


def test_a_hundred_thousand_prefixes_move_to_another_peer(bare: Gateway) -> None:
    prefixes = [f"10.{n >> 8 & 255}.{n & 255}.{n >> 16}/32" for n in range(100_000)]
    lines = "".join(f"allowed_ip={prefix}\n" for prefix in prefixes)
    for key in (hexed(KeyPair.make().public) for _ in range(2)):
        assert talk(bare, f"set=1\npublic_key={key}\nreplace_allowed_ips=true\n{lines}\n") == "errno=0\n\n"
        said = talk(bare, "get=1\n\n").partition(f"public_key={key}\n")[2].splitlines()
        assert [line for line in said if line.startswith("allowed_ip=")] == [f"allowed_ip={each}" for each in prefixes]
    assert len(bare.status().peers) == 2


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31)])
def test_a_key_with_which_no_handshake_succeeds_does_no_harm(bare: Gateway, key: bytes) -> None:
    words = "endpoint=127.0.0.1:9\npersistent_keepalive_interval=1\nallowed_ip=10.0.0.0/8"
    assert talk(bare, f"set=1\npublic_key={key.hex()}\n{words}\n\n") == "errno=0\n\n"
    assert key.hex() in talk(bare, "get=1\n\n")
    until(lambda: bare.counter("low-order-point"), "it is refused")
    assert [bare.restarts(role) for role in ("custodian", "handshake")] == [0, 0], bare.log()
    assert bare.serves()


def test_ten_thousand_peers(bare: Gateway, lab: Lab) -> None:
    keys = [base64.b64encode(number.to_bytes(2, "big") * 16).decode() for number in range(1, MANY + 1)]

    def conf(count: int) -> Path:
        path = lab.scratch / "many.conf"
        peers = [
            f"[Peer]\nPublicKey = {key}\nAllowedIPs = 10.{n >> 8}.{n & 255}.0/24, fd00:{n:x}::/32\n"
            for n, key in enumerate(keys[:count])
        ]
        path.write_text(f"[Interface]\nListenPort = {bare.listen_port}\n" + "".join(peers))
        return path

    wg(bare, "setconf", bare.name, conf(MANY))
    shown = bare.show()
    assert list(shown) == keys
    assert shown[keys[-1]].allowed_ips == (f"10.{MANY - 1 >> 8}.{MANY - 1 & 255}.0/24", f"fd00:{MANY - 1:x}::/32")
    wg(bare, "syncconf", bare.name, conf(MANY - 1))
    assert list(bare.show()) == keys[:-1]
    wg(bare, "set", bare.name, "peer", keys[0], "remove")
    wg(bare, "setconf", bare.name, conf(1))
    assert list(bare.show()) == keys[:1]
    assert [bare.restarts(role) for role in ("custodian", "handshake", "egress", "ingress", "control")] == [0] * 5
