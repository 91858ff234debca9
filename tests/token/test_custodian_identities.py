"""Two identities in a real custodian process with a real token: while the key is rotated, and when it is retired."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.network.support.memory import scan_memory
from tests.token.custodian_process import PATIENCE, UID, Custodian, GatewayToken, in_token, state_folder
from tests.token.faulty_token import Watched
from tests.token.rig import rig_token
from tests.unit.custodian.support import SoftwarePeer
from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, Counter, PeerField, identity_number
from wghsm.ipc import messages as m
from wghsm.noise import Rejected
from wghsm.noise.curve import exchange, public_key
from wghsm.softhsm_setup import SoftHsmToken, make_token, softhsm_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_HANDSHAKE = ChannelKind.HANDSHAKE_CUSTODIAN
_NEW, _OLD = "gw-2026", "gw-2024"
_OVERLAP = {"key": _NEW, "previous_key": _OLD, "psk_wrap_key": "wrap"}
_DEVICE_ERROR = 0x30
_DERIVED, _OBJECT = m.PskDerived(5), m.PskObject("psk")

_MAKE = """
import json, os, sys
from wghsm.pkcs11_backend import TokenPool, TokenUri, open_pin, provision
from wghsm.pkcs11_backend.key_import import import_key
from wghsm.pkcs11_backend.wrapping import make_wrap_key, wrap_psk
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
# Its backend is imported at the first use, which must not be after the change of the uid.
X25519PrivateKey.generate()
order = json.load(sys.stdin)
uri = TokenUri.parse(order["uri"])
pin = open_pin(uri.pin_source)
os.setgroups([]); os.setresgid(*[order["uid"]] * 3); os.setresuid(*[order["uid"]] * 3)
with TokenPool.open(uri, pin.read(), 1, read_write=True) as pool:
    for label, private in order["keys"].items():
        import_key(pool, label, bytearray.fromhex(private))
    provision.derive_root(pool, "root")
    provision.put_psk(pool, "psk", bytearray.fromhex(order["psk"]))
    root, wrap = pool.find_root("root"), make_wrap_key(pool, "wrap")
    keys = [pool.find_key(label) for label in order["keys"]]
    peer = bytes.fromhex(order["peer"])
    with pool.session() as session:
        derived = [session.derived_psk(root, key.public_key, peer, 5).hex() for key in keys]
    wrapped = [wrap_psk(pool, wrap, key.public_key, peer, 5, bytearray.fromhex(order["psk"])).hex() for key in keys]
print(json.dumps({"derived": derived, "wrapped": wrapped}))
"""


@dataclass(frozen=True)
class Site:
    """A token with two keys, and what it gives the peer in slot 1: by label, the new key first."""

    token: GatewayToken
    publics: dict[str, bytes]
    derived: dict[str, bytes]
    wrapped: dict[str, bytes]

    def peer(self, label: str, source: m.PskSource | None = None, slot: int = 1) -> SoftwarePeer:
        """A peer that is configured with one of the keys, and has the PSK for it."""
        secret = b"" if source is None else self.derived[label] if source == _DERIVED else self.token.psk
        return SoftwarePeer(slot, self.publics[label], source, secret)

    def custodian(self, state: Path, peers: list[SoftwarePeer], **more: object) -> Custodian:
        changes = {**_OVERLAP, **more}
        incarnation = changes.pop("incarnation", 1)
        assert isinstance(incarnation, int)
        return Custodian(self.token, state, incarnation=incarnation, peers=peers, changes=changes)


def _fill(made: SoftHsmToken, keys: dict[str, bytes]) -> Site:
    """Import private keys, by label, into a token, and make the rest."""
    psk, peer = os.urandom(32), SoftwarePeer(1, bytes(32)).public
    told = {name: private.hex() for name, private in keys.items()}
    answer = in_token(made, _MAKE, keys=told, psk=psk.hex(), peer=peer.hex())
    derived, wrapped = (dict(zip(keys, map(bytes.fromhex, answer[kind]), strict=True)) for kind in answer)
    publics = {name: public_key(private) for name, private in keys.items()}
    return Site(GatewayToken(made, publics[next(iter(keys))], psk), publics, derived, wrapped)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with softhsm_token(uid=UID) as made:
        yield _fill(made, {_NEW: os.urandom(32), _OLD: os.urandom(32)})


@pytest.fixture
def state() -> Iterator[Path]:
    with state_folder() as folder:
        yield folder


def _dial(custodian: Custodian, peer: SoftwarePeer, request: int = 1) -> None:
    """The peer's handshake, in which it is confirmed by data."""
    # More than the 20 ms that the custodian wants between two initiations.
    time.sleep(0.03)
    answer = custodian.ask(peer.initiation(request, time.time_ns()))
    assert isinstance(answer, m.InitiationAccepted), custodian.log_text()
    keys = peer.finish(answer)
    assert not isinstance(keys, Rejected)
    receive, _ = custodian.installed()
    assert receive.key == keys.send
    assert receive.identity == identity_number(peer.gateway)
    custodian.send(_HANDSHAKE, m.ConfirmSession(answer.session, answer.peer))


def _call(custodian: Custodian, peer: SoftwarePeer, attempt: int = 0) -> None:
    """Our handshake; it is made with the key that the peer is configured with."""
    created = custodian.ask(m.CreateInitiation(900, peer.slot, 7, attempt))
    assert isinstance(created, m.InitiationCreated), custodian.log_text()
    assert isinstance(custodian.ask(peer.respond(901, created)[0]), m.ResponseAccepted), custodian.log_text()
    receive, _ = custodian.installed()
    assert receive.identity == identity_number(peer.gateway)


def _both_accepted(custodian: Watched, peers: list[SoftwarePeer]) -> bool:
    """Whether handshakes of one peer with each of the keys go through."""
    accepted = []
    for peer in peers:
        # More than the 20 ms that the custodian wants between two initiations.
        time.sleep(0.03)
        accepted.append(custodian.accepts(peer))
    return all(accepted)


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def _shown(custodian: Custodian, slot: int = 1) -> int:
    return custodian.stats.get(slot, PeerField.IDENTITY)


@pytest.mark.parametrize("label", [_OLD, _NEW])
@pytest.mark.parametrize("source", [None, _DERIVED, _OBJECT], ids=str)
def test_both_roles_under_both(site: Site, state: Path, label: str, source: m.PskSource | None) -> None:
    peer = site.peer(label, source)
    with site.custodian(state, [peer]) as custodian:
        custodian.ready()
        _dial(custodian, peer)
        assert _shown(custodian) == identity_number(site.publics[label])
        _call(custodian, peer)


def test_who_is_served_is_told(site: Site, state: Path) -> None:
    with site.custodian(state, []) as custodian:
        told = custodian.receive(custodian.home, m.Identity)
        assert told == m.Identity(site.publics[_NEW], site.publics[_OLD])
        custodian.receive(custodian.home, m.Ready)
        custodian.attach()
        assert custodian.receive(_HANDSHAKE, m.Identity) == told
        assert f"serves key {_NEW} and, until it is retired, {_OLD}" in custodian.log_text()
    with site.custodian(state, [], previous_key=None) as custodian:
        assert custodian.receive(custodian.home, m.Identity) == m.Identity(site.publics[_NEW])
        custodian.receive(custodian.home, m.Ready)
        assert f"serves key {_NEW}\n" in custodian.log_text()


@pytest.mark.parametrize("sealed_for", [_OLD, _NEW])
def test_a_wrapped_psk_opens_whichever_key_it_was_sealed_for(site: Site, state: Path, sealed_for: str) -> None:
    source = m.PskWrapped(5, site.wrapped[sealed_for])
    peers = [site.peer(label, source) for label in (_OLD, _NEW)]
    with site.custodian(state, peers[:1]) as custodian:
        custodian.ready()
        for number, peer in enumerate((*peers, *peers)):
            _dial(custodian, peer, number)


def test_a_wrapped_psk_of_a_retired_key_does_not_open(site: Site, state: Path) -> None:
    peer = site.peer(_NEW, m.PskWrapped(5, site.wrapped[_OLD]))
    with site.custodian(state, [peer], previous_key=None) as custodian:
        custodian.ready()
        assert custodian.ask(peer.initiation(1, time.time_ns())) == m.Refused(1)
        assert custodian.counters()[Counter.TOKEN_FAULT] == 1


def test_the_initiators_choice(site: Site, state: Path) -> None:
    moved, stayed = site.peer(_NEW), site.peer(_OLD, slot=2)
    with site.custodian(state, [moved, stayed]) as custodian:
        custodian.ready()
        # Both were never seen.
        _call(custodian, moved, 2)
        _call(custodian, stayed, 3)
        assert [_shown(custodian, peer.slot) for peer in (moved, stayed)] == [
            identity_number(site.publics[label]) for label in (_NEW, _OLD)
        ]
    with site.custodian(state, [moved, stayed], incarnation=2) as custodian:
        custodian.ready()
        _until(lambda: _shown(custodian, 2) == identity_number(site.publics[_OLD]), "the identity")
        _call(custodian, moved)
        _call(custodian, stayed)
    with site.custodian(state, [moved, stayed], incarnation=3) as custodian:
        custodian.ready()
        created = custodian.ask(m.CreateInitiation(900, 2, 7, 4))
        assert isinstance(created, m.InitiationCreated)
        assert created.identity == site.publics[_NEW]


def test_a_retired_key_is_refused_and_out_of_memory(site: Site, state: Path) -> None:
    stays, moves = site.peer(_OLD), site.peer(_NEW)
    secrets = {label: bytes(exchange(stays.private, site.publics[label])) for label in (_OLD, _NEW)}
    with site.custodian(state, [stays]) as custodian:
        custodian.ready()
        _dial(custodian, stays)
        _dial(custodian, moves, 2)
        _dial(custodian, stays, 3)
        # The cache of each identity, and no more than that.
        assert scan_memory(custodian.process.pid, secrets, encoded=False).names() == {_OLD, _NEW}
        custodian.tell_peers(remove=[1])
        custodian.receive(custodian.home, m.Applied)
        custodian.receive(custodian.home, m.Applied)
        assert scan_memory(custodian.process.pid, secrets, encoded=False).names() == set()
    with site.custodian(state, [stays], incarnation=2, previous_key=None) as custodian:
        custodian.ready()
        assert custodian.ask(stays.initiation(4, time.time_ns())) == m.Refused(4)
        assert custodian.counters()[Counter.UNKNOWN_IDENTITY] == 1
        # Who has not moved yet stays known.
        assert _shown(custodian) == identity_number(site.publics[_OLD])
        _call(custodian, moves)
        _dial(custodian, moves, 5)
        assert _shown(custodian) == identity_number(site.publics[_NEW])
        assert scan_memory(custodian.process.pid, secrets, encoded=False).names() == {_NEW}


def test_a_key_that_no_peer_of_earlier_runs_knows_is_told(site: Site, state: Path) -> None:
    """As when the file names another key by mistake, or the token is not the one it was."""
    peer, said = site.peer(_OLD), "no peer that has been here (1) knows this gateway by it"
    before = b64encode(site.publics[_OLD]).decode()
    with site.custodian(state, [peer], key=_OLD, previous_key=None) as custodian:
        custodian.ready()
        assert said not in custodian.log_text()
        _dial(custodian, peer)
    with site.custodian(state, [peer], incarnation=2) as custodian:
        custodian.ready()
        assert said not in custodian.log_text()
    with site.custodian(state, [peer], incarnation=3, previous_key=None) as custodian:
        custodian.ready()
        (line,) = [line for line in custodian.log_text().splitlines() if said in line]
        assert f"key {_NEW!r}" in line
        assert before in line
        _dial(custodian, site.peer(_NEW))
    with site.custodian(state, [peer], incarnation=4, previous_key=None) as custodian:
        custodian.ready()
        assert said not in custodian.log_text()


def test_a_previous_key_that_is_not_there(site: Site, state: Path) -> None:
    with site.custodian(state, [], previous_key="gw-2020") as custodian:
        fault = custodian.fault()
    assert fault.exit_code == ExitCode.TOKEN_UNUSABLE
    for said in ("'gw-2020'", f"{_NEW!r}", "wghsm key retire"):
        assert said in fault.text


def test_one_key_under_two_labels(state: Path) -> None:
    private = os.urandom(32)
    with softhsm_token(uid=UID) as made, _fill(made, {_NEW: private, _OLD: private}).custodian(state, []) as custodian:
        fault = custodian.fault()
    assert fault.exit_code == ExitCode.TOKEN_UNUSABLE
    assert "one and the same" in fault.text


@pytest.mark.parametrize(
    ("previous", "said"),
    [
        ("absent", f"could not take over: token 'second': the previous key {_OLD!r}"),
        ("other", f"could not take over: token 'second' holds another key {_OLD!r}"),
        ("same", "token 'second' holds the same keys and could take over"),
    ],
)
def test_a_twin_must_hold_both_keys(state: Path, previous: str, said: str) -> None:
    both = {_NEW: os.urandom(32), _OLD: os.urandom(32)}
    held = {**both, _OLD: os.urandom(32)} if previous == "other" else dict(both)
    if previous == "absent":
        del held[_OLD]
    with softhsm_token(label="first", uid=UID) as made:
        site = _fill(made, both)
        twin = make_token(made.directory, label="second", uid=UID)
        _fill(twin, held)
        peer = site.peer(_OLD)
        with site.custodian(state, [peer], twins=[twin.uri], psk_root=None, psk_wrap_key=None) as custodian:
            custodian.ready()
            _dial(custodian, peer)
            _until(lambda: said in custodian.log_text(), said)


@pytest.mark.parametrize("twin", [True, False])
def test_both_keys_come_back_after_a_fault(state: Path, twin: bool) -> None:
    keys = {_NEW: os.urandom(32), _OLD: os.urandom(32)}
    with rig_token(label="first", uid=UID) as token:
        site = _fill(token.made, keys)
        changes: dict[str, object] = {**_OVERLAP, "psk_root": None, "psk_wrap_key": None}
        if twin:
            second = make_token(token.made.directory, label="second", uid=UID)
            # One module file is one instance in a process: the twin needs a file of its own.
            module = token.made.directory / "second-libsofthsm2.so"
            shutil.copyfile(second.module, module)
            module.chmod(0o755)
            second = dataclasses.replace(second, uri=second.uri.replace(second.module, str(module)), module=str(module))
            _fill(second, keys)
            changes["twins"] = [second.uri]
        peers = [site.peer(label) for label in (_NEW, _OLD)]
        with Watched(site.token, state, peers[:1], changes=changes, cache=False) as custodian:
            custodian.ready()
            assert _both_accepted(custodian, peers)
            token.rig.fail("*", _DEVICE_ERROR)
            time.sleep(0.03)
            assert not custodian.accepts(peers[1])
            if twin:
                custodian.status("ready", "'second'")
                assert _both_accepted(custodian, peers)
            else:
                custodian.status("away")
            token.rig.clear()
            custodian.status("ready", "'first'")
            assert _both_accepted(custodian, peers)


def test_a_fault_of_one_key_only_is_found_out(state: Path) -> None:
    with rig_token(uid=UID) as token:
        site = _fill(token.made, {_NEW: os.urandom(32), _OLD: os.urandom(32)})
        peer = site.peer(_OLD)
        with Watched(site.token, state, [peer], changes=_OVERLAP) as custodian:
            custodian.ready()
            before = token.rig.calls("C_DeriveKey")
            token.rig.fail("C_DeriveKey", _DEVICE_ERROR, times=1)
            assert not custodian.accepts(peer)
            _until(lambda: custodian.counters().get(Counter.TOKEN_CHECKED) == 1, "the check")
            # The one that failed, and one with each key.
            assert token.rig.calls("C_DeriveKey") == before + 3
            assert custodian.accepts(peer)
