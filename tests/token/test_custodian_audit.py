"""What a real custodian says to the auditor, and what it signs: checkpoints, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.network.support import until
from tests.token.custodian_process import Custodian, state_folder
from tests.token.faulty_token import FaultyToken, Watched, faulty_token
from tests.unit.custodian.support import SoftwarePeer
from wghsm.audit import PublicKey, Statement
from wghsm.ipc import ChannelKind, Counter
from wghsm.ipc import messages as m

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_AUDITOR = ChannelKind.CUSTODIAN_AUDITOR
DEVICE_ERROR = 0x30
STREAM, HASH, TIME = f"wg0/gateway/{'0a' * 16}", "5f" * 32, "2026-01-01T00:00:00.000000Z"


@pytest.fixture(scope="module")
def token() -> Iterator[FaultyToken]:
    with faulty_token() as made:
        yield made


@pytest.fixture(scope="module")
def public(token: FaultyToken) -> PublicKey:
    """The audit key, made by the command."""
    made = token.made
    words = [sys.executable, "-m", "wghsm", "audit", "key", "generate", "audit", "--token", made.uri]
    done = subprocess.run(
        words, env={**os.environ, **made.environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return PublicKey(done.stdout.encode())


@pytest.fixture
def state() -> Iterator[Path]:
    with state_folder() as folder:
        yield folder


def sign(custodian: Custodian, request: int, **fields: object) -> m.CheckpointSigned:
    wanted: dict[str, object] = {"stream": STREAM, "sequence": 7, "hash": HASH, "time": TIME, **fields}
    custodian.send(_AUDITOR, m.SignCheckpoint(request, **wanted))  # type: ignore[arg-type]
    return custodian.receive(_AUDITOR, m.CheckpointSigned)


def test_uses_logins_and_checkpoints(token: FaultyToken, public: PublicKey, state: Path) -> None:
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer], changes={"audited": True, "audit_key": "audit"}) as custodian:
        custodian.ready()
        assert custodian.accepts(peer)
        # What happened before the auditor was there comes first.
        custodian.attach(_AUDITOR)
        login = custodian.receive(_AUDITOR, m.AuditEvent)
        assert (login.kind, login.result) == ("pin.login", "ok")
        assert login.token.startswith("gw ")
        use = custodian.receive(_AUDITOR, m.AuditEvent)
        assert (use.kind, use.operation, use.peer, use.key) == ("key.use", "accept", peer.public, token.public_key)
        assert use.token == login.token
        assert use.latency_us > 0

        signed = sign(custodian, 1)
        assert (signed.key, signed.algorithm, signed.token) == (public.fingerprint, "ecdsa-p256", login.token)
        assert public.signed(Statement(STREAM, 7, HASH, TIME), signed.signature)
        assert not public.signed(Statement(STREAM, 8, HASH, TIME), signed.signature)
        # The auditor chooses none of the bytes that are signed.
        for wrong in ({"stream": "x\nseq 9"}, {"hash": "no hash"}, {"time": "now"}, {"sequence": -1}):
            refused = sign(custodian, 2, **wrong)
            assert (refused.signature, refused.text) == (b"", "that is no checkpoint")

        token.rig.fail("*", DEVICE_ERROR)
        try:
            unsigned = sign(custodian, 3)
            assert (unsigned.signature, "CKR_DEVICE_ERROR" in unsigned.text) == (b"", True)
            custodian.status("away")
            assert sign(custodian, 4).text == "the token is away"
        finally:
            token.rig.clear()
        custodian.status("ready")
        assert public.signed(Statement(STREAM, 7, HASH, TIME), sign(custodian, 5).signature)


@pytest.mark.usefixtures("public")
def test_a_key_that_is_not_there_is_told_and_no_fault_of_the_token(token: FaultyToken, state: Path) -> None:
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer], changes={"audited": True, "audit_key": "absent"}) as custodian:
        custodian.ready()
        custodian.attach(_AUDITOR)
        assert "wghsm audit key generate absent" in sign(custodian, 1).text
        assert custodian.accepts(peer)
        assert custodian.counters().get(Counter.TOKEN_CHECKED, 0) == 0


def test_where_the_log_is_required_handshakes_wait_for_it(token: FaultyToken, state: Path) -> None:
    peer = SoftwarePeer(1, token.public_key)
    with Watched(token, state, [peer], changes={"audited": True, "audit_required": True}) as custodian:
        custodian.ready()
        assert not custodian.accepts(peer)
        custodian.attach(_AUDITOR)
        custodian.send(_AUDITOR, m.AuditHealth(True))
        until(lambda: custodian.accepts(peer), "a handshake")
        custodian.send(_AUDITOR, m.AuditHealth(False))
        until(lambda: not custodian.accepts(peer), "a refusal")
        custodian.send(_AUDITOR, m.AuditHealth(True))
        until(lambda: custodian.accepts(peer), "a handshake")
        # One that is gone writes nothing.
        custodian.channels.pop(_AUDITOR).close()
        until(lambda: not custodian.accepts(peer), "a refusal")
        assert custodian.counters()[Counter.AUDIT_STOPPED] >= 3
