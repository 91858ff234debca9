"""Wrapped PSKs: AES-GCM under a key that stays in the token (every module), and tokens that choose initial vectors."""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wghsm.pkcs11_backend import KeyNotFound, KeyUnfit, LabelTaken, TokenFault
from wghsm.pkcs11_backend._gcm import CKM_AES_GCM, IV_LENGTH, SEALED_LENGTH, gcm_open, gcm_seal
from wghsm.pkcs11_backend._objects import CKA
from wghsm.pkcs11_backend.wrapping import (
    find_wrap_key,
    make_wrap_key,
    opens_sample,
    seal_sample,
    unwrap_psk,
    wrap_message,
    wrap_psk,
)

if TYPE_CHECKING:
    from wghsm.pkcs11_backend import TokenPool
    from wghsm.pkcs11_backend._cryptoki import FunctionList

_GATEWAY, _PEER, _OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
_PSK = bytes(range(32))


def test_a_wrapped_psk_opens_for_its_peer_and_epoch_only(pool: TokenPool, label: str) -> None:
    if CKM_AES_GCM not in pool.mechanisms:
        with pytest.raises(KeyUnfit, match="offers no CKM_AES_GCM, which wrapped PSKs need"):
            make_wrap_key(pool, label)
        return
    key = make_wrap_key(pool, label)
    sealed = wrap_psk(pool, key, _GATEWAY, _PEER, 7, bytearray(_PSK))
    assert len(sealed) == SEALED_LENGTH
    assert _PSK not in sealed
    opened = unwrap_psk(pool, key, _GATEWAY, _PEER, 7, sealed)
    assert isinstance(opened, bytearray)
    assert opened == _PSK
    assert wrap_psk(pool, key, _GATEWAY, _PEER, 7, bytearray(_PSK)) != sealed
    damaged = sealed[:20] + bytes([sealed[20] ^ 1]) + sealed[21:]
    for gateway, peer, epoch, text in (
        (_OTHER, _PEER, 7, sealed),
        (_GATEWAY, _OTHER, 7, sealed),
        (_GATEWAY, _PEER, 6, sealed),
        (_GATEWAY, _PEER, 7, damaged),
        (_GATEWAY, _PEER, 7, sealed[:-1]),
    ):
        with pytest.raises(KeyUnfit, match=re.escape(f"does not open with '{label}'")):
            unwrap_psk(pool, key, gateway, peer, epoch, text)
    assert unwrap_psk(pool, key, _GATEWAY, _PEER, 7, sealed) == _PSK


def test_a_sample_tells_the_key_from_another_one(pool: TokenPool, label: str) -> None:
    if CKM_AES_GCM not in pool.mechanisms:
        return
    key, other = make_wrap_key(pool, label), make_wrap_key(pool, f"{label}-other")
    sealed = seal_sample(pool, key)
    assert opens_sample(pool, key, sealed)
    assert not opens_sample(pool, other, sealed)


def test_the_key_is_found_again_after_a_recovery(pool: TokenPool, label: str) -> None:
    if CKM_AES_GCM not in pool.mechanisms:
        return
    key = make_wrap_key(pool, label)
    sealed = wrap_psk(pool, key, _GATEWAY, _PEER, 0, bytearray(_PSK))
    for level in (1, 2):
        pool.recover(level)
        assert unwrap_psk(pool, key, _GATEWAY, _PEER, 0, sealed) == _PSK
    assert unwrap_psk(pool, find_wrap_key(pool, label), _GATEWAY, _PEER, 0, sealed) == _PSK


def test_what_protects_nothing_is_no_wrapping_key(pool: TokenPool, label: str) -> None:
    if CKM_AES_GCM not in pool.mechanisms:
        with pytest.raises(KeyUnfit, match="offers no CKM_AES_GCM"):
            find_wrap_key(pool, "absent")
        return
    with pytest.raises(KeyNotFound, match="wghsm psk wrap --make-key"):
        find_wrap_key(pool, "absent")
    make_wrap_key(pool, label)
    with pytest.raises(LabelTaken):
        make_wrap_key(pool, label)
    with pool.control() as calls:
        calls.generate_key(
            0x1080,
            (
                (CKA["CLASS"], 4),
                (CKA["KEY_TYPE"], 0x1F),
                (CKA["VALUE_LEN"], 32),
                *((CKA[name], True) for name in ("TOKEN", "PRIVATE", "EXTRACTABLE", "ENCRYPT", "DECRYPT")),
                (CKA["LABEL"], f"open-{label}".encode()),
            ),
        )
    with pytest.raises(KeyUnfit, match="can be read out"):
        find_wrap_key(pool, f"open-{label}")


@pytest.mark.parametrize(("gateway", "peer", "epoch"), [(31, 32, 0), (32, 33, 0), (32, 32, -1), (32, 32, 2**32)])
def test_what_is_authenticated_has_fixed_lengths(gateway: int, peer: int, epoch: int) -> None:
    assert wrap_message(bytes(32), bytes(32), 1) == b"wghsm-psk-wrap-v1\x00" + bytes(64) + b"\x00\x00\x00\x01"
    with pytest.raises(ValueError, match=r"32 bytes|u32"):
        wrap_message(bytes(gateway), bytes(peer), epoch)


class _Token:
    """C_Encrypt and C_Decrypt of a token that has its own mind about initial vectors."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.aes = AESGCM(bytes(32))
        self.params: list[int] = []
        self.chosen = b""

    def encrypt_init(self, _session: int, mechanism: Any, _key: int) -> int:
        return self._init(mechanism, sealing=True)

    def decrypt_init(self, _session: int, mechanism: Any, _key: int) -> int:
        return self._init(mechanism, sealing=False)

    def _init(self, mechanism: Any, *, sealing: bool) -> int:
        asked = mechanism._obj
        words = (ctypes.c_ulong * (asked.length // 8)).from_address(asked.parameter)
        if self.way == "old parameters" and len(words) == 6:
            return 0x71
        self.iv_at, self.aad_at, aad_length = words[0], words[-3], words[-2]
        self.iv = ctypes.string_at(self.iv_at, words[1])
        self.aad = ctypes.string_at(self.aad_at, aad_length)
        self.chosen = self.iv
        if sealing and self.way == "wants zeros" and any(self.iv):
            return 0x71
        if sealing and self.way in ("wants zeros", "writes its own", "behind the tag"):
            self.chosen = os.urandom(IV_LENGTH)
        if sealing and self.way in ("wants zeros", "writes its own"):
            ctypes.memmove(self.iv_at, self.chosen, IV_LENGTH)
        return 0

    def encrypt(self, _session: int, data: Any, length: int, out: Any, out_length: Any) -> int:
        sealed = self.aes.encrypt(self.chosen, ctypes.string_at(data, length), self.aad)
        if self.way == "behind the tag":
            sealed += self.chosen
        ctypes.memmove(out, sealed, len(sealed))
        out_length._obj.value = len(sealed)
        return 0

    def decrypt(self, _session: int, data: Any, length: int, out: Any, out_length: Any) -> int:
        try:
            opened = self.aes.decrypt(self.iv, ctypes.string_at(data, length), self.aad)
        except InvalidTag:
            return 0x40
        ctypes.memmove(out, opened, len(opened))
        out_length._obj.value = len(opened)
        return 0


@pytest.mark.parametrize("way", ["takes ours", "old parameters", "writes its own", "wants zeros", "behind the tag"])
def test_the_tokens_own_initial_vector_is_kept(way: str) -> None:
    token = _Token(way)
    functions = cast("FunctionList", token)
    ours = os.urandom(IV_LENGTH)
    sealed = gcm_seal(functions, 1, 2, bytearray(_PSK), b"who and when", ours)
    assert len(sealed) == SEALED_LENGTH
    assert (sealed[:IV_LENGTH] == ours) is (way in ("takes ours", "old parameters"))
    opened = gcm_open(functions, 1, 2, sealed, b"who and when")
    assert opened is not None
    assert opened == _PSK
    assert gcm_open(functions, 1, 2, sealed, b"who and when?") is None
    assert gcm_open(functions, 1, 2, sealed[:-1], b"who and when") is None


def test_a_token_that_does_not_say_its_own_initial_vector_is_refused() -> None:
    token = _Token("wants zeros")
    vars(token)["encrypt_init"] = lambda _session, mechanism, _key: token._init(mechanism, sealing=False)
    with pytest.raises(KeyUnfit, match="does not say its own"):
        gcm_seal(cast("FunctionList", token), 1, 2, bytearray(_PSK), b"", bytes(IV_LENGTH))


def test_a_fault_of_the_token_is_told_as_one() -> None:
    token = _Token("takes ours")
    vars(token)["decrypt"] = lambda *_: 0x30
    with pytest.raises(TokenFault, match="C_Decrypt with CKM_AES_GCM failed: CKR_DEVICE_ERROR"):
        gcm_open(cast("FunctionList", token), 1, 2, bytes(SEALED_LENGTH), b"")
