"""What an inventory says: the document of `wghsm inventory --json`, version 1 (docs/inventory.md).

Times are RFC 3339 in UTC, spans are seconds, and null is what nobody knows.
"""

from typing import Annotated, Any, Literal

import msgspec

__all__ = ["Inventory", "Item", "Kind", "Origin", "Rotation", "TokenSeen", "json_schema"]

Kind = Literal["key", "audit-key", "psk-root", "psk-wrap-key", "psk", "other"]
Origin = Literal["made-inside", "imported", "derived", "outside", "not-stated"]
Rotation = Literal["ok", "due", "age-unknown", "no-limit", "unused", "missing"]


def _said(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One secret: an object of a token, or a pre-shared key that a token derives or opens."""

    kind: Annotated[Kind, _said("what it is for")]
    label: Annotated[str, _said("its label in the token; of a PSK outside of it what the gateway file says")]
    token: Annotated[str, _said("the token that holds it, or makes or opens it; empty where none could be asked")]
    stored: Annotated[Literal["token", "derived", "wrapped"], _said("where it is: docs/psk.md")]
    roles: Annotated[list[str], _said("what the gateway files use it for; empty if none does")]
    peers: Annotated[list[str], _said("the peers that depend on it, as GATEWAY/NAME")]
    origin: Annotated[
        Origin, _said("derived: by the token from its root; outside: it came sealed from elsewhere or was made so")
    ]
    id: Annotated[str | None, _said("CKA_ID in hex")] = None
    public_key: Annotated[str | None, _said("base64, where the token states it")] = None
    custody: Annotated[str | None, _said("as `wghsm key show` says it, of keys")] = None
    attributes: Annotated[dict[str, bool | None], _said("what the token says, by name without CKA_")] = {}
    made: Annotated[str | None, _said("when it came to be what it is, at the latest")] = None
    made_from: Annotated[str | None, _said("where `made` is from")] = None
    age: Annotated[int | None, _said("seconds since `made`")] = None
    last_used: Annotated[str | None, _said("the last handshake that used it")] = None
    last_used_from: Annotated[str | None, _said("where `last_used` is from")] = None
    max_age: Annotated[int | None, _said("the least limit of the gateways' policies, in seconds")] = None
    due: Annotated[str | None, _said("when it reaches `max_age`")] = None
    rotation: Annotated[Rotation, _said("what follows from age and limit")] = "no-limit"


class TokenSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One token that a gateway file names. `error` is empty if it could be asked."""

    uri: Annotated[str, _said("as the gateway files name it")]
    name: Annotated[str, _said("its label and serial number")]
    gateways: Annotated[list[str], _said("the gateways whose files name it")]
    error: Annotated[str, _said("why it could not be asked; empty if it could")] = ""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """Every secret of the gateways, and what is due."""

    v: Annotated[Literal[1], _said("the version of this document")] = 1
    time: Annotated[str, _said("when it was made, in UTC")]
    gateways: Annotated[list[str], _said("the gateways by name")]
    tokens: Annotated[list[TokenSeen], _said("the tokens that their files name")]
    items: Annotated[list[Item], _said("every secret")]
    peers_without_psk: Annotated[list[str], _said("as GATEWAY/NAME")]
    due: Annotated[int, _said("how many items have reached their limit")]
    age_unknown: Annotated[int, _said("how many have a limit, and no age that anybody knows")]
    missing: Annotated[int, _said("how many are named by a gateway file, and are not in their token")]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an `Inventory`."""
    return msgspec.json.schema(Inventory)
