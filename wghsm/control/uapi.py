"""The WireGuard configuration protocol (UAPI) of PROTOCOL.md section 14, without I/O.

    bytes of a client -> next_operation -> Get | Set | Malformed;   DeviceView, PeerView -> format_device -> bytes

A Set is the whole operation as one value: it is checked whole before anything is applied. What policy says of
keys in it (`private_key`, `preshared_key`) is decided by the caller. Called by `_service`.
"""

from __future__ import annotations

import binascii
import errno
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wghsm.ipc.messages import DeviceChange, DeviceView, Endpoint, PeerChange, PeerView
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Get", "Malformed", "Operation", "Set", "format_device", "format_endpoint", "next_operation"]

MAX_OPERATION = 64 * 1024 * 1024
"""Greatest operation in bytes; 65,536 peers with a few prefixes each take some 20 MB."""

_KEY = 32
_GET = b"get=1\n"
_SET = b"set=1\n"


@dataclass(frozen=True)
class Get:
    """`get=1`."""


@dataclass(frozen=True)
class Set:
    """`set=1`, parsed whole.

    `private_key` and the values of `preshared_keys` (by peer public key) are 32 bytes each and secret: the
    receiver wipes them. They stand in no repr.
    """

    change: DeviceChange
    private_key: bytearray | None = field(default=None, repr=False)
    preshared_keys: dict[bytes, bytearray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Malformed:
    """The operation cannot be done: `errno` is positive; `close` if the connection makes no sense any more."""

    errno: int
    close: bool = True


Operation = Get | Set | Malformed


class _BadLine(Exception):  # noqa: N818
    def __init__(self, number: int) -> None:
        super().__init__()
        self.errno = number


def next_operation(buffer: bytearray, at_end: bool = False, searched: int = 0) -> Operation | None:
    """Take the first whole operation off `buffer` (and wipe what it took); None if more bytes are needed.

    `at_end` says that the client will send no more, which ends an operation too; `searched` how many bytes an
    earlier call has looked at in vain.
    """
    first = bytes(buffer[: len(_GET)])
    if not _GET.startswith(first) and not _SET.startswith(first):
        return Malformed(errno.EINVAL)
    end = buffer.find(b"\n\n", max(0, searched - 1))
    if end < 0:
        if first == _GET and len(buffer) > len(_GET):
            return Malformed(errno.EINVAL)
        if len(buffer) > MAX_OPERATION:
            return Malformed(errno.E2BIG)
        if not at_end or not buffer:
            return None
        end = len(buffer)
    raw = buffer[:end]
    buffer[: end + 2] = bytes(min(end + 2, len(buffer)))
    del buffer[: end + 2]
    try:
        return _parse(raw)
    finally:
        raw[:] = bytes(len(raw))


def _parse(raw: bytearray) -> Operation:
    lines = raw.split(b"\n")
    if lines[0] == b"get=1":
        return Get() if all(not line for line in lines[1:]) else Malformed(errno.EINVAL)
    if lines[0] != b"set=1":
        return Malformed(errno.EINVAL)
    parser = _SetParser()
    try:
        for line in lines[1:]:
            if line:
                parser.line(line)
    except _BadLine as bad:
        parser.wipe()
        return Malformed(bad.errno, close=True)
    finally:
        for line in lines:
            line[:] = bytes(len(line))
    return parser.finish()


class _SetParser:
    """Collects the lines of one set operation."""

    def __init__(self) -> None:
        self._private_key: bytearray | None = None
        self._preshared_keys: dict[bytes, bytearray] = {}
        self._listen_port: int | None = None
        self._fwmark: int | None = None
        self._replace_peers = False
        self._peers: list[PeerChange] = []
        self._peer: _PeerLines | None = None

    def line(self, line: bytearray) -> None:
        name, separator, value = line.partition(b"=")
        if not separator:
            raise _BadLine(errno.EPROTO)
        key = name.decode("ascii", "replace")
        if key == "public_key":
            self._end_peer()
            self._peer = _PeerLines(bytes(_hex_key(value)))
        elif self._peer is not None:
            if key == "preshared_key":
                self._preshared_keys[self._peer.public_key] = _hex_key(value)
            else:
                self._peer.line(key, value.decode("ascii", "replace"))
        elif key == "private_key":
            self._private_key = _hex_key(value)
        elif key == "listen_port":
            self._listen_port = _number(value.decode("ascii", "replace"), 0xFFFF)
        elif key == "fwmark":
            self._fwmark = _number(value.decode("ascii", "replace"), 0xFFFFFFFF)
        elif key == "replace_peers":
            _require_true(value.decode("ascii", "replace"))
            self._replace_peers = True
        else:
            raise _BadLine(errno.EINVAL)
        value[:] = bytes(len(value))

    def finish(self) -> Set:
        self._end_peer()
        change = DeviceChange(self._listen_port, self._fwmark, self._replace_peers, self._peers)
        return Set(change, self._private_key, self._preshared_keys)

    def wipe(self) -> None:
        for key in (self._private_key, *self._preshared_keys.values()):
            if key is not None:
                key[:] = bytes(len(key))

    def _end_peer(self) -> None:
        if self._peer is not None:
            self._peers.append(self._peer.finish())
            self._peer = None


class _PeerLines:
    """Collects the lines of one peer."""

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
        self._remove = False
        self._update_only = False
        self._endpoint: Endpoint | None = None
        self._keepalive: int | None = None
        self._replace_allowed_ips = False
        # Dictionaries for their order: a peer may have a hundred thousand prefixes.
        self._add: dict[str, None] = {}
        self._drop: dict[str, None] = {}

    def line(self, key: str, value: str) -> None:
        match key:
            case "remove":
                _require_true(value)
                self._remove = True
            case "update_only":
                _require_true(value)
                self._update_only = True
            case "endpoint":
                self._endpoint = _endpoint(value)
            case "persistent_keepalive_interval":
                self._keepalive = _number(value, 0xFFFF)
            case "replace_allowed_ips":
                _require_true(value)
                self._replace_allowed_ips = True
                self._add.clear()
                self._drop.clear()
            case "allowed_ip":
                self._allowed_ip(value)
            case "protocol_version":
                if value != "1":
                    raise _BadLine(errno.EINVAL)
            case _:
                raise _BadLine(errno.EINVAL)

    def finish(self) -> PeerChange:
        return PeerChange(
            public_key=self.public_key,
            remove=self._remove,
            update_only=self._update_only,
            endpoint=self._endpoint,
            persistent_keepalive=self._keepalive,
            replace_allowed_ips=self._replace_allowed_ips,
            add_allowed_ips=list(self._add),
            remove_allowed_ips=list(self._drop),
        )

    def _allowed_ip(self, value: str) -> None:
        text = value.removeprefix("-")
        if "/" not in text:
            raise _BadLine(errno.EINVAL)
        try:
            prefix = str(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise _BadLine(errno.EINVAL) from None
        # Removals are done after additions, so that a prefix which is added and then removed leaves its old owner.
        if value.startswith("-"):
            self._drop[prefix] = None
        else:
            self._add[prefix] = None
            self._drop.pop(prefix, None)


def _hex_key(value: bytearray) -> bytearray:
    if len(value) != 2 * _KEY:
        raise _BadLine(errno.EINVAL)
    try:
        raw = binascii.unhexlify(value)
    except binascii.Error:
        raise _BadLine(errno.EINVAL) from None
    key = bytearray(raw)
    wipe(raw)
    return key


def _number(value: str, greatest: int) -> int:
    if not (value.isascii() and value.isdigit()) or int(value) > greatest:
        raise _BadLine(errno.EINVAL)
    return int(value)


def _require_true(value: str) -> None:
    if value != "true":
        raise _BadLine(errno.EINVAL)


def _endpoint(value: str) -> Endpoint:
    host, _, port = value.rpartition(":")
    try:
        if host.startswith("[") and host.endswith("]"):
            address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv6Address(host[1:-1])
        else:
            address = ipaddress.IPv4Address(host)
    except ValueError:
        raise _BadLine(errno.EINVAL) from None
    return Endpoint(str(address).partition("%")[0], _number(port, 0xFFFF), _scope(address))


def _scope(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    zone = getattr(address, "scope_id", None)
    if zone is None:
        return 0
    return _number(zone, 0xFFFFFFFF)


def format_endpoint(endpoint: Endpoint) -> str:
    """`192.0.2.1:51820` or `[2001:db8::1%3]:51820`."""
    if ":" not in endpoint.host:
        return f"{endpoint.host}:{endpoint.port}"
    zone = f"%{endpoint.scope}" if endpoint.scope else ""
    return f"[{endpoint.host}{zone}]:{endpoint.port}"


def format_device(device: DeviceView, peers: Iterable[PeerView]) -> bytes:
    """The whole answer to `get=1`, `errno=0` included. No key but public ones stands in it.

    A peer that comes in several parts (same key, one after the other) is written once.
    """
    lines: list[str] = []
    if device.public_key is not None:
        lines.append(f"own_public_key={device.public_key.hex()}")
    if device.listen_port:
        lines.append(f"listen_port={device.listen_port}")
    if device.fwmark:
        lines.append(f"fwmark={device.fwmark}")
    last_key = b""
    for peer in peers:
        if peer.public_key != last_key:
            lines += _peer_lines(peer)
            last_key = peer.public_key
        lines += [f"allowed_ip={prefix}" for prefix in peer.allowed_ips]
    lines.append("errno=0\n\n")
    return "\n".join(lines).encode("ascii")


def _peer_lines(peer: PeerView) -> list[str]:
    seconds, nanoseconds = divmod(peer.last_handshake_unix, 1_000_000_000)
    lines = [f"public_key={peer.public_key.hex()}"]
    if peer.endpoint is not None:
        lines.append(f"endpoint={format_endpoint(peer.endpoint)}")
    lines += [
        f"last_handshake_time_sec={seconds}",
        f"last_handshake_time_nsec={nanoseconds}",
        f"tx_bytes={peer.tx_bytes}",
        f"rx_bytes={peer.rx_bytes}",
        f"persistent_keepalive_interval={peer.persistent_keepalive}",
        "protocol_version=1",
    ]
    return lines
