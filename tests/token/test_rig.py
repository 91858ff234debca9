"""The rig itself: it must fail, wait, hang and crash as told, and otherwise stay out of the way."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.token.conftest import PATIENCE, answers, environment
from tests.token.rig import RigToken, rig_token
from wghsm.pkcs11_backend import TokenFault, TokenPool
from wghsm.pkcs11_backend.provision import generate_key
from wghsm.pkcs11_backend.tokens import list_tokens
from wghsm.pkcs11_backend.uri import TokenUri

_DERIVE = """
import sys
from wghsm.pkcs11_backend import TokenPool
pool = TokenPool.open(sys.argv[1], bytearray(sys.stdin.buffer.read()), 1)
key = pool.find_key("key")
print("ready", flush=True)
with pool.session() as session:
    session.derive(key, bytes.fromhex("09" + "00" * 31))
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def made() -> Iterator[RigToken]:
    with rig_token() as token, environment(token.made.environment):
        with TokenPool.open(token.made.uri, bytearray(token.pin), 1, read_write=True) as pool:
            generate_key(pool, "key")
        yield token


@pytest.fixture
def token(made: RigToken) -> Iterator[RigToken]:
    yield made
    made.rig.clear()
    made.rig.present()


@pytest.fixture
def pool(token: RigToken) -> Iterator[TokenPool]:
    with TokenPool.open(token.made.uri, bytearray(token.pin), 2, read_write=True) as opened:
        yield opened


def _derive(pool: TokenPool) -> str:
    """The name of the error that a derive gives, empty when it gives none."""
    try:
        assert answers(pool, pool._keys["key"])
    except TokenFault as fault:
        return fault.name
    return ""


def test_a_fault_catches_the_calls_it_is_told_to(token: RigToken, pool: TokenPool) -> None:
    pool.find_key("key")
    fault = token.rig.fail("C_DeriveKey", 0x30, skip=2, times=2)
    assert [_derive(pool) for _ in range(6)] == ["", "", "CKR_DEVICE_ERROR", "CKR_DEVICE_ERROR", "", ""]
    assert token.rig.hits(fault) == 2


def test_the_time_of_its_calls_adds_up(token: RigToken, pool: TokenPool) -> None:
    pool.find_key("key")
    before, all_before = token.rig.cpu_seconds(), time.process_time()
    assert [_derive(pool) for _ in range(50)] == [""] * 50
    spent = token.rig.cpu_seconds() - before
    assert 0 < spent < time.process_time() - all_before
    token.rig.hang("C_DeriveKey", seconds=0.3)
    assert _derive(pool) == ""
    assert token.rig.cpu_seconds() - before < spent + 0.3


def test_a_fault_ends_by_itself(token: RigToken, pool: TokenPool) -> None:
    pool.find_key("key")
    began = time.monotonic()
    token.rig.fail("C_DestroyObject", 0x31, seconds=0.3)
    assert _derive(pool) == "CKR_DEVICE_MEMORY"
    while _derive(pool):
        assert time.monotonic() - began < PATIENCE
    assert time.monotonic() - began >= 0.3


def test_a_fault_of_one_attribute(token: RigToken, pool: TokenPool) -> None:
    token.rig.fail("C_GetAttributeValue", 0x11, attribute=0x181)
    assert answers(pool, pool.find_key("key"))
    token.rig.fail("C_GetAttributeValue", 0x11, attribute=0x011)
    assert _derive(pool) == "CKR_ATTRIBUTE_SENSITIVE"


def test_calls_are_slow_one_by_one(token: RigToken, pool: TokenPool) -> None:
    pool.find_key("key")
    before = token.rig.calls("C_DeriveKey")
    token.rig.slow(0.05)
    began = time.monotonic()
    assert _derive(pool) == ""
    assert time.monotonic() - began >= 0.15
    assert token.rig.calls("C_DeriveKey") == before + 1


def test_who_hangs_goes_on_when_it_is_cleared(token: RigToken, pool: TokenPool) -> None:
    pool.find_key("key")
    fault = token.rig.hang("C_DeriveKey")
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(_derive(pool)), daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while token.rig.hits(fault) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert results == []
    # The other session is free meanwhile: the hanging call holds no lock of ours.
    with pool.session(timeout=PATIENCE):
        token.rig.clear()
    thread.join(PATIENCE)
    assert results == [""]


def test_another_process_feels_it_too(token: RigToken) -> None:
    fault = token.rig.crash("C_DestroyObject", skip=1)
    child = subprocess.run(
        [sys.executable, "-c", _DERIVE, token.made.uri],
        input=token.pin,
        capture_output=True,
        env=os.environ,
        check=False,
    )
    assert (child.returncode, child.stdout) == (-signal.SIGSEGV, b"ready\n")
    assert token.rig.hits(fault) == 1


def test_a_token_with_few_sessions(token: RigToken) -> None:
    token.rig.present(session_limit=3)
    with pytest.raises(TokenFault) as caught:
        TokenPool.open(token.made.uri, bytearray(token.pin), 3)
    assert caught.value.name == "CKR_SESSION_COUNT"
    assert str(caught.value) == (
        "token: opening worker session 3 of 3 failed: CKR_SESSION_COUNT; ask for fewer worker sessions"
    )
    with TokenPool.open(token.made.uri, bytearray(token.pin), 2) as pool:
        assert answers(pool, pool.find_key("key"))


def test_flags_and_mechanisms_are_shown_as_told(token: RigToken) -> None:
    token.rig.present(flags_set=0x10000, flags_clear=0x4)
    token.rig.hide(0x251)
    (shown,) = [one for one in list_tokens(TokenUri.parse(token.made.uri)) if one.label == "gw"]
    assert "USER_PIN_COUNT_LOW" in shown.flags
    assert "LOGIN_REQUIRED" not in shown.flags
    assert shown.x25519 == "CKK_EC_MONTGOMERY"
    with TokenPool.open(token.made.uri, bytearray(token.pin), 1) as pool:
        assert 0x251 not in pool.mechanisms
