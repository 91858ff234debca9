"""The doctor on pre-shared keys: the three kinds that a token can keep, and the root's check value.

HMAC and AES-GCM are tried with session objects. Whether a token keeps readable objects is known only once one is in
it: those that the gateway's peers use are looked at, and one is written and destroyed where the operator wants it.
"""

import hmac
import os
from collections.abc import Callable, Iterator, Sequence

from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._doctor_essential import root_check_value
from wghsm.pkcs11_backend._doctor_gcm import SealedPsk, gcm_works, opens_psk, opens_sample, seal_sample
from wghsm.pkcs11_backend._doctor_probe import hmac_works, psk_object_works
from wghsm.pkcs11_backend._doctor_report import Finding, Found, Level, Step, failed, green, red, yellow
from wghsm.pkcs11_backend.errors import KeyUnfit, TokenError, TokenFault
from wghsm.pkcs11_backend.pool import TokenPool
from wghsm.wipe import wipe

__all__ = ["examine_psks"]

_CKM_SHA256_HMAC = 0x251
_CKM_AES_GCM = 0x1087


def examine_psks(
    pool: TokenPool,
    root: str | None,
    wrap_key: str | None,
    kinds: frozenset[str],
    objects: Sequence[str],
    sample: bytes | None = None,
    sealed: Sequence[SealedPsk] = (),
    gateways: Sequence[bytes] = (),
) -> Iterator[Found]:
    """The PSK kinds derived, wrapped and object; red only for one of `kinds`, which the gateway's peers use.

    `root` and `wrap_key` are labels, `objects` those of the PSK objects that peers use; `sample` is what a twin has
    sealed with its wrapping key; `sealed` are the peers' wrapped PSKs, for the public keys `gateways`.
    """
    yield Step("psk-derived")
    if root is not None:
        try:
            value = root_check_value(pool, root)
        except TokenError as error:
            yield failed("psk-derived", error)
        else:
            yield {"psk_check_value": value.hex()}
            yield green("psk-derived", f"root {root!r} computes HMAC-SHA256; its check value is {value.hex()}")
    else:
        yield _kind(pool, "derived", _CKM_SHA256_HMAC, "CKM_SHA256_HMAC", hmac_works, kinds)
    yield Step("psk-wrapped")
    if wrap_key is not None:
        yield from _wrap_key(pool, wrap_key, sample, sealed, gateways)
    else:
        yield _kind(pool, "wrapped", _CKM_AES_GCM, "CKM_AES_GCM", lambda one: gcm_works(one, pool.functions), kinds)
    yield Step("psk-object")
    yield _objects_in_use(pool, objects) if objects else _object(pool, kinds)


def _wrap_key(
    pool: TokenPool, label: str, sample: bytes | None, sealed: Sequence[SealedPsk], gateways: Sequence[bytes]
) -> Iterator[Found]:
    try:
        own = seal_sample(pool, label)
        alike = own is not None and (sample is None or opens_sample(pool, label, sample))
        # Without a key of the gateway nothing opens, and its absence has been told.
        shut = [one.peer for one in sealed if own and gateways and not opens_psk(pool, label, gateways, one)]
    except TokenError as error:
        yield failed("psk-wrapped", error)
        return
    if own is None:
        text = f"the wrapping key {label!r} does not open what it sealed, or opens what is not authentic"
        yield red("psk-wrapped", text, "do not use this token for wrapped PSKs")
        return
    yield {"wrap_sample": own.hex(), "wrap_key_of": "the first" if alike else "another"}
    if shut:
        text = (
            f"a wrapped PSK of {', '.join(dict.fromkeys(shut))} does not open with {label!r}: its file is not there, "
            "or it was made with another key, for another peer or gateway, or was changed"
        )
        yield red("psk-wrapped", text, "wrap it again: wghsm psk wrap PEER -c GATEWAY.yaml")
        return
    opened = f"; so does every wrapped PSK of the peers ({len(sealed)})" if sealed and gateways else ""
    yield green("psk-wrapped", f"wrapping key {label!r} opens what it seals, and nothing else{opened}")


def _objects_in_use(pool: TokenPool, labels: Sequence[str]) -> Finding:
    try:
        for label in labels:
            psk = pool.find_psk(label)
            with pool.control() as calls:
                wipe(calls.read_secret(psk.handle))
    except TokenError as error:
        return failed("psk-object", error)
    return green("psk-object", f"every PSK object that a peer uses is there and readable ({len(labels)})")


def _object(pool: TokenPool, kinds: frozenset[str]) -> Finding:
    if not pool.read_write:
        tried = _kind(pool, "object", None, "readable secret objects", psk_object_works, kinds)
        if tried.level is not Level.GREEN:
            return tried
        return green("psk-object", "readable secret objects work in a session; --write tries one in the token")
    label = f"wghsm-doctor-{os.urandom(8).hex()}"
    try:
        psk = bytearray(os.urandom(32))
        kept = bytes(psk)
        try:
            stored = pool.put_psk(label, psk)
            with pool.control() as calls:
                good = hmac.compare_digest(calls.read_secret(stored.handle), kept)
        finally:
            pool.delete_psk(label)
    except TokenError as error:
        text, _, remedy = str(error).rpartition("; ")
        return yellow("psk-object", text or remedy, remedy if text else "use PSKs of another kind")
    if not good:
        return red("psk-object", "a PSK object reads as another value than was written", "do not use this token")
    return green("psk-object", "a PSK object was written, read and destroyed")


def _kind(
    pool: TokenPool,
    kind: str,
    mechanism: int | None,
    name: str,
    works: Callable[[Calls], bool],
    kinds: frozenset[str],
) -> Finding:
    check = f"psk-{kind}"
    bad = red if kind in kinds else yellow
    remedy = (
        "give the peers PSKs of another kind, or use another token" if kind in kinds else "use PSKs of another kind"
    )
    if mechanism is not None and mechanism not in pool.mechanisms:
        return bad(check, f"the token does not list {name}, so it has no {kind} PSKs", remedy)
    try:
        with pool.control() as calls:
            good = works(calls)
    except (TokenFault, KeyUnfit) as error:
        why = error.name if isinstance(error, TokenFault) else str(error).rpartition("; ")[0]
        if mechanism is not None and "C_CreateObject" in str(error):
            return green(check, f"the token lists {name}; not tried, it takes no key to try it with ({why})")
        return bad(check, f"the token refuses {kind} PSKs ({why})", remedy)
    if not good:
        return bad(check, f"the token's {name} gives another result than software", remedy)
    return green(check, f"{kind} PSKs work: {name}, tried with a throw-away key")
