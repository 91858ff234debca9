"""`pkcs11:` URIs (RFC 7512): which module, which token, which object, where the PIN comes from.

    pkcs11:token=gw;serial=12ab?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/wghsm/pin
           path attributes       query attributes

The vendor's attribute x-init-args is ours: the string that a module such as NSS wants at C_Initialize (pReserved).
A PIN in the URI itself (pin-value) is refused: URIs end up in logs and process lists.
"""

import re
from dataclasses import dataclass

from wghsm.pkcs11_backend.errors import UriError

__all__ = ["TokenUri"]

_PATH = ("token", "manufacturer", "model", "serial", "slot-id", "object", "id")
_QUERY = ("module-path", "pin-source", "x-init-args")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_PLAIN = _UNRESERVED | frozenset(b":[]@!$'()*+,=&")
_QUERY_PLAIN = _UNRESERVED | frozenset(b":[]@!$'()*+,=/?|")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class TokenUri:
    """One parsed URI; None where it does not name the attribute. `id` is raw bytes, `slot_id` a CK_SLOT_ID."""

    module_path: str | None = None
    token: str | None = None
    serial: str | None = None
    slot_id: int | None = None
    object: str | None = None
    id: bytes | None = None
    pin_source: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    init_args: str | None = None

    @classmethod
    def parse(cls, text: str) -> "TokenUri":
        """Parse `text`; raises UriError (one line: what is wrong, what to write) on anything RFC 7512 or we refuse."""
        if not text.startswith("pkcs11:"):
            raise UriError('token URI: it must begin with "pkcs11:", as in pkcs11:token=gw?module-path=/path/module.so')
        path, _, query = text.removeprefix("pkcs11:").partition("?")
        found: dict[str, bytes] = {}
        for section, separator, known, other in ((path, ";", _PATH, _QUERY), (query, "&", _QUERY, _PATH)):
            for part in filter(None, section.split(separator)):
                name, equals, value = part.partition("=")
                _check_name(name, known, other)
                if not equals:
                    raise UriError(f'token URI: "{name}" has no value; write {name}=VALUE')
                if name in found:
                    raise UriError(f'token URI: "{name}" is given twice; keep one')
                found[name] = _decode(name, value)
        return cls(
            module_path=_absolute(_text(found, "module-path")),
            token=_text(found, "token"),
            serial=_text(found, "serial"),
            slot_id=_number(_text(found, "slot-id")),
            object=_text(found, "object"),
            id=found.get("id"),
            pin_source=_text(found, "pin-source"),
            manufacturer=_text(found, "manufacturer"),
            model=_text(found, "model"),
            init_args=_text(found, "x-init-args"),
        )

    def __str__(self) -> str:
        """Write the URI so that parsing it gives this value again; it names the PIN's source, never the PIN."""
        slot = None if self.slot_id is None else str(self.slot_id)
        path = (self.token, self.manufacturer, self.model, self.serial, slot, self.object, self.id)
        query = (self.module_path, self.pin_source, self.init_args)
        text = "pkcs11:" + ";".join(_encode(_PATH, path, _PATH_PLAIN))
        asked = "&".join(_encode(_QUERY, query, _QUERY_PLAIN))
        return f"{text}?{asked}" if asked else text

    def describe_token(self) -> str:
        """Name the wanted token for a message: `token 'gw'`, with serial and slot where the URI gives them."""
        words = [f"token {self.token!r}" if self.token is not None else "a token"]
        for name, value in (("serial", self.serial), ("manufacturer", self.manufacturer), ("model", self.model)):
            if value is not None:
                words.append(f"{name} {value!r}")
        if self.slot_id is not None:
            words.append(f"slot {self.slot_id}")
        return ", ".join(words)


def _check_name(name: str, known: tuple[str, ...], other: tuple[str, ...]) -> None:
    if name in known:
        return
    if name == "pin-value":
        raise UriError(
            "token URI: pin-value is refused, a PIN in a URI ends up in logs; put the PIN into a file of mode 0600 "
            "and write pin-source=file:/path"
        )
    if name in other:
        mark = "after the ?" if known is _PATH else "before the ?"
        raise UriError(f'token URI: "{name}" stands on the wrong side; write it {mark}')
    shown = name if name.isascii() and name.isprintable() else ascii(name)
    raise UriError(f'token URI: unknown attribute "{shown}"; known here: {", ".join(known)}')


def _decode(name: str, value: str) -> bytes:
    if _BAD_PERCENT.search(value):
        raise UriError(f'token URI: "{name}" holds a % that is no %XX escape; write a real % as %25')
    if any(not 0x21 <= ord(sign) <= 0x7E for sign in value):
        raise UriError(f'token URI: "{name}" holds a space or another sign that must be escaped; write a space as %20')
    pieces = value.encode("ascii").split(b"%")
    return pieces[0] + b"".join(bytes((int(piece[:2], 16),)) + piece[2:] for piece in pieces[1:])


def _text(found: dict[str, bytes], name: str) -> str | None:
    raw = found.get(name)
    if raw is None:
        return None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UriError(f'token URI: "{name}" is not UTF-8 after the % escapes') from None
    if not text or not text.isprintable():
        raise UriError(f'token URI: "{name}" is empty or holds a control character')
    return text


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 20 or int(text) >= 2**64:
        raise UriError('token URI: "slot-id" must be a decimal number')
    return int(text)


def _absolute(path: str | None) -> str | None:
    if path is not None and not path.startswith("/"):
        raise UriError(
            'token URI: "module-path" must be an absolute path, as in module-path=/usr/lib/softhsm/libsofthsm2.so'
        )
    return path


def _encode(names: tuple[str, ...], values: tuple[str | bytes | None, ...], plain: frozenset[int]) -> list[str]:
    parts = []
    for name, value in zip(names, values, strict=True):
        if value is None:
            continue
        if isinstance(value, bytes):
            parts.append(f"{name}=" + "".join(f"%{octet:02X}" for octet in value))
        else:
            octets = value.encode("utf-8")
            parts.append(f"{name}=" + "".join(chr(o) if o in plain else f"%{o:02X}" for o in octets))
    return parts
