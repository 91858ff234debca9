"""What every reader of a value of the gateway file needs: its text, words, numbers, and the fault with its remedy.

Called by `_values`, `_token_uri`, `_psk`, `_firewall` and others of this room. No value that may be a secret is
repeated: see `shown`.
"""

import re
from typing import NoReturn

from pydantic_core import PydanticCustomError

from wghsm.config._yaml import Scalar

__all__ = ["choice", "fault", "flag", "is_key", "keylike", "number", "shown", "text_of"]


def fault(problem: str, remedy: str) -> NoReturn:
    """Refuse the value at hand."""
    raise PydanticCustomError("wghsm", "{problem}; {remedy}", {"problem": problem, "remedy": remedy})


_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=?|[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=|[0-9a-fA-F]{64}")
_KEYLIKE = re.compile(r"[A-Za-z0-9+/_-]{40,}")


def is_key(text: str) -> bool:
    """True if the text has exactly the form of a 32-byte key, in base64 or hexadecimal."""
    return bool(_KEY.fullmatch(text.strip()))


def keylike(text: str) -> bool:
    """True if some part of the text may be a 32-byte key, whole or cut: not to be repeated."""
    return bool(_KEYLIKE.search(text))


def shown(text: str) -> str:
    """The text in quotes for an error; only its length if it may be a secret (a key, a PIN's URI) or is long."""
    if len(text) > 60 or keylike(text) or "pin" in text.lower():
        return f"a value of {len(text)} characters (not shown)"
    return ascii(text)


def text_of(value: object, remedy: str) -> str:
    """The text of a scalar; a list, a mapping or an empty value is a fault."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Scalar):
        fault("a single value belongs here", remedy)
    if value.is_null:
        fault("no value", f"{remedy}, or leave the key out if it is optional")
    return value.text


def number(value: object, low: int, high: int, what: str, remedy: str) -> int:
    """A decimal whole number from low to high, both included."""
    if isinstance(value, int) and not isinstance(value, bool):
        found, digits = value, str(value)
    else:
        digits = text_of(value, remedy)
        if isinstance(value, Scalar) and not value.plain:
            fault(f"{what} is in quotes", f"{remedy}, without quotes")
        if not re.fullmatch(r"-?[0-9]{1,12}", digits, re.ASCII):
            fault(f"{what} is not a whole number: {shown(digits)}", remedy)
        found = int(digits)
    if not low <= found <= high:
        fault(f"{what} {found} is out of range", remedy)
    return found


def choice(value: object, options: tuple[str, ...], what: str) -> str:
    """One word of a list."""
    remedy = "write " + _either(options)
    text = text_of(value, remedy)
    if text not in options:
        fault(f"{what} cannot be {shown(text)}", remedy)
    return text


def flag(value: object, what: str) -> bool:
    """`true` or `false`, without quotes."""
    if isinstance(value, bool):
        return value
    text = text_of(value, "write true or false")
    if isinstance(value, Scalar) and value.plain and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    fault(f"{what} cannot be {shown(text)}", "write true or false, without quotes")


def _either(options: tuple[str, ...]) -> str:
    return ", ".join(options[:-1]) + " or " + options[-1]
