"""Wrapped PSKs when the gateway's key changes: the same PSKs and epochs, sealed again for the new public key.

    files named by the gateway file -> wrapped_files -> resealed, in the token -> write_resealed, file by file

What is authenticated with a wrapped PSK names the gateway's key (docs/psk.md), and the custodian opens those of
either key while it serves both. Called by `wghsm key rotate` and `wghsm key retire`; done twice, it changes nothing.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wghsm.cli._output import CommandError
from wghsm.cli._psk_file import replace_file
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool
from wghsm.pkcs11_backend.errors import KeyUnfit
from wghsm.pkcs11_backend.wrapping import find_wrap_key, unwrap_psk, wrap_psk
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["Wrapped", "resealed", "wrapped_files", "write_resealed"]

Sealed = list[tuple[int, str]]
"""Epochs with what was sealed for them, in base64."""


@dataclass(frozen=True)
class Wrapped:
    """The wrapped PSKs of one peer. `key` is its public key, 32 bytes; each entry an epoch and 60 sealed bytes."""

    peer: str
    key: bytes
    file: Path
    entries: tuple[tuple[int, bytes], ...]


def wrapped_files(gateway: "Gateway") -> list[Wrapped]:
    """Read the files of the peers that have wrapped PSKs. Raises ConfigError."""
    from wghsm.config import PskWrapped, read_wrapped_files

    files = read_wrapped_files(gateway)
    return [
        Wrapped(peer.name, peer.public_key, peer.preshared_key.file, tuple(files[peer.preshared_key.file]))
        for peer in gateway.peers
        if isinstance(peer.preshared_key, PskWrapped)
    ]


def resealed(
    pool: TokenPool, wrap_key: str | None, new: bytes, old: bytes | None, files: Sequence[Wrapped]
) -> list[Sealed | None]:
    """Seal what each file holds for the gateway's public key `new`; None for a file that is sealed for it already.

    `old` is the public key before it, None where the token has it no more. Raises CommandError where a file opens with
    neither, TokenError. The PSKs stay in this process, and are wiped.
    """
    if not files or wrap_key is None:
        return [None] * len(files)
    wrapping = find_wrap_key(pool, wrap_key)

    def opened(file: Wrapped, key: bytes | None, epoch: int, sealed: bytes) -> bytearray | None:
        if key is None:
            return None
        try:
            return unwrap_psk(pool, wrapping, key, file.key, epoch, sealed)
        except KeyUnfit:
            return None

    def again(file: Wrapped, epoch: int, sealed: bytes) -> bytes:
        psk = opened(file, new, epoch, sealed)
        if psk is not None:
            wipe(psk)
            return sealed
        psk = opened(file, old, epoch, sealed)
        if psk is None:
            raise CommandError(
                f"{file.file}: the PSK of epoch {epoch} opens with neither key of the gateway; nothing was changed: "
                f"wrap it again (wghsm psk wrap {file.peer}), or remove its line where a newer one stands",
                ExitCode.TOKEN_UNUSABLE,
            )
        try:
            return wrap_psk(pool, wrapping, new, file.key, epoch, psk)
        finally:
            wipe(psk)

    answers: list[Sealed | None] = []
    for file in files:
        fresh = tuple((epoch, again(file, epoch, sealed)) for epoch, sealed in file.entries)
        answers.append(
            None if fresh == file.entries else [(epoch, base64.b64encode(sealed).decode()) for epoch, sealed in fresh]
        )
    return answers


def write_resealed(files: Sequence[Wrapped], answers: Sequence[Sealed | None]) -> list[Path]:
    """Put what `resealed` gave in the place of each file, whole or not at all; return those that changed."""
    from wghsm.config import format_wrapped

    changed = []
    for file, entries in zip(files, answers, strict=True):
        if entries is not None:
            fresh = [(epoch, base64.b64decode(sealed)) for epoch, sealed in entries]
            replace_file(file.file, format_wrapped(fresh, file.peer))
            changed.append(file.file)
    return changed
