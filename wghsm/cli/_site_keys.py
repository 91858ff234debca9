"""What `wghsm import` brings into the token: the private key, and the pre-shared keys as the operator chose.

    object    each of them into the token, as NAME-psk
    wrapped   sealed under the token's wrapping key, which is made where it is not there: a file NAME.psk each
    none      left out

If one is refused, those before it are taken out of the token again. Called by `import_`.
"""

import base64
import binascii
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wghsm.cli._every import in_every_token
from wghsm.cli._output import CommandError
from wghsm.cli._owner import Answer
from wghsm.cli._peer_file import file_name
from wghsm.cli._target import Target
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool
from wghsm.pkcs11_backend.errors import KeyNotFound
from wghsm.pkcs11_backend.key_import import import_key
from wghsm.pkcs11_backend.provision import destroy_key, destroy_secret, put_psk
from wghsm.pkcs11_backend.wrapping import WrapKey, find_wrap_key, make_wrap_key, wrap_psk
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from wghsm.wgquick import Site

__all__ = ["WRAP_KEY", "BroughtKeys", "PskChoice", "into_token", "wrapped_files"]

WRAP_KEY = "wghsm-psk-wrap"
"""The label of the wrapping key."""

PskChoice = Literal["object", "wrapped", "none"]


@dataclass(frozen=True)
class BroughtKeys:
    """The gateway's public key, base64, and the text of the files of wrapped PSKs, which is no secret."""

    public_key: str
    files: Mapping[Path, str]


def wrapped_files(site: "Site", folder: Path) -> dict[str, Path]:
    """The file for each peer's wrapped PSK, by the peer's name. Raises CommandError if one of them is there."""
    found = {peer.name: folder / f"{file_name(peer.name)}.psk" for peer in site.peers if peer.psk}
    for name, file in found.items():
        if file.exists() or file.is_symlink() or list(found.values()).count(file) > 1:
            raise CommandError(
                f"{file}, for the pre-shared key of {name}, exists or is another peer's too; nothing was changed: "
                "remove it, or give the peers other names in their comments"
            )
    return found


def into_token(
    target: Target, site: "Site", label: str, psks: PskChoice, files: Mapping[str, Path] | None = None
) -> BroughtKeys:
    """Store the keys. `files`: those for wrapped PSKs. Raises TokenError and CommandError."""

    def work(pool: TokenPool) -> Answer:
        sealed: dict[str, str] = {}
        with contextlib.ExitStack() as undo:
            private = _decoded(site.private_key, "PrivateKey")
            try:
                key = import_key(pool, label, private)
            finally:
                wipe(private)
            undo.callback(destroy_key, pool, label)
            with_psk = [] if psks == "none" else [peer for peer in site.peers if peer.psk]
            wrap_key = _wrap_key(pool, undo) if with_psk and psks == "wrapped" else None
            for peer in with_psk:
                psk = _decoded(peer.psk, f"the PresharedKey for {peer.name}")
                try:
                    if wrap_key is None:
                        put_psk(pool, f"{peer.name}-psk", psk)
                        undo.callback(destroy_secret, pool, f"{peer.name}-psk")
                    else:
                        other = base64.b64decode(peer.public_key)
                        text = wrap_psk(pool, wrap_key, key.public_key, other, 0, psk)
                        sealed[peer.name] = base64.b64encode(text).decode()
                finally:
                    wipe(psk)
            undo.pop_all()
        return Answer({"public_key": base64.b64encode(key.public_key).decode(), "sealed": sealed})

    from wghsm.config import format_wrapped

    found: Any = in_every_token(target, work, read_write=True)[0].data
    return BroughtKeys(
        str(found["public_key"]),
        {
            file: format_wrapped([(0, base64.b64decode(found["sealed"][name]))], name)
            for name, file in (files or {}).items()
        },
    )


def _wrap_key(pool: TokenPool, undo: contextlib.ExitStack) -> WrapKey:
    try:
        return find_wrap_key(pool, WRAP_KEY)
    except KeyNotFound:
        made = make_wrap_key(pool, WRAP_KEY)
        undo.callback(destroy_secret, pool, WRAP_KEY)
        return made


def _decoded(text: bytearray, what: str) -> bytearray:
    value: Any = b""
    try:
        value = binascii.a2b_base64(text, strict_mode=True)
        key = bytearray(value)
    except binascii.Error:
        key = bytearray()
    finally:
        wipe(value)
    if len(key) != 32 or not any(key):
        wipe(key)
        raise CommandError(f"{what} is no key of 32 bytes in base64 (not shown); nothing was kept", ExitCode.BAD_CONFIG)
    return key
