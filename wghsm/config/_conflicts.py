"""Rules between the values of a gateway file. They look at whatever values are good, so that a bad one
elsewhere in the file hides nothing.

Called by `_load`. In: the tree and its lines, and the gateway where every value is good: then none is read again.
Out: (line, message, remedy) of each fault.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic_core import PydanticCustomError

from wghsm.config import _psk as p
from wghsm.config import _values as v
from wghsm.config._model import Gateway, Users
from wghsm.config._scalar import choice, flag
from wghsm.config._token_uri import needs_an_operator, token_uri
from wghsm.config._yaml import Document, Path, Raw, Scalar

__all__ = ["conflicts"]

_T = TypeVar("_T")
_Fault = tuple[int, str, str]


@dataclass(slots=True)
class _Peer:
    """The good values of a peer. `prefixes` with their places in the list."""

    name: str | None
    public_key: bytes | None
    psk: p.Psk | None
    migrates: bool | None
    prefixes: Sequence[tuple[int, v.IPNetwork]]


def conflicts(document: Document, gateway: Gateway | None = None) -> Iterator[_Fault]:
    """Every fault between two values of the file. `gateway`: what its tree comes to, if no value of it is bad."""
    root = document.root
    if gateway is None:
        peers = [_read(_entries(peer)) for peer in _items(_entries(root).get("peers"))]
    else:
        peers = [
            _Peer(
                each.name, each.public_key, each.preshared_key, each.migrate_from_none, [*enumerate(each.allowed_ips)]
            )
            for each in gateway.peers
        ]
    names, keys = ([each.name for each in peers], [each.public_key for each in peers])
    yield from _twice(document, names, "name", "two peers with one name", "give each peer its own name")
    yield from _twice(
        document,
        keys,
        "public_key",
        "two peers with one public key",
        "make a key pair for each peer, or keep one entry",
    )
    yield from _prefixes(document, peers)
    yield from _uris(document)
    yield from _one_key_twice(document)
    yield from _token_needs(document, peers)
    yield from _shared_psks(document, peers)
    yield from _without_psk(document, peers)
    yield from _addresses(document)
    yield from _small_mtu(document)
    yield from _shared_users(document)
    yield from _syslog(document)


def _read(peer: dict[str, Raw]) -> _Peer:
    found = ((place, _good(v.allowed_ip, raw)) for place, raw in enumerate(_items(peer.get("allowed_ips"))))
    return _Peer(
        _good(v.peer_name, peer.get("name")),
        _good(v.public_key, peer.get("public_key")),
        _good(p.psk, peer.get("preshared_key")),
        _good(lambda x: flag(x, "migrate_from_none"), peer.get("migrate_from_none")),
        [(place, prefix) for place, prefix in found if prefix is not None],
    )


def _twice(
    document: Document, values: Sequence[Hashable | None], key: str, message: str, remedy: str
) -> Iterator[_Fault]:
    seen: dict[Hashable, int] = {}
    for index, value in enumerate(values):
        if value is None:
            continue
        first = seen.setdefault(value, index)
        if first != index:
            other = document.line(("peers", first, key))
            yield document.line(("peers", index, key)), f"{message}; the other is on line {other}", remedy


def _prefixes(document: Document, peers: list[_Peer]) -> Iterator[_Fault]:
    owners: dict[v.IPNetwork, tuple[int, int]] = {}
    for index, peer in enumerate(peers):
        for place, prefix in peer.prefixes:
            first = owners.setdefault(prefix, (index, place))
            if first == (index, place):
                continue
            masked = "" if _written_as(document, index, place, str(prefix)) else " (host bits cleared)"
            under = "listed twice for one peer" if first[0] == index else "under two peers"
            other = document.line(("peers", first[0], "allowed_ips", first[1]))
            yield (
                document.line(("peers", index, "allowed_ips", place)),
                f"the prefix {prefix}{masked} is {under}; the other is on line {other}",
                "keep it once; a longer prefix inside it may go to another peer",
            )


def _written_as(document: Document, peer: int, place: int, text: str) -> bool:
    entries = _entries(_items(_entries(document.root).get("peers"))[peer])
    raw = _items(entries.get("allowed_ips"))[place]
    return isinstance(raw, Scalar) and raw.text == text


def _uris(document: Document) -> Iterator[_Fault]:
    token = _entries(document.root).get("token")
    if not isinstance(token, dict):
        return
    uris = token.get("uris")
    if "uri" not in token and "uris" not in token:
        remedy = "write uri: with the token's pkcs11: URI, or uris: with several that hold the same key"
        yield document.line(("token",)), "uri is missing under token:", remedy
    elif "uri" in token and "uris" in token:
        yield (
            document.line(("token", "uris")),
            "uri and uris exclude each other",
            "keep uris:, with all of them in order",
        )
    elif "uris" in token and not _items(uris) and (isinstance(uris, list) or _good(_null, uris) is not None):
        yield document.line(("token", "uris")), "uris is empty", "write at least one pkcs11: URI"
    authority = _entries(_entries(document.root).get("interface")).get("authority")
    at_run_time = _good(lambda x: choice(x, ("runtime",), "authority"), authority) is not None
    if at_run_time and len(_items(uris)) > 1:
        message = "authority: runtime writes pre-shared keys into the token in use, and the others would lack them"
        yield document.line(("token", "uris")), message, "name one token with uri:, or write authority: file"
    seen: dict[str, Path] = {}
    for place, raw in enumerate(_items(uris)):
        uri = _good(token_uri, raw)
        if uri is None:
            continue
        path: Path = ("token", "uris", place)
        first = seen.setdefault(uri, path)
        if first != path:
            yield document.line(path), f"this URI stands twice; first on line {document.line(first)}", "keep it once"
        if len(_items(uris)) > 1 and needs_an_operator(uri):
            yield (
                document.line(path),
                "one of several tokens whose PIN somebody has to type: the gateway could not turn to it by itself",
                "write pin-source=file:PATH, credential:NAME or command:PATH",
            )


def _null(raw: object) -> bool | None:
    return True if isinstance(raw, Scalar) and raw.is_null else None


def _one_key_twice(document: Document) -> Iterator[_Fault]:
    interface = _entries(_entries(document.root).get("interface"))
    current, previous = (_good(lambda x: v.label(x, "a key"), interface.get(name)) for name in ("key", "previous_key"))
    if current is not None and current == previous:
        yield (
            document.line(("interface", "previous_key")),
            "previous_key is key; it is for the key that the gateway had before, which peers may still use",
            "remove the line, or make another key with `wghsm key rotate`",
        )


def _token_needs(document: Document, peers: list[_Peer]) -> Iterator[_Fault]:
    token = _entries(_entries(document.root).get("token"))
    for index, peer in enumerate(peers):
        if isinstance(peer.psk, p.PskDerived) and "psk_root" not in token:
            yield (
                document.line(("peers", index, "preshared_key")),
                "preshared_key: derived needs token.psk_root, which is not set",
                "make a root with `wghsm psk derive-root LABEL` and write psk_root: LABEL under token:",
            )
        if isinstance(peer.psk, p.PskWrapped) and "psk_wrap_key" not in token:
            yield (
                document.line(("peers", index, "preshared_key")),
                "preshared_key: wrapped:FILE needs token.psk_wrap_key, which is not set",
                "write psk_wrap_key: LABEL under token:, then make the key with `wghsm psk wrap --make-key`",
            )


def _shared_psks(document: Document, peers: list[_Peer]) -> Iterator[_Fault]:
    seen: dict[Hashable, int] = {}
    for index, peer in enumerate(peers):
        if not isinstance(peer.psk, p.PskObject | p.PskWrapped):
            continue
        first = seen.setdefault(peer.psk, index)
        if first != index:
            what = "one label" if isinstance(peer.psk, p.PskObject) else "one file"
            other = document.line(("peers", first, "preshared_key"))
            message = f"two peers with {what} for their pre-shared keys; the other is on line {other}"
            yield (
                document.line(("peers", index, "preshared_key")),
                message,
                "give each peer a pre-shared key of its own",
            )


def _without_psk(document: Document, peers: list[_Peer]) -> Iterator[_Fault]:
    required = _good(lambda x: choice(x, ("optional", "required"), "psk"), _entries(document.root).get("psk"))
    for index, peer in enumerate(peers):
        if isinstance(peer.psk, p.PskNone) and required == "required":
            line = document.line(("peers", index, "preshared_key"))
            yield line, "psk: required, and this peer has none", "give it one, such as derived"
        if peer.migrates and required == "required":
            message = "psk: required, and migrate_from_none lets this peer in without one"
            yield document.line(("peers", index, "migrate_from_none")), message, "remove one of the two"
        if peer.migrates and isinstance(peer.psk, p.PskNone):
            message = "migrate_from_none leads from none to a pre-shared key, and preshared_key is none"
            yield document.line(("peers", index, "migrate_from_none")), message, "write derived, or remove the line"


def _addresses(document: Document) -> Iterator[_Fault]:
    seen: dict[object, Path] = {}
    for place, raw in enumerate(_items(_entries(_entries(document.root).get("interface")).get("addresses"))):
        address = _good(v.address, raw)
        path: Path = ("interface", "addresses", place)
        if address is not None and seen.setdefault(address.ip, path) != path:
            first = document.line(seen[address.ip])
            yield document.line(path), f"the address {address.ip} stands twice; first on line {first}", "keep it once"


def _small_mtu(document: Document) -> Iterator[_Fault]:
    interface = _entries(_entries(document.root).get("interface"))
    mtu = _good(v.mtu, interface.get("mtu"))
    if mtu is None or mtu == "auto" or mtu >= 1280:
        return
    for raw in _items(interface.get("addresses")):
        address = _good(v.address, raw)
        if address is not None and address.version == 6:
            message = f"mtu {mtu} is too small for the IPv6 address {address}"
            yield document.line(("interface", "mtu")), message, "write 1280 or more, or use IPv4 addresses only"
            return


def _shared_users(document: Document) -> Iterator[_Fault]:
    written = _entries(_entries(document.root).get("users"))
    if not written:
        return
    owners: dict[int | str, str] = {}
    # Rooms left out come first, so that the complaint falls on a line that was written.
    for room in sorted(Users.model_fields, key=lambda name: name in written):
        user = _good(v.user, written[room]) if room in written else Users.model_fields[room].default
        if user is not None and owners.setdefault(user, room) != room:
            yield (
                document.line(("users", room)),
                f"{room} would run as the same user as {owners[user]}, and each could signal the other",
                "give each room its own user",
            )


def _syslog(document: Document) -> Iterator[_Fault]:
    audit = _entries(_entries(document.root).get("audit"))
    for name in ("syslog_ca", "syslog_certificate", "syslog_key"):
        if name in audit and "syslog" not in audit:
            yield (
                document.line(("audit", name)),
                f"{name} without syslog",
                "write syslog: NAME:PORT, or remove the line",
            )
    pair = [name for name in ("syslog_certificate", "syslog_key") if name in audit]
    if len(pair) == 1:
        missing = {"syslog_certificate": "syslog_key", "syslog_key": "syslog_certificate"}[pair[0]]
        yield document.line(("audit", pair[0])), f"{pair[0]} without {missing}", f"write {missing}: too, or neither"


def _good(reader: Callable[[object], _T], raw: Raw | None) -> _T | None:
    """The value, or None if it is missing or bad (which `_load` reports)."""
    if raw is None:
        return None
    try:
        return reader(raw)
    except PydanticCustomError:
        return None


def _entries(raw: Raw | None) -> dict[str, Raw]:
    return raw if isinstance(raw, dict) else {}


def _items(raw: Raw | None) -> list[Raw]:
    return raw if isinstance(raw, list) else []
