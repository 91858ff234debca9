"""A change is applied whole or refused whole, and the difference says exactly what to tell."""

import errno
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.supervisor.support import KEYS, change, gateway, peer, two_peers
from wghsm import config
from wghsm.ipc import messages as m
from wghsm.supervisor import model as model_room
from wghsm.supervisor.changes import custodian_parts
from wghsm.supervisor.model import Model, Refusal, applied, difference


def apply(model: Model, wanted: m.DeviceChange, *, runtime_psks: bool = False) -> Model:
    result = applied(model, wanted, runtime_psks=runtime_psks, own_key=KEYS[30])
    assert isinstance(result, Model)
    return result


def refuse(wanted: m.DeviceChange) -> Refusal:
    result = applied(two_peers(), wanted, runtime_psks=False, own_key=None)
    assert isinstance(result, Refusal)
    return result


def prefixes(model: Model, number: int) -> set[str]:
    return {str(prefix) for prefix in model.allowed_ips().get(KEYS[number], [])}


def route(prefix: str, slot: int | None) -> m.Route:
    network = ip_network(prefix)
    return m.Route(network.network_address.packed, network.prefixlen, slot)


def test_the_file_gives_slots_in_order() -> None:
    model = two_peers()
    assert [peer.slot for peer in model.peers.values()] == [0, 1]
    assert model.peers[KEYS[1]].psk == m.PskDerived(0)
    assert model.peers[KEYS[1]].persistent_keepalive == 25
    assert set(model.routes()) == {route("10.0.0.0/24", 0), route("10.1.0.0/24", 1), route("fd01::/64", 1)}


def test_a_new_peer_takes_a_prefix_from_another() -> None:
    old = two_peers()
    wanted = change(m.PeerChange(KEYS[2], add_allowed_ips=["10.1.0.0/24", "10.2.0.0/16"], persistent_keepalive=7))
    new = apply(old, wanted)
    assert prefixes(new, 1) == {"fd01::/64"}
    assert prefixes(new, 2) == {"10.1.0.0/24", "10.2.0.0/16"}
    found = difference(old, new, wanted)
    assert [peer.slot for peer in found.added] == [2]
    assert set(found.routes) == {route("10.1.0.0/24", 2), route("10.2.0.0/16", 2)}
    assert found.prefixes_added == (ip_network("10.2.0.0/16"),)
    assert not found.removed
    assert not found.handshake_changed


def test_removal_frees_prefixes_and_slot() -> None:
    old = two_peers()
    wanted = change(m.PeerChange(KEYS[0], remove=True))
    new = apply(old, wanted)
    found = difference(old, new, wanted)
    assert found.removed == (0,)
    assert found.routes == (route("10.0.0.0/24", None),)
    assert found.prefixes_removed == (ip_network("10.0.0.0/24"),)


def test_a_freed_slot_is_the_last_to_be_taken_again() -> None:
    model = apply(two_peers(), change(m.PeerChange(KEYS[0], remove=True)))
    assert apply(model, change(m.PeerChange(KEYS[5]))).peers[KEYS[5]].slot == 2


def test_all_slots_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_room, "MAX_PEERS", 3)
    model = apply(two_peers(), change(m.PeerChange(KEYS[5])))
    result = applied(model, change(m.PeerChange(KEYS[6])), runtime_psks=False, own_key=None)
    assert isinstance(result, Refusal)
    assert result.errno == errno.ENOSPC
    freed = apply(model, change(m.PeerChange(KEYS[0], remove=True)))
    assert apply(freed, change(m.PeerChange(KEYS[6]))).peers[KEYS[6]].slot == 0


def test_a_peer_removed_and_named_again_is_a_new_one() -> None:
    old = two_peers()
    wanted = change(m.PeerChange(KEYS[0], remove=True), m.PeerChange(KEYS[0]))
    new = apply(old, wanted)
    assert new.peers[KEYS[0]].slot == 2
    assert new.peers[KEYS[0]].psk == m.PskNone()
    found = difference(old, new, wanted)
    assert found.removed == (0,)
    assert [peer.slot for peer in found.added] == [2]


def test_replacing_all_peers_keeps_those_it_names() -> None:
    old = two_peers()
    wanted = change(m.PeerChange(KEYS[1], add_allowed_ips=["10.9.0.0/24"]), replace_peers=True)
    new = apply(old, wanted)
    assert set(new.peers) == {KEYS[1]}
    kept = new.peers[KEYS[1]]
    assert (kept.slot, kept.name, kept.psk, kept.persistent_keepalive) == (1, "peer1", m.PskDerived(0), 0)
    assert prefixes(new, 1) == {"10.9.0.0/24"}
    assert difference(old, new, wanted).removed == (0,)


def test_update_only_makes_no_peer() -> None:
    old = two_peers()
    assert apply(old, change(m.PeerChange(KEYS[9], update_only=True, add_allowed_ips=["10.1.0.0/24"]))) == old


def test_the_gateways_own_key_is_ignored() -> None:
    old = two_peers()
    assert apply(old, change(m.PeerChange(KEYS[30], add_allowed_ips=["10.1.0.0/24"]))) == old


def test_allowed_ips_are_replaced_added_and_taken_away() -> None:
    model = apply(two_peers(), change(m.PeerChange(KEYS[1], replace_allowed_ips=True, add_allowed_ips=["10.5.0.7/16"])))
    assert prefixes(model, 1) == {"10.5.0.0/16"}
    model = apply(model, change(m.PeerChange(KEYS[1], remove_allowed_ips=["10.5.0.0/16", "10.0.0.0/24"])))
    assert prefixes(model, 1) == set()
    assert prefixes(model, 0) == {"10.0.0.0/24"}


def test_endpoint_and_keepalive_are_for_the_handshake_process_alone() -> None:
    old = two_peers()
    wanted = change(m.PeerChange(KEYS[0], endpoint=m.Endpoint("192.0.2.1", 5), persistent_keepalive=1))
    found = difference(old, apply(old, wanted), wanted)
    assert [peer.slot for peer in found.handshake_changed] == [0]
    assert found.moved == {0}
    assert not found.psk_changed
    assert not found.routes


def test_wrapped_psks_come_from_their_files() -> None:
    files = {Path("/a"): [(7, b"new"), (6, b"old"), (5, b"older")], Path("/b"): [(0, b"only")]}
    peers = (
        peer(number, f"10.{number}.0.0/24").model_copy(update={"preshared_key": config.PskWrapped(path)})
        for number, path in enumerate(files)
    )
    model = model_room.initial(gateway(*peers), files)
    assert [one.psk for one in model.peers.values()] == [m.PskWrapped(7, b"new", 6, b"old"), m.PskWrapped(0, b"only")]


def test_the_way_from_none_is_told_to_the_custodian_until_a_client_sets_a_psk() -> None:
    migrating = peer(0, "10.0.0.0/24").model_copy(update={"migrate_from_none": True})
    old = model_room.initial(gateway(migrating, peer(1)))
    (part,) = custodian_parts(old.peers.values(), lambda: 1)
    assert [told.migrate_from_none for told in part.upsert] == [True, False]
    new = apply(old, change(m.PeerChange(KEYS[0], psk=m.PskObject("label"))), runtime_psks=True)
    assert not new.peers[KEYS[0]].migrate_from_none


def test_where_psks_are_required_no_client_brings_a_peer_without() -> None:
    def asked(*wanted: m.PeerChange) -> Model | Refusal:
        return applied(two_peers(), change(*wanted), runtime_psks=True, own_key=None, psk_required=True)

    for wanted in ((m.PeerChange(KEYS[5]),), (m.PeerChange(KEYS[0], remove=True), m.PeerChange(KEYS[0]))):
        refused = asked(*wanted)
        assert isinstance(refused, Refusal)
        assert refused.errno == errno.EPERM
        assert "psk: required" in refused.text
    assert isinstance(asked(m.PeerChange(KEYS[5], psk=m.PskObject("label"))), Model)
    assert isinstance(asked(m.PeerChange(KEYS[0], persistent_keepalive=1)), Model)


def test_a_psk_of_the_control_protocol_needs_the_authority() -> None:
    wanted = change(m.PeerChange(KEYS[0], psk=m.PskObject("label")))
    assert refuse(wanted).errno == errno.EPERM
    old = two_peers()
    new = apply(old, wanted, runtime_psks=True)
    assert [peer.slot for peer in difference(old, new, wanted).psk_changed] == [0]


@pytest.mark.parametrize(
    "bad",
    [
        m.PeerChange(b"short"),
        m.PeerChange(KEYS[4], add_allowed_ips=["10.0.0.0/33"]),
        m.PeerChange(KEYS[4], remove_allowed_ips=["nonsense"]),
        m.PeerChange(KEYS[4], endpoint=m.Endpoint("host.example", 1)),
        m.PeerChange(KEYS[4], endpoint=m.Endpoint("192.0.2.1", 0)),
        m.PeerChange(KEYS[4], persistent_keepalive=70000),
    ],
)
def test_one_bad_value_refuses_the_whole(bad: m.PeerChange) -> None:
    assert refuse(change(m.PeerChange(KEYS[0], remove=True), bad)).errno == errno.EINVAL


_peer_changes = st.builds(
    m.PeerChange,
    public_key=st.sampled_from(KEYS[:4]),
    remove=st.booleans(),
    update_only=st.booleans(),
    replace_allowed_ips=st.booleans(),
    add_allowed_ips=st.lists(st.sampled_from(["10.0.0.0/24", "10.1.0.0/24", "10.2.0.0/16", "fd01::/64"]), max_size=3),
    remove_allowed_ips=st.lists(st.sampled_from(["10.0.0.0/24", "fd01::/64"]), max_size=1),
)


@settings(deadline=None)
@given(st.lists(st.lists(_peer_changes, max_size=4), max_size=5), st.booleans())
def test_differences_add_up_to_the_model(changes: list[list[m.PeerChange]], replace_peers: bool) -> None:
    """What was told so far is always the model: slots, owners and the kernel's routes."""
    model = two_peers()
    slots = {peer.slot for peer in model.peers.values()}
    table = {(each.address, each.length): each.peer for each in model.routes()}
    kernel = set(model.owners)
    for peers in changes:
        wanted = change(*peers, replace_peers=replace_peers)
        new = apply(model, wanted)
        found = difference(model, new, wanted)
        added = {peer.slot for peer in found.added}
        assert not added & slots
        slots = (slots | added) - set(found.removed)
        table.update({(each.address, each.length): each.peer for each in found.routes})
        kernel = (kernel | set(found.prefixes_added)) - set(found.prefixes_removed)
        model = new
        assert slots == {peer.slot for peer in model.peers.values()}
        assert {key: slot for key, slot in table.items() if slot is not None} == {
            (each.address, each.length): each.peer for each in model.routes()
        }
        assert kernel == set(model.owners)
        assert set(model.owners.values()) <= set(model.peers)
