"""What `wghsm psk export` is asked for: a PSK object, a wrapped PSK, or a PSK derived for one peer."""

import base64
import binascii
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec import UNSET

from wghsm.cli._output import CommandError
from wghsm.cli.shapes.psks import PskExported
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from wghsm.cli._target import Target
    from wghsm.config import Gateway, Peer

__all__ = ["Request", "peer_of", "request_of", "was_handed_out"]

_FEW = 8


@dataclass(frozen=True)
class Request:
    """Where the PSK comes from.

    `stored` (a label); or `key` (the gateway's, a label), `peer` (32 bytes), `epoch` (u32) and either `root` (a
    label) or `wrap_key` (a label) with `sealed` (60 bytes). The PSK goes with the public key of `key`, where that is
    known. While the key is rotated, what is `sealed` may be so for `other_key`.
    """

    stored: str | None = None
    root: str = ""
    key: str = ""
    peer: bytes = b""
    epoch: int = 0
    name: str | None = None
    wrap_key: str | None = None
    sealed: bytes = b""
    other_key: str | None = None

    @property
    def kind(self) -> Literal["object", "wrapped", "derived"]:
        """As the gateway file names it."""
        return "object" if self.stored is not None else "wrapped" if self.wrap_key is not None else "derived"

    def shape(self, gateway_key: str | None) -> PskExported:
        """Return the public facts for --json, with the gateway's public key in base64 where it is known."""
        public = UNSET if gateway_key is None else gateway_key
        if self.stored is not None:
            return PskExported(peer=self.name, object=self.stored, gateway_public_key=public)
        return PskExported(
            peer=self.name,
            public_key=base64.b64encode(self.peer).decode("ascii"),
            root=self.root if self.wrap_key is None else UNSET,
            psk_wrap_key=UNSET if self.wrap_key is None else self.wrap_key,
            key=self.key,
            epoch=self.epoch,
            gateway_public_key=public,
        )

    def record(self) -> dict[str, object]:
        """Return what the record of exports keeps: enough to know the PSK again, see `was_handed_out`."""
        facts: dict[str, object] = {"peer": self.name, "public_key": base64.b64encode(self.peer).decode("ascii")}
        if self.stored is not None:
            return {**facts, "kind": self.kind, "epoch": None, "object": self.stored}
        # A derived PSK is another one with another key of the gateway; a wrapped one stays what it is.
        made_with = {"key": self.key, "root": self.root} if self.wrap_key is None else {}
        return {**facts, "kind": self.kind, "epoch": self.epoch, **made_with}

    def words(self) -> str:
        """Name the PSK in a sentence."""
        whom = f" of peer {self.name!r}" if self.name is not None else ""
        return f"object {self.stored!r}{whom}" if self.stored is not None else f"for epoch {self.epoch}{whom}"

    def section(self, gateway_key: str, psk: bytes | bytearray) -> bytearray:
        """A [Peer] section for the client: the gateway's public key and the PSK, both base64. The caller wipes it."""
        text = bytearray(f"[Peer]\n# {self.key}; PSK {self.words()}\nPublicKey = {gateway_key}\n".encode())
        text += b"PresharedKey = "
        text += psk
        return text


def request_of(
    target: "Target",
    *,
    peer: str | None,
    stored: str | None,
    root: str | None,
    key: str | None,
    epoch: int | None,
    previous: bool = False,
) -> Request:
    """Turn the options into one request; raises CommandError (BAD_CONFIG) with what to write instead.

    `previous` means the gateway file's previous_key in place of its key.
    """
    if previous:
        own = None if target.gateway is None else target.gateway.interface
        if own is None or own.previous_key is None:
            raise _bad("--previous-key needs a gateway file with a previous_key, as wghsm key rotate writes it")
        if key is not None or stored is not None:
            raise _bad("--previous-key names the gateway's key; leave out --key and --object")
        key = own.previous_key
    if stored is not None:
        if (peer, root, key, epoch) != (None, None, None, None):
            raise _bad("--object names the PSK alone; leave out PEER, --root, --key and --epoch")
        user = None if target.gateway is None else _user_of(target.gateway, stored)
        if target.gateway is None or user is None:
            return Request(stored=stored)
        return Request(stored=stored, key=target.gateway.interface.key, name=user.name, peer=user.public_key)
    if peer is None:
        raise _bad("name the peer (with -c: its name; else its public key), or a PSK object with --object LABEL")
    if target.gateway is None:
        if root is None or key is None:
            raise _bad("without a gateway file, say where the PSK comes from: --root LABEL and --key LABEL")
        return Request(root=root, key=key, peer=_public_key(peer), epoch=epoch or 0)
    return _from_file(target.gateway, peer, root, key, epoch)


def was_handed_out(wanted: dict[str, object], record: dict[str, object]) -> bool:
    """Whether `record` tells of the PSK `wanted`, both as `Request.record` gives them; what it leaves out fits.

    An object that was exported without a gateway file is known by its label alone.
    """
    names = ("kind", "epoch", "key", "root", "object")
    if any(record[name] != wanted.get(name) for name in names if name in record):
        return False
    return record.get("public_key") == wanted["public_key"] or ("object" in record and not record.get("public_key"))


def _user_of(gateway: "Gateway", label: str) -> "Peer | None":
    """The peer that has the PSK object `label`; no two have one."""
    from wghsm.config import PskObject

    for peer in gateway.peers:
        if isinstance(peer.preshared_key, PskObject) and peer.preshared_key.label == label:
            return peer
    return None


def peer_of(gateway: "Gateway", wanted: str) -> "Peer":
    """The peer of that name or public key in the gateway file. Raises CommandError (BAD_CONFIG)."""
    found = [peer for peer in gateway.peers if wanted in (peer.name, base64.b64encode(peer.public_key).decode("ascii"))]
    if not found:
        raise _bad(f"no peer {wanted!r} in the gateway file; {_near(wanted, [peer.name for peer in gateway.peers])}")
    return found[0]


def _near(wanted: str, names: list[str]) -> str:
    if len(names) <= _FEW:
        return f"there is: {', '.join(names) or 'none'}"
    near = difflib.get_close_matches(wanted, names)
    return (f"is it {' or '.join(near)}? " if near else "") + f"wghsm peer list has all {len(names)}"


def _from_file(gateway: "Gateway", wanted: str, root: str | None, key: str | None, epoch: int | None) -> Request:
    from wghsm.config import PskDerived, PskObject, PskWrapped

    peer, own = peer_of(gateway, wanted), gateway.interface
    if isinstance(peer.preshared_key, PskObject):
        if (root, epoch) != (None, None) or key not in (None, own.previous_key):
            raise _bad(
                f"peer {peer.name!r} has the PSK object {peer.preshared_key.label!r}; leave out --root, --key, --epoch"
            )
        return Request(stored=peer.preshared_key.label, key=key or own.key, name=peer.name, peer=peer.public_key)
    if isinstance(peer.preshared_key, PskWrapped):
        if root is not None:
            raise _bad(f"peer {peer.name!r} has a wrapped PSK; leave out --root")
        return _wrapped(gateway, peer, peer.preshared_key, key or own.key, epoch)
    if not isinstance(peer.preshared_key, PskDerived):
        raise _bad(f"peer {peer.name!r} has no PSK (preshared_key: none); write derived or object:LABEL there")
    label = root or gateway.token.psk_root
    if label is None:
        raise _bad("the gateway file has no token.psk_root; name the root with --root LABEL")
    return Request(
        root=label,
        key=key or own.key,
        peer=peer.public_key,
        epoch=peer.preshared_key.epoch if epoch is None else epoch,
        name=peer.name,
    )


def _wrapped(gateway: "Gateway", peer: "Peer", psk: object, key: str, epoch: int | None) -> Request:
    from wghsm.config import PskWrapped, read_wrapped

    if not isinstance(psk, PskWrapped) or gateway.token.psk_wrap_key is None:
        raise _bad("the gateway file has no token.psk_wrap_key")
    entries = dict(read_wrapped(psk.file))
    number = max(entries) if epoch is None else epoch
    if number not in entries:
        there = ", ".join(map(str, sorted(entries)))
        raise _bad(f"{psk.file} has no epoch {number}; there is: {there}")
    return Request(
        key=key,
        peer=peer.public_key,
        epoch=number,
        name=peer.name,
        wrap_key=gateway.token.psk_wrap_key,
        sealed=entries[number],
        other_key=gateway.interface.key if key == gateway.interface.previous_key else gateway.interface.previous_key,
    )


def _public_key(text: str) -> bytes:
    try:
        value = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        value = b""
    if len(value) != 32 or len(text) != 44:
        raise _bad(f"{text!r} is no public key: it takes 44 characters of base64")
    return value


def _bad(message: str) -> CommandError:
    return CommandError(message, ExitCode.BAD_CONFIG)
