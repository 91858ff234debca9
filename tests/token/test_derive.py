"""A derive in one piece of C and in three calls through ctypes: the same results and faults. Needs no token."""

import ctypes
import importlib
import threading
from ctypes import CFUNCTYPE, c_ulong, c_void_p
from typing import cast

import pytest

from wghsm.pkcs11_backend import KeyUnfit, PointRefused, TokenFault
from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._cryptoki import Attribute, Ecdh1Params, FunctionList, Mechanism
from wghsm.pkcs11_backend.dialect import DIALECTS

PUBLIC = b"\x09" + bytes(31)
SECRET = bytes(range(1, 33))
SESSION, KEY, HANDLE = 7, 11, 13


class Module:
    """Three C functions that answer as they are told, and remember what they were asked."""

    def __init__(self) -> None:
        self.answers = {"derive": 0, "value": 0, "destroy": 0}
        self.secret = SECRET
        self.length = 32
        self.asked: list[str] = []
        self.point = b""
        self.derive_key = CFUNCTYPE(c_ulong, c_ulong, c_void_p, c_ulong, c_void_p, c_ulong, c_void_p)(self._derive)
        self.get_attribute_value = CFUNCTYPE(c_ulong, c_ulong, c_ulong, c_void_p, c_ulong)(self._value)
        self.destroy_object = CFUNCTYPE(c_ulong, c_ulong, c_ulong)(self._destroy)
        self.derive_addresses = tuple(
            cast("int", ctypes.cast(function, c_void_p).value)
            for function in (self.derive_key, self.get_attribute_value, self.destroy_object)
        )

    def _derive(self, session: int, mechanism: int, key: int, template: int, count: int, handle: int) -> int:
        self.asked.append("derive")
        assert (session, key) == (SESSION, KEY)
        asked = Mechanism.from_address(mechanism)
        params = Ecdh1Params.from_address(asked.parameter)
        self.point = ctypes.string_at(params.public, params.public_length)
        assert asked.mechanism == DIALECTS[0].derive
        assert [(Attribute * count).from_address(template)[place].type for place in range(count)] == [
            kind for kind, _ in DIALECTS[0].derived
        ]
        c_ulong.from_address(handle).value = HANDLE
        return self.answers["derive"]

    def _value(self, session: int, handle: int, attribute: int, count: int) -> int:
        self.asked.append("value")
        assert (session, handle, count) == (SESSION, HANDLE, 1)
        wanted = Attribute.from_address(attribute)
        assert (wanted.type, wanted.length) == (0x011, 32)
        ctypes.memmove(wanted.value, self.secret, min(32, self.length))
        wanted.length = self.length
        return self.answers["value"]

    def _destroy(self, session: int, handle: int) -> int:
        self.asked.append("destroy")
        assert (session, handle) == (SESSION, HANDLE)
        return self.answers["destroy"]


class Leaving(Module):
    """Keeps a copy of what it gives, as malloc's object, where nobody frees it."""

    def __init__(self) -> None:
        super().__init__()
        self.malloc = ctypes.CDLL(None).malloc
        self.malloc.restype = c_void_p
        self.left: list[int] = []

    def _value(self, session: int, handle: int, attribute: int, count: int) -> int:
        for size in (32, 400):
            self.left.append(self.malloc(ctypes.c_size_t(size)))
            ctypes.memmove(self.left[-1], self.secret, 32)
        return super()._value(session, handle, attribute, count)

    def copies(self) -> list[bytes]:
        return [ctypes.string_at(address, 32) for address in self.left]


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
