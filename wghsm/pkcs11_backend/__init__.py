"""The token: loading a PKCS#11 module, `pkcs11:` URIs, PINs, the session pool, provisioning.

URIs, PINs and errors are cheap to import; the pool and provisioning load python-pkcs11 and come on first use.
Import `TokenPool` before dropping privileges: the code may not be readable afterwards. The vendor's module itself
is loaded by `TokenPool.open`, never by an import.
"""

import importlib
from typing import TYPE_CHECKING

from wghsm.pkcs11_backend.errors import (
    AmbiguousKey,
    AmbiguousToken,
    CurveUnsupported,
    KeyNotFound,
    KeyUnfit,
    LabelTaken,
    ModuleMissing,
    PinFinalTry,
    PinLocked,
    PinRefused,
    PinUnavailable,
    PointRefused,
    TokenError,
    TokenFault,
    TokenNotFound,
    UriError,
)
from wghsm.pkcs11_backend.pin import PinSource, open_pin
from wghsm.pkcs11_backend.uri import TokenUri

if TYPE_CHECKING:
    from wghsm.pkcs11_backend._derivers import Derivers
    from wghsm.pkcs11_backend._doctor_essential import essential_checks, root_check_value
    from wghsm.pkcs11_backend._objects import PrivateKey, RootSecret, StoredPsk
    from wghsm.pkcs11_backend._worker_session import WorkerSession
    from wghsm.pkcs11_backend.audit_key import AuditKey, find_audit_key, sign
    from wghsm.pkcs11_backend.pool import TokenPool
    from wghsm.pkcs11_backend.wrapping import WrapKey, find_wrap_key, opens_sample, seal_sample, unwrap_psk

__all__ = [
    "AmbiguousKey",
    "AmbiguousToken",
    "AuditKey",
    "CurveUnsupported",
    "Derivers",
    "KeyNotFound",
    "KeyUnfit",
    "LabelTaken",
    "ModuleMissing",
    "PinFinalTry",
    "PinLocked",
    "PinRefused",
    "PinSource",
    "PinUnavailable",
    "PointRefused",
    "PrivateKey",
    "RootSecret",
    "StoredPsk",
    "TokenError",
    "TokenFault",
    "TokenNotFound",
    "TokenPool",
    "TokenUri",
    "UriError",
    "WorkerSession",
    "WrapKey",
    "essential_checks",
    "find_audit_key",
    "find_wrap_key",
    "open_pin",
    "opens_sample",
    "root_check_value",
    "seal_sample",
    "sign",
    "unwrap_psk",
]

_LATER = {
    "AuditKey": "audit_key",
    "find_audit_key": "audit_key",
    "sign": "audit_key",
    "Derivers": "_derivers",
    "root_check_value": "_doctor_essential",
    "WrapKey": "wrapping",
    "unwrap_psk": "wrapping",
    "seal_sample": "wrapping",
    "opens_sample": "wrapping",
    "find_wrap_key": "wrapping",
    "PrivateKey": "_objects",
    "RootSecret": "_objects",
    "StoredPsk": "_objects",
    "TokenPool": "pool",
    "WorkerSession": "_worker_session",
    "essential_checks": "_doctor_essential",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
