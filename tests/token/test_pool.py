"""The session pool: one login, many threads, a wrong PIN sent once, and the recovery ladder (every module)."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tests.token.conftest import PATIENCE, TokenUnderTest, answers
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import (
    KeyUnfit,
    ModuleMissing,
    PinRefused,
    PrivateKey,
    TokenError,
    TokenFault,
    TokenNotFound,
    TokenPool,
    TokenUri,
    UriError,
)
from wghsm.pkcs11_backend._ckr import ckr_name, ladder_level
from wghsm.pkcs11_backend.module import load
from wghsm.pkcs11_backend.provision import destroy_key, generate_key


class _Counter:
    """Counts the C calls through one function of a module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uri: str, name: str) -> None:
        functions = load(TokenUri.parse(uri)).functions
        real = getattr(functions, name)
        self.count = 0

        def counted(*arguments: Any) -> int:
            self.count += 1
            return int(real(*arguments))

        monkeypatch.setattr(functions, name, counted)


def test_eight_threads_with_a_session_each(token: TokenUnderTest, label: str) -> None:
    with TokenPool.open(token.uri, bytearray(token.pin), 8, read_write=True) as pool:
        key = token.key(pool, label)
        peer = X25519PrivateKey.generate()
        public = peer.public_key().public_bytes_raw()
        expected = peer.exchange(X25519PublicKey.from_public_bytes(key.public_key))
        faults: list[BaseException] = []
        together = threading.Barrier(8)
        # With the card all memory is swept after each derive: 4,000 of them would take minutes.
        rounds = 25 if token.key_label is None else 3

        def work() -> None:
            try:
                together.wait(60)
                for _ in range(rounds):
                    with pool.session() as session:
                        for _ in range(20):
                            assert session.derive(key, public) == expected
            except BaseException as fault:
                faults.append(fault)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        assert not faults


def test_a_derive_is_three_calls(
    pool: TokenPool, token: TokenUnderTest, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wghsm.pkcs11_backend._calls._fast", None)
    key = token.key(pool, label)
    names = ("derive_key", "get_attribute_value", "destroy_object", "find_objects_init", "sign_init")
    counters = {name: _Counter(monkeypatch, token.uri, name) for name in names}
    with pool.session() as session:
        session.derive(key, X25519PrivateKey.generate().public_key().public_bytes_raw())
    assert [counters[name].count for name in names] == [1, 1, 1, 0, 0]


def test_no_buffer_of_the_hot_path_keeps_a_secret(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    key = token.key(pool, label)
    with pool.session() as session:
        secret = session.derive(key, X25519PrivateKey.generate().public_key().public_bytes_raw())
        assert any(secret)
        calls = session.calls
        assert calls is not None
        assert bytes(calls._secret) == bytes(32)


def test_the_pin_is_the_callers_and_the_pools_copy_is_wiped(token: TokenUnderTest) -> None:
    pin = bytearray(token.pin)
    pool = TokenPool.open(token.uri, pin, 1)
    kept = pool._pin
    assert kept == pin == token.pin
    pool.close()
    pool.close()
    assert pin == token.pin
    assert not any(kept)


def test_a_wrong_pin_is_sent_once_ever(token: TokenUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    logins = _Counter(monkeypatch, token.uri, "login")
    for _ in range(3):
        with pytest.raises(PinRefused) as caught:
            TokenPool.open(token.uri, bytearray(b"wrong-9876"), 1)
        assert "wrong-9876" not in str(caught.value)
        assert caught.value.final
        assert caught.value.exit_code is ExitCode.PIN_REFUSED
    assert logins.count == 1
    TokenPool.open(token.uri, bytearray(token.pin), 1).close()


def test_an_empty_pin_is_never_sent(token: TokenUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    logins = _Counter(monkeypatch, token.uri, "login")
    with pytest.raises(PinRefused, match="not sent"):
        TokenPool.open(token.uri, bytearray(), 1)
    assert logins.count == 0


def test_a_pin_that_changed_meanwhile_ends_recovery(token: TokenUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    with TokenPool.open(token.uri, bytearray(token.pin), 1) as pool:
        pool._pin[0] ^= 1
        logins = _Counter(monkeypatch, token.uri, "login")
        for level in (1, 2, 1):
            with pytest.raises(PinRefused):
                pool.recover(level)
        assert logins.count == 1
        assert not any(pool._pin)
        with pool.session() as session, pytest.raises(TokenFault):
            session._ready()


def test_no_such_token_names_what_is_there(token: TokenUnderTest) -> None:
    uri = TokenUri.parse(token.uri)
    with pytest.raises(TokenNotFound) as caught:
        TokenPool.open(replace(uri, token="absent"), bytearray(token.pin), 1)  # noqa: S106
    assert "'absent'" in str(caught.value)
    assert repr(uri.token) in str(caught.value)
    assert caught.value.exit_code is ExitCode.TOKEN_UNUSABLE


@pytest.mark.parametrize("wrong", ["serial=nope", "slot-id=4711", "manufacturer=nobody", "model=none"])
def test_every_attribute_of_the_uri_must_fit(token: TokenUnderTest, wrong: str) -> None:
    uri = token.uri.replace("pkcs11:", f"pkcs11:{wrong};")
    with pytest.raises(TokenNotFound):
        TokenPool.open(uri, bytearray(token.pin), 1)


def test_a_missing_module(tmp_path: Path) -> None:
    with pytest.raises(ModuleMissing, match=r"is not there.*module-path"):
        TokenPool.open(f"pkcs11:token=gw?module-path={tmp_path}/none.so", bytearray(b"1"), 1)
    with pytest.raises(UriError, match="module-path"):
        TokenPool.open("pkcs11:token=gw", bytearray(b"1"), 1)


def test_what_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no module")
    with pytest.raises(ModuleMissing, match=r"cannot be loaded: .*; correct module-path"):
        TokenPool.open(f"pkcs11:token=gw?module-path={tmp_path}/text.so", bytearray(b"1"), 1)
    with pytest.raises(ModuleMissing, match="no PKCS#11 module"):
        TokenPool.open(f"pkcs11:token=gw?module-path={_libc()}", bytearray(b"1"), 1)


def _libc() -> str:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "libc.so" in line)


@pytest.mark.parametrize("level", [1, 2])
def test_recovery_renews_the_handles_handed_out(pool: TokenPool, token: TokenUnderTest, label: str, level: int) -> None:
    key = token.key(pool, label)
    generation = pool.generation
    with pool.session() as session:
        pool._module.functions.close_session(session._ready().session)
        with pytest.raises(TokenFault) as caught:
            session.derive(key, X25519PrivateKey.generate().public_key().public_bytes_raw())
    assert caught.value.name == "CKR_SESSION_HANDLE_INVALID"
    assert caught.value.level == 1
    key.handle = 0
    pool.recover(level)
    assert pool.generation == generation + 1
    assert key.handle != 0
    assert answers(pool, key)
    # Another thread that failed at the same time finds the work done.
    pool.recover(level, generation)
    assert pool.generation == generation + 1


def test_after_finalize_only_the_second_step_helps(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    key = token.key(pool, label)
    pool._module.functions.finalize(None)
    with pytest.raises(TokenFault):
        pool.recover(1)
    pool.recover(2)
    assert answers(pool, key)


@pytest.mark.needs("going away")
def test_a_token_that_goes_and_comes_back(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    key = token.key(pool, label)
    with token.away():
        if token.away_is_felt:
            _until_a_derive_fails(pool, key)
        for _ in range(2):
            with pytest.raises(TokenFault) as caught:
                pool.recover(2)
            assert not caught.value.final
            with pool.session() as session, pytest.raises(TokenFault):
                session._ready()
    pool.recover(2)
    assert answers(pool, key)


def _until_a_derive_fails(pool: TokenPool, key: PrivateKey) -> None:
    """Use the key until the token says that it is away, with an error that calls for the ladder."""
    deadline = time.monotonic() + PATIENCE
    with pytest.raises(TokenFault) as caught:
        while time.monotonic() < deadline:
            assert answers(pool, key)
    assert caught.value.level > 0


@pytest.mark.needs("key generation")
def test_a_key_that_was_replaced_is_not_used_silently(pool: TokenPool, label: str) -> None:
    generate_key(pool, label)
    destroy_key(pool, label)
    with pytest.raises(KeyUnfit, match="another key than before"):
        generate_key(pool, label)


def test_recovery_waits_for_sessions_in_use(pool: TokenPool) -> None:
    with pool.session(), pytest.raises(TokenFault, match="still in use"):
        pool.recover(1, timeout=0.05)
    pool.recover(1)


def test_waiting_for_a_session_ends(token: TokenUnderTest) -> None:
    with (
        TokenPool.open(token.uri, bytearray(token.pin), 1) as pool,
        pool.session(),
        pytest.raises(TokenFault, match="free session"),
        pool.session(timeout=0.05),
    ):
        raise AssertionError("two lenders of one session")


def test_threads_derive_beside_whoever_has_a_session(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    key = token.key(pool, label)
    event = os.eventfd(0)
    derivers = pool.derivers(event)
    assert derivers is not None
    assert derivers is pool.derivers(event)
    peers = [X25519PrivateKey.generate() for _ in range(60)]
    got: dict[int, bytes | TokenError] = {}

    def take(count: int) -> None:
        while len(got) < count:
            os.eventfd_read(event)
            got.update((n, r if isinstance(r, TokenError) else bytes(r)) for n, r in derivers.take())

    for number, peer in enumerate(peers):
        derivers.put(number, key, peer.public_key().public_bytes_raw())
        if number % 10 == 0:
            assert answers(pool, key)
        if number == 30:
            pool.recover(2)
    take(len(peers))
    public = X25519PublicKey.from_public_bytes(key.public_key)
    assert got == {number: peer.exchange(public) for number, peer in enumerate(peers)}


def test_without_c_sessions_are_lent_all_the_same(
    token: TokenUnderTest, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wghsm.pkcs11_backend._derivers._BUILT", False)
    with TokenPool.open(token.uri, bytearray(token.pin), 1, read_write=True) as pool:
        key = token.key(pool, label)
        assert answers(pool, key)
        assert pool.derivers(0) is None
        with pool.session(), pytest.raises(TokenFault, match="free session"), pool.session(timeout=0.05):
            raise AssertionError("two lenders of one session")
        pool.recover(1)
        assert answers(pool, key)


def test_one_pool_a_token_in_a_process(pool: TokenPool, token: TokenUnderTest, label: str) -> None:
    key = token.key(pool, label)
    with pytest.raises(TokenFault, match="open in this process already"):
        TokenPool.open(token.uri, bytearray(token.pin), 1)
    assert answers(pool, key)


@pytest.mark.needs("key generation", "psk objects")
def test_a_read_only_pool_writes_nothing(token: TokenUnderTest, label: str) -> None:
    with TokenPool.open(token.uri, bytearray(token.pin), 1) as pool:
        with pytest.raises(TokenFault) as caught:
            pool.put_psk(label, bytearray(range(32)))
        assert caught.value.name == "CKR_SESSION_READ_ONLY"
        with pytest.raises(TokenFault):
            generate_key(pool, label)


def test_a_process_may_end_without_closing(token: TokenUnderTest, pool: TokenPool, label: str) -> None:
    key = token.key(pool, label)
    code = (
        "import sys; from wghsm.pkcs11_backend import TokenPool\n"
        "pool = TokenPool.open(sys.argv[1], bytearray(sys.stdin.buffer.read()), 4)\n"
        "print(pool.find_key(sys.argv[2]).label)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, token.uri, key.label],
        input=token.pin,
        capture_output=True,
        check=False,
        env=os.environ,
    )
    assert (done.returncode, done.stdout.decode().strip(), done.stderr) == (0, key.label, b"")


def test_importing_the_room_loads_no_module() -> None:
    code = (
        "import sys, wghsm.pkcs11_backend as room; from wghsm.pkcs11_backend import open_pin, TokenUri\n"
        "assert 'pkcs11' not in sys.modules; room.TokenPool; assert 'pkcs11' in sys.modules\n"
        "assert 'softhsm' not in open('/proc/self/maps').read()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("ckr", "name", "level"),
    [
        (0x0B3, "CKR_SESSION_HANDLE_INVALID", 1),
        (0x101, "CKR_USER_NOT_LOGGED_IN", 1),
        (0x082, "CKR_OBJECT_HANDLE_INVALID", 1),
        (0x030, "CKR_DEVICE_ERROR", 2),
        (0x005, "CKR_GENERAL_ERROR", 2),
        (0x190, "CKR_CRYPTOKI_NOT_INITIALIZED", 2),
        (0x80000123, "CKR 0x80000123", 2),
        (0x0A0, "CKR_PIN_INCORRECT", 0),
        (0x0A4, "CKR_PIN_LOCKED", 0),
        (0x068, "CKR_KEY_FUNCTION_NOT_PERMITTED", 0),
        (0x01B, "CKR_ACTION_PROHIBITED", 0),
    ],
)
def test_the_ladder(ckr: int, name: str, level: int) -> None:
    assert (ckr_name(ckr), ladder_level(ckr)) == (name, level)
    fault = TokenFault(ckr, "testing")
    assert name in str(fault)
    assert isinstance(fault, TokenError)
