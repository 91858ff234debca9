"""Tokens for the custody suite: one record a module; another module joins by adding its record to MODULES.

Nothing here skips. A module that is missing fails its tests. What a module cannot do is a fact of its record
(`lacks`): a test that is marked `needs` and meets such a fact proves instead that whoever asks for it gets one clear
error, and that nothing is left behind.

With WGHSM_TEST_TOKEN in the environment the one module of the suite is `yours`: docs/hsm.md, "How to qualify a token".
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tests.token import card
from tests.token.rig import rig_token
from wghsm.pkcs11_backend import (
    CurveUnsupported,
    KeyUnfit,
    PrivateKey,
    TokenError,
    TokenFault,
    TokenPool,
    TokenUri,
    open_pin,
)
from wghsm.pkcs11_backend._objects import CKA
from wghsm.pkcs11_backend.dialect import Dialect, dialects_to_try
from wghsm.pkcs11_backend.provision import derive_root, destroy_key, generate_key, show_key
from wghsm.softhsm_setup import softhsm_token

NSS_MODULE = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so"
PATIENCE = 60.0
_PIN = b"custody-1234"

Lack = Callable[[TokenPool], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-docs", action="store_true", help="write docs/fault-matrix.md from what is seen")


@dataclass(frozen=True)
class TokenUnderTest:
    """One token. `away` takes it away for a while; `key_label` names its one key where none can be made."""

    uri: str
    pin: bytes
    environment: dict[str, str]
    away: Callable[[], AbstractContextManager[None]]
    # What only a second C_Initialize notices: NSS goes on with the files that it has open.
    away_is_felt: bool = True
    key_label: str | None = None
    lacks: Mapping[str, Lack] = field(default_factory=dict)

    def key(self, pool: TokenPool, label: str) -> PrivateKey:
        """Make a key, or find the one that the token came with."""
        return generate_key(pool, label) if self.key_label is None else pool.find_key(self.key_label)


def spelled(pool: TokenPool) -> Dialect:
    """The dialect in which this token makes keys, for tests that write objects of their own."""
    return dialects_to_try(pool.mechanisms)[0]


def import_key(pool: TokenPool, label: str, private: bytes, *, derive: bool = True) -> int:
    """Put a private key into the token, as PKCS11.md section 4 does; return its handle."""
    dialect = spelled(pool)
    with pool.control() as calls:
        return calls.create(
            (
                (CKA["CLASS"], 3),
                (CKA["KEY_TYPE"], dialect.key_type),
                (CKA["EC_PARAMS"], dialect.ec_params[0]),
                (CKA["VALUE"], bytearray(private)),
                *((CKA[name], True) for name in ("TOKEN", "PRIVATE", "SENSITIVE")),
                (CKA["DERIVE"], derive),
                *((CKA[name], False) for name in ("EXTRACTABLE", "SIGN", "DECRYPT", "UNWRAP")),
                (CKA["LABEL"], label.encode()),
            )
        )


def answers(pool: TokenPool, key: PrivateKey) -> bool:
    """Whether the token derives what a software peer derives."""
    peer = X25519PrivateKey.generate()
    with pool.session() as session:
        shared = session.derive(key, peer.public_key().public_bytes_raw())
    return shared == peer.exchange(X25519PublicKey.from_public_bytes(key.public_key))


@contextmanager
def _moved(folder: Path, *, empty: bool) -> Iterator[None]:
    """Take a software token's folder away; an empty one, or none, stands in its place."""
    away = folder.with_name("away")
    folder.rename(away)
    if empty:
        folder.mkdir(0o700)
    try:
        yield
    finally:
        if empty:
            shutil.rmtree(folder)
        away.rename(folder)


@contextmanager
def _softhsm() -> Iterator[TokenUnderTest]:
    with softhsm_token(pin=bytearray(_PIN)) as made:
        tokens = made.directory / "tokens"
        yield TokenUnderTest(made.uri, _PIN, made.environment, lambda: _moved(tokens, empty=True))


@contextmanager
def _montgomery() -> Iterator[TokenUnderTest]:
    """SoftHSM behind the rig: CKK_EC_MONTGOMERY and 0x1056, as the standard has it, and raw points only."""
    with rig_token(pin=bytearray(_PIN)) as token:
        tokens = token.made.directory / "tokens"
        yield TokenUnderTest(token.made.uri, _PIN, token.made.environment, lambda: _moved(tokens, empty=True))


@contextmanager
def _nss() -> Iterator[TokenUnderTest]:
    folder = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
    try:
        (folder / "pin").write_bytes(_PIN + b"\n")
        store = folder / "store"
        store.mkdir(0o700)
        subprocess.run(["certutil", "-N", "-d", f"sql:{store}", "-f", str(folder / "pin")], check=True)
        names = ("certPrefix", "keyPrefix", "updatedir", "updateCertPrefix", "updateKeyPrefix", "updateid")
        rest = " ".join(f"{name}=''" for name in (*names, "updateTokenDescription"))
        arguments = f"configdir='sql:{store}' secmod='secmod.db' flags= {rest}"
        uri = f"pkcs11:token=NSS%20Certificate%20DB?module-path={NSS_MODULE}&x-init-args={quote(arguments)}"
        yield TokenUnderTest(
            uri,
            _PIN,
            {},
            lambda: _moved(store, empty=False),
            away_is_felt=False,
            lacks={
                "psk objects": _no_psk_object("keeps every secret unreadable"),
                "copies kept as strict": _copy_loosens,
            },
        )
    finally:
        shutil.rmtree(folder)


@contextmanager
def _opensc() -> Iterator[TokenUnderTest]:
    with card.virtual_card() as inserted:

        @contextmanager
        def away() -> Iterator[None]:
            inserted.pull()
            try:
                yield
            finally:
                inserted.put()

        yield TokenUnderTest(
            f"pkcs11:token={quote(card.TOKEN_LABEL)}?module-path={card.MODULE}",
            card.PIN,
            inserted.environment,
            away,
            key_label=card.KEY_LABEL,
            lacks={
                "key generation": _no_generation,
                "key import": _no_import,
                "destroying": _no_destroying(card.KEY_LABEL),
                "roots": _no_root,
                "psk objects": _no_psk_object("takes no PSK objects"),
            },
        )


MODULES: Mapping[str, Callable[[], AbstractContextManager[TokenUnderTest]]] = {
    "softhsm": _softhsm,
    "montgomery": _montgomery,
    "nss": _nss,
    "opensc": _opensc,
}


YOURS = os.environ.get("WGHSM_TEST_TOKEN", "")


@contextmanager
def _yours() -> Iterator[TokenUnderTest]:
    """The token that WGHSM_TEST_TOKEN names; what the tests leave in it is destroyed, what was there stays."""
    wanted = TokenUri.parse(YOURS)
    pin = bytes(open_pin(wanted.pin_source).read())
    uri = str(replace(wanted, pin_source=None))
    label = os.environ.get("WGHSM_TEST_TOKEN_KEY")
    proofs: dict[str, Lack] = {
        "copies kept as strict": _copy_loosens,
        "key generation": _no_generation,
        "key import": _no_import,
        "psk objects": _no_psk_object(""),
        "roots": _no_root,
    }
    if label is not None:
        proofs["destroying"] = _no_destroying(label)
    lacks = [each.strip() for each in os.environ.get("WGHSM_TEST_TOKEN_LACKS", "").split(",") if each.strip()]
    # Nobody but you can pull it: that step is by hand.
    known = {each: proofs[each] for each in lacks} | {"going away": _nothing_to_prove}
    with TokenPool.open(uri, bytearray(pin), 1) as pool:
        before = set(_named(pool).values())
    try:
        yield TokenUnderTest(uri, pin, {}, nullcontext, key_label=label, lacks=known)
    finally:
        with TokenPool.open(uri, bytearray(pin), 1, read_write=True) as pool:
            left = [handle for handle, name in _named(pool).items() if name not in before]
            with pool.control() as calls:
                for handle in left:
                    calls.destroy(handle)


def _named(pool: TokenPool) -> dict[int, tuple[bytes | None, ...]]:
    """The objects by handle: class, label and id, for handles mean nothing in another session."""
    with pool.control() as calls:
        kinds = tuple(CKA[name] for name in ("CLASS", "LABEL", "ID"))
        return {handle: tuple(calls.attribute(handle, kind) for kind in kinds) for handle in calls.find(())}


def _nothing_to_prove(pool: TokenPool) -> None:
    """The pool is open: that is all."""
    assert pool.generation == 0


def _objects_there(pool: TokenPool) -> list[int]:
    with pool.control() as calls:
        return sorted(calls.find(()))


def _no_generation(pool: TokenPool) -> None:
    before = _objects_there(pool)
    with pytest.raises(CurveUnsupported, match=r"offers no X25519 key generation .* with the token's own tools"):
        generate_key(pool, "refused")
    assert _objects_there(pool) == before


def _no_import(pool: TokenPool) -> None:
    with pool.control() as calls, pytest.raises(TokenFault) as caught:
        calls.create(((CKA["CLASS"], 3), (CKA["KEY_TYPE"], 0x41), (CKA["VALUE"], bytearray(32)), (CKA["TOKEN"], True)))
    assert caught.value.level == 0


def _no_destroying(label: str) -> Lack:
    def proof(pool: TokenPool) -> None:
        with pytest.raises(TokenError, match=r"does not let its user destroy .* the token's own tools"):
            destroy_key(pool, label)
        pool.recover(2)
        assert answers(pool, pool.find_key(label))

    return proof


def _no_root(pool: TokenPool) -> None:
    with pytest.raises(KeyUnfit, match=r"offers no CKM_SHA256_HMAC .* which derived PSKs need"):
        derive_root(pool, "refused")


def _no_psk_object(reason: str) -> Lack:
    def proof(pool: TokenPool) -> None:
        before = _objects_there(pool)
        with pytest.raises(KeyUnfit, match=f"{reason}.*derived PSKs"):
            pool.put_psk("refused", bytearray(range(32)))
        assert _objects_there(pool) == before

    return proof


def _copy_loosens(pool: TokenPool) -> None:
    """NSS, for one, answers a copy within one token by changing the original: `key show` must then say so."""
    key = generate_key(pool, f"loosened{time.monotonic_ns()}")
    with pool.control() as calls:
        with pytest.raises(TokenFault):
            calls.copy(key.handle, ((CKA["SENSITIVE"], False),))
        calls.copy(key.handle, ((CKA["EXTRACTABLE"], True),))
    shown = show_key(pool, key.label)
    assert (shown.attributes["EXTRACTABLE"], shown.attributes["NEVER_EXTRACTABLE"]) == (True, False)
    assert shown.value_readable is False


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*abilities): what the token must be able to do; see TokenUnderTest.lacks")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Prove the lack of an ability instead of running a test that needs it."""
    marker = pyfuncitem.get_closest_marker("needs")
    if marker is None:
        return None
    token = pyfuncitem.funcargs["token"]
    assert isinstance(token, TokenUnderTest)
    lacking = [token.lacks[ability] for ability in marker.args if ability in token.lacks]
    if not lacking:
        return None
    opened = pyfuncitem.funcargs.get("pool")
    if isinstance(opened, TokenPool):
        lacking[0](opened)
    else:
        with TokenPool.open(token.uri, bytearray(token.pin), 2, read_write=True) as own:
            lacking[0](own)
    return True


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="module", params=["yours"] if YOURS else sorted(MODULES))
def token(request: pytest.FixtureRequest) -> Iterator[TokenUnderTest]:
    """A fresh token for the tests of one file; each test uses labels of its own."""
    with (_yours if YOURS else MODULES[request.param])() as made, environment(made.environment):
        yield made


@pytest.fixture
def pool(token: TokenUnderTest) -> Iterator[TokenPool]:
    with TokenPool.open(token.uri, bytearray(token.pin), 2, read_write=True) as opened:
        yield opened


@pytest.fixture
def label(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[-60:]
