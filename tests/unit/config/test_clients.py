"""Peers that are disabled or expire, their notes and tags, and what clients' files say: values and faults."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.config.samples import GOOD, broken
from wghsm.config import ConfigError, kernel_routes, load_text, plan

MOMENT = datetime(2027, 3, 31, tzinfo=UTC)


def with_alice(line: str) -> str:
    return broken("    persistent_keepalive: 25\n", f"    {line}\n")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2027-03-31", MOMENT),
        ("2027-03-31T00:00Z", MOMENT),
        ("2027-03-31T18:00:01Z", MOMENT + timedelta(hours=18, seconds=1)),
    ],
)
def test_a_peer_is_served_until_its_moment(written: str, meant: datetime) -> None:
    alice, bob = load_text(with_alice(f"expires: {written}")).peers
    assert alice.expires == meant
    assert alice.active_at(meant.timestamp() - 1)
    assert not alice.active_at(meant.timestamp())
    assert alice.active_at(None)
    assert bob.active_at(4e9)


def test_a_disabled_peer_is_never_served_and_has_no_route() -> None:
    gateway = load_text(with_alice("disabled: true").replace("[10.8.0.2/32,", "[10.9.0.0/16, 10.8.0.2/32,"))
    assert not gateway.peers[0].active_at(None)
    enabled = load_text(with_alice("disabled: false").replace("[10.8.0.2/32,", "[10.9.0.0/16, 10.8.0.2/32,"))
    made = plan(enabled, gateway)
    assert [(change.field, change.after) for change in made.changes] == [("disabled", True)]
    assert set(made.routes_removed) == kernel_routes(gateway.peers[0].allowed_ips, gateway.interface.addresses, "auto")


def test_an_expired_peer_has_no_route_in_a_plan() -> None:
    text = with_alice("expires: 2027-03-31").replace("[10.8.0.2/32,", "[10.9.0.0/16, 10.8.0.2/32,")
    gateway = load_text(text)
    extended = load_text(text.replace("2027-", "2028-"))
    assert len(plan(gateway, extended, now=MOMENT.timestamp()).routes_added) == 1
    assert not plan(gateway, extended, now=MOMENT.timestamp() - 1).routes_added


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("expires: tomorrow", "expires cannot be 'tomorrow'"),
        ("expires: 2027-02-30", "no such moment"),
        ("expires: 2027-03-31T18:00", "expires cannot be"),
        ("expires: 2027-03-31T25:00Z", "no such moment"),
        ("disabled: yes", "disabled cannot be 'yes'"),
        ("note: 'qKz7l5JKNOwfQEUYRRrWKGLcdWbVRrRhNh2qLbTyRlk='", "a key stands where a note belongs"),
        (f"note: {'x ' * 101}x", "too long"),
        ("tags: [two words]", "is no tag"),
    ],
)
def test_faults_are_told_with_their_line(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(with_alice(line))
    (problem,) = caught.value.problems
    assert said in problem.message
    assert problem.line == 20
    assert "qKz7l5" not in str(problem)


def test_what_clients_are_told() -> None:
    clients = load_text(
        GOOD
        + "clients:\n  endpoint: VPN.example.org:51820\n  dns: [10.8.0.1, Example.org, '2001:DB8::1']\n"
        + "  allowed_ips: [0.0.0.0/0]\n  persistent_keepalive: 25\n  preshared_key: wrapped\n"
    ).clients
    assert str(clients.endpoint) == "vpn.example.org:51820"
    assert clients.dns == ("10.8.0.1", "example.org", "2001:db8::1")
    assert clients.preshared_key == "wrapped"
    with pytest.raises(ConfigError, match="neither an address nor a domain"):
        load_text(GOOD + "clients:\n  dns: [10.8.0.300]\n")
