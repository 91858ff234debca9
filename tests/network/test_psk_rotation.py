"""The PSKs of stock clients move from epoch 0 to 1 under traffic, the gateway and each client at a time of its own."""

from tests.network.support import Lab, UdpStream, ping_until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.process import until
from tests.network.support.site import Client, Site


def _export(client: Client) -> str:
    """The client's PSK for the gateway file's epoch, as the operator hands it out."""
    words = ("psk", "export", client.name, "-c", client.site.gateway.file, "--out", "-")
    return client.site.gateway.command(*words).stdout.strip()


def _use(client: Client, secret: str) -> None:
    assert client.stock is not None
    client.stock.set_peer(client.site.gateway_key, ["10.8.0.0/24", "fd08::/64"], None, secret)


def _confirmed(client: Client) -> int | None:
    return client.site.gateway.peer(client.public_key).psk_confirmed


def _rekeyed(client: Client) -> None:
    """A new handshake, asked for by the gateway."""
    before = client.wait_for_age()
    client.site.gateway.command("rekey", client.site.gateway.name, client.name)
    client.wait_for_handshake(before)


def test_gateway_and_clients_move_at_different_times(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    dials, dialled = site.client("dials", "derived"), site.client("dialled", "derived", 6, dials=False)
    clients = (dials, dialled)
    gateway = site.start()
    for client in clients:
        client.start()
        ping_until(site.namespace if client is dialled else client.namespace, _other_end(client))
    old = {client.name: client.secret for client in clients}
    for client in clients:
        until(lambda client=client: _confirmed(client) == 0, "epoch 0 is seen to be used")  # type: ignore[misc]
    streams = {
        client.name: lab.add(UdpStream(client.namespace, site.namespace, site.inner4, lab.scratch, rate=50))
        for client in clients
    }
    for stream in streams.values():
        stream.wait_for(50)

    # The gateway moves; its sessions are gone with it, and the clients know epoch 0 only.
    for client in clients:
        gateway.command("psk", "rotate", client.name, "-c", gateway.file)
    new = {client.name: _export(client) for client in clients}
    assert not set(new.values()) & set(old.values())
    gateway.stop()
    gateway.start()
    for client in clients:
        if client is dialled:
            gateway.command("rekey", gateway.name, client.name)
        streams[client.name].wait_for(50, limit=90)
        until(lambda client=client: _confirmed(client) == 0, "the client has not moved")  # type: ignore[misc]
        assert gateway.peer(client.public_key).psk_epoch == 1

    # One client moves and then the other, under traffic, without a packet lost.
    for stream in streams.values():
        stream.finish()
    fresh = [
        lab.add(UdpStream(sender, receiver, address, lab.scratch, rate=50))
        for client in clients
        for sender, receiver, address in (
            (client.namespace, site.namespace, site.inner4),
            (site.namespace, client.namespace, client.ipv6),
        )
    ]
    for stream in fresh:
        stream.wait_for(20)
    for client, others in ((dials, {"dials": 1, "dialled": 0}), (dialled, {"dials": 1, "dialled": 1})):
        _use(client, new[client.name])
        _rekeyed(client)
        until(lambda client=client: _confirmed(client) == 1, "the client has moved")  # type: ignore[misc]
        assert {each.name: _confirmed(each) for each in clients} == others
        for stream in fresh:
            stream.wait_for(25)
    reports = [stream.finish() for stream in fresh]
    assert [report.lost for report in reports] == [()] * len(fresh)
    shown = gateway.command("status", gateway.name).stdout
    assert shown.count("derived, epoch 1; the peer has moved") == 2

    # There is no way back.
    secret = old["dialled"]
    assert secret is not None
    _use(dialled, secret)
    before = dialled.wait_for_age()
    refused = gateway.counter("bad-response")
    gateway.command("rekey", gateway.name, dialled.name)
    until(lambda: gateway.counter("bad-response") > refused, "a response with the old PSK is refused")
    assert dialled.latest_handshake() == before
    assert _confirmed(dialled) == 1


def _other_end(client: Client) -> str:
    return client.ipv4 if not client.dials else client.site.inner4
