"""`wghsm psk ... --json`."""

from typing import Annotated, Literal

from msgspec import UNSET, Struct, UnsetType

from . import said

__all__ = [
    "PskDestroyed",
    "PskExported",
    "PskKind",
    "PskOfPeer",
    "PskRotated",
    "PskSealed",
    "PskStored",
    "SecretReported",
    "SecretSeen",
    "WrapKeyMade",
]

PskKind = Literal["none", "derived", "wrapped", "object"]


class SecretReported(Struct, frozen=True, kw_only=True):
    """A root or a PSK object, as the token describes it."""

    label: Annotated[str, said("its label")]
    id: Annotated[str, said("CKA_ID in hex; empty where it has none")]
    kind: Annotated[Literal["psk-root", "psk", "other"], said("what the token lets it do")]
    length: Annotated[int | None, said("bytes; null: not stated")]
    attributes: Annotated[dict[str, bool | None], said("what the token says, by name without CKA_; null: not stated")]
    made: Annotated[
        tuple[str, str] | None, said("when it came into the token, in UTC, and what says so; null: not known")
    ]


class SecretSeen(SecretReported, frozen=True, kw_only=True):
    """A root or a PSK object in one of the tokens."""

    token: Annotated[str, said("the token that says so")]


class PskStored(Struct, frozen=True, kw_only=True):
    """A PSK object that is in the token now."""

    label: Annotated[str, said("its label")]
    stored: Annotated[Literal[True], said("always true")] = True


class PskDestroyed(Struct, frozen=True, kw_only=True):
    """A PSK object or a root that is gone."""

    label: Annotated[str, said("the label that it had")]
    destroyed: Annotated[Literal[True], said("always true")] = True


class PskOfPeer(Struct, frozen=True, kw_only=True):
    """A peer of the gateway file and its PSK."""

    peer: Annotated[str, said("its name in the gateway file")]
    public_key: Annotated[str, said("base64")]
    kind: Annotated[PskKind, said("where the PSK comes from: docs/psk.md")]
    epoch: Annotated[int | None, said("null where the kind has none")]
    distributed: Annotated[bool, said("whether this PSK was handed out, as far as is recorded")]
    last_export: Annotated[str | None, said("when a PSK of this peer was last handed out, in UTC; null: never")]


class PskExported(Struct, frozen=True, kw_only=True):
    """A PSK that was handed out. What is left out does not apply to where it comes from, or to where it went."""

    peer: Annotated[str | None, said("its name in the gateway file; null where no file names it")]
    public_key: Annotated[str | UnsetType, said("the peer's, base64; not of an object")] = UNSET
    object: Annotated[str | UnsetType, said("the label of the PSK object")] = UNSET
    root: Annotated[str | UnsetType, said("the label of the root that it is derived from")] = UNSET
    psk_wrap_key: Annotated[str | UnsetType, said("the label of the key that it was wrapped under")] = UNSET
    key: Annotated[str | UnsetType, said("the label of the gateway's key that it goes with; not of an object")] = UNSET
    epoch: Annotated[int | UnsetType, said("not of an object")] = UNSET
    gateway_public_key: Annotated[str | UnsetType, said("base64; the client needs both")] = UNSET
    file: Annotated[str | UnsetType, said("with --out FILE: where the PSK is")] = UNSET
    preshared_key: Annotated[str | UnsetType, said("else: the PSK itself, base64")] = UNSET
    section: Annotated[str | UnsetType, said("with --peer-section in its place: the text of the section")] = UNSET


class PskRotated(Struct, frozen=True, kw_only=True):
    """A peer whose PSK has another epoch."""

    peer: Annotated[str, said("its name in the gateway file")]
    epoch: Annotated[int, said("the new epoch")]
    previous: Annotated[int, said("the epoch before")]
    overlap_seconds: Annotated[int, said("how long the PSK before stays usable, at most")]


class PskSealed(Struct, frozen=True, kw_only=True):
    """A PSK that was wrapped for a peer."""

    peer: Annotated[str, said("its name in the gateway file")]
    epoch: Annotated[int, said("its epoch")]
    file: Annotated[str, said("the file that holds it")]
    previous: Annotated[int | None, said("the epoch before, which the file holds too; null: none")]


class WrapKeyMade(Struct, frozen=True, kw_only=True):
    """The wrapping key that was made in the token."""

    psk_wrap_key: Annotated[str, said("its label")]
    made: Annotated[Literal[True], said("always true")] = True
