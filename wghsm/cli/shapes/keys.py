"""`wghsm key ... --json` and `wghsm audit key ... --json`."""

from typing import Annotated, Literal

from msgspec import UNSET, Struct, UnsetType

from . import said

__all__ = [
    "AuditKeyShown",
    "Custody",
    "KeyBackedUp",
    "KeyDestroyed",
    "KeyImported",
    "KeyPublic",
    "KeyReported",
    "KeyRetired",
    "KeyRotated",
    "KeySeen",
    "KeyShown",
    "PeerToTell",
]

Custody = Literal["broken", "been-outside", "wrappable", "never-outside", "not-stated"]


class KeyReported(Struct, frozen=True, kw_only=True):
    """A private key, as the token describes it."""

    label: Annotated[str, said("its label")]
    id: Annotated[str, said("CKA_ID in hex; empty where it has none")]
    key_type: Annotated[int | None, said("CKA_KEY_TYPE; null: not stated")]
    dialect: Annotated[str | None, said("the dialect in which it derives X25519; null: it is no such key")]
    public_key: Annotated[str | None, said("base64; null where the token does not state it")]
    public_key_checked: Annotated[bool, said("whether a derive in the token has proved it")]
    attributes: Annotated[dict[str, bool | None], said("what the token says, by name without CKA_; null: not stated")]
    value_readable: Annotated[bool, said("true: the token gives the private key out")]
    custody: Annotated[
        Custody,
        said("all this in a word; broken: the token gives it out; wrappable: it may leave wrapped under another key"),
    ]


class KeyImported(KeyReported, frozen=True, kw_only=True):
    """A key that was brought into the token."""

    notice: Annotated[str, said("what is to be done about copies outside, in words")]


class KeySeen(KeyReported, frozen=True, kw_only=True):
    """A private key in one of the tokens."""

    token: Annotated[str, said("the token that says so")]


class KeyShown(KeySeen, frozen=True, kw_only=True):
    """A key in the first token that answered."""

    others: Annotated[list[KeySeen] | UnsetType, said("the same in further tokens, where the file names several")] = (
        UNSET
    )


class KeyPublic(Struct, frozen=True, kw_only=True):
    """A public key."""

    label: Annotated[str, said("the key's label")]
    public_key: Annotated[str, said("base64")]


class KeyBackedUp(Struct, frozen=True, kw_only=True):
    """A backup that was written."""

    label: Annotated[str, said("the key's label")]
    public_key: Annotated[str, said("base64")]
    wrap_key: Annotated[str, said("the label of the key that it is wrapped under")]
    file: Annotated[str, said("the backup")]


class KeyDestroyed(Struct, frozen=True, kw_only=True):
    """A key that is gone."""

    label: Annotated[str, said("the label that it had")]
    objects_destroyed: Annotated[int, said("private and public key objects, in all tokens together")]


class PeerToTell(Struct, frozen=True, kw_only=True):
    """A peer that must be given the new public key."""

    peer: Annotated[str, said("its name in the gateway file")]
    new_psk: Annotated[bool, said("whether it needs a new PSK with it")]


class KeyRotated(Struct, frozen=True, kw_only=True):
    """A gateway that was given another key."""

    file: Annotated[str, said("the gateway file")]
    gateway: Annotated[str, said("the gateway's name")]
    key: Annotated[str, said("the new key's label")]
    public_key: Annotated[str, said("the new public key, base64")]
    custody: Annotated[Custody, said("what the token says of the new key, in a word, as `wghsm key show`")]
    previous_key: Annotated[str, said("the old key's label")]
    previous_public_key: Annotated[str | None, said("base64; null where the token has the old key no more")]
    compromised: Annotated[bool, said("whether the old key is out of use at once")]
    resealed: Annotated[list[str], said("files of wrapped PSKs that were sealed again")]
    peers: Annotated[list[PeerToTell], said("who must be told")]


class KeyRetired(Struct, frozen=True, kw_only=True):
    """A key that the gateway file names no more."""

    gateway: Annotated[str, said("the gateway's name")]
    retired: Annotated[str | None, said("the key's label; null: there was no previous_key")]
    still: Annotated[list[str] | None, said("peers that still used it; null: nobody could tell")]
    unseen: Annotated[list[str] | None, said("peers that were seen with neither key; null: nobody could tell")]
    resealed: Annotated[list[str], said("files of wrapped PSKs that were sealed again")]


class AuditKeyShown(Struct, frozen=True, kw_only=True):
    """The key that signs checkpoints of the audit log, in one token."""

    token: Annotated[str, said("the token that holds it")]
    label: Annotated[str, said("its label")]
    algorithm: Annotated[str, said("ed25519 or ecdsa-p256")]
    public_key: Annotated[str, said("PEM, as wghsm audit verify --key takes it")]
    fingerprint: Annotated[str, said("SHA-256 of the public key, hex")]
