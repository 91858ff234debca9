"""The plan between two gateways: complete, minimal, and clear about what a reload cannot do."""

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.config.samples import GOOD, KEY_A, KEY_B, KEY_C, broken
from tests.unit.config.test_properties import gateways
from wghsm.config import Effect, Gateway, Plan, from_document, kernel_routes, load_text, plan, to_document
from wghsm.config import _plan as tables

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LOADED = gateways().map(lambda raw: load_text(json.dumps(raw, ensure_ascii=False)))
BEFORE = load_text(GOOD)


def fields(made: Plan) -> set[str]:
    return {change.field for change in made.changes}


def to(old: str, new: str) -> Plan:
    return plan(BEFORE, load_text(broken(old, new)))


def normal(gateway: Gateway) -> Any:
    """The gateway without the orders that mean nothing, and with its tokens in one way."""
    found = to_document(gateway)
    found["token"] |= {"uri": "", "uris": gateway.token.in_order}
    found["interface"]["addresses"].sort()
    found["clients"]["allowed_ips"].sort()
    for peer in found["peers"]:
        peer["allowed_ips"].sort()
    found["peers"].sort(key=lambda peer: peer["public_key"])
    return found


@SLOW
@given(LOADED, LOADED)
def test_an_applied_plan_gives_the_second_gateway(before: Gateway, after: Gateway) -> None:
    assert normal(plan(before, after).applied(before)) == normal(after)


@SLOW
@given(LOADED, st.randoms())
def test_between_equal_gateways_there_is_nothing(gateway: Gateway, random: Any) -> None:
    peers = list(gateway.peers)
    random.shuffle(peers)
    shuffled = gateway.model_copy(update={"peers": tuple(peers)})
    assert plan(gateway, shuffled) == Plan((), (), ())


@SLOW
@given(LOADED)
def test_a_document_is_json_and_comes_back(gateway: Gateway) -> None:
    assert from_document(json.loads(json.dumps(to_document(gateway)))) == gateway


def test_every_field_of_the_model_is_in_one_table() -> None:
    sections = ("token", "interface", "audit", "clients", "firewall", "hooks", "policy", "tunnel", "users")
    known = {name for name in Gateway.model_fields if name not in (*sections, "peers", "include")}
    for section in sections:
        known |= {f"{section}.{name}" for name in type(getattr(BEFORE, section)).model_fields}
    listed = [*tables.LIVE, *tables.CUSTODIAN, *tables.RESTART]
    assert len(listed) == len(set(listed))
    assert set(listed) == known


@pytest.mark.parametrize(
    ("old", "new", "field", "effect"),
    [
        ("listen_port: 51820", "listen_port: 51821", "interface.listen_port", Effect.LIVE),
        ("mtu: 1420", "mtu: 1400", "interface.mtu", Effect.LIVE),
        ("key: gateway", "key: other", "interface.key", Effect.CUSTODIAN),
        ("psk_root: wghsm-psk-root", "psk_root: other", "token.psk_root", Effect.CUSTODIAN),
        ("token=gw?", "token=other?", "token.uris", Effect.CUSTODIAN),
        ("name: wg0", "name: wg1", "interface.name", Effect.RESTART),
        ("authority: file", "authority: runtime", "interface.authority", Effect.RESTART),
        ("version: 1", "version: 1\nlog_level: debug", "log_level", Effect.RESTART),
        ("version: 1", "version: 1\nusers: {control: 7000}", "users.control", Effect.RESTART),
        ("version: 1", "version: 1\ntunnel: {workers: 2}", "tunnel.workers", Effect.RESTART),
        ("version: 1", "version: 1\nstate_directory: /srv/x", "state_directory", Effect.RESTART),
        ("version: 1", "version: 1\naudit: {}", "audit.enabled", Effect.RESTART),
        ("version: 1", "version: 1\naudit: {enabled: false, key: audit}", "audit.key", Effect.CUSTODIAN),
        ("version: 1", "version: 1\naudit: {enabled: false, retention: 30d}", "audit.retention", Effect.LIVE),
    ],
)
def test_what_a_change_takes(old: str, new: str, field: str, effect: Effect) -> None:
    made = to(old, new)
    assert field in {change.field for change in made.needing(effect)}


def test_a_peer_with_another_key_is_another_peer() -> None:
    made = to(KEY_A, KEY_C)
    assert [(change.name, change.before is None, change.after is None) for change in made.changes] == [
        ("alice", False, True),
        ("alice", True, False),
    ]
    assert made.peers("added") != made.peers("removed")
    assert made.peers("changed") == ()


def test_a_changed_peer() -> None:
    made = to("preshared_key: derived", "preshared_key: derived:3")
    assert [(change.field, change.name) for change in made.changes] == [("preshared_key", "alice")]
    assert made.peers("changed") == (BEFORE.peers[0].public_key,)


def test_one_uri_may_stand_under_uri_or_uris() -> None:
    text = broken("  uri: ", "  uris: [").replace("/pin", "/pin").replace('pin"\n', 'pin"]\n')
    assert plan(BEFORE, load_text(text)).changes == ()


def test_other_epochs_in_a_file_of_wrapped_psks() -> None:
    text = GOOD.replace("psk_root:", "psk_wrap_key: k\n  psk_root:").replace(
        "preshared_key: none", "preshared_key: wrapped:b"
    )
    gateway, file = load_text(text), Path("b")
    old, new = {file: [(1, b"x" * 60)]}, {file: [(2, b"y" * 60), (1, b"x" * 60)]}
    assert plan(gateway, gateway, old, old).changes == ()
    (change,) = plan(gateway, gateway, old, new).changes
    assert (change.field, change.name, change.effect) == ("wrapped", "bob", Effect.LIVE)
    assert plan(gateway, gateway, old, new).applied(gateway) == gateway


def test_routes_follow_prefixes_addresses_and_table() -> None:
    far = ip_network("10.99.0.0/24")
    wider = to("      - 10.8.0.3/32\n", "      - 10.8.0.3/32\n      - 10.99.0.0/24\n")
    assert (wider.routes_added, wider.routes_removed) == (((far, 254),), ())
    moved = to("10.8.0.1/24", "10.77.0.1/24")
    assert {str(prefix) for prefix, _ in moved.routes_added} == {"10.8.0.2/32", "10.8.0.3/32"}
    table = to("table: auto", "table: 51820")
    assert {number for _, number in table.routes_added} == {51820}
    assert kernel_routes([far], (), "off") == set()
    every = ip_network("0.0.0.0/0")
    assert kernel_routes([every], (), 7) == {(every, 7)}
    # By itself it goes into a table of its own, numbered as wg-quick does, which is never one of the kernel's.
    assert kernel_routes([every, far], (), "auto") == {(every, 51820), (far, 254)}
    assert kernel_routes([every, far], (), "auto", fwmark=7) == {(every, 7), (far, 254)}
    assert kernel_routes([every], (), "auto", fwmark=254) == {(every, 51820)}
    through = to("      - 10.8.0.3/32\n", "      - 10.8.0.3/32\n      - 0.0.0.0/0\n")
    assert through.routes_added == ((every, 51820),)


def test_keys_of_both_peers_may_change_places() -> None:
    text = GOOD.replace(KEY_A, "X").replace(KEY_B, KEY_A).replace("X", KEY_B)
    made = plan(BEFORE, load_text(text))
    assert fields(made) == {"name", "preshared_key", "endpoint", "allowed_ips", "persistent_keepalive"}
    assert made.peers("added") == made.peers("removed") == ()
