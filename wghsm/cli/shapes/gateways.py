"""The --json of the commands about a whole gateway, running or as a file."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Struct, UnsetType

from wghsm.ipc.admin import Status

from . import said

__all__ = [
    "Checked",
    "Exported",
    "GatewayStatus",
    "Imported",
    "Initialised",
    "NotCarriedOver",
    "Planned",
    "PlannedChange",
    "PlannedRoute",
    "ProblemFound",
    "Rekeyed",
    "Reloaded",
    "Started",
]


class Initialised(Struct, frozen=True, kw_only=True):
    """What a first gateway was given."""

    file: Annotated[str, said("the gateway file")]
    uri: Annotated[str, said("pkcs11: URI of its token")]
    environment: Annotated[dict[str, str], said("what must be in the environment of every command")]
    public_key: Annotated[str, said("the gateway's, base64")]
    key_made: Annotated[bool, said("false: the key was in the token already")]
    psk_root: Annotated[bool, said("whether the token has a root of derived PSKs")]
    why_no_root: Annotated[str | None, said("why it has none; null: it has one")]


class ProblemFound(Struct, frozen=True, kw_only=True):
    """One fault of a gateway file."""

    file: Annotated[str, said("the file that it is in")]
    line: Annotated[int, said("its line; 0: the file as a whole")]
    message: Annotated[str, said("what is wrong")]
    remedy: Annotated[str, said("what to do")]


class Checked(Struct, frozen=True, kw_only=True):
    """A gateway file that was read."""

    file: Annotated[str, said("as it was named")]
    ok: Annotated[bool, said("whether a gateway can use it")]
    interface: Annotated[str | UnsetType, said("the gateway's name; left out if not ok")] = UNSET
    peers: Annotated[list[str] | UnsetType, said("its peers by name; left out if not ok")] = UNSET
    problems: Annotated[list[ProblemFound] | UnsetType, said("what is wrong; left out if ok")] = UNSET
    warnings: Annotated[list[ProblemFound], said("what can be used, and should be looked at")]


class Started(Struct, frozen=True, kw_only=True):
    """A gateway whose interface serves."""

    gateway: Annotated[str, said("its name")]
    log: Annotated[str, said("its log file")]


class PlannedChange(Struct, frozen=True, kw_only=True):
    """One setting that would be another one."""

    field: Annotated[str, said("its name in the file; of a peer the name alone, empty for the whole peer")]
    peer: Annotated[str | None, said("the peer's public key, base64; null: it is no peer's")]
    name: Annotated[str | None, said("the peer's name; null: it is no peer's")]
    before: Annotated[Any, said("as a gateway file writes it; null: nothing, or the peer is not there")]
    after: Annotated[Any, said("as a gateway file writes it; null: nothing, or the peer goes")]
    effect: Annotated[
        Literal["live", "custodian", "restart"],
        said("custodian: it is started again while sessions go on; restart: a reload refuses it"),
    ]
    drift: Annotated[bool, said("true: it was changed at run time, and the reload takes that back")]


class PlannedRoute(Struct, frozen=True, kw_only=True):
    """A route to the interface."""

    prefix: Annotated[str, said("where to")]
    table: Annotated[int, said("the number of its routing table")]


class Planned(Struct, frozen=True, kw_only=True):
    """What a reload would change."""

    gateway: Annotated[str, said("its name")]
    file: Annotated[str, said("the file that it runs with")]
    changes: Annotated[list[PlannedChange], said("setting by setting; empty: nothing would change")]
    routes_added: Annotated[list[PlannedRoute], said("routes that would come")]
    routes_removed: Annotated[list[PlannedRoute], said("routes that would go")]
    path_mtu: Annotated[int, said("the MTU that mtu: auto gives now, in bytes")]
    login_is_due: Annotated[bool, said("true: a file of the token's PIN has changed since the custodian was started")]


class Reloaded(Struct, frozen=True, kw_only=True):
    """What the running gateway said to its file."""

    gateway: Annotated[str, said("its name")]
    ok: Annotated[bool, said("false: refused; nothing has changed, unless result says there is no custodian now")]
    result: Annotated[str, said("what has changed, or why nothing has, in words")]
    problems: Annotated[list[ProblemFound], said("what is wrong with the file")]


class GatewayStatus(Status, frozen=True, kw_only=True):
    """A running gateway."""

    still_on_previous_key: Annotated[list[str], said("peers whose last handshake was with the previous key, by name")]


class Rekeyed(Struct, frozen=True, kw_only=True):
    """Fresh handshakes that were asked for."""

    gateway: Annotated[str, said("its name")]
    peers: Annotated[list[str] | None, said("the peer that was named, by public key; null: all")]
    result: Annotated[str, said("the gateway's answer in words, or empty")]


class NotCarriedOver(Struct, frozen=True, kw_only=True):
    """A setting that has no place in a gateway file."""

    line: Annotated[int, said("its line; 0: none")]
    key: Annotated[str, said("its name there")]
    advice: Annotated[str, said("what to do in its stead")]


class Imported(Struct, frozen=True, kw_only=True):
    """A gateway file that was made from another configuration."""

    file: Annotated[str, said("the gateway file")]
    interface: Annotated[str, said("the gateway's name")]
    public_key: Annotated[str | None, said("the gateway's, base64; null with --no-secrets")]
    peers: Annotated[list[str], said("its peers by name")]
    preshared_keys: Annotated[list[str], said("those of them that have had a PSK")]
    preshared_keys_as: Annotated[
        Literal["object", "wrapped", "none"], said("what has become of these: docs/psk.md; none: left out")
    ]
    secrets: Annotated[Literal["in the token", "left out"], said("where private key and PSKs are now")]
    not_carried_over: Annotated[list[NotCarriedOver], said("what has no place in a gateway file")]


class Exported(Struct, frozen=True, kw_only=True):
    """A wg-quick configuration, without its secrets."""

    interface: Annotated[str, said("the gateway's name")]
    file: Annotated[str | None, said("the file that was written; null: none")]
    config: Annotated[str, said("the configuration")]
    left_out: Annotated[list[str], said("peers that are disabled or have expired")]
