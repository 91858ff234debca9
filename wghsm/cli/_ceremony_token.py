"""What a ceremony asks of a token: does it exist, and what is in it, read back.

Every call runs as the owner of the token's store (`_owner`), with a PIN that the ceremony holds.
"""

import base64
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from wghsm.ceremony import ObjectSeen, Order, Software, TokenSeen, fingerprint
from wghsm.cli._ceremony_software import file_hash
from wghsm.cli._output import CommandError
from wghsm.cli._owner import Answer, as_owner
from wghsm.pkcs11_backend import TokenError, TokenPool, TokenUri, root_check_value
from wghsm.pkcs11_backend.audit_key import find_audit_key
from wghsm.pkcs11_backend.module import load
from wghsm.pkcs11_backend.provision import KeyReport, SecretReport, list_keys, list_secrets
from wghsm.pkcs11_backend.tokens import list_tokens

__all__ = ["look", "names_in", "on", "read_back"]


_KINDS = ("key", "psk-root", "psk-wrap-key", "audit-key", "other")


def on(uri: TokenUri, pin: bytearray | None, work: Callable[[TokenPool], object], *, write: bool = False) -> Any:
    """Log in with `pin` and do `work`, which gives JSON values. Raises TokenError and CommandError."""

    def logged_in() -> Answer:
        with TokenPool.open(uri, pin, sessions=1, read_write=write) as pool:
            return Answer(work(pool))

    return as_owner(uri, logged_in).data


def look(uri: TokenUri) -> list[dict[str, Any]]:
    """Every token of the module that `uri` may mean, and every empty slot. Raises TokenError and CommandError."""

    def work() -> Answer:
        return Answer([{**dataclasses.asdict(one), "flags": list(one.flags)} for one in list_tokens(uri)])

    there = as_owner(uri, work).data
    if not isinstance(there, list):
        raise CommandError("the token work gave no report")
    wanted = {"label": uri.token, "serial": uri.serial, "manufacturer": uri.manufacturer, "model": uri.model}
    slots = [one for one in there if uri.slot_id in (None, one["slot_id"])]
    return [
        one
        for one in slots
        if not one["initialised"] or all(want in (None, one[name]) for name, want in wanted.items())
    ]


def names_in(uri: TokenUri, pin: bytearray | None) -> set[str]:
    """The labels of all keys and secrets. Raises TokenError and CommandError."""

    def work(pool: TokenPool) -> list[str]:
        return [one.label for one in list_keys(pool)] + [one.label for one in list_secrets(pool)]

    return set(on(uri, pin, work))


def read_back(uri: TokenUri, pin: bytearray | None, order: Order) -> TokenSeen:
    """The token and all that is in it, as it describes them today. Raises TokenError and CommandError."""
    about = next((one for one in look(uri) if one["initialised"]), None)
    if about is None:
        raise CommandError(f"{uri.describe_token()} is not there")
    path = uri.module_path or ""

    def work(pool: TokenPool) -> object:
        objects = [_key(pool, one, order) for one in list_keys(pool)]
        objects += [_secret(pool, one, order) for one in list_secrets(pool)]
        return [load(uri).description, msgspec.to_builtins(objects)]

    description, objects = on(uri, pin, work)
    return TokenSeen(
        uri=str(uri),
        **{name: about[name] for name in ("label", "serial", "manufacturer", "model", "hardware", "firmware", "flags")},
        module=Software(name="PKCS#11 module", version=description, path=path, sha256=file_hash(Path(path))),
        objects=sorted(msgspec.convert(objects, list[ObjectSeen]), key=_place),
    )


def _place(one: ObjectSeen) -> tuple[int, str, str]:
    """The order on paper; a token gives none that lasts."""
    return _KINDS.index(one.kind), one.label, one.id


def _key(pool: TokenPool, report: KeyReport, order: Order) -> ObjectSeen:
    public, algorithm = report.public_key, "X25519" if report.dialect else ""
    try:
        if report.dialect:
            public = pool.find_key(report.label).public_key
        elif report.label == order.audit_key:
            found = find_audit_key(pool, report.label)
            public, algorithm = found.spki, found.algorithm
    except TokenError:
        # Two of one label, or one that does no work: the token's own words about it are left.
        pass
    return ObjectSeen(
        kind="key" if report.dialect else "audit-key" if report.label == order.audit_key else "other",
        label=report.label,
        id=report.id,
        attributes=report.attributes,
        value_readable=report.value_readable,
        key_type=None if report.key_type is None else f"{report.key_type:#x}",
        algorithm=algorithm,
        public_key=None if public is None else base64.b64encode(public).decode(),
        fingerprint=None if public is None else fingerprint(public),
        made=None if report.made is None else report.made[0],
    )


def _secret(pool: TokenPool, report: SecretReport, order: Order) -> ObjectSeen:
    check = None
    if report.kind == "psk-root":
        try:
            check = root_check_value(pool, report.label).hex()
        except TokenError:
            check = None
    wraps = report.label == order.wrap_key
    return ObjectSeen(
        kind="psk-wrap-key" if wraps else "psk-root" if report.kind == "psk-root" else "other",
        label=report.label,
        id=report.id,
        attributes=report.attributes,
        value_readable=report.kind == "psk",
        length=report.length,
        check_value=check,
        made=None if report.made is None else report.made[0],
    )
