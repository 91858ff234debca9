"""A new peer's pre-shared key, in the kind that the gateway file configures.

    derived   nothing to make            wrapped   a fresh one, sealed into a file beside the gateway file
    none      nothing                    object    a fresh one, put into every token

What was made is taken back by the exit stack that the caller passes in, unless it is emptied when all is done.
"""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wghsm.cli._every import in_every_token
from wghsm.cli._output import CommandError
from wghsm.cli._owner import Answer
from wghsm.cli._peer_file import file_name
from wghsm.cli._psk_wrap import seal
from wghsm.cli._recording import Deed, recording
from wghsm.cli._target import Target
from wghsm.cli.shapes.psks import PskKind
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool, TokenUri
from wghsm.pkcs11_backend.errors import KeyNotFound
from wghsm.pkcs11_backend.provision import destroy_secret, put_psk
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["kind_of", "make_psk", "put_psk_object", "written_psk"]


def kind_of(gateway: "Gateway", wanted: str | None) -> PskKind:
    """The kind that is meant: `wanted`, the file's, or the best that its token section has. Raises CommandError."""
    token = gateway.token
    best = "derived" if token.psk_root else "wrapped" if token.psk_wrap_key else "none"
    kind = wanted or gateway.clients.preshared_key or best
    if kind == "derived" and token.psk_root is None:
        raise CommandError(
            "a derived PSK needs token.psk_root; make it with `wghsm psk derive-root LABEL`, or choose --psk none",
            ExitCode.BAD_CONFIG,
        )
    if kind == "wrapped" and token.psk_wrap_key is None:
        raise CommandError(
            "a wrapped PSK needs token.psk_wrap_key; write it, then `wghsm psk wrap --make-key`", ExitCode.BAD_CONFIG
        )
    found: PskKind = msgspec.convert(kind, PskKind)
    return found


def written_psk(kind: str, name: str) -> str:
    """What the gateway file says for a peer of this name."""
    match kind:
        case "wrapped":
            return f"wrapped:{file_name(name)}.psk"
        case "object":
            return f"object:{name}-psk"
        case _:
            return kind


def make_psk(path: Path, gateway: "Gateway", name: str, undo: contextlib.ExitStack) -> None:
    """Make the PSK of the peer `name`, which `gateway` has already and the file at `path` not yet."""
    from wghsm.config import PskObject, PskWrapped

    psk = next(peer.preshared_key for peer in gateway.peers if peer.name == name)
    target = Target(TokenUri.parse(gateway.token.uri), gateway)
    if isinstance(psk, PskObject):
        fresh = bytearray(os.urandom(32))
        try:
            put_psk_object(target, psk.label, fresh)
        finally:
            wipe(fresh)
        undo.callback(_take_back, target, psk.label)
    elif isinstance(psk, PskWrapped):
        file = path.absolute().parent / psk.file
        if file.exists():
            raise CommandError(f"{file} exists; nothing was made: remove it, or choose another name for the peer")
        seal(target, gateway, name, str(gateway.token.psk_wrap_key), None, generate=True)
        undo.callback(file.unlink, missing_ok=True)


def put_psk_object(target: Target, label: str, psk: bytearray) -> None:
    """Store `psk`, 32 bytes, under `label` in every token. Raises TokenError and CommandError."""

    def work(pool: TokenPool) -> Answer:
        own = bytearray(psk)
        try:
            put_psk(pool, label, own)
        finally:
            wipe(own)
        return Answer()

    with recording(target.gateway, Deed("psk.put", label)) as record:
        in_every_token(target, work, read_write=True, do=record.on_token)


def _take_back(target: Target, label: str) -> None:
    def work(pool: TokenPool) -> Answer:
        with contextlib.suppress(KeyNotFound):
            destroy_secret(pool, label)
        return Answer()

    with recording(target.gateway, Deed("psk.destroy", label)) as record:
        in_every_token(target, work, read_write=True, do=record.on_token)
