"""What happens to a gateway's interface from outside: down and up, another MTU or address, moved, deleted."""

import json
import signal

import pytest

from tests.network.support import Lab, Namespace, ping, ping_until, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.netns import add_address
from tests.network.support.site import Client, Site
from wghsm.exits import ExitCode
from wghsm.supervisor import uapi_socket_path


@pytest.fixture
def site(lab: Lab, token: GatewayToken) -> Site:
    """A gateway with two clients that have sessions: one dials, one is dialled, over IPv6 and with keepalives."""
    made = Site(lab, token)
    made.client("dials", "derived")
    made.client("dialled", family=6, dials=False, keepalive=1).start()
    made.start()
    made.clients[0].start()
    for client in made.clients:
        ping_until(client.namespace, made.inner4)
    return made


def link(site: Site, *words: str) -> None:
    site.namespace.run("ip", "link", "set", site.gateway.name, *words)


def turn(site: Site, state: str) -> None:
    link(site, state)
    until(lambda: site.gateway.status().up is (state == "up"), f"the gateway knows that the link is {state}")


def pings_all(site: Site) -> None:
    for client in site.clients:
        for inner in (site.inner4, site.inner6):
            assert ping(client.namespace, inner, count=2).lost == 0
        assert ping(site.namespace, client.ipv6, count=2).lost == 0


def test_everything_rests_while_the_link_is_down_and_resumes(site: Site) -> None:
    dials, dialled = site.clients
    before = {client.name: client.wait_for_age() for client in site.clients}
    turn(site, "down")
    sent = {client.name: site.gateway.peer(client.public_key).tx_bytes for client in site.clients}
    # Its session is still good for the client: what it sends is not even looked at.
    assert ping(dials.namespace, site.inner4, count=3, wait=0.5).received == 0
    site.gateway.command("rekey", site.gateway.name, "dialled", check=False)
    assert ping(dialled.namespace, site.inner4, count=4, wait=0.5).received == 0
    for client in site.clients:
        assert site.gateway.peer(client.public_key).tx_bytes == sent[client.name]
        assert client.latest_handshake() == before[client.name]
    turn(site, "up")
    # Persistent keepalives begin by themselves, with a session made anew; the other peer speaks, or is spoken to.
    dialled.wait_for_handshake(before[dialled.name])
    ping_until(site.namespace, dials.ipv4)
    assert dials.latest_handshake() > before[dials.name]
    pings_all(site)


def test_down_and_up_between_two_looks_is_seen(site: Site) -> None:
    before = {client.name: client.wait_for_age() for client in site.clients}
    words = ("set", site.gateway.name, "peer", site.clients[0].public_key, "allowed-ips")
    site.namespace.run("wg", *words, f"{site.clients[0].ipv4}/32,{site.clients[0].ipv6}/128,10.63.0.0/16")
    site.gateway.send_signal(signal.SIGSTOP)
    try:
        link(site, "down")
        link(site, "up")
    finally:
        site.gateway.send_signal(signal.SIGCONT)
    until(lambda: "the link is up" in site.gateway.log(), "the gateway has seen it")
    assert "10.63.0.0/16" in site.namespace.run("ip", "route", "show", "dev", site.gateway.name).stdout
    for client in site.clients:
        ping_until(site.namespace, client.ipv4)
        assert client.latest_handshake() > before[client.name]


def test_routes_of_a_link_that_is_down_wait_for_it(site: Site) -> None:
    client = site.clients[0]
    turn(site, "down")
    words = ("set", site.gateway.name, "peer", client.public_key, "allowed-ips")
    site.namespace.run("wg", *words, "10.62.0.0/16,fd62::/32")
    turn(site, "up")
    until(lambda: "10.62" in site.namespace.run("ip", "route", "show", "dev", site.gateway.name).stdout, "the route")
    assert "fd62::/32" in site.namespace.run("ip", "-6", "route", "show", "dev", site.gateway.name).stdout
    assert "route add" not in site.gateway.log()


def test_routes_and_addresses_outlive_a_link_that_was_down(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    site.client("behind")
    entry = site.clients[0].entry()
    site.gateway.peers = [type(entry)(entry.name, entry.public_key, [*entry.allowed_ips, "10.60.0.0/16", "fd60::/32"])]
    site.gateway.write()
    site.start()

    def routes(family: str) -> str:
        return site.namespace.run("ip", family, "route", "show", "dev", site.gateway.name).stdout

    def addresses() -> set[str]:
        (found,) = json.loads(site.namespace.run("ip", "-json", "address", "show", site.gateway.name).stdout)
        return {each["local"] for each in found["addr_info"]}

    # What somebody has changed stays as it is.
    site.namespace.run("ip", "address", "delete", "10.8.0.1/24", "dev", site.gateway.name)
    add_address(site.namespace, site.gateway.name, "10.8.0.77/24")
    expected = {"10.8.0.77", "fd08::1"}
    assert addresses() == expected
    turn(site, "down")
    assert "10.60.0.0/16" not in routes("-4")
    turn(site, "up")
    until(lambda: "10.60.0.0/16" in routes("-4") and "fd60::/32" in routes("-6"), "the routes are back")
    site.namespace.run("wg", "set", site.gateway.name, "listen-port", "51999")
    assert addresses() == expected


def test_a_port_that_was_changed_while_down_serves_afterwards(site: Site) -> None:
    turn(site, "down")
    site.namespace.run("wg", "set", site.gateway.name, "listen-port", "51990", "fwmark", "0x12")
    assert site.gateway.status().listen_port == 51990
    turn(site, "up")
    for client in site.clients:
        ping_until(site.namespace, client.ipv4)
        assert client.stock is not None
        endpoint = client.link.left.endpoint(client.family, 51990)
        assert client.stock.peers()[site.gateway_key].endpoint == endpoint


def padded(site: Site, size: int) -> int:
    """Bytes of UDP that one inner IPv4 packet of `size` bytes from the gateway takes, as the client has counted."""
    client = site.clients[0]
    assert client.stock is not None
    before = client.stock.transfer(site.gateway_key)[0]
    assert ping(site.namespace, client.ipv4, count=1, size=size - 28).lost == 0
    return client.stock.transfer(site.gateway_key)[0] - before


def test_padding_follows_the_mtu(site: Site) -> None:
    # The data header and tag are 32 bytes, and padding goes up to 16 bytes, never past the MTU.
    for mtu, size, expected in ((1420, 1300, 1312), (1300, 1300, 1300), (1300, 1290, 1296), (1420, 1420, 1420)):
        link(site, "mtu", str(mtu))
        until(lambda: padded(site, size) == 32 + expected, f"{size} bytes become {expected} with MTU {mtu}")  # noqa: B023


def test_deleted_from_outside(site: Site) -> None:
    pids = list(site.gateway.pids().values())
    site.namespace.run("ip", "link", "delete", site.gateway.name)
    assert site.gateway.wait() == ExitCode.SYSTEM
    last = site.gateway.log().splitlines()[-1]
    assert last == f"wghsm: the interface {site.gateway.name} was deleted from outside"
    assert site.gateway.leftovers(pids) == []


def test_the_socket_of_wg_deleted(site: Site) -> None:
    """Ends the gateway, and in good order, as it does wireguard-go."""
    pids = list(site.gateway.pids().values())
    uapi_socket_path(site.gateway.name).unlink()
    assert site.gateway.wait() == ExitCode.OK
    assert site.gateway.leftovers(pids) == []


def move(site: Site, source: Namespace, target: Namespace) -> None:
    source.run("ip", "link", "set", site.gateway.name, "netns", target.name)
    until(lambda: not site.gateway.status().up, "the gateway knows that the move took the link down")
    for address in ("10.8.0.1/24", "fd08::1/64"):
        add_address(target, site.gateway.name, address)
    target.run("ip", "link", "set", site.gateway.name, "up")
    until(lambda: site.gateway.status().up, "the gateway knows that the link is up there")


def test_moved_to_another_namespace_and_back(site: Site, lab: Lab) -> None:
    inside, gateway, client = lab.namespace("inside"), site.gateway, site.clients[0]
    pids = gateway.pids()
    move(site, site.namespace, inside)
    for each in site.clients:
        ping_until(inside, each.ipv4)
        assert ping(each.namespace, site.inner6, count=3).lost == 0
    # The sockets have stayed where they were.
    assert f":{gateway.listen_port}" in site.namespace.run("ss", "-Hlun").stdout
    assert f":{gateway.listen_port}" not in inside.run("ss", "-Hlun").stdout
    assert gateway.log().count("was moved to another network namespace") == 1
    # What can be set from here still is; routes cannot, and nothing is said of that again.
    inside.run("ip", "link", "set", gateway.name, "mtu", "1300")
    assert client.stock is not None

    def sent(size: int) -> int:
        assert client.stock is not None
        before = client.stock.transfer(site.gateway_key)[0]
        assert ping(inside, client.ipv4, count=1, size=size - 28).lost == 0
        return client.stock.transfer(site.gateway_key)[0] - before

    until(lambda: sent(1300) == 32 + 1300, "the padding ends at the new MTU")
    lines = gateway.log().count("\n")
    words = ("set", gateway.name, "peer", client.public_key, "allowed-ips")
    site.namespace.run("wg", *words, f"{client.ipv4}/32,{client.ipv6}/128,10.60.0.0/16")
    assert "10.60.0.0/16" in gateway.peer(client.public_key).allowed_ips
    assert [line for line in gateway.log().splitlines()[lines:] if "unattested change" not in line] == []
    inside.run("ip", "link", "set", gateway.name, "down")
    until(lambda: not gateway.status().up, "the gateway knows that the link is down there")
    move(site, inside, site.namespace)
    assert "is back in the gateway's network namespace" in gateway.log()
    until(lambda: "10.60.0.0/16" in site.namespace.run("ip", "route").stdout, "the routes are set here again")
    for each in site.clients:
        ping_until(site.namespace, each.ipv4)
    assert gateway.pids() == pids
    gateway.stop()
    assert gateway.leftovers(list(pids.values())) == []


@pytest.mark.parametrize("how", ["deleted", "ended"])
def test_the_end_of_a_gateway_whose_interface_is_elsewhere(site: Site, lab: Lab, how: str) -> None:
    inside, pids = lab.namespace("inside"), list(site.gateway.pids().values())
    move(site, site.namespace, inside)
    # Another interface may have its number now, and must not be taken for it.
    if how == "deleted":
        inside.run("ip", "link", "delete", site.gateway.name)
        assert site.gateway.wait() == ExitCode.SYSTEM
        assert site.gateway.log().endswith(f"wghsm: the interface {site.gateway.name} was deleted from outside\n")
    else:
        site.gateway.stop(signal.SIGTERM)
    assert site.gateway.name not in inside.interfaces()
    assert site.gateway.leftovers(pids) == []


def test_another_interface_with_the_old_number_is_left_alone(site: Site, lab: Lab) -> None:
    inside, name = lab.namespace("inside"), site.gateway.name
    (known,) = json.loads(site.namespace.run("ip", "-json", "link", "show", name).stdout)
    move(site, site.namespace, inside)
    number = str(known["ifindex"])
    site.namespace.run(*("ip", "link", "add", "other0", "index", number, "type", "veth", "peer", "name", "other1"))
    client = site.clients[0]
    words = ("set", name, "peer", client.public_key, "allowed-ips", f"{client.ipv4}/32,10.61.0.0/16")
    site.namespace.run("wg", *words)
    site.gateway.stop()
    assert "other0" in site.namespace.interfaces()
    assert "10.61.0.0/16" not in site.namespace.run("ip", "route", "show", "table", "all").stdout


def test_renamed(site: Site) -> None:
    client: Client = site.clients[0]
    turn(site, "down")
    link(site, "name", f"{site.gateway.name[:11]}new")
    site.namespace.run("ip", "link", "set", f"{site.gateway.name[:11]}new", "up")
    until(lambda: site.gateway.status().up, "the gateway knows that the link is up")
    ping_until(site.namespace, client.ipv4)
    assert client.public_key in site.gateway.show()
    site.gateway.stop()
    assert f"{site.gateway.name[:11]}new" not in site.namespace.interfaces()
