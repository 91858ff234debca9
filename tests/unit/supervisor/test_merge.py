"""A changed file meets a gateway that was changed at run time: what the file says, or what it says anew."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.supervisor.support import KEYS, change, gateway, peer
from wghsm import config
from wghsm.ipc import messages as m
from wghsm.supervisor.merge import NAMELESS, Merged, as_gateway, merged
from wghsm.supervisor.model import Model, Refusal, applied, between, initial

HOST = config.Endpoint("gw.example", 7)
OTHER = config.Endpoint("192.0.2.9", 9)
ELSEWHERE = m.Endpoint("198.51.100.1", 1)
PREFIXES = [f"10.{number}.0.0/16" for number in range(6)]


def model(*peers: config.Peer) -> Model:
    return initial(gateway(*peers))


def at_run_time(start: Model, *peers: m.PeerChange, psks: bool = False, resolved: bool = False) -> Model:
    made = applied(start, change(*peers), runtime_psks=psks, own_key=None, resolved=resolved)
    assert isinstance(made, Model)
    return made


def merge(running: Model, loaded: Model, wanted: Model, *, keep: bool = False) -> Merged:
    made = merged(running, loaded, wanted, keep_runtime=keep)
    assert isinstance(made, Merged)
    return made


@st.composite
def files(draw: st.DrawFn) -> config.Gateway:
    numbers = draw(st.lists(st.integers(0, 5), unique=True, max_size=5))
    free = iter(draw(st.permutations(PREFIXES)))
    made = []
    for number in numbers:
        owned = [next(free) for _ in range(draw(st.integers(0, 1)))]
        one = peer(number, *owned, endpoint=draw(st.sampled_from([None, HOST, OTHER])))
        made.append(one.model_copy(update={"persistent_keepalive": draw(st.sampled_from([0, 25]))}))
    return gateway(*made)


@st.composite
def changes(draw: st.DrawFn) -> m.PeerChange:
    return m.PeerChange(
        draw(st.sampled_from(KEYS[:6])),
        remove=draw(st.booleans()),
        endpoint=draw(st.sampled_from([None, ELSEWHERE])),
        persistent_keepalive=draw(st.sampled_from([None, 7])),
        replace_allowed_ips=draw(st.booleans()),
        add_allowed_ips=draw(st.lists(st.sampled_from(PREFIXES), max_size=2)),
    )


def plain(made: Model) -> Any:
    peers = {key: replace(each, slot=0, endpoint=None) for key, each in made.peers.items()}
    return peers, dict(made.owners), made.listen_port, made.fwmark


@settings(deadline=None)
@given(files(), files(), st.lists(changes(), max_size=4))
def test_the_file_is_the_truth(before: config.Gateway, after: config.Gateway, drift: list[m.PeerChange]) -> None:
    loaded, wanted = initial(before), initial(after)
    running = at_run_time(loaded, *drift)
    made = merge(running, loaded, wanted)
    assert plain(made.model) == plain(wanted)
    slots = [each.slot for each in made.model.peers.values()]
    assert len(slots) == len(set(slots))
    for key in made.model.peers.keys() & running.peers.keys():
        assert made.model.peers[key].slot == running.peers[key].slot
    fresh = {made.model.peers[key].slot for key in made.model.peers.keys() - running.peers.keys()}
    assert not fresh & {each.slot for each in running.peers.values()}


@settings(deadline=None)
@given(files(), files(), st.lists(changes(), max_size=4))
def test_a_second_reload_of_the_same_file_changes_nothing(
    before: config.Gateway, after: config.Gateway, drift: list[m.PeerChange]
) -> None:
    loaded, wanted = initial(before), initial(after)
    for keep in (False, True):
        made = merge(at_run_time(loaded, *drift), loaded, wanted, keep=keep)
        again = merge(made.model, wanted, wanted, keep=keep)
        assert again.model == made.model
        assert not again.moved
        nothing = between(made.model, again.model, again.moved)
        assert not (nothing.added or nothing.removed or nothing.routes or nothing.handshake_changed)


@settings(deadline=None)
@given(files(), files())
def test_without_drift_both_authorities_agree(before: config.Gateway, after: config.Gateway) -> None:
    loaded, wanted = initial(before), initial(after)
    assert plain(merge(loaded, loaded, wanted, keep=True).model) == plain(merge(loaded, loaded, wanted).model)


@settings(deadline=None)
@given(files(), st.lists(changes(), max_size=4))
def test_under_runtime_an_unchanged_file_undoes_nothing(file: config.Gateway, drift: list[m.PeerChange]) -> None:
    loaded = initial(file)
    kept = [each for each in drift if not each.remove]
    running = at_run_time(loaded, *kept)
    made = merge(running, loaded, loaded, keep=True)
    assert made.model.peers == running.peers
    assert made.model.owners == running.owners
    assert not made.moved


def test_an_endpoint_moves_only_where_the_file_names_another() -> None:
    loaded = model(peer(0, endpoint=OTHER), peer(1, endpoint=HOST), peer(2), peer(3, endpoint=OTHER))
    running = at_run_time(loaded, m.PeerChange(KEYS[1], endpoint=ELSEWHERE), resolved=True)
    running = at_run_time(running, m.PeerChange(KEYS[2], endpoint=ELSEWHERE), m.PeerChange(KEYS[3], endpoint=ELSEWHERE))
    # Roamed, resolved or set where the file says nothing: left alone. Set over the file's: taken back.
    assert merge(running, loaded, loaded).moved == {KEYS[3]}
    wanted = model(peer(0, endpoint=HOST), peer(1, endpoint=HOST), peer(2, endpoint=OTHER), peer(3))
    made = merge(running, loaded, wanted)
    assert made.moved == {KEYS[0], KEYS[2]}
    assert made.model.peers[KEYS[1]].endpoint == ELSEWHERE


def test_runtime_keeps_what_the_file_does_not_speak_of() -> None:
    loaded = model(peer(0, "10.0.0.0/16"), peer(1, "10.1.0.0/16"))
    psk = m.PskObject("label")
    running = at_run_time(
        loaded,
        m.PeerChange(KEYS[0], psk=psk),
        m.PeerChange(KEYS[5], psk=psk, add_allowed_ips=["10.5.0.0/16", "10.4.0.0/16"]),
        psks=True,
    )
    # The file drops one peer, and gives another one a prefix that a peer of the run time had.
    wanted = model(peer(0, "10.0.0.0/16", "10.4.0.0/16"))
    made = merge(running, loaded, wanted, keep=True).model
    assert set(made.peers) == {KEYS[0], KEYS[5]}
    assert made.peers[KEYS[0]].psk == made.peers[KEYS[5]].psk == psk
    assert {str(prefix): key for prefix, key in made.owners.items()} == {
        "10.0.0.0/16": KEYS[0],
        "10.4.0.0/16": KEYS[0],
        "10.5.0.0/16": KEYS[5],
    }
    assert set(merge(running, loaded, wanted).model.peers) == {KEYS[0]}


def test_a_required_psk_is_required_of_peers_of_the_run_time_too() -> None:
    loaded = model(peer(0))
    running = at_run_time(loaded, m.PeerChange(KEYS[5]))
    assert isinstance(merged(running, loaded, loaded, keep_runtime=True, psk_required=True), Refusal)
    assert isinstance(merged(running, loaded, loaded, keep_runtime=False, psk_required=True), Merged)


@settings(deadline=None)
@given(files())
def test_a_gateway_that_has_not_drifted_is_its_file(file: config.Gateway) -> None:
    loaded = initial(file)
    assert config.plan(file, as_gateway(file, loaded, loaded, None, str)).changes == ()


def test_drift_is_what_was_changed_at_run_time() -> None:
    file = gateway(peer(0, "10.0.0.0/16", endpoint=OTHER), peer(1, endpoint=HOST))
    loaded = initial(file)
    running = at_run_time(loaded, m.PeerChange(KEYS[1], endpoint=ELSEWHERE), resolved=True)
    running = at_run_time(
        running,
        m.PeerChange(KEYS[0], endpoint=m.Endpoint("fe80::1", 5, 3), persistent_keepalive=9),
        m.PeerChange(KEYS[7], add_allowed_ips=["10.0.0.0/16"]),
    )
    shown = as_gateway(file, loaded, replace(running, listen_port=99), 1280, "eth{}".format)
    found = {(each.field, each.name): each.after for each in config.plan(file, shown).changes if each.field}
    assert found == {
        ("interface.listen_port", ""): 99,
        ("interface.mtu", ""): 1280,
        ("endpoint", "peer0"): config.Endpoint("fe80::1%eth3", 5),
        ("persistent_keepalive", "peer0"): 9,
        ("allowed_ips", "peer0"): (),
    }
    (added,) = [each for each in shown.peers if each.name == NAMELESS]
    assert added.allowed_ips == (ip_network("10.0.0.0/16"),)
    assert config.from_document(config.to_document(shown)) == shown
