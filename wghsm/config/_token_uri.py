"""A light check of a token's `pkcs11:` URI (RFC 7512), which the token's own room reads for good.

Called by the fields of `_model` and by `_conflicts`. The URI is never repeated: it may hold what should not be there.
"""

import re
from urllib.parse import unquote_to_bytes

from wghsm.config._scalar import fault, text_of

__all__ = ["needs_an_operator", "token_uri"]

_URI_PATH = ("token", "manufacturer", "model", "serial", "slot-id", "object", "id")
_URI_QUERY = ("module-path", "pin-source", "x-init-args")
_URI_EXAMPLE = '"pkcs11:token=gw?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/wghsm/pin"'


def token_uri(value: object) -> str:
    """The URI as it is, if nothing in it is wrong; it must name a module and hold no PIN."""
    text = text_of(value, f"write {_URI_EXAMPLE}")
    if not text.startswith("pkcs11:"):
        fault("the token's URI does not begin with pkcs11:", f"write {_URI_EXAMPLE}")
    path, _, query = text.removeprefix("pkcs11:").partition("?")
    if re.search(r"(?i)pin-value", unquote_to_bytes(text).decode(errors="replace")):
        fault(
            "a PIN has no place in this file (pin-value)",
            "write pin-source=file:PATH instead, and count the PIN as seen by everybody who could read this file",
        )
    attributes: dict[str, str] = {}
    for part in filter(None, path.split(";")):
        _uri_attribute(part, _URI_PATH, "before", attributes)
    for part in filter(None, query.split("&")):
        _uri_attribute(part, _URI_QUERY, "after", attributes)
    module = attributes.get("module-path")
    if module is None:
        fault("the token's URI names no module", "add ?module-path=/PATH/TO/MODULE.so after the token's attributes")
    if not module.startswith("/") or not module.isprintable():
        fault("module-path in the token's URI is not an absolute path", "write ?module-path=/PATH/TO/MODULE.so")
    return text


def needs_an_operator(uri: str) -> bool:
    """Whether a good `pkcs11:` URI leaves the PIN to a person, at a terminal or at the token's pinpad."""
    for part in uri.partition("?")[2].split("&"):
        name, _, source = part.partition("=")
        if name == "pin-source":
            return unquote_to_bytes(source).decode(errors="replace") in ("prompt", "protected")
    return True


def _uri_attribute(part: str, known: tuple[str, ...], side: str, found: dict[str, str]) -> None:
    key, equals, written = part.partition("=")
    if not equals:
        fault("the token's URI has a part that is not attribute=value", f"write {_URI_EXAMPLE}")
    if key not in known:
        # The name is not repeated: what follows a misplaced ; or & may be a piece of a PIN.
        fault(f"the token's URI has an unknown attribute {side} the ?", f"known there: {', '.join(known)}")
    if key in found:
        fault(f"the token's URI has {key} twice", "keep one of them")
    if not written:
        fault(f"{key} in the token's URI is empty", f"write {key}=VALUE, or leave it out")
    if re.search(r"%(?![0-9a-fA-F]{2})", written):
        fault(f"{key} in the token's URI has a % without two hexadecimal digits", "write a real % as %25")
    if not re.fullmatch(r"[!-~]*", written):
        fault(f"{key} in the token's URI has a space or a special character", "write a space as %20, others as %XX")
    found[key] = unquote_to_bytes(written).decode(errors="replace")
