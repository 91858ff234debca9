"""The doctor on the gateway's key: what it is, what it may do, and whether it computes X25519."""

import base64
from collections.abc import Iterator

from wghsm.pkcs11_backend import _objects
from wghsm.pkcs11_backend._calls import Calls, check_point
from wghsm.pkcs11_backend._ckr import ckr_name
from wghsm.pkcs11_backend._doctor_essential import explain_derive
from wghsm.pkcs11_backend._doctor_probe import LowOrder, agrees, answer_to_low_order
from wghsm.pkcs11_backend._doctor_report import Found, Step, failed, green, red, yellow
from wghsm.pkcs11_backend._objects import CKA, CKO_PRIVATE_KEY, PrivateKey
from wghsm.pkcs11_backend.dialect import dialect_of_key
from wghsm.pkcs11_backend.errors import CurveUnsupported, KeyUnfit, PointRefused, TokenError
from wghsm.pkcs11_backend.pool import TokenPool
from wghsm.pkcs11_backend.provision import show_key

__all__ = ["examine_key", "only_key"]

_PEERS = 4
_P = 2**255 - 19
_ORDER_8 = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
# In this order, so that a token that checks for zeros only is found out.
_SENT = (_ORDER_8, bytes(32))
_OTHER_ORDER_8 = bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")
_KNOWN = (0, 1, _P - 1, _P, _P + 1, *(int.from_bytes(point, "little") for point in (_ORDER_8, _OTHER_ORDER_8)))
_FORBIDDEN = ("SIGN", "DECRYPT", "UNWRAP")


def only_key(pool: TokenPool) -> str | None:
    """The label of the token's X25519 key if it has just one. Raises TokenFault."""
    with pool.control() as calls:
        labels = [
            _objects.text(calls, handle, "LABEL") or ""
            for handle in calls.find(((CKA["CLASS"], CKO_PRIVATE_KEY),))
            if dialect_of_key(_objects.number(calls, handle, "KEY_TYPE"), calls.attribute(handle, CKA["EC_PARAMS"]))
        ]
    return labels[0] if len(labels) == 1 else None


def examine_key(pool: TokenPool, label: str) -> Iterator[Found]:
    """Everything about the key `label`; nothing after the first reason why it cannot be used."""
    yield Step("key")
    try:
        key = pool.find_key(label)
    except CurveUnsupported as error:
        yield failed("key", explain_derive(pool, label) or error)
        return
    except TokenError as error:
        yield failed("key", error)
        return
    shown = base64.b64encode(key.public_key).decode()
    yield {"key": label, "dialect": key.dialect.name, "public_key": shown}
    with pool.control() as calls:
        stated = _objects.stated_public(calls, key.handle, label)
    compared = "the public key object" if stated is not None else "the public key; no object states another"
    yield green("key", f"key {label!r}: derive(9) equals {compared}: {shown}")
    sent = (
        f"points as {key.dialect.point_prefix.hex()} and 32 bytes" if key.dialect.point_prefix else "32 raw bytes sent"
    )
    yield green("dialect", f"{key.dialect.name}: CKA_KEY_TYPE {key.dialect.key_type:#x}, CKD_NULL, {sent}")
    for part in (_attributes, _agreement, _low_order):
        try:
            yield from part(pool, key)
        except TokenError as error:
            yield failed(part.__name__.strip("_").replace("_", "-"), error)


def _attributes(pool: TokenPool, key: PrivateKey) -> Iterator[Found]:
    yield Step("attributes")
    report = show_key(pool, key.label)
    is_ = report.attributes
    yield {"attributes": is_}
    findings: list[Found] = []
    if is_["SENSITIVE"] is False:
        remedy = "make another key: wghsm key generate"
        findings.append(red("attributes", "CKA_SENSITIVE is false: the key's value may be read", remedy))
    if is_["EXTRACTABLE"]:
        text = "CKA_EXTRACTABLE is true: the key can leave under a wrapping key, as a backup needs"
        findings.append(yellow("attributes", text, "fine if you want backups; else make a key that cannot leave"))
    if is_["ALWAYS_SENSITIVE"] is False or is_["NEVER_EXTRACTABLE"] is False:
        text = "the key has been outside the token or could have left it (imported, or made extractable)"
        findings.append(yellow("attributes", text, "fine if you know where it has been; else make one in the token"))
    if allowed := [f"CKA_{name}" for name in _FORBIDDEN if is_[name]]:
        text = f"the key may do more than derive: {', '.join(allowed)}"
        findings.append(yellow("attributes", text, "use a key that is for WireGuard only"))
    if is_["PRIVATE"] is False:
        text = "CKA_PRIVATE is false: the key is there without a login"
        findings.append(yellow("attributes", text, "make another key: wghsm key generate"))
    unknown = [f"CKA_{name}" for name, value in is_.items() if value is None]
    told = f"; not stated: {', '.join(unknown)}" if unknown else ""
    yield from findings or [green("attributes", f"sensitive, not extractable, may only derive{told}")]
    yield Step("value")
    if report.value_readable:
        text = f"the token would give the value of key {key.label!r} to whoever has the PIN: it is not kept"
        yield red("value", text, "make a sensitive key, and count this one as seen")
    else:
        yield green("value", "reading CKA_VALUE is refused")


def _agreement(pool: TokenPool, key: PrivateKey) -> Iterator[Found]:
    yield Step("agreement")
    with pool.control() as calls:
        try:
            same = all(agrees(calls, key.handle, key.public_key, key.dialect) for _ in range(_PEERS))
        except PointRefused:
            same = False
    if same:
        yield green("agreement", f"{_PEERS} software peers with fresh keys agree; the shared secret is readable")
    else:
        text = "a software peer derives another secret: what the token computes is not X25519"
        yield red("agreement", text, "do not use this token")


def _low_order(pool: TokenPool, key: PrivateKey) -> Iterator[Found]:
    yield Step("low-order")
    with pool.control() as calls:
        let_through = sum(_reaches_the_token(calls, key, point) for point in _encodings())
        answers = {
            answer_to_low_order(pool.functions, calls.session, key.handle, key.dialect, point) for point in _SENT
        }
        still_there = bytes(calls.derive(key.handle, _objects.BASE_POINT, key.dialect)) == key.public_key
    if let_through or not still_there:
        raise KeyUnfit("a low-order point reached the token or changed what it derives; do not use this version")
    known = f"{len(_encodings())} known points are refused before the token sees them"
    if any(answer is LowOrder.GARBAGE for answer, _ in answers):
        text = f"{known}, but the token answers one with something else than zeros, which is not X25519"
        yield red("low-order", text, "use another token")
    elif any(answer is LowOrder.ZEROS for answer, _ in answers):
        yield green("low-order", f"{known}; the token gives zeros for one, which the check of each result catches")
    else:
        names = ", ".join(sorted({ckr_name(ckr) for _, ckr in answers}))
        yield green("low-order", f"{known}; the token refuses one as well ({names})")


def _encodings() -> list[bytes]:
    """The known points as 32 bytes, each also with the top bit that X25519 ignores."""
    return [(point | top).to_bytes(32, "little") for point in _KNOWN for top in (0, 1 << 255)]


def _reaches_the_token(calls: Calls, key: PrivateKey, point: bytes) -> bool:
    try:
        check_point(point)
        calls.derive(key.handle, point, key.dialect)
    except PointRefused:
        return False
    return True
