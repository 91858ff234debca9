"""A derive in one piece of C and in three calls through ctypes: the same results and faults. Needs no token."""

import importlib
import threading
from typing import TYPE_CHECKING, cast

import pytest

from tests.token.three_calls import KEY, PUBLIC, SECRET, SESSION, Leaving, Module
from wghsm.pkcs11_backend import KeyUnfit, PointRefused, TokenFault
from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend.dialect import DIALECTS

if TYPE_CHECKING:
    from wghsm.pkcs11_backend._cryptoki import FunctionList


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(
    ("leaves", "own", "swept"),
    [(True, PUBLIC, True), (True, None, False), (False, PUBLIC, False), (True, SECRET, False)],
    ids=["swept", "no key", "another module", "its own public key"],
)
def test_what_a_module_leaves_is_overwritten(leaves: bool, own: bytes | None, swept: bool, threaded: bool) -> None:
    module = Leaving()
    calls = Calls(cast("FunctionList", module), SESSION, leaves_secrets=leaves)
    ours = bytearray(SECRET)
    found: list[bytearray] = []

    def work() -> None:
        found.extend(calls.derive(KEY, PUBLIC, DIALECTS[0], own) for _ in range(20))

    if threaded:
        # Another part of malloc's memory.
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    assert found == [SECRET] * 20
    assert ours == SECRET
    assert module.copies() == [bytes(32) if swept else SECRET] * 40


@pytest.fixture(params=["c", "ctypes"])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Module:
    importlib.import_module("wghsm.pkcs11_backend._fast")
    if request.param == "ctypes":
        monkeypatch.setattr("wghsm.pkcs11_backend._calls._fast", None)
    return Module()


def derive(module: Module) -> bytearray:
    calls = Calls(cast("FunctionList", module), SESSION)
    try:
        return calls.derive(KEY, PUBLIC, DIALECTS[0])
    finally:
        assert bytes(calls._secret) == bytes(32)


def test_a_secret_comes_in_three_calls(module: Module) -> None:
    assert derive(module) == SECRET
    assert module.asked == ["derive", "value", "destroy"]
    assert module.point.endswith(PUBLIC)


@pytest.mark.parametrize("ckr", [0x30, 0x150])
@pytest.mark.parametrize(
    ("call", "said", "asked"),
    [
        ("derive", "C_DeriveKey", ["derive"]),
        ("value", "C_GetAttributeValue of the derived secret", ["derive", "value", "destroy"]),
        ("destroy", "C_DestroyObject", ["derive", "value", "destroy"]),
    ],
)
def test_a_fault_names_its_call(module: Module, call: str, said: str, asked: list[str], ckr: int) -> None:
    module.answers[call] = ckr
    if (call, ckr) == ("value", 0x150):
        with pytest.raises(KeyUnfit, match="the derived secret does not have 32 bytes"):
            derive(module)
    else:
        with pytest.raises(TokenFault, match=said) as caught:
            derive(module)
        assert caught.value.ckr == ckr
    assert module.asked == asked


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(module: Module, length: int) -> None:
    module.length = length
    with pytest.raises(KeyUnfit, match="the derived secret does not have 32 bytes"):
        derive(module)
    assert module.asked == ["derive", "value", "destroy"]


def test_a_secret_of_zeros_is_the_peers_fault(module: Module) -> None:
    module.secret = bytes(32)
    with pytest.raises(PointRefused):
        derive(module)
    assert module.asked == ["derive", "value", "destroy"]


def test_a_point_of_low_order_never_reaches_the_module(module: Module) -> None:
    calls = Calls(cast("FunctionList", module), SESSION)
    with pytest.raises(PointRefused):
        calls.derive(KEY, bytes(32), DIALECTS[0])
    assert module.asked == []
