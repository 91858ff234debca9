"""The audit key: made in the token, signs only, found again after a recovery, verified in software (every module)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.json_output import check_json
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import KeyNotFound, KeyUnfit, LabelTaken
from wghsm.pkcs11_backend._objects import flag
from wghsm.pkcs11_backend.audit_key import (
    SIGNATURE_LENGTH,
    find_audit_key,
    generate_audit_key,
    is_signature,
    sign,
)
from wghsm.pkcs11_backend.provision import destroy_key, generate_key
from wghsm.softhsm_setup import softhsm_token

if TYPE_CHECKING:
    from wghsm.pkcs11_backend import TokenPool

# CKM_EC_EDWARDS_KEY_PAIR_GEN with CKM_EDDSA, CKM_EC_KEY_PAIR_GEN with CKM_ECDSA
_ED25519, _P256 = {0x1055, 0x1057}, {0x1040, 0x1041}


def _can_sign(pool: TokenPool) -> bool:
    return pool.mechanisms >= _ED25519 or pool.mechanisms >= _P256


def test_what_it_signs_verifies_with_its_public_key(pool: TokenPool, label: str) -> None:
    if not _can_sign(pool):
        with pytest.raises(KeyUnfit, match="makes no key to sign checkpoints with"):
            generate_audit_key(pool, label)
        return
    key = generate_audit_key(pool, label)
    try:
        assert key.algorithm == ("ed25519" if pool.mechanisms >= _ED25519 else "ecdsa-p256")
        loaded = load_pem_public_key(key.pem.encode())
        assert isinstance(loaded, Ed25519PublicKey) is (key.algorithm == "ed25519")
        signature = sign(pool, key, b"one")
        assert len(signature) == SIGNATURE_LENGTH
        assert is_signature(key, signature, b"one")
        assert not is_signature(key, signature, b"two")
        assert not is_signature(key, signature[:-1], b"one")
        with pool.control() as calls:
            assert [flag(calls, key.handle, name) for name in ("SIGN", "SENSITIVE", "EXTRACTABLE", "DERIVE")] == [
                True,
                True,
                False,
                False,
            ]
            assert not calls.gives_value(key.handle)
    finally:
        destroy_key(pool, label)


def test_it_is_found_again_after_a_recovery(pool: TokenPool, label: str) -> None:
    if not _can_sign(pool):
        with pytest.raises(KeyNotFound, match=re.escape(f"wghsm audit key generate {label}")):
            find_audit_key(pool, label)
        return
    key = generate_audit_key(pool, label)
    try:
        for level in (1, 2):
            pool.recover(level)
            assert is_signature(key, sign(pool, key, b"again"), b"again")
        assert find_audit_key(pool, label).pem == key.pem
    finally:
        destroy_key(pool, label)


@pytest.mark.needs("key generation")
def test_another_key_is_not_taken_for_it(pool: TokenPool, label: str) -> None:
    generate_key(pool, label)
    try:
        with pytest.raises(KeyUnfit, match=r"no Ed25519 or P-256 key that may sign"):
            find_audit_key(pool, label)
        with pytest.raises(LabelTaken):
            generate_audit_key(pool, label)
    finally:
        destroy_key(pool, label)


def test_the_commands_make_it_and_print_its_public_key() -> None:
    with softhsm_token(label="gw", uid=61100, pin=bytearray(b"s3cr3t-pin-4711")) as made:

        def wghsm(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "wghsm", "audit", "key", *arguments, "--token", made.uri]
            environment = {**os.environ, **made.environment}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
            check_json(["audit", "key", *arguments], done.stdout)
            return done

        absent = wghsm("public", "audit")
        assert absent.returncode == ExitCode.TOKEN_UNUSABLE
        assert "make the key: wghsm audit key generate audit" in absent.stderr
        first = wghsm("generate", "audit")
        assert (first.returncode, first.stderr) == (0, "")
        assert isinstance(load_pem_public_key(first.stdout.encode()), Ed25519PublicKey)
        assert wghsm("public", "audit").stdout == first.stdout
        (report,) = json.loads(wghsm("public", "audit", "--json").stdout)
        assert report["public_key"] == first.stdout
        assert re.fullmatch("[0-9a-f]{64}", report["fingerprint"])
        assert wghsm("generate", "another", "--json").returncode == 0
        again = wghsm("generate", "audit")
        assert "exists; nothing was changed" in again.stderr
        nameless = wghsm("public")
        assert (nameless.returncode, "give its LABEL" in nameless.stderr) == (ExitCode.BAD_CONFIG, True)
