"""Sessions are renewed under traffic without a gap: not one number of a stream is lost on a lossless line.

The scenario with wireguard-go's real timers lasts more than six minutes. It is started with the first network test
of the session and collected by the last one (the fixture `real_timers` of conftest.py): the others run meanwhile.
"""

from tests.network.long_run import REKEYS, LongRun
from tests.network.support import Lab, UdpStream, ping_until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Client, Site


def streams_of(client: Client, rate: int = 50) -> list[UdpStream]:
    """A numbered stream each way, one inside IPv4, one inside IPv6."""
    site, lab = client.site, client.site.lab
    return [
        lab.add(UdpStream(client.namespace, site.namespace, site.inner4, lab.scratch, rate=rate)),
        lab.add(UdpStream(site.namespace, client.namespace, client.ipv6, lab.scratch, rate=rate)),
    ]


def check_lossless(streams: list[UdpStream], least: int) -> None:
    reports = [stream.finish() for stream in streams]
    assert [report.lost for report in reports] == [()] * len(streams)
    assert all(report.received >= least for report in reports)


def test_the_gateway_as_initiator_rekeys_without_a_loss(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token, short_times=True)
    clients = [
        site.client("none4", dials=False),
        site.client("derived6", "derived", 6, dials=False),
        site.client("object4", "object", dials=False),
    ]
    site.start()
    for client in clients:
        client.start()
        ping_until(site.namespace, client.ipv4)
    streams = [stream for client in clients for stream in streams_of(client)]
    for client in clients:
        client.wait_for_handshakes(5, limit=120)
    check_lossless(streams, 200)
    assert site.gateway.counter("initiation-sent") >= 5 * len(clients)
    for client in clients:
        assert client.stock is not None
        assert "Sending handshake initiation" not in client.stock.log()


def test_a_rekey_that_was_asked_for_loses_nothing(lab: Lab, token: GatewayToken) -> None:
    site = Site(lab, token)
    clients = [site.client("dials", "derived"), site.client("dialled", "object", 6, dials=False)]
    site.start()
    for client in clients:
        client.start()
        ping_until(client.namespace if client.dials else site.namespace, site.inner4 if client.dials else client.ipv4)
    streams = [stream for client in clients for stream in streams_of(client)]
    for arguments in ([], ["dials"], [clients[1].public_key]):
        known = {client.name: client.wait_for_age() for client in clients}
        site.gateway.command("rekey", site.gateway.name, *arguments)
        meant = [client for client in clients if not arguments or arguments[0] in (client.name, client.public_key)]
        for client in meant:
            client.wait_for_handshake(known[client.name])
        for stream in streams:
            stream.wait_for(25)
        for client in clients:
            assert (client.latest_handshake() > known[client.name]) is (client in meant)
    check_lossless(streams, 75)


def test_real_timers_rekey_without_a_loss(real_timers: LongRun) -> None:
    reports = real_timers.finish()
    assert {name: report.handshakes for name, report in reports.items() if report.handshakes <= REKEYS} == {}
    assert {name: report.lost for name, report in reports.items()} == dict.fromkeys(reports, ())
    for name, report in reports.items():
        # Three re-keys of 120 seconds each, at a few packets a second.
        assert report.received > 3 * 120 * real_timers.rate, name
