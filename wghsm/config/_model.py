"""The gateway file's model: frozen, comparable and hashable pydantic models, one for each section.

`_load` fills it from a file; tests and other rooms may make it in Python with finished values. The models
hold the rules of single values; the rules between values (one prefix under two peers, `derived` without a
root) are `_conflicts`'s and hold for every gateway that came from `load`.

docs/configuration.md has an entry for each field here; a test compares the two.
"""

from datetime import datetime
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainValidator, model_validator

from wghsm.config import _firewall as f
from wghsm.config import _psk as p
from wghsm.config import _values as v
from wghsm.config._scalar import choice, flag, number
from wghsm.config._token_uri import token_uri
from wghsm.config._yaml import Scalar

__all__ = [
    "AUDIT_ROOT",
    "STATE_ROOT",
    "Audit",
    "Clients",
    "Firewall",
    "Gateway",
    "Hooks",
    "Interface",
    "Peer",
    "Policy",
    "Token",
    "Tunnel",
    "Users",
]

STATE_ROOT = Path("/var/lib/wghsm")
AUDIT_ROOT = Path("/var/log/wghsm")
_UNSET = Path()
_T = TypeVar("_T")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)


def _list(value: object) -> object:
    """An empty value is an empty list; an entry that stands twice in a list of names counts once."""
    return () if isinstance(value, Scalar) and value.is_null else value


def _once(values: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(values))


def _whole(low: int, high: int, what: str, remedy: str) -> PlainValidator:
    return PlainValidator(lambda value: number(value, low, high, what, remedy))


def _choice(what: str, *options: str) -> PlainValidator:
    return PlainValidator(lambda value: choice(value, options, what))


_Uid = Annotated[int | str, PlainValidator(v.user)]


class Token(_Section):
    """The token and how the custodian uses it.

    One of `uri` and `uris` is written; `uri` is the first in either case, `in_order` all of them.
    """

    uri: Annotated[str, PlainValidator(token_uri)] = ""
    uris: Annotated[
        tuple[Annotated[str, PlainValidator(token_uri)], ...], BeforeValidator(_list), AfterValidator(_once)
    ] = ()
    at_start: Annotated[Literal["wait", "fail"], _choice("at_start", "wait", "fail")] = "fail"
    psk_root: Annotated[
        str | None, PlainValidator(lambda x: None if x is None else v.label(x, "the root of derived PSKs"))
    ] = None
    psk_wrap_key: Annotated[
        str | None, PlainValidator(lambda x: None if x is None else v.label(x, "the key that wraps pre-shared keys"))
    ] = None
    psk_overlap: Annotated[int, PlainValidator(lambda x: v.duration(x, "psk_overlap"))] = 14 * 86_400
    environment: Annotated[
        tuple[Annotated[str, PlainValidator(v.variable)], ...], BeforeValidator(_list), AfterValidator(_once)
    ] = ()
    sessions: Annotated[int, _whole(1, 64, "sessions", "write a number of worker sessions from 1 to 64")] = 4
    cache_static_static: Annotated[bool, PlainValidator(lambda x: flag(x, "cache_static_static"))] = True

    @property
    def in_order(self) -> tuple[str, ...]:
        """Every token's URI, best first."""
        return self.uris or (self.uri,)

    @model_validator(mode="after")
    def _fill_uri(self) -> "Token":
        if self.uris and not self.uri:
            self.__dict__["uri"] = self.uris[0]
        return self


class Interface(_Section):
    """The network interface and the gateway's own key.

    `previous_key` is served beside `key` while peers move from it (docs/key-rotation.md).
    """

    name: Annotated[str, PlainValidator(v.interface_name)]
    key: Annotated[str, PlainValidator(lambda x: v.label(x, "the gateway's key"))]
    previous_key: Annotated[
        str | None, PlainValidator(lambda x: None if x is None else v.label(x, "the gateway's key before this one"))
    ] = None
    listen_port: Annotated[int, _whole(0, 65535, "listen_port", "write a port up to 65535; 0 lets the kernel pick")] = 0
    addresses: Annotated[
        tuple[Annotated[IPv4Interface | IPv6Interface, PlainValidator(v.address)], ...], BeforeValidator(_list)
    ] = ()
    mtu: Annotated[Literal["auto"] | int, PlainValidator(v.mtu)] = "auto"
    table: Annotated[Literal["auto", "off"] | int, PlainValidator(v.table)] = "auto"
    authority: Annotated[Literal["file", "runtime"], _choice("authority", "file", "runtime")] = "file"
    fwmark: Annotated[int, PlainValidator(v.fwmark)] = 0


class Peer(_Section):
    """One peer. `public_key` has 32 bytes; `persistent_keepalive` is in seconds, 0 for none."""

    name: Annotated[str, PlainValidator(v.peer_name)]
    public_key: Annotated[bytes, PlainValidator(v.public_key)]
    preshared_key: Annotated[p.Psk, PlainValidator(p.psk)]
    migrate_from_none: Annotated[bool, PlainValidator(lambda x: flag(x, "migrate_from_none"))] = False
    endpoint: Annotated[v.Endpoint | None, PlainValidator(lambda x: None if x is None else v.endpoint(x))] = None
    allowed_ips: Annotated[
        tuple[Annotated[IPv4Network | IPv6Network, PlainValidator(v.allowed_ip)], ...], BeforeValidator(_list)
    ]
    persistent_keepalive: Annotated[
        int, _whole(0, 65535, "persistent_keepalive", "write seconds from 1 to 65535, such as 25; 0 turns it off")
    ] = 0
    disabled: Annotated[bool, PlainValidator(lambda x: flag(x, "disabled"))] = False
    expires: Annotated[datetime | None, PlainValidator(lambda x: None if x is None else v.moment(x, "expires"))] = None
    note: Annotated[str, PlainValidator(v.note)] = ""
    tags: Annotated[
        tuple[Annotated[str, PlainValidator(v.tag)], ...], BeforeValidator(_list), AfterValidator(_once)
    ] = ()

    allow: Annotated[tuple[Annotated[f.Allow, PlainValidator(f.allow)], ...], BeforeValidator(_list)] = (f.Allow(),)
    rate_limit: Annotated[int | None, PlainValidator(lambda x: None if x is None else f.rate(x))] = None
    quota: Annotated[int | None, PlainValidator(lambda x: None if x is None else f.quota(x))] = None

    def active_at(self, unix: float | None) -> bool:
        """Whether the gateway serves the peer at this Unix time; None leaves its expiry out of account."""
        return not self.disabled and (self.expires is None or unix is None or unix < self.expires.timestamp())


class Clients(_Section):
    """What the files of clients say that `wghsm peer` writes; the gateway itself uses none of it.

    `allowed_ips` empty: the interface's networks. `preshared_key` None: the best kind that the token section has.
    """

    endpoint: Annotated[v.Endpoint | None, PlainValidator(lambda x: None if x is None else v.endpoint(x))] = None
    allowed_ips: Annotated[
        tuple[Annotated[IPv4Network | IPv6Network, PlainValidator(v.allowed_ip)], ...],
        BeforeValidator(_list),
        AfterValidator(_once),
    ] = ()
    dns: Annotated[
        tuple[Annotated[str, PlainValidator(v.resolver)], ...], BeforeValidator(_list), AfterValidator(_once)
    ] = ()
    persistent_keepalive: Annotated[
        int, _whole(0, 65535, "persistent_keepalive", "write seconds from 1 to 65535, such as 25; 0 turns it off")
    ] = 0
    preshared_key: Annotated[
        Literal["derived", "wrapped", "object", "none"] | None,
        PlainValidator(
            lambda x: None if x is None else choice(x, ("derived", "wrapped", "object", "none"), "preshared_key")
        ),
    ] = None


class Tunnel(_Section):
    """How the tunnel is run: `workers` pairs of egress and ingress (docs/scaling.md)."""

    workers: Annotated[int, _whole(1, 32, "workers", "write a number of worker pairs from 1 to 32")] = 1


class Firewall(_Section):
    """What the kernel's packet filter does for the gateway, in a table of its own; limits stand at the peers."""

    masquerade: Annotated[
        tuple[Annotated[str, PlainValidator(f.out_interface)], ...], BeforeValidator(_list), AfterValidator(_once)
    ] = ()
    isolate_clients: Annotated[bool, PlainValidator(lambda x: flag(x, "isolate_clients"))] = False


_Programs = Annotated[
    tuple[Annotated[tuple[str, ...], PlainValidator(v.program)], ...],
    BeforeValidator(_list),
]


class Hooks(_Section):
    """Programs that the supervisor runs: `up` when the interface is there, `down` before it goes (docs/routing.md)."""

    up: _Programs = ()
    down: _Programs = ()


class Users(_Section):
    """Who each room runs as: a uid or a user's name (not looked up here); each its own."""

    custodian: _Uid = 61100
    handshake: _Uid = 61101
    egress: _Uid = 61102
    ingress: _Uid = 61103
    control: _Uid = 61104
    resolver: _Uid = 61105
    auditor: _Uid = 61106


_Seconds = Annotated[int, PlainValidator(lambda x: v.duration(x, "the time"))]
_File = Annotated[Path | None, PlainValidator(lambda x: None if x is None else v.directory(x))]


class Audit(_Section):
    """The audit log (docs/audit.md): where it is, who signs it, how long it is kept and where else it goes.

    Without the section there is none. `directory` is filled in from the interface's name when left out; `journald` may
    be the path of a socket; `syslog` is a server that speaks TLS.
    """

    enabled: Annotated[bool, PlainValidator(lambda x: flag(x, "enabled"))] = True
    directory: Annotated[Path, PlainValidator(v.directory)] = _UNSET
    key: Annotated[str | None, PlainValidator(lambda x: None if x is None else v.label(x, "the audit key"))] = None
    retention: _Seconds = 400 * 86_400
    rotate_size: Annotated[int, PlainValidator(lambda x: v.size(x, "rotate_size"))] = 64 * 2**20
    rotate_age: _Seconds = 7 * 86_400
    journald: Annotated[bool | str, PlainValidator(v.journald)] = True
    syslog: Annotated[v.Endpoint | None, PlainValidator(lambda x: None if x is None else v.endpoint(x))] = None
    syslog_ca: _File = None
    syslog_certificate: _File = None
    syslog_key: _File = None
    on_failure: Annotated[
        Literal["continue", "stop-new-handshakes"], _choice("on_failure", "continue", "stop-new-handshakes")
    ] = "continue"


class Policy(_Section):
    """How old keys may become, in seconds; None for no limit. `wghsm inventory` looks at it, the gateway does not."""

    key_max_age: Annotated[
        int | None, PlainValidator(lambda x: None if x is None else v.duration(x, "key_max_age"))
    ] = None
    psk_max_age: Annotated[
        int | None, PlainValidator(lambda x: None if x is None else v.duration(x, "psk_max_age"))
    ] = None


class Gateway(_Section):
    """A whole gateway file, with the peers of the files that it includes.

    `state_directory` and `audit.directory` are filled in from the interface's name when left out.
    """

    version: Annotated[Literal[1], PlainValidator(v.version)]
    token: Token
    interface: Interface
    peers: Annotated[tuple[Peer, ...], BeforeValidator(_list)] = ()
    include: Annotated[
        tuple[Annotated[str, PlainValidator(v.folder)], ...], BeforeValidator(_list), AfterValidator(_once)
    ] = ()
    psk: Annotated[Literal["optional", "required"], _choice("psk", "optional", "required")] = "optional"
    state_directory: Annotated[Path, PlainValidator(v.directory)] = _UNSET
    clients: Clients = Clients()
    firewall: Firewall = Firewall()
    hooks: Hooks = Hooks()
    policy: Policy = Policy()
    audit: Audit = Audit(enabled=False)
    tunnel: Tunnel = Tunnel()
    users: Users = Users()
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _choice("log_level", "debug", "info", "warning", "error")
    ] = "info"

    @model_validator(mode="after")
    def _fill_directories(self) -> "Gateway":
        if self.state_directory == _UNSET:
            self.__dict__["state_directory"] = STATE_ROOT / self.interface.name
        if self.audit.directory == _UNSET:
            directory = AUDIT_ROOT / self.interface.name
            self.__dict__["audit"] = self.audit.model_copy(update={"directory": directory})
        return self

    def sharing(self, before: "Gateway") -> "Gateway":
        """An equal gateway that has those peers of `before` which are equal to its own in their place.

        Of two files that are kept one after the other, only what has changed is then in memory twice.
        """
        known = {peer.public_key: peer for peer in before.peers}
        peers = tuple(old if (old := known.get(peer.public_key)) == peer and old else peer for peer in self.peers)
        return self.model_copy(update={"peers": peers})
