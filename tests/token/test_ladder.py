"""The recovery ladder of PKCS11.md section 3: every CKR of its table, in every call of the derive path and of recovery.

Faults are injected by the rig, one call at a time. `FAULTS` and `DERIVE_PATH` are also what the fault matrix of the
documentation is made from.
"""

from collections.abc import Iterator

import pytest

from tests.token.conftest import answers, environment
from tests.token.rig import RigToken, rig_token
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import PinLocked, PinRefused, PrivateKey, TokenFault, TokenPool
from wghsm.pkcs11_backend._ckr import ckr_name, ladder_level
from wghsm.pkcs11_backend.provision import generate_key

REOPEN = (0x0B3, 0x0B0, 0x101, 0x060, 0x082)
REINITIALISE = (0x030, 0x031, 0x032, 0x0E0, 0x005, 0x006, 0x002, 0x190, 0x80000001, 0xCE534351, 0x1F5)
FAULTS = dict.fromkeys(REOPEN, 1) | dict.fromkeys(REINITIALISE, 2)
"""CKR_ to the step of the ladder that mends it: 1 reopens the sessions, 2 initialises the module anew as well."""
DERIVE_PATH = ("C_DeriveKey", "C_GetAttributeValue", "C_DestroyObject")
_RECOVERY_PATH = (
    *("C_GetSlotList", "C_GetTokenInfo", "C_GetMechanismList", "C_OpenSession", "C_Login"),
    *("C_FindObjectsInit", "C_FindObjects", "C_GetAttributeValue", "C_DeriveKey", "C_DestroyObject"),
)
_CLOSING = ("C_CloseSession", "C_Logout")


@pytest.fixture(scope="module")
def token() -> Iterator[RigToken]:
    with rig_token() as made, environment(made.made.environment):
        with TokenPool.open(made.made.uri, bytearray(made.pin), 1, read_write=True) as pool:
            generate_key(pool, "key")
        yield made


@pytest.fixture
def pool(token: RigToken) -> Iterator[TokenPool]:
    with TokenPool.open(token.made.uri, bytearray(token.pin), 2) as opened:
        yield opened
        token.rig.clear()


@pytest.fixture
def key(pool: TokenPool) -> PrivateKey:
    return pool.find_key("key")


def _initialised(token: RigToken) -> int:
    return token.rig.calls("C_Initialize")


@pytest.mark.parametrize("call", DERIVE_PATH)
@pytest.mark.parametrize("ckr", FAULTS, ids=ckr_name)
def test_each_fault_climbs_its_step(token: RigToken, pool: TokenPool, key: PrivateKey, ckr: int, call: str) -> None:
    token.rig.fail(call, ckr, times=1)
    with pytest.raises(TokenFault) as caught:
        answers(pool, key)
    assert (caught.value.ckr, caught.value.level, caught.value.final) == (ckr, FAULTS[ckr], False)
    assert call in str(caught.value)
    # No half of a secret stays in the session's buffers, wherever the derive broke off.
    for worker in pool._workers:
        assert not any(worker._ready()._secret)
    before = _initialised(token)
    pool.recover(caught.value.level)
    assert _initialised(token) - before == FAULTS[ckr] - 1
    assert answers(pool, key)
    with pool.control() as calls:
        assert calls.find(((0x000, 4),)) == []


@pytest.mark.parametrize("call", _RECOVERY_PATH)
@pytest.mark.parametrize("ckr", [0x030, 0x0B3, 0x0E0, 0x005], ids=ckr_name)
@pytest.mark.parametrize("level", [1, 2])
def test_a_recovery_that_fails_is_tried_again(
    token: RigToken, pool: TokenPool, key: PrivateKey, level: int, ckr: int, call: str
) -> None:
    generation = pool.generation
    fault = token.rig.fail(call, ckr, times=1)
    with pytest.raises(TokenFault) as caught:
        pool.recover(level)
    assert token.rig.hits(fault) == 1
    assert not caught.value.final
    assert pool.generation == generation
    # Down means down: no session is left that could be used with an old handle.
    with pool.session() as session, pytest.raises(TokenFault):
        session._ready()
    pool.recover(2)
    assert pool.generation == generation + 1
    assert answers(pool, key)


@pytest.mark.parametrize("call", _CLOSING)
@pytest.mark.parametrize("level", [1, 2])
def test_a_token_that_fails_even_to_close_is_recovered(
    token: RigToken, pool: TokenPool, key: PrivateKey, level: int, call: str
) -> None:
    token.rig.fail(call, 0x30)
    try:
        pool.recover(level)
    except TokenFault as fault:
        # The login of before is still there: only a new C_Initialize ends it.
        assert (level, fault.level) == (1, 2)
        pool.recover(2)
    assert answers(pool, key)


@pytest.mark.parametrize("call", ["C_Finalize", "C_Initialize"])
def test_a_module_that_fails_to_start_anew(token: RigToken, pool: TokenPool, key: PrivateKey, call: str) -> None:
    token.rig.fail(call, 0x30, times=1)
    with pytest.raises(TokenFault) as caught:
        pool.recover(2)
    assert caught.value.level == 2
    pool.recover(2)
    assert answers(pool, key)


@pytest.mark.parametrize(
    ("ckr", "error"), [(0x0A0, PinRefused), (0x0A4, PinLocked), (0x0A3, PinLocked)], ids=lambda value: str(value)
)
def test_a_pin_error_ends_the_ladder_for_good(ckr: int, error: type[PinRefused]) -> None:
    # A token of its own: the process remembers that this one has refused its PIN.
    with rig_token() as token, environment(token.made.environment):
        with TokenPool.open(token.made.uri, bytearray(token.pin), 1, read_write=True) as pool:
            key = generate_key(pool, "key")
            token.rig.fail("C_Login", ckr, times=1)
            before = token.rig.calls("C_Login")
            for level in (1, 2, 2):
                with pytest.raises(error) as caught:
                    pool.recover(level)
                assert (caught.value.exit_code, caught.value.final) == (ExitCode.PIN_REFUSED, True)
                assert ckr_name(ckr) in str(caught.value)
            assert token.rig.calls("C_Login") == before + 1
            assert not any(pool._pin)
            with pytest.raises(TokenFault):
                answers(pool, key)
        with pytest.raises(PinRefused, match="not sent again"):
            TokenPool.open(token.made.uri, bytearray(token.pin), 1)
        assert token.rig.calls("C_Login") == before + 1


def test_the_table_is_the_ladders() -> None:
    assert {ckr: ladder_level(ckr) for ckr in FAULTS} == FAULTS
    assert {ladder_level(ckr) for ckr in (0x0A0, 0x0A3, 0x0A4)} == {0}
