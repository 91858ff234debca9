"""One value of the gateway file each: text in, typed value out, or a fault with its remedy.

Called by the fields of `_model`. Every reader also takes the finished value (so that models can be made in
Python) and raises `PydanticCustomError` of type "wghsm" with `problem` and `remedy` (`_scalar.fault`).
"""

import binascii
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from wghsm.config._scalar import fault, is_key, keylike, number, shown, text_of
from wghsm.config._yaml import Scalar

__all__ = ["Endpoint"]

_T = TypeVar("_T")
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer listens: an address or a host name (not resolved here) and a UDP port, 1 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        """As the gateway file writes it: an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def label(value: object, what: str) -> str:
    """A CKA_LABEL: 1 to 255 bytes of printable UTF-8. Text that looks like a key is refused, unseen."""
    text = text_of(value, f"write the label of {what} in the token")
    if is_key(text):
        fault(f"a key stands where the label of {what} belongs", "keep keys in the token, and write the label here")
    if not text or not text.isprintable() or len(text.encode()) > 255 or text != text.strip():
        fault(f"the label of {what} is empty, too long or not printable", "write 1 to 255 printable characters")
    return text


def peer_name(value: object) -> str:
    """A peer's name: 1 to 64 printable characters, not a key, no slash."""
    text = text_of(value, "write a short name, such as alice")
    if is_key(text):
        fault("a key stands where the peer's name belongs", "write a short name, such as alice")
    if not text or not text.isprintable() or len(text) > 64 or text != text.strip() or "/" in text:
        fault(f"a peer cannot be named {shown(text)}", "write 1 to 64 printable characters, no slash")
    return text


def interface_name(value: object) -> str:
    """An interface name that wg(8) and the kernel take: 1 to 15 of [a-zA-Z0-9_=+.-]."""
    text = text_of(value, "write an interface name, such as wg0")
    if text in {".", "..", "all", "default", "lo"}:
        fault(f"the kernel keeps the interface name {text} for itself", "write another name, such as wg0")
    if not re.fullmatch(r"[a-zA-Z0-9_=+.-]{1,15}", text):
        fault(
            f"the kernel or wg(8) would refuse the interface name {shown(text)}",
            "write 1 to 15 letters, digits or _ = + . -, such as wg0",
        )
    return text


_P = 2**255 - 19
_LOW_ORDER = frozenset(
    {
        0,
        1,
        _P - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


_PUBLIC_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")


def public_key(value: object) -> bytes:
    """A Curve25519 public key: 44 characters of base64 to 32 bytes. Points of low order are refused."""
    remedy = "write the 44 characters that `wg pubkey` or `wghsm key public` prints"
    if isinstance(value, bytes):
        if len(value) != 32:
            fault(f"a public key has 32 bytes, not {len(value)}", remedy)
        return value
    text = text_of(value, remedy)
    if _PUBLIC_KEY.fullmatch(text):
        key = binascii.a2b_base64(text)
        if _is_low_order(key):
            fault("the public key is a point of low order, with which no handshake can succeed", remedy)
        return key
    for place, character in enumerate(text.rstrip("="), 1):
        if not re.fullmatch(r"[A-Za-z0-9+/]", character):
            fault(f"the public key has {character!a} at place {place}, which is not base64", remedy)
    if len(text) != 44:
        fault(f"the public key has {len(text)} characters, not 44", remedy)
    if text.find("=") != 43:
        fault("the public key does not end in one = sign", remedy)
    return fault("the last characters of the public key are wrong", f"{remedy}; a character was lost or changed")


def _is_low_order(key: bytes) -> bool:
    return (int.from_bytes(key, "little") & (2**255 - 1)) % _P in _LOW_ORDER


def duration(value: object, what: str) -> int:
    """Seconds, from a number of days, hours or minutes: `14d`, `36h`, `90m`; at most ten years."""
    remedy = "write a number and d, h or m, such as 14d"
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = text_of(value, remedy)
    if not re.fullmatch(r"[0-9]{1,7}[dhm]", text, re.ASCII):
        fault(f"{what} cannot be {shown(text)}", remedy)
    seconds = int(text[:-1]) * {"d": 86_400, "h": 3600, "m": 60}[text[-1]]
    if seconds > 3650 * 86_400:
        fault(f"{what} {text} is too long", "write at most 3650d")
    return seconds


def moment(value: object, what: str) -> datetime:
    """A moment in UTC: `2027-03-31`, which is 00:00 on that day, or `2027-03-31T18:00Z`, with or without seconds."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    remedy = "write a day such as 2027-03-31, which begins at 00:00 UTC, or a moment such as 2027-03-31T18:00Z"
    text = text_of(value, remedy)
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z)?", text, re.ASCII):
        fault(f"{what} cannot be {shown(text)}", remedy)
    try:
        return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError:
        fault(f"there is no such moment: {shown(text)}", remedy)


def note(value: object) -> str:
    """Words for people: up to 200 printable characters on one line, no key."""
    text = text_of(value, "write a few words")
    if keylike(text):
        fault("a key stands where a note belongs", "write a few words")
    if not text.isprintable() or len(text) > 200:
        fault("the note is too long or not printable", "write up to 200 printable characters on one line")
    return text


def tag(value: object) -> str:
    """A word to find peers by: 1 to 32 letters, digits or `_ . -`."""
    remedy = "write a word of up to 32 letters, digits or _ . -, such as phone"
    text = text_of(value, remedy)
    if not re.fullmatch(r"[\w.-]{1,32}", text):
        fault(f"{shown(text)} is no tag", remedy)
    return text


def resolver(value: object) -> str:
    """A DNS server's address, or a search domain, for clients' files."""
    remedy = "write a DNS server's address such as 10.8.0.1, or a search domain"
    text = text_of(value, remedy)
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not re.fullmatch(r"(?!-)[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*\.?", text) or len(text) > 253 or text[-1].isdigit():
        fault(f"{shown(text)} is neither an address nor a domain", remedy)
    return text.lower()


def size(value: object, what: str) -> int:
    """Bytes, from a number of kibi-, mebi- or gibibytes: `512K`, `64M`, `2G`; 64K to 64G."""
    remedy = "write a number and K, M or G, such as 64M"
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = text_of(value, remedy)
    if not re.fullmatch(r"[0-9]{1,6}[KMG]", text, re.ASCII):
        fault(f"{what} cannot be {shown(text)}", remedy)
    found = int(text[:-1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[text[-1]]
    if not 2**16 <= found <= 2**36:
        fault(f"{what} {text} is out of range", "write 64K to 64G")
    return found


def journald(value: object) -> bool | str:
    """`true`, `false`, or the absolute path of the socket of a journald."""
    if isinstance(value, bool):
        return value
    remedy = "write true, false or the path of its socket"
    text = text_of(value, remedy)
    if text in ("true", "false"):
        return text == "true"
    if not text.startswith("/") or not text.isprintable() or len(text) > 100:
        fault(f"journald cannot be {shown(text)}", remedy)
    return text


def endpoint(value: object) -> Endpoint:
    """HOST:PORT or [IPV6]:PORT. Addresses come out in their shortest form, host names in small letters."""
    if isinstance(value, Endpoint):
        return value
    remedy = 'write ADDRESS:PORT, NAME:PORT or "[IPV6]:PORT", such as 192.0.2.7:51820'
    text = text_of(value, remedy)
    bracketed = re.fullmatch(r"\[([^\[\]]*)\]:(.*)", text)
    host, colon, port_text = (bracketed[1], ":", bracketed[2]) if bracketed else text.rpartition(":")
    if not bracketed and (":" in host or "[" in text):
        fault(f"the IPv6 endpoint {shown(text)} is not in brackets with a port", 'write "[IPV6]:PORT", in quotes')
    if not colon:
        fault(f"the endpoint {shown(text)} has no port", remedy)
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 1 <= int(port_text) <= 65535:
        fault(f"the endpoint's port is {shown(port_text)}", "write a port from 1 to 65535")
    return Endpoint(_host(host, ipv6=bool(bracketed)), int(port_text))


def _host(text: str, *, ipv6: bool) -> str:
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    try:
        address = ipaddress.IPv6Address(text) if ipv6 else ipaddress.IPv4Address(text)
    except ValueError:
        address = None
    if address is not None:
        scope = address.scope_id if isinstance(address, ipaddress.IPv6Address) else None
        if address.is_unspecified or address.is_multicast:
            fault(f"no peer can be reached at {address}", "write the peer's own address")
        if scope is not None and not re.fullmatch(r"[a-zA-Z0-9_=+.-]{1,15}", scope):
            fault(f"the endpoint's scope {shown(scope)} is no interface name", 'write "[fe80::1%eth0]:51820"')
        return str(address)
    if ipv6:
        fault(f"{shown(text)} is no IPv6 address", 'write "[IPV6]:PORT", such as "[2001:db8::7]:51820"')
    labels = text.removesuffix(".").split(".")
    good = len(text) <= 253 and all(re.fullmatch(r"(?!-)[a-zA-Z0-9_-]{1,63}(?<!-)", part) for part in labels)
    if not good or labels[-1].isdigit():
        fault(
            f"{shown(text)} is neither an IPv4 address nor a host name",
            "write an address or a name in ASCII (xn-- for other letters), then :PORT",
        )
    return text.lower()


def address(value: object) -> IPInterface:
    """An address of the interface with its prefix length; a bare address gets /32 or /128."""
    if isinstance(value, ipaddress.IPv4Interface | ipaddress.IPv6Interface):
        return value
    remedy = 'write ADDRESS/LENGTH, such as 10.8.0.1/24 or "fd08::1/64"'
    text = text_of(value, remedy)
    result = _read_prefix(text, remedy, ipaddress.ip_interface)
    if result.ip.is_unspecified or result.ip.is_multicast:
        fault(f"an interface cannot have the address {result.ip}", remedy)
    return result


def allowed_ip(value: object) -> IPNetwork:
    """A prefix that a peer may use; host bits are cleared, as wg(8) does; a bare address is one host."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    remedy = 'write PREFIX/LENGTH, such as 10.8.0.2/32 or "fd08::2/128"'
    return _read_prefix(text_of(value, remedy), remedy, _network)


def _network(text: str) -> IPNetwork:
    return (ipaddress.IPv6Network if ":" in text else ipaddress.IPv4Network)(text, strict=False)


def _read_prefix(text: str, remedy: str, reader: Callable[[str], _T]) -> _T:
    host, slash, length = text.partition("/")
    # ipaddress also takes net masks and host masks, which can be read two ways, and scopes, which mean nothing here.
    if "%" in host or (slash and not re.fullmatch(r"[0-9]{1,3}", length)):
        fault(f"{shown(text)} is not an address with a prefix length", remedy)
    try:
        return reader(text)
    except ValueError:
        fault(f"{shown(text)} is not an address with a prefix length", remedy)


def version(value: object) -> Literal[1]:
    """The schema's version, 1."""
    remedy = "write version: 1, the only version there is"
    if number(value, 0, 10**12, "version", remedy) != 1:
        fault("this version of the gateway file is not known here", remedy)
    return 1


def mtu(value: object) -> Literal["auto"] | int:
    """`auto`, or bytes, 576 to 65455 (65535 less WireGuard's 80 outside)."""
    remedy = "write a number of bytes from 576 to 65455, such as 1420, or auto"
    if not isinstance(value, int) and text_of(value, remedy) == "auto":
        return "auto"
    return number(value, 576, 65455, "mtu", remedy)


def table(value: object) -> Literal["auto", "off"] | int:
    """`auto`, `off`, or a routing table's number, 1 to 4294967295."""
    remedy = "write auto, off or a table's number, 1 to 4294967295"
    if isinstance(value, int):
        return number(value, 1, 2**32 - 1, "table", remedy)
    text = text_of(value, remedy)
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    return number(value, 1, 2**32 - 1, "table", remedy)


def fwmark(value: object) -> int:
    """0 or `off`, a number, or 0x and hexadecimal digits; at most 32 bits."""
    remedy = "write off, a number up to 4294967295, or hexadecimal such as 0xca6c"
    if not isinstance(value, int):
        text = text_of(value, remedy)
        if text == "off":
            return 0
        if re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}", text):
            return int(text, 16)
    return number(value, 0, 2**32 - 1, "fwmark", remedy)


def user(value: object) -> int | str:
    """A numeric uid other than 0, or a user's name other than root."""
    remedy = "write a uid from 1 to 4294967293 or a user's name; each room needs its own"
    if isinstance(value, int):
        return number(value, 1, 2**32 - 3, "the uid", remedy)
    text = text_of(value, remedy)
    if re.fullmatch(r"-?[0-9]+", text):
        return number(Scalar(text, plain=True), 1, 2**32 - 3, "the uid", remedy)
    if text == "root" or not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,31}", text):
        fault(f"a room cannot run as {shown(text)}", remedy)
    return text


def variable(value: object) -> str:
    """The name of an environment variable; the value stays in the environment."""
    remedy = "write names only, such as SOFTHSM2_CONF"
    text = text_of(value, remedy)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", text):
        what = "a variable with a value" if "=" in text else "this"
        fault(f"{what} is not the name of an environment variable", remedy)
    return text


def directory(value: object) -> Path:
    """An absolute path without `..`."""
    if isinstance(value, Path):
        return value
    remedy = "write an absolute path, such as /var/lib/wghsm/wg0"
    text = text_of(value, remedy)
    if not text.startswith("/") or not text.isprintable() or ".." in text.split("/") or len(text) > 200:
        fault(f"{shown(text)} is not an absolute path of at most 200 characters", remedy)
    return Path(text)


def program(value: object) -> tuple[str, ...]:
    """A program by its absolute path, and its arguments, which go to it as they are."""
    if isinstance(value, tuple):
        return value
    remedy = "write a list with the program's path and its arguments, such as [/usr/local/bin/notify, up]"
    if not isinstance(value, list) or not value:
        fault("a list of a program and its arguments belongs here", remedy)
    words = tuple(text_of(each, remedy) for each in value)
    # Long paths look like parts of keys, so only whole ones are looked for.
    if any(re.search(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=", word) for word in words):
        fault("a key stands among the program's arguments, which every user of the machine can see", remedy)
    if not words[0].startswith("/"):
        fault(f"{shown(words[0])} is not the absolute path of a program", remedy)
    if any("\0" in word or len(word) > 4096 for word in words) or len(words) > 100:
        fault("the program has too many arguments, or one that is too long", remedy)
    return words


def folder(value: object) -> str:
    """A folder of files of peers, absolute or from the gateway file's own; no `..`."""
    remedy = "write a folder beside this file, such as peers.d"
    text = text_of(value, remedy)
    if not text or not text.isprintable() or ".." in text.split("/") or len(text) > 200 or text != text.strip():
        fault(f"{shown(text)} is no folder that can be included", remedy)
    return text
