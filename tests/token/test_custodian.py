"""The custodian as a real process with a real token: both roles, restarts, refusals, recovery, and its memory."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.network.support.memory import scan_memory
from tests.token.custodian_process import (
    LABEL_PSK,
    PATIENCE,
    UID,
    Custodian,
    GatewayToken,
    gateway_token,
    rest,
    state_folder,
)
from tests.unit.custodian.support import SoftwarePeer
from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, Counter
from wghsm.ipc import messages as m
from wghsm.noise import Rejected
from wghsm.noise.curve import exchange
from wghsm.process import boottime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HANDSHAKE = ChannelKind.HANDSHAKE_CUSTODIAN


@pytest.fixture(scope="module")
def token() -> Iterator[GatewayToken]:
    with gateway_token() as made:
        yield made


@pytest.fixture
def state() -> Iterator[Path]:
    with state_folder() as folder:
        yield folder


@pytest.fixture
def peers(token: GatewayToken) -> list[SoftwarePeer]:
    """One peer without a PSK, one with a derived one, one with an object."""
    plain = SoftwarePeer(1, token.public_key)
    object_ = SoftwarePeer(3, token.public_key, m.PskObject(LABEL_PSK), token.psk)
    derived = SoftwarePeer(2, token.public_key, m.PskDerived(5))
    (secret,) = token.log_in([derived.public])
    return [plain, SoftwarePeer(2, token.public_key, m.PskDerived(5), secret), object_]


def _initiation(custodian: Custodian, peer: SoftwarePeer, request: int) -> m.Message:
    """The answer to a fresh initiation of the peer."""
    rest(peer)
    answer = custodian.ask(peer.initiation(request, time.time_ns()))
    peer.last_initiation = boottime()
    return answer


def _accept(custodian: Custodian, peer: SoftwarePeer, request: int) -> tuple[m.InstallReceive, m.InstallSend]:
    answer = _initiation(custodian, peer, request)
    assert isinstance(answer, m.InitiationAccepted), custodian.log_text()
    theirs = peer.finish(answer)
    assert not isinstance(theirs, Rejected)
    custodian.send(_HANDSHAKE, m.ConfirmSession(answer.session, answer.peer))
    receive, send = custodian.installed()
    assert (bytes(theirs.send), bytes(theirs.receive)) == (receive.key, send.key)
    assert (receive.session, receive.peer, receive.initiator) == (answer.session, peer.slot, False)
    assert (receive.local_index, send.remote_index) == (1000 + request, 2000 + request)
    return receive, send


def _initiate(custodian: Custodian, peer: SoftwarePeer, request: int) -> tuple[m.InstallReceive, m.InstallSend]:
    created = custodian.ask(m.CreateInitiation(request, peer.slot, 77, 0))
    assert isinstance(created, m.InitiationCreated), custodian.log_text()
    response, theirs, _ = peer.respond(request + 1, created)
    answer = custodian.ask(response)
    assert isinstance(answer, m.ResponseAccepted), custodian.log_text()
    receive, send = custodian.installed()
    assert (bytes(theirs.send), bytes(theirs.receive)) == (receive.key, send.key)
    assert (receive.session, receive.peer, receive.initiator) == (answer.session, peer.slot, True)
    assert (receive.local_index, send.remote_index) == (77, response.remote_index)
    return receive, send


@pytest.mark.parametrize("cache", [True, False])
def test_both_roles_with_every_kind_of_psk(
    token: GatewayToken, state: Path, peers: list[SoftwarePeer], cache: bool
) -> None:
    with Custodian(token, state, peers=peers, cache=cache) as custodian:
        identity = custodian.receive(custodian.home, m.Identity)
        assert identity.public_key == token.public_key
        custodian.ready()
        numbers = (1, 2)
        sessions = [
            _accept(custodian, peer, 10 * number + peer.slot)[0].session for number in numbers for peer in peers
        ]
        sessions += [_initiate(custodian, peer, 100 + peer.slot)[0].session for peer in peers]
        assert len(set(sessions)) == 9
        assert all(session >> 40 == 1 for session in sessions)
        counted = custodian.counters()
        assert counted[Counter.PSK_USE] == 6
        # One live derive for each handshake, and static-static once a peer or every time.
        assert counted[Counter.DERIVE] == 9 + (3 if cache else 9)


def test_it_gives_up_what_it_does_not_need(token: GatewayToken, state: Path) -> None:
    with Custodian(token, state) as custodian:
        custodian.ready()
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{custodian.process.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == [str(UID)] * 4
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 1 << 14
        assert status["NoNewPrivs"] == "1"
        assert int(status["VmLck"].split()[0]) > 0
        about = (state / "custodian").stat()
        assert (about.st_uid, about.st_mode & 0o777) == (UID, 0o700)


def test_a_replay_is_refused_after_a_restart(token: GatewayToken, state: Path, peers: list[SoftwarePeer]) -> None:
    with Custodian(token, state, peers=peers) as custodian:
        custodian.ready()
        old = peers[0].initiation(1, time.time_ns())
        assert isinstance(custodian.ask(old), m.InitiationAccepted)
        first, _ = custodian.installed()
        created = custodian.ask(m.CreateInitiation(2, 1, 1, 0))
        assert isinstance(created, m.InitiationCreated)
        own = peers[0].respond(3, created)[2]
        custodian.process.kill()
    with Custodian(token, state, peers=peers, incarnation=2) as custodian:
        custodian.ready()
        assert custodian.ask(old) == m.Refused(1)
        assert custodian.counters()[Counter.OLD_TIMESTAMP] == 1
        assert _accept(custodian, peers[0], 4)[0].session > first.session
        # The old custodian's handle is nobody's, and the own timestamp goes on.
        assert custodian.ask(m.AcceptResponse(5, created.handle, bytes(range(32)), bytes(16), 1)) == m.Refused(5)
        again = custodian.ask(m.CreateInitiation(6, 1, 1, 0))
        assert isinstance(again, m.InitiationCreated)
        assert peers[0].respond(7, again)[2] > own


def test_a_low_order_point_does_not_reach_the_token(
    token: GatewayToken, state: Path, peers: list[SoftwarePeer]
) -> None:
    with Custodian(token, state, peers=peers) as custodian:
        custodian.ready()
        for request, point in enumerate([bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 31]):
            answer = custodian.ask(m.AcceptInitiation(request, point, bytes(48), bytes(28), 1, 2, token.public_key))
            assert answer == m.Refused(request)
        assert custodian.counters() == {Counter.LOW_ORDER_POINT: 3}
        _accept(custodian, peers[0], 9)
        assert "failed at the token" not in custodian.log_text()


def test_parallel_initiations_of_many_peers(token: GatewayToken, state: Path) -> None:
    crowd = [SoftwarePeer(slot, token.public_key, m.PskObject(LABEL_PSK), token.psk) for slot in range(60)]
    with Custodian(token, state, peers=crowd, sessions=4) as custodian:
        custodian.ready()
        for peer in crowd:
            custodian.send(_HANDSHAKE, peer.initiation(peer.slot, time.time_ns()))
        sessions = {}
        for _ in crowd:
            answer = custodian.receive(_HANDSHAKE, m.Message)
            assert isinstance(answer, m.InitiationAccepted)
            keys = crowd[answer.request].finish(answer)
            assert not isinstance(keys, Rejected)
            sessions[answer.session] = (answer.peer, bytes(keys.send), bytes(keys.receive))
        assert len(sessions) == 60
        for _ in crowd:
            receive, send = custodian.installed()
            assert sessions.pop(receive.session) == (receive.peer, receive.key, send.key)
        assert not sessions


def test_without_egress_or_ingress_there_is_no_session(
    token: GatewayToken, state: Path, peers: list[SoftwarePeer]
) -> None:
    with Custodian(token, state, peers=peers) as custodian:
        custodian.receive(custodian.home, m.Ready)
        custodian.attach(_HANDSHAKE, ChannelKind.CUSTODIAN_INGRESS)
        assert custodian.receive(_HANDSHAKE, m.Identity).public_key == token.public_key
        assert _initiation(custodian, peers[0], 1) == m.Refused(1)
        custodian.attach(ChannelKind.CUSTODIAN_EGRESS)
        _accept(custodian, peers[0], 2)
        assert not custodian.waiting[ChannelKind.CUSTODIAN_INGRESS]


def test_a_new_handshake_process_is_greeted(token: GatewayToken, state: Path, peers: list[SoftwarePeer]) -> None:
    with Custodian(token, state, peers=peers) as custodian:
        custodian.ready()
        created = custodian.ask(m.CreateInitiation(1, 1, 1, 0))
        assert isinstance(created, m.InitiationCreated)
        custodian.attach(_HANDSHAKE)
        assert custodian.receive(_HANDSHAKE, m.Identity).public_key == token.public_key
        response, _, _ = peers[0].respond(2, created)
        assert custodian.ask(response) == m.Refused(2)


def test_peers_come_and_go(token: GatewayToken, state: Path, peers: list[SoftwarePeer]) -> None:
    with Custodian(token, state) as custodian:
        custodian.ready()
        assert _initiation(custodian, peers[0], 1) == m.Refused(1)
        custodian.tell_peers(peers[0])
        custodian.receive(custodian.home, m.Applied)
        custodian.receive(custodian.home, m.Applied)
        _accept(custodian, peers[0], 2)
        custodian.tell_peers(remove=[1])
        custodian.receive(custodian.home, m.Applied)
        assert _initiation(custodian, peers[0], 3) == m.Refused(3)


def test_psks_at_run_time(token: GatewayToken, state: Path) -> None:
    label, psk = "wghsm-psk-run-time", bytes(range(32))
    peer = SoftwarePeer(1, token.public_key, m.PskObject(label), psk)
    control = ChannelKind.CONTROL_CUSTODIAN
    with Custodian(token, state, peers=[peer], changes={"runtime_psks": True}) as custodian:
        custodian.ready().attach(control)
        custodian.send(control, m.PutPsk(1, "gateway", bytes(range(32))))
        assert custodian.receive(control, m.PskResult).errno == 1
        # A PSK that is not there is the configuration's fault, not the token's.
        assert _initiation(custodian, peer, 1) == m.Refused(1)
        for number in (2, 3):
            custodian.send(control, m.PutPsk(number, label, bytes(range(32))))
            assert custodian.receive(control, m.PskResult) == m.PskResult(number, 0)
            _accept(custodian, peer, number)
        custodian.send(control, m.DeletePsk(4, label))
        assert custodian.receive(control, m.PskResult) == m.PskResult(4, 0)
        custodian.send(control, m.DeletePsk(5, label))
        assert custodian.receive(control, m.PskResult).errno == 2
        assert _initiation(custodian, peer, 6) == m.Refused(6)
        assert "away" not in custodian.log_text()


def test_a_psk_that_the_operator_replaces(token: GatewayToken, state: Path) -> None:
    label = "replaced"
    with Custodian(token, state) as custodian:
        custodian.ready()
        for number in (1, 2, 3):
            psk = bytes([number]) * 32
            token.put_psk(label, psk)
            peer = SoftwarePeer(number, token.public_key, m.PskObject(label), psk)
            custodian.tell_peers(peer)
            _accept(custodian, peer, number)


def test_a_wrong_pin_is_sent_once(state: Path) -> None:
    with gateway_token() as token:
        right = token.made.pin_file.read_bytes()
        token.made.pin_file.write_bytes(b"wrong-4711\n")
        assert not token.pin_count_low()
        with Custodian(token, state) as custodian:
            fault = custodian.fault()
        assert fault.exit_code == ExitCode.PIN_REFUSED
        assert "wrong-4711" not in fault.text
        assert token.pin_count_low()
        # A right PIN, sent by somebody else, clears the token's flag: a second try of the wrong one would set it.
        token.made.pin_file.write_bytes(right)
        token.log_in()
        token.made.pin_file.write_bytes(b"wrong-4711\n")
        assert not token.pin_count_low()
        for incarnation in (2, 3, 4):
            with Custodian(token, state, incarnation=incarnation) as custodian:
                fault = custodian.fault()
            assert fault.exit_code == ExitCode.PIN_REFUSED
            assert str(state / "custodian" / "pin-refused") in fault.text
        assert not token.pin_count_low()
        token.made.pin_file.write_bytes(right)
        with Custodian(token, state, incarnation=5) as custodian:
            custodian.ready()
        assert not (state / "custodian" / "pin-refused").exists()


def test_a_token_that_goes_away_and_comes_back(state: Path) -> None:
    with gateway_token() as token:
        peer = SoftwarePeer(1, token.public_key)
        store = token.made.directory / "tokens"
        with Custodian(token, state, peers=[peer]) as custodian:
            custodian.ready()
            _accept(custodian, peer, 1)
            held = store.with_name("held")
            shutil.move(store, held)
            try:
                assert _initiation(custodian, peer, 2) == m.Refused(2)
                status = _status(custodian, "away")
                assert status.detail
                assert _initiation(custodian, peer, 3) == m.Refused(3)
            finally:
                shutil.move(held, store)
            assert _status(custodian, "ready").detail == ""
            _accept(custodian, peer, 4)
            log = custodian.log_text()
            assert log.count("the token is away") == 1
            assert log.count("the token is back") == 1
            assert custodian.process.poll() is None


def _status(custodian: Custodian, state: str) -> m.TokenStatus:
    while True:
        status = custodian.receive(custodian.home, m.TokenStatus)
        if status.state == state:
            return status


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (_HANDSHAKE, m.Ready()),
        (_HANDSHAKE, m.PutPsk(1, "wghsm-psk-x", bytes(32))),
        (_HANDSHAKE, m.CustodianPeers(1, [], [])),
        (ChannelKind.CUSTODIAN_EGRESS, m.CreateInitiation(1, 1, 1, 0)),
        (ChannelKind.SUPERVISOR_CUSTODIAN, m.CreateInitiation(1, 1, 1, 0)),
    ],
    ids=str,
)
def test_a_message_out_of_the_table_ends_it(
    token: GatewayToken, state: Path, kind: ChannelKind, message: m.Message
) -> None:
    with Custodian(token, state) as custodian:
        custodian.ready()
        custodian.send(kind, message)
        assert custodian.end() == ExitCode.PROTOCOL


def _no_key(_token: GatewayToken, _state: Path) -> dict[str, object]:
    return {"key": "absent"}


def _no_root(_token: GatewayToken, _state: Path) -> dict[str, object]:
    return {"psk_root": "absent"}


def _no_token(token: GatewayToken, _state: Path) -> dict[str, object]:
    return {"uri": token.made.uri.replace("token=wghsm-test", "token=absent")}


def _no_pin_file(token: GatewayToken, _state: Path) -> dict[str, object]:
    return {"uri": token.made.uri.replace(".pin", ".absent")}


def _damaged_state(_token: GatewayToken, state: Path) -> dict[str, object]:
    (state / "custodian").mkdir(parents=True)
    (state / "custodian" / "state.sqlite").write_bytes(b"not a database, not at all" * 100)
    (state / "custodian" / "state.sqlite").chmod(0o644)
    return {}


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [
        (_no_key, ExitCode.TOKEN_UNUSABLE, "'absent'"),
        (_no_root, ExitCode.TOKEN_UNUSABLE, "'absent'"),
        (_no_token, ExitCode.TOKEN_UNUSABLE, "'wghsm-test'"),
        (_no_pin_file, ExitCode.BAD_CONFIG, ".absent"),
        (_damaged_state, ExitCode.SYSTEM, "state.sqlite"),
    ],
)
def test_what_the_operator_has_to_mend(
    token: GatewayToken,
    state: Path,
    trouble: Callable[[GatewayToken, Path], dict[str, object]],
    code: ExitCode,
    said: str,
) -> None:
    with Custodian(token, state, changes=trouble(token, state)) as custodian:
        fault = custodian.fault()
    assert fault.exit_code == code
    assert said in fault.text


@pytest.mark.parametrize("politely", [True, False])
def test_it_ends_with_its_supervisor(token: GatewayToken, state: Path, politely: bool) -> None:
    with Custodian(token, state) as custodian:
        custodian.ready()
        if politely:
            custodian.send(custodian.home, m.Shutdown())
        else:
            custodian.channels[custodian.home].close()
        assert custodian.process.wait(PATIENCE) == ExitCode.OK


def test_no_secret_stays_in_its_memory(token: GatewayToken, state: Path, peers: list[SoftwarePeer]) -> None:
    runtime = b"run-time psk, never seen before."
    control = ChannelKind.CONTROL_CUSTODIAN
    secrets = {"derived PSK": peers[1].secret, "PSK object": peers[2].secret, "run-time PSK": runtime}
    with Custodian(token, state, peers=peers, cache=False, changes={"runtime_psks": True}) as custodian:
        custodian.ready().attach(control)
        custodian.send(control, m.PutPsk(1, "wghsm-psk-memory", bytes(runtime)))
        assert custodian.receive(control, m.PskResult).errno == 0
        assert _found(custodian, secrets) == set()
        for peer in peers:
            secrets[f"static-static {peer.slot}"] = bytes(exchange(peer.private, token.public_key))
            installs = [_initiate(custodian, peer, 500 + peer.slot)]
            # At once as well as at the end: what is freed but not wiped is soon overwritten by something else.
            receive, send = installs[0]
            assert _found(custodian, {**secrets, "receive key": receive.key, "send key": send.key}) == set()
            for number in range(30):
                installs.append(_accept(custodian, peer, 10 * number + peer.slot))
                ephemeral = peer.ephemeral
                secrets[f"ephemeral-static {peer.slot}/{number}"] = bytes(exchange(ephemeral, token.public_key))
            for number, (receive, send) in enumerate(installs):
                secrets[f"receive key {peer.slot}/{number}"] = receive.key
                secrets[f"send key {peer.slot}/{number}"] = send.key
        # A handshake that waits for its response keeps an ephemeral key, but none of the above.
        scan = scan_memory(custodian.process.pid, secrets)
        assert scan.names() == set()
        assert scan.scanned > 10 * 2**20
        log = custodian.log_text()
        assert not any(secret.hex() in log for secret in secrets.values())


def test_the_scan_finds_what_may_be_kept(token: GatewayToken, state: Path, peers: list[SoftwarePeer]) -> None:
    secrets = {"static-static": bytes(exchange(peers[0].private, token.public_key)), "public": token.public_key}
    with Custodian(token, state, peers=peers) as custodian:
        custodian.ready()
        assert _found(custodian, secrets) == {"public"}
        _accept(custodian, peers[0], 1)
        assert _found(custodian, secrets) == {"public", "static-static"}
        custodian.tell_peers(remove=[1])
        custodian.receive(custodian.home, m.Applied)
        custodian.receive(custodian.home, m.Applied)
        assert _found(custodian, secrets) == {"public"}


def _found(custodian: Custodian, secrets: dict[str, bytes]) -> set[str]:
    return scan_memory(custodian.process.pid, secrets, encoded=False).names()
