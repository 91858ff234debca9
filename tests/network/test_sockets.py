"""The UDP sockets of a running gateway: one port for both families, the mark, and source addresses that stick."""

import pytest

from tests.network.support import Lab, ping, ping_until, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.netns import add_address
from tests.network.support.site import Client, Site

MARK = "0x1234"


def second_address(site: Site, client: Client) -> str:
    """Another address of the gateway on the client's cable, given to it now."""
    address = client.link.left.ipv4.rsplit(".", 1)[0] + ".9"
    length = 24
    if client.family == 6:
        address, length = client.link.left.ipv6.removesuffix("1") + "9", 64
    interface = client.link.left.interface
    add_address(site.namespace, interface, f"{address}/{length}")
    if client.family == 6:
        # The kernel would choose the latest one.
        words = f"{address}/{length} dev {interface} preferred_lft 0 nodad"
        site.namespace.run("ip", "address", "change", *words.split())
    return address


def endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def heard_at(client: Client) -> str | None:
    """Where the client last heard the gateway."""
    assert client.stock is not None
    return client.stock.peers()[client.site.gateway_key].endpoint


@pytest.mark.parametrize("family", [4, 6])
def test_the_source_address_sticks_and_is_let_go(lab: Lab, token: GatewayToken, family: int) -> None:
    site = Site(lab, token)
    client = site.client("picky", family=family)
    second = second_address(site, client)
    site.start()
    port = site.gateway.listen_port
    client.start(endpoint=endpoint(second, port))
    ping_until(client.namespace, site.inner4)
    assert ping(site.namespace, client.ipv6, count=3).lost == 0
    assert heard_at(client) == endpoint(second, port)
    # The gateway's own handshake leaves from there too.
    known = client.wait_for_age()
    site.gateway.command("rekey", site.gateway.name, client.name)
    client.wait_for_handshake(known)
    assert heard_at(client) == endpoint(second, port)
    # Another mark may mean another way out: the kernel chooses, until the client is heard again.
    site.namespace.run("wg", "set", site.gateway.name, "fwmark", MARK)
    assert ping(site.namespace, client.ipv4, count=3).lost == 0
    assert heard_at(client) == client.link.left.endpoint(family, port)

    def dials_again() -> bool:
        assert client.stock is not None
        client.stock.set(f"peer {site.gateway_key} endpoint {endpoint(second, port)}")
        assert ping(client.namespace, site.inner4, count=1).lost == 0
        # The answer may overtake what ingress tells egress of the new address.
        return heard_at(client) == endpoint(second, port)

    until(dials_again, "it sticks to the second address again")
    # An address that is gone is not insisted on.
    link = client.link.left
    site.namespace.run("ip", "address", "delete", f"{second}/{24 if family == 4 else 64}", "dev", link.interface)
    assert ping(site.namespace, client.ipv4, count=3).lost == 0
    assert heard_at(client) == link.endpoint(family, port)
    assert ping(client.namespace, site.inner6, count=3).lost == 0


@pytest.mark.parametrize("port", [0, 51820])
def test_both_families_have_one_port(lab: Lab, token: GatewayToken, port: int) -> None:
    site = Site(lab, token)
    clients = [site.client(f"v{family}", family=family) for family in (4, 6)]
    site.gateway.listen_port = port
    site.gateway.write()
    site.start()
    found = site.gateway.status().listen_port
    assert found == (port or found) > 0
    bound = site.namespace.run("ss", "-Hlun", f"sport = :{found}").stdout.split()
    assert {f"0.0.0.0:{found}", f"[::]:{found}"} <= set(bound)
    assert site.namespace.run("wg", "show", site.gateway.name, "listen-port").stdout.strip() == str(found)
    for client in clients:
        client.start(endpoint=client.link.left.endpoint(client.family, found))
        ping_until(client.namespace, site.inner4)
        client.wait_until_known()
        assert site.gateway.peer(client.public_key).endpoint == client.link.right.endpoint(client.family, 51821)


@pytest.mark.parametrize("family", [4, 6])
def test_the_mark_is_on_handshakes_and_on_data(lab: Lab, token: GatewayToken, family: int) -> None:
    site = Site(lab, token, interface={"fwmark": MARK})
    client = site.client("dialled", family=family, dials=False, keepalive=1)
    rule = ("ip", f"-{family}", "rule")
    site.namespace.run(*rule, "add", "fwmark", MARK, "unreachable")
    stock = client.start()
    site.start()
    # Initiations are tried, and none leaves.
    until(lambda: site.gateway.counter("send-failed"), "initiations that could not be sent")
    assert stock.latest_handshake(site.gateway_key) == 0
    assert stock.transfer(site.gateway_key) == (0, 0)
    site.namespace.run("wg", "set", site.gateway.name, "fwmark", "off")
    ping_until(site.namespace, client.ipv4)
    site.namespace.run("wg", "set", site.gateway.name, "fwmark", MARK)
    assert ping(site.namespace, client.ipv4, count=2, wait=0.5).received == 0
    # Nor can it answer as responder.
    stock.set(f"peer {site.gateway_key} endpoint {client.link.left.endpoint(family, site.gateway.listen_port)}")
    known = stock.latest_handshake(site.gateway_key)
    assert ping(client.namespace, site.inner4, count=2, wait=0.5).received == 0
    site.namespace.run(*rule, "delete", "fwmark", MARK, "unreachable")
    assert ping(site.namespace, client.ipv4, count=3).lost == 0
    assert stock.latest_handshake(site.gateway_key) >= known
