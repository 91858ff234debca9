"""The gateway file as a JSON Schema, for editors: generated from the model, so that it cannot fall behind.

    model's fields -> keys, required ones, defaults, lists, choices
    _WRITTEN       -> how a value is written where its type in the model does not say it
    _ABOUT         -> one line for each key, which an editor shows

It knows single values; the rules between values are checked by `wghsm check`. Called by `wghsm schema`.
"""

import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wghsm.config._document import written
from wghsm.config._model import Gateway, Peer

__all__ = ["json_schema", "peers_schema"]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"

# Words without quotes may look like numbers to an editor; a gateway file takes them as they are written.
_WORD = {"type": ["string", "number"]}
_PORT = {"type": "integer", "minimum": 0, "maximum": 65535}
_SPAN = {"type": "string", "pattern": "^[0-9]{1,7}[dhm]$"}
_PATH = {"type": "string", "pattern": "^/"}
_U32 = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}

_WRITTEN: dict[str, dict[str, Any]] = {
    "token.uri": {"type": "string", "pattern": "^pkcs11:"},
    "token.uris": {"type": "string", "pattern": "^pkcs11:"},
    "token.psk_root": _WORD,
    "token.psk_wrap_key": _WORD,
    "token.psk_overlap": _SPAN,
    "token.environment": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,127}$"},
    "token.sessions": {"type": "integer", "minimum": 1, "maximum": 64},
    "tunnel.workers": {"type": "integer", "minimum": 1, "maximum": 32},
    "interface.name": {"type": ["string", "number"], "pattern": "^[a-zA-Z0-9_=+.-]{1,15}$"},
    "interface.key": _WORD,
    "interface.previous_key": _WORD,
    "interface.listen_port": _PORT,
    "interface.addresses": {"type": "string"},
    "interface.mtu": {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 576, "maximum": 65455}]},
    "interface.table": {"anyOf": [{"enum": ["auto", "off"]}, {"type": "integer", "minimum": 1, "maximum": 2**32 - 1}]},
    "interface.fwmark": {"anyOf": [{"const": "off"}, _U32, {"type": "string", "pattern": "^0[xX][0-9a-fA-F]{1,8}$"}]},
    "peers.name": _WORD | {"maxLength": 64},
    "peers.public_key": {"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$"},
    "peers.preshared_key": {"type": "string", "pattern": "^(none|derived(:[0-9]{1,10})?|object:.+|wrapped:.+)$"},
    "peers.endpoint": {"type": "string", "pattern": "^.+:[0-9]{1,5}$"},
    "peers.allowed_ips": {"type": "string"},
    "peers.persistent_keepalive": _PORT,
    "peers.expires": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z)?$"},
    "peers.note": _WORD | {"maxLength": 200},
    "peers.tags": _WORD,
    "peers.allow": {"type": "string", "pattern": "^[^ ]+( +(tcp|udp|icmp)(/[0-9]{1,5}(-[0-9]{1,5})?)?)?$"},
    "peers.rate_limit": {"type": "string", "pattern": "^[0-9]{1,6}[kMG]bit$"},
    "peers.quota": {"type": "string", "pattern": "^[0-9]{1,6}[MGT]$"},
    "firewall.masquerade": {"type": ["string", "number"], "pattern": "^([a-zA-Z0-9_=+.-]{1,15}|[*])$"},
    "hooks.up": {"type": ["string", "number", "boolean"]},
    "hooks.down": {"type": ["string", "number", "boolean"]},
    "clients.endpoint": {"type": "string", "pattern": "^.+:[0-9]{1,5}$"},
    "policy.key_max_age": _SPAN,
    "policy.psk_max_age": _SPAN,
    "clients.allowed_ips": {"type": "string"},
    "clients.dns": {"type": "string"},
    "clients.persistent_keepalive": _PORT,
    "state_directory": _PATH,
    "audit.directory": _PATH,
    "audit.key": _WORD,
    "audit.retention": _SPAN,
    "audit.rotate_size": {"type": "string", "pattern": "^[0-9]{1,6}[KMG]$"},
    "audit.rotate_age": _SPAN,
    "audit.journald": {"anyOf": [{"type": "boolean"}, _PATH]},
    "audit.syslog": {"type": "string", "pattern": "^.+:[0-9]{1,5}$"},
    "audit.syslog_ca": _PATH,
    "audit.syslog_certificate": _PATH,
    "audit.syslog_key": _PATH,
    "include": {"type": "string"},
}

# Written in another way than it is kept, or made from other values.
_NO_DEFAULT = frozenset(
    {
        "token.uri",
        "token.psk_overlap",
        "state_directory",
        "audit.directory",
        "audit.retention",
        "audit.rotate_size",
        "audit.rotate_age",
    }
)

_ABOUT = {
    "version": "The version of this schema.",
    "token": "The PKCS#11 token, and how it is used.",
    "token.uri": "pkcs11: URI of the token, with module-path and pin-source.",
    "token.uris": "URIs of several tokens with the same key, best first.",
    "token.at_start": "What to do when no token can be opened at the start.",
    "token.psk_root": "Label of the root of derived pre-shared keys.",
    "token.psk_wrap_key": "Label of the key that wraps pre-shared keys.",
    "token.psk_overlap": "How long the pre-shared key before a new epoch stays usable, such as 14d.",
    "token.environment": "Environment variables that the token's module needs.",
    "token.sessions": "Worker sessions at the token.",
    "token.cache_static_static": "Whether the custodian keeps the DH of the two static keys in its memory.",
    "interface": "The network interface and the gateway's own key.",
    "interface.name": "The interface's name, such as wg0.",
    "interface.key": "Label of the gateway's private key in the token.",
    "interface.previous_key": "Label of the key before it, which peers may still use.",
    "interface.listen_port": "UDP port; 0 lets the kernel pick one.",
    "interface.addresses": "Addresses of the interface, such as 10.8.0.1/24.",
    "interface.mtu": "MTU of the interface in bytes; auto: what the ways to the peers' endpoints leave.",
    "interface.table": "Where routes to allowed IPs go: auto, off, or the number of a routing table.",
    "interface.authority": "Who decides about peers: this file, or what sets them at run time.",
    "interface.fwmark": "Mark of the outer packets.",
    "peers": "The peers.",
    "peers.name": "A name for people, different for each peer.",
    "peers.public_key": "The peer's public key in base64.",
    "peers.preshared_key": "none, derived, derived:EPOCH, object:LABEL or wrapped:FILE; never the key itself.",
    "peers.migrate_from_none": "Whether the peer may go on without a pre-shared key until it has used it.",
    "peers.endpoint": "Where the peer listens: ADDRESS:PORT, NAME:PORT or [IPV6]:PORT.",
    "peers.allowed_ips": "The prefixes that the peer may use, such as 10.8.0.2/32.",
    "peers.persistent_keepalive": "Seconds between keepalives; 0 for none.",
    "peers.disabled": "Whether the gateway does as if the peer were not there.",
    "peers.expires": "The moment from which the gateway does as if the peer were not there, in UTC.",
    "peers.note": "A few words for people.",
    "peers.tags": "Words to find peers by.",
    "peers.allow": "Where the peer may go, such as 10.1.0.0/16 tcp/443.",
    "peers.rate_limit": "How fast, each way, such as 20Mbit.",
    "peers.quota": "How much, both ways together, such as 100G.",
    "firewall": "What the kernel's packet filter does for the gateway, in a table of its own.",
    "firewall.masquerade": "Interfaces by which peers go out with the gateway's address.",
    "hooks": "Programs that are run as root when the gateway starts and ends.",
    "hooks.up": "Each with its arguments, when the interface is there.",
    "hooks.down": "Each with its arguments, before the interface goes.",
    "firewall.isolate_clients": "Whether peers are kept from each other.",
    "clients": "What the files of clients say that wghsm peer writes.",
    "clients.endpoint": "Where clients find the gateway: ADDRESS:PORT, NAME:PORT or [IPV6]:PORT.",
    "clients.allowed_ips": "What clients send through the tunnel; left out: the networks of the interface.",
    "clients.dns": "Resolvers and search domains of clients.",
    "clients.persistent_keepalive": "Seconds between a client's keepalives; 0 for none.",
    "clients.preshared_key": "The kind of pre-shared key that a new client gets.",
    "include": "Folders with files of peers.",
    "psk": "Whether a peer may be without a pre-shared key.",
    "state_directory": "Where the custodian keeps what must outlive a restart.",
    "policy": "How old keys may become; wghsm inventory looks at it.",
    "policy.key_max_age": "Greatest age of the keys in the token, such as 730d.",
    "policy.psk_max_age": "Greatest age of a peer's pre-shared key, such as 365d.",
    "audit": "The audit log; without this section there is none.",
    "audit.enabled": "Whether there is one.",
    "audit.directory": "The folder of its files.",
    "audit.key": "Label of the key in the token that signs its checkpoints.",
    "audit.retention": "How long its files are kept, such as 400d.",
    "audit.rotate_size": "The size at which a new file is begun, such as 64M.",
    "audit.rotate_age": "The age at which a new file is begun, such as 7d.",
    "audit.journald": "Whether it goes to journald as well, or the path of the socket of one.",
    "audit.syslog": "A syslog server that it goes to over TLS: NAME:PORT.",
    "audit.syslog_ca": "The authorities that the server's certificate may come from, in PEM.",
    "audit.syslog_certificate": "The certificate to show to the server, in PEM.",
    "audit.syslog_key": "Its private key, in PEM.",
    "audit.on_failure": "What to do while the log cannot be kept.",
    "tunnel": "How the tunnel is run.",
    "tunnel.workers": "Pairs of egress and ingress that share the peers.",
    "users": "Who each process runs as: a uid or a user's name, each its own.",
    "log_level": "How much is written to the log.",
}


def json_schema() -> dict[str, Any]:
    """The schema of a gateway file."""
    schema = _object(Gateway, "")
    # One of the two is written.
    schema["properties"]["token"]["oneOf"] = [{"required": ["uri"]}, {"required": ["uris"]}]
    return {"$schema": _DRAFT, "title": "wghsm gateway file", **schema}


def peers_schema() -> dict[str, Any]:
    """The schema of a file of peers, which a gateway file includes."""
    peers = {"type": ["array", "null"], "items": _object(Peer, "peers."), "description": _ABOUT["peers"]}
    return {
        "$schema": _DRAFT,
        "title": "wghsm file of peers",
        "type": "object",
        "properties": {"peers": peers},
        "required": ["peers"],
        "additionalProperties": False,
    }


def _object(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    fields = model.model_fields
    return {
        "type": "object",
        "properties": {name: _property(prefix + name, field) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.is_required()],
        "additionalProperties": False,
    }


def _property(key: str, field: FieldInfo) -> dict[str, Any]:
    schema = dict(_kind(key, _bare(field.annotation)))
    if key in _ABOUT:
        schema["description"] = _ABOUT[key]
    if not field.is_required() and isinstance(field.default, bool | int | str | tuple) and key not in _NO_DEFAULT:
        schema["default"] = written(field.default)
    return schema


def _kind(key: str, annotation: Any) -> dict[str, Any]:
    """What a value of this type looks like in the file."""
    if get_origin(annotation) is tuple:
        item = _bare(get_args(annotation)[0])
        items = _kind(key, item)
        # A program is a list in a list.
        return {"type": ["array", "null"], "items": items | {"type": "array"} if "items" in items else items}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _object(annotation, f"{key}.")
    if key in _WRITTEN:
        return _WRITTEN[key]
    if get_origin(annotation) is Literal:
        return {"enum": list(get_args(annotation))}
    if annotation is bool:
        return {"type": "boolean"}
    if key.startswith("users."):
        return {"type": ["integer", "string"]}
    raise TypeError(f"nobody has said how {key} is written")


def _bare(annotation: Any) -> Any:
    """The type without its validators, and without None."""
    while get_origin(annotation) is typing.Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [each for each in get_args(annotation) if each is not type(None)]
        if len(kinds) == 1:
            return _bare(kinds[0])
    return annotation
