"""When an object came into the token: told by the CKA_ID that wghsm gives it, else by CKA_START_DATE.

    CKA_ID of 12 bytes:   "wgid"   Unix time in seconds, u32 big-endian   4 random bytes

Every token keeps a CKA_ID, and hands it on to a clone. CKA_START_DATE is read, since others write it, and not written:
SoftHSM 2.6 does not give it back for a private object.
"""

import os
import re
import time

from wghsm.pkcs11_backend import _objects
from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._objects import CKA
from wghsm.pkcs11_backend.errors import TokenFault

__all__ = ["Made", "made", "new_identity"]

_MARK = b"wgid"

Made = tuple[str, str]
"""The moment as RFC 3339 in UTC (a day alone is its first second), and the attribute that told it."""


def new_identity() -> bytes:
    """A fresh CKA_ID of 12 bytes, which tells the time."""
    return _MARK + int(time.time()).to_bytes(4, "big") + os.urandom(4)


def made(calls: Calls, handle: int) -> Made | None:
    """When the object came into the token; None where nothing tells. Raises TokenFault."""
    identity = calls.attribute(handle, CKA["ID"]) or b""
    if len(identity) == 12 and identity.startswith(_MARK):
        seconds = int.from_bytes(identity[4:8], "big")
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)), "CKA_ID"
    try:
        said = _objects.text(calls, handle, "START_DATE") or ""
    except TokenFault:
        return None
    if not re.fullmatch("[0-9]{8}", said, re.ASCII):
        return None
    try:
        time.strptime(said, "%Y%m%d")
    except ValueError:
        return None
    return f"{said[:4]}-{said[4:6]}-{said[6:]}T00:00:00Z", "CKA_START_DATE"
