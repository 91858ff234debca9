"""A real custodian process, its uid dropped, over modules of others: NSS softokn, and a card through OpenSC."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.token.custodian_process import UID, Custodian, state_folder
from tests.token.faulty_token import IDLE, Watched
from tests.token.real_token import REAL, RealToken
from tests.unit.custodian.support import SoftwarePeer
from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, Counter
from wghsm.ipc import messages as m
from wghsm.noise import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

_HANDSHAKE = ChannelKind.HANDSHAKE_CUSTODIAN
_EPOCH = 5


@pytest.fixture(scope="module", params=sorted(REAL))
def token(request: pytest.FixtureRequest) -> Iterator[RealToken]:
    with REAL[request.param]() as made:
        yield made


@pytest.fixture(scope="module")
def card() -> Iterator[RealToken]:
    with REAL["card"]() as made:
        yield made


@pytest.fixture
def state() -> Iterator[Path]:
    with state_folder() as folder:
        yield folder


def _peers(token: RealToken) -> list[SoftwarePeer]:
    """A peer for each kind of PSK that the token can do."""
    peers = [SoftwarePeer(1, token.public_key)]
    if "derived" in token.kinds:
        derived = SoftwarePeer(2, token.public_key, m.PskDerived(_EPOCH))
        (secret,) = token.log_in([derived.public])
        peers.append(SoftwarePeer(2, token.public_key, derived.source, secret))
    if "wrapped" in token.kinds:
        psk = os.urandom(32)
        sealed = token.wrap(SoftwarePeer(3, token.public_key).public, psk)
        peers.append(SoftwarePeer(3, token.public_key, m.PskWrapped(_EPOCH, sealed), psk))
    return peers


def test_both_roles_with_every_kind_of_psk_that_it_has(token: RealToken, state: Path) -> None:
    peers = _peers(token)
    assert len(peers) == len(token.kinds)
    changes = token.settings | ({"psk_wrap_key": "wrap"} if "wrapped" in token.kinds else {})
    with Custodian(token, state, peers=peers, cache=False, sessions=3, changes=changes) as custodian:
        identity = custodian.receive(custodian.home, m.Identity)
        assert identity.public_key == token.public_key
        custodian.ready()
        for peer in peers:
            answer = custodian.ask(peer.initiation(peer.slot, time.time_ns()))
            assert isinstance(answer, m.InitiationAccepted), custodian.log_text()
            keys = peer.finish(answer)
            assert not isinstance(keys, Rejected)
            receive, send = custodian.installed()
            assert (bytes(keys.send), bytes(keys.receive)) == (receive.key, send.key)
        for peer in peers:
            created = custodian.ask(m.CreateInitiation(10 + peer.slot, peer.slot, 77, 0))
            assert isinstance(created, m.InitiationCreated), custodian.log_text()
            response, theirs, _ = peer.respond(20 + peer.slot, created)
            assert isinstance(custodian.ask(response), m.ResponseAccepted), custodian.log_text()
            receive, send = custodian.installed()
            assert (bytes(theirs.send), bytes(theirs.receive)) == (receive.key, send.key)
        assert custodian.counters()[Counter.DERIVE] == 4 * len(peers)
        assert custodian.counters().get(Counter.PSK_USE, 0) == 2 * (len(peers) - 1)
        status = Path(f"/proc/{custodian.process.pid}/status").read_text()
        assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in status
        assert token.made.pin_file.read_text().strip() not in custodian.log_text()


def test_many_handshakes_at_once(token: RealToken, state: Path) -> None:
    crowd = [SoftwarePeer(slot, token.public_key) for slot in range(20)]
    with Custodian(token, state, peers=crowd, sessions=4, changes=token.settings) as custodian:
        custodian.ready()
        for peer in crowd:
            custodian.send(_HANDSHAKE, peer.initiation(peer.slot, time.time_ns()))
        for _ in crowd:
            answer = custodian.receive(_HANDSHAKE, m.Message)
            assert isinstance(answer, m.InitiationAccepted), custodian.log_text()
            assert not isinstance(crowd[answer.request].finish(answer), Rejected)


def test_what_a_card_cannot_do_is_one_line(card: RealToken, state: Path) -> None:
    for changes, said in (
        ({"psk_root": "root"}, "offers no CKM_SHA256_HMAC, which derived PSKs need"),
        ({"psk_wrap_key": "wrap"}, "offers no CKM_AES_GCM, which wrapped PSKs need"),
        ({"key": "gateway"}, "no private key with the label 'gateway'; there is: 'Encryption key'"),
    ):
        with Custodian(card, state, changes={**card.settings, **changes}) as custodian:
            fault = custodian.fault()
        assert fault.exit_code == ExitCode.TOKEN_UNUSABLE
        assert said in fault.text


def test_a_wrong_pin_is_sent_to_a_card_once(card: RealToken, state: Path) -> None:
    right = card.made.pin_file.read_bytes()
    card.made.pin_file.write_bytes(b"654321\n")
    try:
        for incarnation, said in (
            (1, "refused the PIN"),
            (2, "has refused this PIN before"),
            (3, "was not sent again"),
        ):
            with Custodian(card, state, incarnation=incarnation, changes=card.settings) as custodian:
                fault = custodian.fault()
            assert fault.exit_code == ExitCode.PIN_REFUSED
            assert said in fault.text
    finally:
        card.made.pin_file.write_bytes(right)
    # One wrong PIN of three: the right one is still taken.
    with Custodian(card, state, incarnation=4, changes=card.settings) as custodian:
        custodian.ready()


@pytest.mark.parametrize("way", ["away", "fall"])
def test_a_card_that_goes_and_comes_back(card: RealToken, state: Path, way: str) -> None:
    peer = SoftwarePeer(1, card.public_key)
    with Watched(card, state, [peer], changes=card.settings) as custodian:
        custodian.ready()
        assert custodian.accepts(peer)
        with getattr(card, way)():
            assert not custodian.accepts(peer)
            away = custodian.status("away")
            assert f"token '{card.label}' is not there" in away.detail
            assert not custodian.accepts(peer)
        custodian.status("ready")
        custodian.until_accepted(peer)
        assert custodian.log_text().count("the token is away since 20") == 1
        assert custodian.counters()[Counter.TOKEN_AWAY] == 1


@pytest.mark.parametrize("way", ["away", "fall"])
def test_a_card_that_was_gone_while_nobody_used_it(card: RealToken, state: Path, way: str) -> None:
    peer = SoftwarePeer(1, card.public_key)
    with Watched(card, state, [peer], changes=card.settings) as custodian:
        custodian.ready()
        assert custodian.accepts(peer)
        with getattr(card, way)():
            pass
        # Nobody has noticed: its handles are stale, and the first handshake finds out.
        assert not custodian.accepts(peer)
        custodian.until_accepted(peer)
        assert custodian.counters()[Counter.TOKEN_REPAIRED] == 1
        assert Counter.TOKEN_AWAY not in custodian.counters()
        assert "the token was mended" in custodian.log_text()


@pytest.mark.parametrize("way", ["away", "fall"])
def test_a_card_that_goes_while_nobody_uses_it(card: RealToken, state: Path, way: str) -> None:
    with Watched(card, state, changes=card.settings, program=IDLE) as custodian:
        custodian.ready()
        custodian.forget_status()
        with getattr(card, way)():
            assert f"token '{card.label}' is not there" in custodian.status("away").detail
        custodian.status("ready")


@pytest.mark.parametrize("way", ["away", "fall"])
def test_a_card_that_comes_after_the_start(card: RealToken, state: Path, way: str) -> None:
    peer = SoftwarePeer(1, card.public_key)
    with getattr(card, way)(), Watched(card, state, changes=card.settings) as custodian:
        fault = custodian.fault()
        assert fault.exit_code == ExitCode.TOKEN_UNUSABLE
        assert f"token '{card.label}' is not there" in fault.text
    changes = {**card.settings, "at_start": "wait"}
    with getattr(card, way)():
        waiting = Watched(card, state, [peer], changes=changes)
        waiting.status("away")
        waiting.receive(waiting.home, m.Ready)
    with waiting as custodian:
        custodian.attach()
        custodian.status("ready")
        custodian.receive(_HANDSHAKE, m.Identity)
        custodian.until_accepted(peer)


def test_nss_goes_on_with_the_files_that_it_has_open(state: Path) -> None:
    with REAL["nss"]() as nss:
        peer = SoftwarePeer(1, nss.public_key)
        with Watched(nss, state, [peer], changes=nss.settings) as custodian:
            custodian.ready()
            with nss.away():
                assert custodian.accepts(peer)
                custodian.process.kill()
                custodian.process.wait()
                # Another one, as the supervisor of a gateway that has served starts it.
                after = Watched(nss, state, [peer], changes={**nss.settings, "at_start": "wait"}, incarnation=2)
                assert "initialising" in after.status("away").detail
                after.receive(after.home, m.Ready)
        with after as custodian:
            custodian.attach()
            custodian.status("ready")
            custodian.receive(_HANDSHAKE, m.Identity)
            custodian.until_accepted(peer)
