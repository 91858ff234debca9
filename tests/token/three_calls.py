"""The three C functions of a derive, in Python: they answer as they are told, and remember what they were asked."""

import ctypes
import threading
from ctypes import CFUNCTYPE, c_ulong, c_void_p
from typing import cast

from wghsm.pkcs11_backend._cryptoki import Attribute, Ecdh1Params, Mechanism
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


class Holding(Module):
    """Holds every derive until it is let go, on whatever session."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.sessions: list[int] = []

    def _derive(self, session: int, mechanism: int, key: int, template: int, count: int, handle: int) -> int:
        self.sessions.append(session)
        answer = super()._derive(SESSION, mechanism, key, template, count, handle)
        self.begun.release()
        assert self.let_go.acquire(timeout=60)
        return answer

    def _value(self, _session: int, handle: int, attribute: int, count: int) -> int:
        return super()._value(SESSION, handle, attribute, count)

    def _destroy(self, _session: int, handle: int) -> int:
        return super()._destroy(SESSION, handle)
