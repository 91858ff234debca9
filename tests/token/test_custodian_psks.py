"""PSKs in a real custodian process with a real token: rotation over restarts, wrapped ones, the way from none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.network.support.memory import scan_memory
from tests.token.custodian_process import PATIENCE, UID, Custodian, GatewayToken, gateway_token, state_folder
from tests.unit.custodian.support import SoftwarePeer
from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, Counter, PeerField
from wghsm.ipc import messages as m
from wghsm.noise import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SLOT = 4
_HANDSHAKE = ChannelKind.HANDSHAKE_CUSTODIAN

_KEYS = """
import json, os, sys
from wghsm.pkcs11_backend import TokenPool, TokenUri, open_pin
from wghsm.pkcs11_backend.wrapping import find_wrap_key, make_wrap_key, wrap_psk
order = json.load(sys.stdin)
uri = TokenUri.parse(order["uri"])
pin = open_pin(uri.pin_source)
os.setgroups([]); os.setresgid(*[order["uid"]] * 3); os.setresuid(*[order["uid"]] * 3)
with TokenPool.open(uri, pin.read(), 1, read_write=True) as pool:
    if order["new"]:
        make_wrap_key(pool, "wrap")
    key, root, wrap = pool.find_key("gateway"), pool.find_root("root"), find_wrap_key(pool, "wrap")
    peer = bytes.fromhex(order["peer"])
    with pool.session() as session:
        derived = [session.derived_psk(root, key.public_key, peer, epoch).hex() for epoch in range(4)]
    wrapped = [
        wrap_psk(pool, wrap, key.public_key, peer, epoch, bytearray.fromhex(psk)).hex()
        for epoch, psk in enumerate(order["psks"])
    ]
print(json.dumps({"derived": derived, "wrapped": wrapped}))
"""


@dataclass
class Site:
    """A token with root and wrapping key, and one peer's PSKs out of it, by epoch."""

    token: GatewayToken
    public: bytes
    derived: list[bytes]
    psks: list[bytes]
    wrapped: list[bytes]
    requests: int = 0
    changes: dict[str, object] = field(default_factory=lambda: {"psk_wrap_key": "wrap"})

    def peer(self, source: m.PskSource, mixes: bytes, *, migrate: bool = False) -> SoftwarePeer:
        """The peer, told to the custodian with `source`, and mixing in `mixes`."""
        return SoftwarePeer(_SLOT, self.token.public_key, source, mixes, migrate=migrate)

    def custodian(self, state: Path, incarnation: int, peer: SoftwarePeer, **more: object) -> Custodian:
        changes = {**self.changes, **more}
        return Custodian(self.token, state, incarnation=incarnation, peers=[peer], changes=changes)

    def dial(self, custodian: Custodian, peer: SoftwarePeer) -> bool:
        """One attempt of the peer; data confirms the session if it understands the answer."""
        self.requests += 1
        # More than the 20 ms that the custodian wants between two initiations.
        time.sleep(0.03)
        answer = custodian.ask(peer.initiation(self.requests, time.time_ns()))
        if not isinstance(answer, m.InitiationAccepted):
            return False
        receive, _ = custodian.installed()
        keys = peer.finish(answer)
        if isinstance(keys, Rejected):
            return False
        assert keys.send == receive.key
        custodian.send(_HANDSHAKE, m.ConfirmSession(answer.session, answer.peer))
        return True

    def call(self, custodian: Custodian, peer: SoftwarePeer) -> bool:
        """One attempt of ours."""
        self.requests += 2
        created = custodian.ask(m.CreateInitiation(self.requests, _SLOT, 9, 0))
        assert isinstance(created, m.InitiationCreated)
        response, _, _ = peer.respond(self.requests + 1, created)
        if not isinstance(custodian.ask(response), m.ResponseAccepted):
            return False
        custodian.installed()
        return True

    def wrapped_source(self, epoch: int, *, previous: bool = True) -> m.PskWrapped:
        before = (epoch - 1, self.wrapped[epoch - 1]) if previous and epoch else ()
        return m.PskWrapped(epoch, self.wrapped[epoch], *before)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with gateway_token() as token:
        public = SoftwarePeer(_SLOT, token.public_key).public
        psks = [os.urandom(32) for _ in range(3)]
        order = {"uri": token.made.uri, "uid": UID, "new": True, "peer": public.hex(), "psks": [p.hex() for p in psks]}
        done = subprocess.run(
            [sys.executable, "-c", _KEYS],
            input=json.dumps(order),
            env={**os.environ, **token.made.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        derived, wrapped = ([bytes.fromhex(one) for one in made[kind]] for kind in ("derived", "wrapped"))
        yield Site(token, public, derived, psks, wrapped)


@pytest.fixture
def state() -> Iterator[Path]:
    with state_folder() as folder:
        yield folder


def _until_shown(custodian: Custodian, value: int) -> None:
    """Wait until the statistics table shows the PSK of the peer's last confirmed session like this."""
    deadline = time.monotonic() + PATIENCE
    while custodian.stats.get(_SLOT, PeerField.PSK_CONFIRMED) != value:
        assert time.monotonic() < deadline, custodian.stats.get(_SLOT, PeerField.PSK_CONFIRMED)
        time.sleep(0.01)


def test_a_derived_psk_is_rotated_over_restarts(site: Site, state: Path) -> None:
    peer = site.peer(m.PskDerived(0), site.derived[0])
    with site.custodian(state, 1, peer) as custodian:
        custodian.ready()
        assert site.dial(custodian, peer)
        assert site.dial(custodian, peer)
        _until_shown(custodian, 2)
    old = site.peer(m.PskDerived(1), site.derived[0])
    moved = site.peer(m.PskDerived(1), site.derived[1])
    with site.custodian(state, 2, old) as custodian:
        custodian.ready()
        assert [site.dial(custodian, old) for _ in range(4)] == [False, True, False, True]
        assert site.call(custodian, old)
        _until_shown(custodian, 2)
        assert site.dial(custodian, moved)
        assert site.dial(custodian, moved)
        _until_shown(custodian, 3)
        assert [site.dial(custodian, old) for _ in range(3)] == [False] * 3
    back = site.peer(m.PskDerived(0), site.derived[0])
    with site.custodian(state, 3, back) as custodian:
        custodian.ready()
        _until_shown(custodian, 3)
        assert [site.dial(custodian, back) for _ in range(2)] == [False] * 2
        assert custodian.counters()[Counter.PSK_OUTDATED] == 2
        status = custodian.receive(custodian.home, m.TokenStatus)
        while "epoch" not in status.detail:
            status = custodian.receive(custodian.home, m.TokenStatus)
        assert "has used the derived PSK of epoch 1, the gateway file says 0" in status.detail


def test_the_overlap_is_the_operators(site: Site, state: Path) -> None:
    old = site.peer(m.PskDerived(1), site.derived[0])
    with site.custodian(state, 1, old, psk_overlap=0) as custodian:
        custodian.ready()
        assert [site.dial(custodian, old) for _ in range(2)] == [False] * 2
        assert not site.call(custodian, old)


def test_a_wrapped_psk_is_opened_at_each_handshake(site: Site, state: Path) -> None:
    peer = site.peer(site.wrapped_source(0), site.psks[0])
    with site.custodian(state, 1, peer) as custodian:
        custodian.ready()
        assert site.dial(custodian, peer)
        assert site.call(custodian, peer)
        old = site.peer(site.wrapped_source(1), site.psks[0])
        custodian.tell_peers(old)
        assert [site.dial(custodian, old) for _ in range(2)] == [False, True]
        moved = site.peer(site.wrapped_source(1), site.psks[1])
        assert site.dial(custodian, moved)
        _until_shown(custodian, 3)
        assert [site.dial(custodian, old) for _ in range(2)] == [False] * 2
        scan = scan_memory(custodian.process.pid, {f"psk {n}": psk for n, psk in enumerate(site.psks)})
        assert scan.scanned > 2**20
        assert not scan.hits
    assert not any(psk in path.read_bytes() for psk in site.psks for path in (state / "custodian").iterdir())


def test_what_is_wrapped_must_open_where_that_is_asked_for(site: Site, state: Path) -> None:
    peer = site.peer(site.wrapped_source(1), site.psks[1])
    lines = [m.SealedPsk(site.public, epoch, site.wrapped[epoch], f"/x.psk:{epoch}") for epoch in range(2)]
    with site.custodian(state, 1, peer, sealed=lines) as custodian:
        custodian.ready()
        assert site.dial(custodian, peer)
    lines.append(m.SealedPsk(site.public, 2, site.wrapped[1], "/x.psk:9"))
    with site.custodian(state, 2, peer, sealed=lines) as custodian:
        fault = custodian.fault()
    assert fault.text.startswith("/x.psk:9: ")
    assert "does not open with 'wrap'" in fault.text
    assert fault.text.endswith("wrap it again: wghsm psk wrap")


def test_a_wrapped_psk_of_another_peer_or_epoch_is_no_fault_of_the_token(site: Site, state: Path) -> None:
    wrong = site.peer(m.PskWrapped(2, site.wrapped[1]), site.psks[1])
    with site.custodian(state, 1, wrong) as custodian:
        custodian.ready()
        assert [site.dial(custodian, wrong) for _ in range(2)] == [False] * 2
        right = site.peer(site.wrapped_source(1, previous=False), site.psks[1])
        custodian.tell_peers(right)
        assert site.dial(custodian, right)
        assert "does not open" in custodian.log_text()
        assert "the token is away" not in custodian.log_text()


def test_a_peer_moves_from_none(site: Site, state: Path) -> None:
    bare = site.peer(m.PskDerived(0), bytes(32), migrate=True)
    moved = site.peer(m.PskDerived(0), site.derived[0], migrate=True)
    with site.custodian(state, 1, bare) as custodian:
        custodian.ready()
        assert [site.dial(custodian, bare) for _ in range(2)] == [False, True]
        assert site.call(custodian, bare)
        _until_shown(custodian, 1)
        assert site.dial(custodian, moved)
        assert [site.dial(custodian, bare) for _ in range(3)] == [False] * 3
    with site.custodian(state, 2, bare) as custodian:
        custodian.ready()
        assert [site.dial(custodian, bare) for _ in range(3)] == [False] * 3
        assert site.dial(custodian, moved)


def test_a_missing_wrapping_key_is_told_at_the_start(site: Site, state: Path) -> None:
    peer = site.peer(site.wrapped_source(0), site.psks[0])
    with site.custodian(state, 1, peer, psk_wrap_key="absent") as custodian:
        fault = custodian.fault()
    assert fault.exit_code == ExitCode.TOKEN_UNUSABLE
    assert "'absent'" in fault.text
    assert "wghsm psk wrap --make-key" in fault.text
