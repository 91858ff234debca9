"""The firewall follows file and model, and between two files nobody is without the rules of either."""

import pytest

from tests.unit.config.samples import GOOD, KEY_A, KEY_B
from wghsm import config
from wghsm.firewall import FirewallError, Rules, Table
from wghsm.supervisor import _filter as module
from wghsm.supervisor._fault import GatewayFault
from wghsm.supervisor._filter import PacketFilter, wanted
from wghsm.supervisor.model import initial

PORT = 51820


class _Table(Table):
    """A table without a kernel."""

    refuses = False

    def put(self, rules: Rules) -> None:
        if self.refuses:
            raise FirewallError("no")
        self._rules = rules

    def clear_stale(self) -> None:
        """There is nothing."""


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Table", _Table)
    monkeypatch.setattr(_Table, "refuses", False)


def _gateway(alice: str = "", bob: str = "", firewall: str = "") -> config.Gateway:
    entry = '  - {{name: {}, public_key: "{}", preshared_key: none, allowed_ips: [10.8.0.{}/32], {}}}\n'
    head = GOOD.partition("peers:")[0]
    peers = [entry.format("alice", KEY_A, 2, alice)] if alice != "gone" else []
    peers += [entry.format("bob", KEY_B, 3, bob)] if bob != "gone" else []
    return config.load_text(f"{head}{firewall}peers:\n{''.join(peers)}")


def _rules(gateway: config.Gateway) -> Rules:
    return wanted(gateway, initial(gateway), PORT)


def test_nothing_wanted_is_no_table() -> None:
    assert _rules(_gateway()) == Rules("wg0")
    assert _rules(_gateway()).empty


def test_limits_are_found_at_their_peers() -> None:
    made = _rules(_gateway(alice="rate_limit: 8Mbit, quota: 1G", bob="allow: []"))
    first, second = sorted(made.peers, key=lambda peer: str(peer.prefixes))
    assert (first.rate, first.quota, first.allow) == (10**6, 2**30, None)
    assert (second.rate, second.quota, second.allow) == (0, 0, ())
    assert str(first.prefixes[0]) == "10.8.0.2/32"


def test_masquerade_needs_all_peers() -> None:
    made = _rules(_gateway(firewall="firewall: {masquerade: [eth0]}\n"))
    assert len(made.peers) == 2
    assert not any(peer.limited for peer in made.peers)


def test_a_peer_that_goes_keeps_its_rules_until_it_is_gone() -> None:
    before, after = _gateway(alice="allow: []"), _gateway(alice="gone", bob="quota: 1M")
    packet_filter = PacketFilter(before, initial(before), PORT)
    old = packet_filter.prepare(after, initial(after), PORT)
    now = packet_filter._table.rules
    assert {str(peer.prefixes[0]): peer.limited for peer in now.peers} == {"10.8.0.2/32": True, "10.8.0.3/32": True}
    packet_filter.follow(after, initial(after), PORT)
    assert packet_filter._table.rules == _rules(after)
    packet_filter.restore(old)
    assert packet_filter._table.rules == _rules(before)


def test_isolation_ends_only_with_the_reload() -> None:
    before, after = _gateway(firewall="firewall: {isolate_clients: true}\n"), _gateway()
    packet_filter = PacketFilter(before, initial(before), PORT)
    packet_filter.prepare(after, initial(after), PORT)
    assert packet_filter._table.rules.isolate_clients


def test_a_refusal_ends_start_and_reload_and_not_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = _gateway()
    packet_filter = PacketFilter(gateway, initial(gateway), PORT)
    monkeypatch.setattr(_Table, "refuses", True)
    with pytest.raises(GatewayFault, match="no"):
        PacketFilter(gateway, initial(gateway), PORT)
    with pytest.raises(GatewayFault, match="no"):
        packet_filter.prepare(gateway, initial(gateway), PORT)
    packet_filter.follow(gateway, initial(gateway), PORT)


def _through(*prefixes: str) -> config.Gateway:
    peer = f'{{name: all, public_key: "{KEY_A}", preshared_key: none, allowed_ips: [{", ".join(prefixes)}]}}'
    return config.load_text(f"{GOOD.partition('peers:')[0]}peers: [{peer}]\n")


def test_outer_packets_are_marked_where_a_default_route_leads_inside() -> None:
    assert not _rules(_through("128.0.0.0/1")).mark
    for prefix in ("0.0.0.0/0", '"::/0"'):
        made = _rules(_through(prefix))
        assert (made.mark, made.ports, made.empty) == (51820, (PORT,), False)


def test_another_port_is_marked_beside_the_old_one_until_it_is_in_use() -> None:
    gateway = _through("0.0.0.0/0")
    model = initial(gateway)
    packet_filter = PacketFilter(gateway, model, PORT)
    packet_filter.prepare(gateway, model, 7)
    assert list(packet_filter._table.rules.ports) == [7, PORT]
    packet_filter.follow(gateway, model, 7)
    assert list(packet_filter._table.rules.ports) == [7]


def test_a_machine_that_cannot_mark_goes_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put = _Table.put

    def choosy(table: _Table, rules: Rules) -> None:
        if rules.mark:
            raise FirewallError("no fib here")
        put(table, rules)

    monkeypatch.setattr(_Table, "put", choosy)
    gateway = _through("0.0.0.0/0")
    packet_filter = PacketFilter(gateway, initial(gateway), PORT)
    packet_filter.follow(gateway, initial(gateway), PORT)
    assert packet_filter._table.rules.empty
    # Said once, with what to do.
    assert caplog.text.count("no fib here") == caplog.text.count("set it to 2") == 1
